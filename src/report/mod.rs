// SPDX-License-Identifier: GPL-2.0-only
//! Results in every format. Each report is fed by the events of a run and knows nothing else.

mod failure;
mod file;
mod html;
mod human;
mod json;
mod junit;
mod kcidb;
mod replay;
mod reports;
#[cfg(test)]
mod schema;
mod silence;
mod summary;
mod tap;

pub use failure::failure_lines;
pub(crate) use file::create;
pub use file::{AppendError, CreateError, WriteError};
pub use html::Html;
pub use human::Human;
pub use json::Json;
pub use junit::Junit;
pub use kcidb::{Kcidb, Submission};
pub use replay::{Replay, replay};
pub use reports::{Report, Reports};
pub use silence::{Silence, Silenced};
pub use summary::counts;
pub(crate) use summary::{caveat, headline, resumed_line, slugs};
pub use tap::Tap;
