// SPDX-License-Identifier: GPL-2.0-only
//! The platforms: how a VM of each type is launched, and how its guest is told what to do.
//!
//! Everything here goes through the traits of [`crate::machine`], so that the same launch sequences run on /dev/kvm and
//! on the model. A platform whose launch differs gets a file like `plain.rs` of its own.

mod guest;
mod kind;
mod mailbox;
mod memory;
mod page_tables;
mod plain;
mod spin;
mod stop;

pub use guest::{Guest, LaunchError, PAYLOAD_SLOT};
pub use kind::Platform;
pub use mailbox::{Answer, Command, Mismatch};
pub use stop::GuestStop;
