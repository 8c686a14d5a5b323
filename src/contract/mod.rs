// SPDX-License-Identifier: GPL-2.0-only
//! The contract: every clause with the cases that test it, the planted bugs that break it, and what a run made of it.

mod state;
mod text;

pub use state::{Promise, State, contract, read_results};
pub use text::{NoClause, contract_text};
