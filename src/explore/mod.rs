// SPDX-License-Identifier: GPL-2.0-only
//! Random histories, and what is left of one that fails when everything that does not matter is taken out.
//!
//! A history is a [`crate::case::Case`] like any other, so it runs where cases run, is judged as cases are, and is
//! printed, mailed and checked as a case file.

mod batch;
mod command;
mod finding;
mod history;
mod raw;
mod rules;
mod shrink;
mod simpler;
#[cfg(test)]
mod tests;

pub use command::{Exploration, ExploreError, explore};
pub use history::{Shape, history};
