// SPDX-License-Identifier: GPL-2.0-only
//! Which machine a worker drives.

use serde::{Deserialize, Serialize};

use super::model::Fault;
use crate::dialect::Dialect;
use crate::uapi::CapabilityNumbers;

/// Which machine a worker drives, and how. The same for all jobs of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// `host` or `model`.
    pub kind: MachineKind,
    /// The dialect given on the command line, or the one that the probe found; `None` before the probe.
    pub dialect: Option<Dialect>,
    /// The model's planted bug or liberty.
    pub fault: Option<Fault>,
    /// Numbers read from a kernel tree's headers.
    pub capability_numbers: Option<CapabilityNumbers>,
}

#[cfg(test)]
impl MachineConfig {
    /// The model of this dialect, with this bug or liberty.
    pub(crate) fn model(dialect: Dialect, fault: Option<Fault>) -> MachineConfig {
        MachineConfig {
            kind: MachineKind::Model,
            dialect: Some(dialect),
            fault,
            capability_numbers: None,
        }
    }
}

/// Which machine the cases run on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum MachineKind {
    /// /dev/kvm.
    Host,
    /// The KVM that is built into this program; says nothing about any kernel.
    Model,
}

impl MachineKind {
    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
