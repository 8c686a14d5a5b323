// SPDX-License-Identifier: GPL-2.0-only
//! What a case leaves behind for the next: the VM, and its guest_memfd where both are content with a used one.

use super::case_end::CaseEnd;
use super::session::wrongly_refused;
use crate::case::{Attribute, Case, SlotMap};
use crate::clause::ClauseId;
use crate::machine::{GuestMemfd, HostView};
use crate::platform::Guest;
use crate::uapi::{MemoryAttributes2, PAGE_SIZE, kvm_userspace_memory_region2};

/// A VM in which no case is running.
pub(crate) struct UsedVm {
    // Dropped in this order: the VM uses the memory.
    guest: Guest,
    file: Option<UsedFile>,
}

/// A guest_memfd without memory, every page of which has the attribute that it was made with, in slot 0.
pub(crate) struct UsedFile {
    pub view: Box<dyn HostView>,
    pub gmem: Box<dyn GuestMemfd>,
    pages: u64,
    start: Attribute,
}

impl UsedVm {
    /// A VM without memslots for the memory under test.
    pub fn new(guest: Guest) -> UsedVm {
        UsedVm { guest, file: None }
    }

    /// The same with a file in slot 0.
    pub fn with_file(guest: Guest, file: UsedFile) -> UsedVm {
        UsedVm { guest, file: Some(file) }
    }

    /// The VM for `case`, with the file if the case may use it. Otherwise there are no memslots any more.
    pub fn take_for(self, case: &Case) -> Result<(Guest, Option<UsedFile>), CaseEnd> {
        let fits = |file: &UsedFile| {
            may_be_used(case) && (file.pages, file.start) == (case.pages, case.start)
        };
        match self.file {
            Some(file) if !fits(&file) => {
                let region = kvm_userspace_memory_region2::default();
                // SAFETY: a region of size 0 gives the guest no memory.
                unsafe { self.guest.vm().set_user_memory_region2(&region) }.map_err(|e| {
                    wrongly_refused(
                        ClauseId::MemslotRecreated,
                        "KVM_SET_USER_MEMORY_REGION2 (delete)",
                        e,
                    )
                })?;
                Ok((self.guest, None))
            }
            file => Ok((self.guest, file)),
        }
    }
}

impl UsedFile {
    /// The file of a case that has ended, see [`empty`].
    pub fn new(case: &Case, view: Box<dyn HostView>, gmem: Box<dyn GuestMemfd>) -> UsedFile {
        UsedFile { view, gmem, pages: case.pages, start: case.start }
    }
}

/// Gives every page of the file of a case that has ended its attribute of the start, and then takes its memory: what was
/// part of a conversion need not read as zeros, what was punched out must. Whether a kernel may refuse any of it is for
/// cases to say; then the file is not used again.
pub(super) fn empty(case: &Case, gmem: &dyn GuestMemfd) -> bool {
    let size = case.pages * PAGE_SIZE;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let mut argument = MemoryAttributes2::of_pages(&(0..case.pages), case.start.bits(), 0);
    // SAFETY: the argument is ours; the file's memory is accessed through raw pointers only.
    unsafe { gmem.set_memory_attributes2(&mut argument) }.is_ok()
        && gmem.fallocate(mode, 0, size).is_ok()
}

/// Whether the case is content with a used file. One that has to be of another kind than the others is not.
pub(super) fn may_be_used(case: &Case) -> bool {
    case.file_reused && !case.no_mmap && !case.no_slots && !case.userspace_elsewhere
}

/// The memslots of a case that has changed none: slot 0 over all of the file.
pub(super) fn are_as_at_start<'a>(slots: impl Iterator<Item = &'a SlotMap>, case: &Case) -> bool {
    slots.eq([&SlotMap { slot: 0, pages: 0..case.pages, at: 0 }])
}
