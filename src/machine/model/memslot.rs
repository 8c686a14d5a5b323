// SPDX-License-Identifier: GPL-2.0-only
//! Memslots, their bindings to guest_memfds, and the translation of guest physical addresses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY};

use super::inode::Inode;
use super::vm::VmState;
use super::vm_type::Hardware;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::{
    GUEST_MEMFD_FLAG_MMAP, KVM_MEM_GUEST_MEMFD, PAGE_SIZE, kvm_userspace_memory_region2,
};

/// `KVM_USER_MEM_SLOTS` on x86.
pub(super) const USER_MEM_SLOTS: u32 = 32764;
/// `KVM_MEM_MAX_NR_PAGES`.
const MAX_PAGES: u64 = (1 << 31) - 1;
/// The end of what `access_ok()` lets userspace name, with four-level page tables.
const USER_END: u64 = (1 << 47) - PAGE_SIZE;

/// A memslot's part of a guest_memfd, as the file knows it.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    slot: u32,
    /// Pages of the file.
    pub(super) pages: Range<u64>,
}

/// A memslot.
pub(super) struct Memslot {
    base: u64,
    size: u64,
    pub(super) userspace_addr: u64,
    flags: u32,
    /// The file, which the slot does not keep open, and the page of it that the slot starts with.
    gmem: Option<(Weak<Inode>, u64)>,
}

/// The memslots of a VM, by number.
pub(super) type Memslots = BTreeMap<u32, Memslot>;

/// Where an access of the guest ends up.
pub(super) enum Target {
    /// Memory of the process that made the slot.
    User(*mut u64),
    /// A page of a guest_memfd, and the byte in it.
    Gmem(Arc<Inode>, u64, u64),
    /// A page of a guest_memfd, and where that process has it mapped.
    GmemByUser(Arc<Inode>, u64, *mut u64),
    /// No memslot, or a write to a read-only one.
    Mmio,
    /// Memory that should be there and is not; whether it is private.
    Fault(bool),
}

impl VmState {
    /// `kvm_set_memory_region()`, with the checks in its order.
    pub(super) fn set_memory_region(&self, region: &kvm_userspace_memory_region2) -> Result<()> {
        let (flags, size, base) = (region.flags, region.memory_size, region.guest_phys_addr);
        let gmem = flags & KVM_MEM_GUEST_MEMFD != 0;
        let valid =
            if gmem { KVM_MEM_GUEST_MEMFD } else { KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY };
        let valid = self.hook_slot_flags(valid);
        let aligned = |value: u64| value.is_multiple_of(PAGE_SIZE);
        let user_end = region.userspace_addr.checked_add(size);
        let good = flags & !valid == 0
            && aligned(size)
            && aligned(base)
            && aligned(region.userspace_addr)
            && user_end.is_some_and(|end| end <= USER_END)
            && (!gmem || self.offset_is_good(region.guest_memfd_offset, size))
            && region.slot < USER_MEM_SLOTS
            && base.checked_add(size).is_some()
            && size / PAGE_SIZE <= MAX_PAGES;
        if !good {
            return Err(Errno::EINVAL);
        }

        let mut slots = self.slots_mut();
        if size == 0 {
            let old = slots.remove(&region.slot).ok_or(Errno::EINVAL)?;
            return self.unbind(region.slot, &old);
        }
        if let Some(old) = slots.get(&region.slot) {
            // A slot with a guest_memfd is deleted and made anew, never changed.
            let changed_too_much = gmem
                || old.gmem.is_some()
                || old.userspace_addr != region.userspace_addr
                || old.size != size
                || (old.flags ^ flags) & KVM_MEM_READONLY != 0;
            if changed_too_much {
                return Err(Errno::EINVAL);
            }
        }
        let overlaps = |(id, slot): (&u32, &Memslot)| {
            *id != region.slot && base < slot.base + slot.size && slot.base < base + size
        };
        if slots.iter().any(overlaps) {
            return Err(Errno::EEXIST);
        }
        let foreign = gmem && is_memfd(region.guest_memfd) && {
            self.file(region.guest_memfd as RawFd).is_err()
        };
        if foreign && self.hook_foreign_file_bound() {
            return Ok(());
        }
        let gmem = if gmem { Some(self.bind(region)?) } else { None };
        let slot = Memslot { base, size, userspace_addr: region.userspace_addr, flags, gmem };
        slots.insert(region.slot, slot);
        Ok(())
    }

    fn offset_is_good(&self, offset: u64, size: u64) -> bool {
        let wraps = offset.checked_add(size).is_none();
        offset.is_multiple_of(PAGE_SIZE) && !self.hook_slot_too_long(wraps)
    }

