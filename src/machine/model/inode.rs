// SPDX-License-Identifier: GPL-2.0-only
//! A guest_memfd: its file and its inode in one, and the attributes of its pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::encryption::{Owned, Protection};
use super::fault::Fault;
use super::folio::Folio;
use super::memory::{Mapping, new_memfd};
use super::memslot::Binding;
use super::published::Published;
use super::range_map::RangeMap;
use super::system::Config;
use super::view::Mapped;
use super::vm_type::VmType;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::{ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_INIT_SHARED, PAGE_SIZE};

/// A guest_memfd. Lives as long as its descriptor or a mapping of it; memslots do not keep it.
pub(super) struct Inode {
    /// The page cache: a memfd of the file's size.
    pub(super) backing: OwnedFd,
    /// A memfd of no size: what private pages are mapped from, so that a touch is a SIGBUS.
    pub(super) nothing: OwnedFd,
    /// Size in bytes, a multiple of the page size.
    pub(super) size: u64,
    /// `GUEST_MEMFD_FLAG_*`.
    pub(super) flags: u64,
    pub(super) config: Config,
    pub(super) vm_type: &'static VmType,
    pub(super) protection: Arc<Protection>,
    pub(super) direct: OnceLock<Mapping>,
    pub(super) private_half: OnceLock<(OwnedFd, Mapping)>,
    pub(super) published: Published,
    /// The state and, as the lock of it, the mapping's invalidate lock.
    state: Mutex<State>,
}

/// What the invalidate lock protects.
pub(super) struct State {
    /// `KVM_MEMORY_ATTRIBUTE_*` of every page. Changed by [`Inode::store`] only.
    pub(super) attributes: RangeMap<u64>,
    /// The pages whose folios `fallocate` allocated. May still say so of one that has been touched since.
    pub(super) allocated: RangeMap<bool>,
    /// The folios that had a reference taken, by page, while they are in the page cache.
    pub(super) referenced: BTreeMap<u64, Arc<Folio>>,
    /// The host's mappings.
    pub(super) mappings: Vec<Mapped>,
    /// The memslots that are bound to this file.
    pub(super) bindings: Vec<Binding>,
    /// References that a bug never gives back.
    pub(super) leaked: Vec<Arc<Folio>>,
    /// Pages that a bug will scramble when the guest next looks.
    pub(super) scramble_later: BTreeSet<u64>,
    /// Pages whose contents the guest's next access does not see yet, for a bug that lets it in too early.
    pub(super) seen_late: BTreeSet<u64>,
    /// The pages that are an encrypted guest's in the eyes of the hardware.
    pub(super) owned: BTreeMap<u64, Owned>,
    /// Those of them that the last conversion has taken back.
    pub(super) taken_back: BTreeSet<u64>,
    /// Pages of which a bug has left the guest an old folio.
    pub(super) stale: BTreeSet<u64>,
    /// Pages that a bug lets an encrypted guest go on to access through the alias that they had before a conversion.
    pub(super) old_alias: BTreeSet<u64>,
    /// Whether the spurious refusal has been given.
    pub(super) refused_once: bool,
    /// The pages whose folios are known to be in no per-CPU batch.
    pub(super) drained: RangeMap<bool>,
}

impl Inode {
    /// `__kvm_gmem_create()`. `size` and `flags` have been checked.
    pub(super) fn new(
        size: u64,
        flags: u64,
        config: Config,
        vm_type: &'static VmType,
        protection: Arc<Protection>,
    ) -> Result<Inode> {
        let pages = size / PAGE_SIZE;
        let mut attributes = initial_attributes(flags);
        match config.fault {
            Some(Fault::MissingEntryIsShared) => attributes = 0,
            Some(Fault::InitSharedIgnored) => attributes = ATTRIBUTE_PRIVATE,
            _ => {}
        }
        let attributes = RangeMap::new(pages, attributes);
        let published = Published::new(pages)?;
        published.store(&attributes)?;
        Ok(Inode {
            backing: new_memfd(size)?,
            nothing: new_memfd(0)?,
            size,
            flags,
            config,
            vm_type,
            protection,
            direct: OnceLock::new(),
            private_half: OnceLock::new(),
            published,
            state: Mutex::new(State {
                attributes,
                allocated: RangeMap::new(pages, false),
                referenced: BTreeMap::new(),
                mappings: Vec::new(),
                bindings: Vec::new(),
                leaked: Vec::new(),
                scramble_later: BTreeSet::new(),
                seen_late: BTreeSet::new(),
                owned: BTreeMap::new(),
                taken_back: BTreeSet::new(),
                old_alias: BTreeSet::new(),
                stale: BTreeSet::new(),
                refused_once: false,
                drained: RangeMap::new(pages, false),
            }),
        })
    }

    /// Size in pages.
    pub(super) fn pages(&self) -> u64 {
        self.size / PAGE_SIZE
    }

    /// Whether `fault` is planted.
    pub(super) fn planted(&self, fault: Fault) -> bool {
        self.config.fault == Some(fault)
    }

    /// Takes the invalidate lock. A thread that died holding it does not take the machine with it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every page starts as.
    pub(super) fn initial_attributes(&self) -> u64 {
        initial_attributes(self.flags)
    }

    /// `kvm_gmem_is_private_mem()`.
    pub(super) fn is_private(&self, state: &State, page: u64) -> bool {
        let attributes = state.attributes.get(page);
        attributes.is_some_and(|a| a & ATTRIBUTE_PRIVATE != 0)
    }

    /// The one place that changes attributes. Fails, with nothing changed, only for want of memory.
    pub(super) fn store(
        &self,
        state: &mut State,
        pages: Range<u64>,
        attributes: u64,
    ) -> Result<()> {
        let before = state.attributes.clone();
        state.attributes.set(pages, attributes);
        if let Err(Errno(error)) = self.published.store(&state.attributes) {
            state.attributes = before;
            return Err(Errno(error));
        }
        Ok(())
    }
}

fn initial_attributes(flags: u64) -> u64 {
    if flags & GUEST_MEMFD_FLAG_INIT_SHARED != 0 { 0 } else { ATTRIBUTE_PRIVATE }
}
