// SPDX-License-Identifier: GPL-2.0-only
//! The situations in which a conversion is observed.

use serde::{Deserialize, Serialize};

use crate::case::{Attribute, Mode};
use crate::platform::Platform;

/// A situation, and the conversion that is made in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Spot {
    /// The VM's type.
    pub platform: Platform,
    /// How far the launch of the VM has come.
    pub phase: Phase,
    /// The attribute of every page of the range.
    pub from: Attribute,
    /// What they are converted to; the same as `from` is a conversion, too.
    pub to: Attribute,
    /// The content mode.
    pub mode: Mode,
    /// What is behind the pages.
    pub backing: Backing,
    /// What was done to them before.
    pub history: History,
}

/// How far the launch of a VM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The launch of an encrypted guest takes pages; it is finished before the guest looks. Private pages become part of it
    /// with what they hold after the conversion.
    Launching,
    /// The guest runs. The only phase of a VM that has no launch to be finished.
    Running,
}

/// What is behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// A folio that has been used.
    Allocated,
    /// Nothing.
    Hole,
    /// A folio that `fallocate` made and nobody has used.
    Reserved,
}

/// What was done to a page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// Nothing.
    Untouched,
    /// The host wrote to it.
    HostWritten,
    /// The guest wrote to it.
    GuestWritten,
    /// It was converted to the other attribute and back, without a mode; an allocated one was then written by the guest.
    Converted,
}

impl Spot {
    /// The conversion in a table.
    pub fn conversion(&self) -> String {
        let when = match self.phase {
            Phase::Launching => "in the launch: ",
            Phase::Running => "",
        };
        format!("{when}{} -> {}", self.from, self.to)
    }
}

impl Backing {
    /// Every backing.
    pub const ALL: [Backing; 3] = [Backing::Allocated, Backing::Hole, Backing::Reserved];

    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Backing::Allocated => "allocated",
            Backing::Hole => "hole",
            Backing::Reserved => "reserved",
        }
    }
}

impl History {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            History::Untouched => "untouched",
            History::HostWritten => "host-written",
            History::GuestWritten => "guest-written",
            History::Converted => "converted before",
        }
    }
}

/// Every situation that a VM of `platform` can be in.
pub fn spots(platform: Platform) -> Vec<Spot> {
    let attributes = match platform.has_private_memory() {
        true => &[Attribute::Shared, Attribute::Private][..],
        false => &[Attribute::Shared],
    };
    let phases = match platform.is_encrypted() {
        true => &[Phase::Launching, Phase::Running][..],
        false => &[Phase::Running],
    };
    let mut spots = Vec::new();
    for phase in phases.iter().copied() {
        for from in attributes.iter().copied() {
            for to in [Attribute::Private, Attribute::Shared] {
                for mode in Mode::ALL {
                    for (backing, history) in states(platform, phase, from) {
                        spots.push(Spot { platform, phase, from, to, mode, backing, history });
                    }
                }
            }
        }
    }
    spots
}

/// What can be behind and before pages that have the attribute `from`. A guest that is being launched has written nothing.
pub fn states(
    platform: Platform,
    phase: Phase,
    from: Attribute,
) -> impl Iterator<Item = (Backing, History)> {
    let possible = move |(backing, history): &(Backing, History)| match history {
        History::Untouched => *backing != Backing::Allocated,
        History::HostWritten => *backing == Backing::Allocated && from == Attribute::Shared,
        History::GuestWritten => *backing == Backing::Allocated && phase == Phase::Running,
        History::Converted => {
            // An allocated one was written by the guest.
            platform.has_private_memory()
                && (*backing != Backing::Allocated || phase == Phase::Running)
        }
    };
    let histories =
        [History::Untouched, History::HostWritten, History::GuestWritten, History::Converted];
    Backing::ALL
        .into_iter()
        .flat_map(move |backing| histories.map(|history| (backing, history)))
        .filter(possible)
}
