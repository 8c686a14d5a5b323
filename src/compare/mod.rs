// SPDX-License-Identifier: GPL-2.0-only
//! Results files put next to each other and together.

mod any;
mod diff;
mod environment;
mod error;
mod merge;
#[cfg(test)]
mod tests;

pub use any::diff_any;
pub use diff::{Diff, diff};
pub use error::{DiffError, MergeError};
pub use merge::{Merged, merge};
