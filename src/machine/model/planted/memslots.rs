// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in memslots, and in what an access through them finds.

use std::ops::Range;
use std::sync::Arc;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::{Inode, State};
use crate::machine::model::memslot::{Memslot, Target};
use crate::machine::model::vm::VmState;
use crate::uapi::MAP_GPA_RANGE_PAGE_SZ_2M;
use kvm_bindings::KVM_MEM_READONLY;

impl VmState {
    /// The flags that a memslot may have.
    pub fn hook_slot_flags(&self, valid: u32) -> u32 {
        if self.planted(Fault::ReadonlySlotAccepted) { valid | KVM_MEM_READONLY } else { valid }
    }

    /// Where an access ends up when the file of the memslot is gone.
    pub fn hook_closed(&self, target: Target) -> Target {
        if self.planted(Fault::ClosedIsMmio) { Target::Mmio } else { target }
    }

    /// Whether a memslot is refused because its range of the guest_memfd wraps, or ends after the file.
    pub fn hook_slot_too_long(&self, too_long: bool) -> bool {
        too_long && !self.planted(Fault::BindOverflowAccepted)
    }

    /// Whether a file of another VM is taken.
    pub fn hook_foreign_file_bound(&self) -> bool {
        self.planted(Fault::ForeignFileBound)
    }

    /// The error for a memslot that is not all in the guest_memfd.
    pub fn hook_slot_outside(&self, error: Errno) -> Errno {
        if self.planted(Fault::BindRangeIsEbadf) { Errno::EBADF } else { error }
    }

    /// Whether a memslot is refused because another one has pages of its range.
    pub fn hook_slot_overlaps(&self, overlaps: bool) -> bool {
        overlaps && !self.planted(Fault::BindOverlapAccepted)
    }

    /// A memslot of `pages` of a guest_memfd is deleted.
    pub fn hook_deleted(&self, inode: &Inode, state: &mut State, pages: &Range<u64>) -> Result<()> {
        match self.config.fault {
            Some(Fault::RecreatedResetsAttributes) => {
                inode.store(state, pages.clone(), inode.initial_attributes())?;
                inode.refault(state, pages.clone())
            }
            Some(Fault::DeletedFreesMemory) => inode.free(state, pages.clone()),
            _ => Ok(()),
        }
    }

    /// Whether a deleted memslot gives its pages free for others.
    pub fn hook_deleted_is_unbound(&self) -> bool {
        !self.planted(Fault::DeletedStaysBound)
    }

    /// Whether an access where no memslot is is a memory fault.
    pub fn hook_nowhere_is_fault(&self, private: bool) -> bool {
        private || self.planted(Fault::DeletedIsMemoryFault)
    }

    /// The first page of the file that a memslot shows.
    pub fn hook_first_page(&self, first: u64) -> u64 {
        if self.planted(Fault::GuestIgnoresFileOffset) { 0 } else { first }
    }

    /// Where an access that a guest_memfd serves ends up otherwise.
    pub fn hook_target(
        &self,
        inode: &Arc<Inode>,
        slot: &Memslot,
        page: u64,
        into_slot: u64,
    ) -> Option<Target> {
        if !self.planted(Fault::SharedFromUserspaceAddress)
            || slot.userspace_addr == 0
            || inode.is_private(&inode.lock(), page)
        {
            return None;
        }
        let address = (slot.userspace_addr + into_slot) as usize;
        let pointer = std::ptr::with_exposed_provenance_mut(address);
        Some(Target::GmemByUser(Arc::clone(inode), page, pointer))
    }

    /// The address that `KVM_EXIT_MEMORY_FAULT` gives, and whether it says that the access was private.
    pub fn hook_memory_fault(&self, gpa: u64, private: bool) -> (u64, bool) {
        if self.planted(Fault::ClosedFaultAddress) { (0, false) } else { (gpa, private) }
    }

    /// Whether an access without a memslot ends as one to a page that is missing: the first of a command.
    pub fn hook_mmio_faults_first(&self, faulted: &mut bool) -> bool {
        self.planted(Fault::MmioFaultsFirst) && !std::mem::replace(faulted, true)
    }

    /// Whether KVM_PRE_FAULT_MEMORY leaves out a page, and says that it has done it.
    pub fn hook_pre_fault_skips(&self, last: bool) -> bool {
        last && self.planted(Fault::PreFaultLastMissed)
    }

    /// Whether pages of an encrypted guest are pre-faulted, whose launch is finished or not.
    pub fn hook_pre_fault_allowed(&self, launched: bool) -> bool {
        launched || self.planted(Fault::PreFaultInLaunch)
    }

    /// The page size that a guest's request reaches the host with, of what it has named.
    pub fn hook_request_page_size(&self, page_size: u64) -> u64 {
        match self.config.fault {
            Some(Fault::RequestReservedBit) => page_size | 1 << 5,
            Some(Fault::RequestPageSizeWrong) => page_size ^ MAP_GPA_RANGE_PAGE_SZ_2M,
            _ => page_size,
        }
    }

    /// The address that `KVM_EXIT_MMIO` gives.
    pub fn hook_mmio_address(&self, gpa: u64) -> u64 {
        match self.config.fault {
            Some(Fault::MmioAddressTruncated) => u64::from(gpa as u32),
            _ => gpa,
        }
    }
}
