// SPDX-License-Identifier: GPL-2.0-only
//! Cases that nobody wrote: every layout of a few pages, and random histories with what is left of one that fails when
//! everything that does not matter is taken out.
//!
//! Both are [`crate::case::Case`]s like any other, so they run where cases run, are judged as cases are, and are printed,
//! mailed and checked as case files.

mod batch;
mod command;
mod finding;
mod history;
#[cfg(test)]
mod layout_tests;
pub mod layouts;
mod raw;
mod rng;
mod rules;
mod shrink;
mod simpler;
#[cfg(test)]
mod tests;

pub use command::{Exploration, explore};
pub use history::{Shape, history};
pub(crate) use rng::Rng;
