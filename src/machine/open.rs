// SPDX-License-Identifier: GPL-2.0-only
//! Opening the machine that a configuration names.

use std::path::Path;

use thiserror::Error;

use super::host::Host;
use super::model::{self, Config, Model};
use super::traced::Traced;
use super::{Machine, MachineConfig, MachineKind};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::uapi::CapabilityNumbers;

/// The dialect that the model speaks when none is asked for.
const MODEL_DIALECT: Dialect = Dialect::RfcV4;

/// Why the machine cannot be opened. To be read after "failed to".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("open /dev/kvm: {0}")]
pub struct OpenError(#[source] pub Errno);

/// Opens the machine that a worker drives.
pub fn open(config: &MachineConfig) -> Result<Box<dyn Machine>, OpenError> {
    Ok(Box::new(Traced::new(open_untraced(config)?)))
}

fn open_untraced(config: &MachineConfig) -> Result<Box<dyn Machine>, OpenError> {
    match config.kind {
        MachineKind::Host => match Host::open(Path::new("/dev/kvm")) {
            Ok(host) => Ok(Box::new(host)),
            Err(errno) => Err(OpenError(errno)),
        },
        MachineKind::Model => {
            let dialect = config.dialect.unwrap_or(MODEL_DIALECT);
            Ok(Box::new(Model::new(Config { dialect, fault: config.fault })))
        }
    }
}

/// The numbers of the series' capabilities, where they are known: on the model always.
pub fn capability_numbers(config: &MachineConfig) -> Option<CapabilityNumbers> {
    config.capability_numbers.or_else(|| match config.kind {
        MachineKind::Host => None,
        MachineKind::Model => {
            Some(model::capability_numbers(config.dialect.unwrap_or(MODEL_DIALECT)))
        }
    })
}
