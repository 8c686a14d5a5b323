// SPDX-License-Identifier: GPL-2.0-only
//! Results in every format. Each report is fed by the events of a run and knows nothing else.

mod failure;
mod human;
mod json;
mod reports;
#[cfg(test)]
mod schema;
mod summary;
mod tap;

pub use failure::{ascii, failure_lines};
pub use human::Human;
pub use json::Json;
pub use reports::{Report, Reports};
pub use summary::counts;
pub use tap::Tap;
