// SPDX-License-Identifier: GPL-2.0-only
//! What the case language cannot say: threads that race, allocations that fail, references that a driver takes.
//!
//! A scenario is a function with an id, clauses, needs and a description like a case's. Each has a VM of its own and ends
//! within about a second, so its numbers of rounds are limits that a slow machine does not reach.

mod arena;
mod encrypted;
mod facility;
mod fail_nth;
mod gup_test;
mod io_uring;
mod memory;
mod nomem;
mod pin;
mod race;
mod table;
#[cfg(test)]
mod tests;

pub use facility::Facility;
pub(crate) use facility::ask;
pub use table::{SCENARIOS, Scenario};
pub(crate) use table::{is_scenario, run};