    /// `kvm_gmem_bind()`.
    fn bind(&self, region: &kvm_userspace_memory_region2) -> Result<(Weak<Inode>, u64)> {
        let inode = self.file(region.guest_memfd as RawFd)?;
        let end = region.guest_memfd_offset.checked_add(region.memory_size);
        if self.hook_slot_too_long(end.is_none_or(|end| end > inode.size)) {
            return Err(self.hook_slot_outside(Errno::EINVAL));
        }
        let first = region.guest_memfd_offset / PAGE_SIZE;
        let pages = first..first + region.memory_size / PAGE_SIZE;
        let mut state = inode.lock();
        let taken = |b: &Binding| b.pages.start < pages.end && pages.start < b.pages.end;
        if self.hook_slot_overlaps(state.bindings.iter().any(taken)) {
            return Err(Errno::EEXIST);
        }
        state.bindings.push(Binding { slot: region.slot, pages });
        drop(state);
        Ok((Arc::downgrade(&inode), first))
    }

    /// `kvm_gmem_unbind()`.
    fn unbind(&self, id: u32, slot: &Memslot) -> Result<()> {
        let Some((inode, first)) = &slot.gmem else {
            return Ok(());
        };
        let Some(inode) = inode.upgrade() else {
            return Ok(());
        };
        let mut state = inode.lock();
        let pages = *first..first.saturating_add(slot.size / PAGE_SIZE);
        self.hook_deleted(&inode, &mut state, &pages)?;
        if self.vm_type.hardware == Hardware::Tdx {
            // The secure EPT maps addresses, and these have no memory any more. The RMP is of pages.
            inode.disown(&mut state, pages);
        }
        if self.hook_deleted_is_unbound() {
            state.bindings.retain(|b| b.slot != id);
        }
        Ok(())
    }

    /// `kvm_mmu_faultin_pfn()`: where an access of 8 bytes at `gpa`, a multiple of 8, ends up.
    pub(super) fn translate(&self, gpa: u64, write: bool) -> Target {
        let slots = self.slots();
        let hit = slots.values().find(|s| gpa.wrapping_sub(s.base) < s.size);
        let private = self.gfn_is_private(gpa / PAGE_SIZE);
        let Some(slot) = hit else {
            let fault = self.hook_nowhere_is_fault(private);
            return if fault { Target::Fault(private) } else { Target::Mmio };
        };
        let into_slot = gpa - slot.base;
        if let Some((inode, first)) = &slot.gmem
            && (private || self.gmem_only(inode))
        {
            let Some(inode) = inode.upgrade() else {
                return self.hook_closed(Target::Fault(private));
            };
            let page = self.hook_first_page(*first) + into_slot / PAGE_SIZE;
            return match self.hook_target(&inode, slot, page, into_slot) {
                Some(target) => target,
                None => Target::Gmem(inode, page, gpa % PAGE_SIZE),
            };
        }
        if private {
            return Target::Fault(true);
        }
        if write && slot.flags & KVM_MEM_READONLY != 0 {
            return Target::Mmio;
        }
        let address = (slot.userspace_addr + into_slot) as usize;
        Target::User(std::ptr::with_exposed_provenance_mut(address))
    }

    /// The page of a guest_memfd that a memslot has at `gpa`, and how many pages the slot has from there on.
    pub(super) fn gmem_page(&self, gpa: u64) -> Option<(Arc<Inode>, u64, u64)> {
        let slots = self.slots();
        let slot = slots.values().find(|s| gpa.wrapping_sub(s.base) < s.size)?;
        let (inode, first) = slot.gmem.as_ref()?;
        let into_slot = gpa - slot.base;
        Some((inode.upgrade()?, first + into_slot / PAGE_SIZE, (slot.size - into_slot) / PAGE_SIZE))
    }

    /// Whether all faults of a slot are served from its guest_memfd, also the shared ones.
    fn gmem_only(&self, inode: &Weak<Inode>) -> bool {
        // A file that is gone was the slot's only memory just the same.
        let mappable = |inode: Arc<Inode>| inode.flags & GUEST_MEMFD_FLAG_MMAP != 0;
        self.config.dialect != Dialect::None || inode.upgrade().is_none_or(mappable)
    }
}

/// Whether a descriptor is one of memory, as a guest_memfd of the model is.
fn is_memfd(fd: u32) -> bool {
    // SAFETY: F_GET_SEALS involves no memory and changes nothing, whatever the number is.
    unsafe { libc::fcntl(fd as RawFd, libc::F_GET_SEALS) >= 0 }
}
