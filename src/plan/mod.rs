// SPDX-License-Identifier: GPL-2.0-only
//! Which cases on which platforms, and which of them cannot run here.

mod build;
mod error;
mod explain;
mod needs;
#[cfg(test)]
mod tests;

pub use build::{PlannedCase, Selection, all_ids, build, case_id, from_files, in_shard};
pub use error::PlanError;
pub use explain::explain;
pub use needs::{platforms_of, unmet};
