// SPDX-License-Identifier: GPL-2.0-only
//! Known failures: a file that names them, and what it makes of a run.

mod apply;
mod error;
mod file;
mod glob;
#[cfg(test)]
mod tests;

pub use apply::Waiving;
pub use error::{EntryError, FileError, WaiverError};
pub use file::{Waiver, Waivers};
