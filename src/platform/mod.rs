// SPDX-License-Identifier: GPL-2.0-only
//! The platforms: how a VM of each type is launched, and how its guest is told what to do.
//!
//! Everything here goes through the traits of [`crate::machine`], so that the same launch sequences run on /dev/kvm and
//! on the model. A platform whose launch differs gets a file like `plain.rs` of its own.
//!
//! Guests of the encrypted platforms, `snp` and `tdx`, have their payload in a guest_memfd of its own, of which all that the
//! guest executes is private; the host talks to them through three pages that stay shared. They see the memory under test
//! twice, as shared memory at its address and as private memory [`crate::payload::abi::PRIVATE_WINDOW`] further up, accept
//! private pages before they use them, and can ask for conversions: see [`GuestCommand`] and [`Guest::command`].

mod cpu;
mod cpuinfo;
mod encrypted;
mod guest;
mod kind;
mod launch_error;
mod launcher;
mod mailbox;
mod memory;
mod missing;
mod page_tables;
mod plain;
mod snp;
mod spin;
mod stop;
mod tdx;

#[cfg(test)]
mod tests;

pub use cpu::{Commands, GuestCpu};
pub(crate) use cpuinfo::cpuinfo_field;
pub use encrypted::LaunchPages;
pub use guest::{Guest, LaunchCall, PAYLOAD_SLOT, RESET_SLOT, launches, try_launch_in_place};
pub use kind::{Encryption, Platform};
pub use launch_error::LaunchError;
pub use mailbox::{Answer, AnswerError, GuestCommand, Mismatch, Refusal};
pub use missing::{Surroundings, missing};
pub use stop::GuestStop;
