// SPDX-License-Identifier: GPL-2.0-only
//! A KVM in this process, for the part of KVM that in-place conversion concerns.
//!
//! It is written as a kernel is, not as a specification: a store of attributes by range, a page cache, references on
//! folios, checks in the order in which the posted series makes them. The oracle is written from the clauses; the two
//! share no code that decides contents or errors, so that each can find the other's mistakes.
//!
//! Two properties make it behave like a kernel towards the code above [`crate::machine`]:
//!
//! * A host access to a private page is a real SIGBUS: these pages of the host's mapping lie over an empty file.
//! * Memory is real: the page cache is a memfd, the host's accesses through its mapping go there without the model
//!   hearing of it, and which folios exist is what the memfd says.
//!
//! A [`Fault`] plants one bug, or one liberty that the interface leaves a kernel, at the place where a kernel's author
//! would have put it. These places are calls of methods whose names begin with `hook_`; their bodies are in `planted`.
//! Everything else reads as a correct kernel does.

mod content;
mod convert;
mod core;
mod encrypted_core;
mod encryption;
mod fault;
mod folio;
mod inode;
mod launch;
mod memory;
mod memslot;
mod planted;
mod published;
mod range_map;
mod requests;
mod snp;
mod system;
mod tdx;
mod user;
mod vcpu;
mod view;
mod vm;
mod vm_type;

#[cfg(test)]
pub(crate) mod tests;

pub use fault::Fault;
pub use system::{Config, Model, capability_numbers};
