// SPDX-License-Identifier: GPL-2.0-only
//! The worker's process: jobs in, replies out. It asks the machine what it offers, runs cases and scenarios, observes
//! and measures.

mod executor;
mod host;
mod probe;
mod serve;

pub use executor::Executor;
pub use probe::probe;
pub use serve::{ServeError, serve};
