// SPDX-License-Identifier: GPL-2.0-only
//! The payloads: what they and the host agree on, and their images.

#[path = "../../guest-payloads/common/mod.rs"]
mod common;
mod images;
#[cfg(test)]
mod tests;

pub use common::{abi, command_loop, pattern};
pub use images::{SNP, TDX_IMAGE, TDX_RESET};
