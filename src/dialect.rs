// SPDX-License-Identifier: GPL-2.0-only
//! The revisions of the interface that a machine may speak.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A revision of `KVM_SET_MEMORY_ATTRIBUTES2`. The worker finds the dialect by asking the machine, not by a version
/// number: the series is not merged, and its capability numbers collide with those of other series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum Dialect {
    /// The machine does not have the call, or it is switched off.
    #[value(skip)]
    None,
    /// RFC v4 of 2026-03-26: content modes; error_offset must be 0 on input.
    RfcV4,
    /// RFC v5 of 2026-04-28: content modes; error_offset is ignored on input.
    RfcV5,
    /// v6 and later, as queued: no content modes, flags must be 0.
    Upstream,
}

impl Dialect {
    /// Every dialect in which the call exists.
    pub const ALL: [Dialect; 3] = [Dialect::RfcV4, Dialect::RfcV5, Dialect::Upstream];

    /// The name on the command line, in cases and in results.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The dialect with this name.
    pub fn from_name(name: &str) -> Option<Dialect> {
        name.parse().ok()
    }

    /// Whether a conversion can ask for a content mode.
    pub fn has_content_modes(self) -> bool {
        matches!(self, Dialect::RfcV4 | Dialect::RfcV5)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
