// SPDX-License-Identifier: GPL-2.0-only
//! The bodies of the planted bugs and liberties, and the state that only they need.
//!
//! The rest of the model reads as a correct kernel does. Where something can be planted, it calls a method whose name
//! begins with `hook_`. A hook returns what the correct kernel has, or does nothing, unless its [`Fault`] is planted.

mod alias;
mod arguments;
mod capability;
mod content;
mod conversion;
mod elsewhere;
mod encryption;
mod files;
mod in_use;
mod launch;
mod memslots;
mod page_cache;
mod requests;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fault::Fault;
use super::folio::Folio;
use super::inode::Inode;
use super::range_map::RangeMap;
use super::vm::VmState;

pub(super) use capability::{hook_attributes, hook_modes};
pub(super) use elsewhere::Elsewhere;

/// What bugs and liberties remember of one guest_memfd.
pub(super) struct Memory {
    /// References that a bug never gives back.
    leaked: Vec<Arc<Folio>>,
    /// Pages that a bug will scramble when the guest next looks.
    scramble_later: BTreeSet<u64>,
    /// Pages whose contents the guest's next access does not see yet, for a bug that lets it in too early.
    seen_late: BTreeSet<u64>,
    /// The encrypted guest's pages that the last conversion has taken back.
    taken_back: BTreeSet<u64>,
    /// Pages of which a bug has left the guest an old folio.
    stale: BTreeSet<u64>,
    /// Pages that a bug lets an encrypted guest go on to access through the alias that they had before a conversion.
    old_alias: BTreeSet<u64>,
    /// Whether the spurious refusal has been given.
    refused_once: bool,
    /// The pages whose folios are known to be in no per-CPU batch.
    drained: RangeMap<bool>,
}

impl Memory {
    /// Of a new file of `pages` pages.
    pub fn new(pages: u64) -> Memory {
        Memory {
            leaked: Vec::new(),
            scramble_later: BTreeSet::new(),
            seen_late: BTreeSet::new(),
            taken_back: BTreeSet::new(),
            stale: BTreeSet::new(),
            old_alias: BTreeSet::new(),
            refused_once: false,
            drained: RangeMap::new(pages, false),
        }
    }
}

impl Inode {
    /// Whether `fault` is planted.
    pub fn planted(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }
}

impl VmState {
    /// Whether `fault` is planted.
    pub fn planted(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }
}
