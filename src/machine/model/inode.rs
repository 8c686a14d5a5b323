// SPDX-License-Identifier: GPL-2.0-only
//! A guest_memfd: its file and its inode in one, and the attributes of its pages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::encryption::{Owned, Protection};
use super::folio::Folio;
use super::memory::{Mapping, new_memfd};
use super::memslot::Binding;
use super::planted;
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
    pub(super) elsewhere: planted::Elsewhere,
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
    /// The pages that are an encrypted guest's in the eyes of the hardware.
    pub(super) owned: BTreeMap<u64, Owned>,
    /// What bugs and liberties remember.
    pub(super) planted: planted::Memory,
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
        let attributes = Inode::hook_initial_attributes(config.fault, initial_attributes(flags));
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
            elsewhere: planted::Elsewhere::default(),
            published,
            state: Mutex::new(State {
                attributes,
                allocated: RangeMap::new(pages, false),
                referenced: BTreeMap::new(),
                mappings: Vec::new(),
                bindings: Vec::new(),
                owned: BTreeMap::new(),
                planted: planted::Memory::new(pages),
            }),
        })
    }

    /// Size in pages.
    pub(super) fn pages(&self) -> u64 {
        self.size / PAGE_SIZE
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
