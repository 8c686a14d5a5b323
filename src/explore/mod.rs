// SPDX-License-Identifier: GPL-2.0-only
//! Cases that nobody wrote: every layout of a range.

pub mod layouts;
#[cfg(test)]
mod tests;
