// SPDX-License-Identifier: GPL-2.0-only
//! What is planted about which descriptor, and which file, a conversion is of.

use std::sync::{Arc, Weak};

use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::Inode;
use crate::machine::model::user::copy_from_user;
use crate::machine::model::vm::{VmState, lock};
use crate::uapi::{ATTRIBUTE_PRIVATE, MODE_ZERO, MemoryAttributes2};

impl VmState {
    /// The flags that `KVM_CREATE_GUEST_MEMFD` knows.
    pub fn hook_creation_flags(&self, known: u64) -> u64 {
        if self.planted(Fault::CreationFlagIgnored) { u64::MAX } else { known }
    }

    /// What a private mapping of a file returns.
    pub fn hook_mapped_privately(&self, refused: Result<()>) -> Result<()> {
        if self.planted(Fault::PrivateMmapAccepted) { Ok(()) } else { refused }
    }

    /// What `ftruncate` returns.
    pub fn hook_truncated(&self, refused: Result<()>) -> Result<()> {
        if self.planted(Fault::TruncateAccepted) { Ok(()) } else { refused }
    }

    /// What `KVM_SET_MEMORY_ATTRIBUTES2` on a VM returns.
    pub fn hook_on_vm(&self, refused: Result<()>) -> Result<()> {
        if self.planted(Fault::AcceptedOnVm) { Ok(()) } else { refused }
    }

    /// A file of the VM has been converted.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    pub unsafe fn hook_converted(&self, inode: &Arc<Inode>, argument: *mut MemoryAttributes2) {
        if !self.planted(Fault::OtherFileConverted) && !self.planted(Fault::OtherFileCleared) {
            return;
        }
        let files: Vec<_> = lock(&self.files).iter().map(|(_, file)| file.clone()).collect();
        for file in files.iter().filter_map(Weak::upgrade) {
            if !Arc::ptr_eq(&file, inode) {
                // SAFETY: the caller keeps the same promise.
                unsafe { file.converted_elsewhere(argument) };
            }
        }
    }
}

impl Inode {
    /// The same conversion of another file, for a bug that does not tell files apart.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    unsafe fn converted_elsewhere(&self, argument: *mut MemoryAttributes2) {
        // SAFETY: the caller keeps the promise that copy_from_user() asks for.
        let Ok(arguments) = (unsafe { copy_from_user(argument) }) else { return };
        let mut pages = self.range(&arguments);
        pages.end = pages.end.min(self.pages());
        if pages.is_empty() {
            return;
        }
        let mut state = self.lock();
        if self.planted(Fault::OtherFileCleared) {
            if arguments.flags == MODE_ZERO {
                let mut folios = self.folios(pages).into_iter().flatten();
                let _ = folios.try_for_each(|page| self.clear_folio(page));
            }
            return;
        }
        let attributes = arguments.attributes & ATTRIBUTE_PRIVATE;
        let stored = self.store(&mut state, pages.clone(), attributes);
        let _ = stored.and_then(|()| self.refault(&state, pages));
    }
}
