// SPDX-License-Identifier: GPL-2.0-only
//! What each step must return and what each view must then see, computed from the clauses.
//!
//! Written like the specification, never after a kernel: it shares no code with the model that decides contents or
//! errors. Each expectation names the clause that it follows from, an id of `cases/clauses.toml`.

mod content;
mod encrypted;
mod file;
mod judge;
mod launch;
mod memslot;
mod request;
mod runs;
mod state;
#[cfg(test)]
mod tests;

pub use content::{Content, PageBytes};
pub use file::CallRule;
pub use judge::{Allowed, ErrorOffset, capability_values, mode_offered};
pub use launch::LaunchLimit;
pub use request::{Asked, Petition};
pub use state::{Backing, Oracle, Sight};
