// SPDX-License-Identifier: GPL-2.0-only
//! What conversions really do to contents on a machine. Nothing is asserted: where nothing is promised, this is how one
//! learns what a vendor does.
//!
//! A [`Spot`](crate::measured::Spot) is a situation: platform, conversion, mode, backing, history. It is brought about in a fresh guest_memfd, the
//! conversion is made, and both views look; again and again, since what happens always and what happens sometimes are
//! different things to know.

mod command;
mod diff;
mod record;
mod table;
#[cfg(test)]
mod tests;
mod trial;

pub use command::{Observing, observe};
pub use diff::diff;
pub use record::{OBSERVE_SCHEMA_VERSION, ObserveRecord, ObserveSummary, SpotRecord, Tally};
pub use trial::{Observer, TrialError};
