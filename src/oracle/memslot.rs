// SPDX-License-Identifier: GPL-2.0-only
//! Which memslots a kernel must refuse.

use super::file::CallRule;
use super::state::Oracle;
use crate::case::{RawSlot, SlotFile, apart};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::uapi::{KVM_MEM_GUEST_MEMFD, PAGE_SIZE};

impl Oracle {
    /// The errors that are allowed for a memslot. Which of several reasons a kernel finds first is not promised. `slots` is
    /// what `KVM_CAP_NR_MEMSLOTS` says.
    pub fn judge_slot(&self, raw: &RawSlot, slots: u32) -> CallRule {
        let RawSlot { slot, offset, size, at, flags, file, first_version } = raw;
        let mut errors = Vec::new();
        // KVM_MEM_GUEST_MEMFD goes with no other flag, and there is none in the first version of the call. What has one
        // can be deleted, never changed.
        let odd_flags = *flags != KVM_MEM_GUEST_MEMFD || *first_version;
        let exists = self.slots.contains_key(slot);
        let clause = match odd_flags || exists {
            true => ClauseId::MemslotFlags,
            false => ClauseId::MemslotRefused,
        };
        let file_size = self.file_pages * PAGE_SIZE;
        let aligned = (offset | size).is_multiple_of(PAGE_SIZE);
        let inside = offset.checked_add(*size).is_some_and(|end| end <= file_size);
        if odd_flags || exists || !aligned || !inside || *size == 0 || *slot >= slots {
            errors.push(Errno::EINVAL);
        }
        match file {
            SlotFile::GuestMemfd => {}
            SlotFile::Other => errors.push(Errno::EINVAL),
            SlotFile::Closed => errors.push(Errno::EBADF),
        }
        let bytes = *offset..offset.saturating_add(*size);
        let pages = *at..at.saturating_add(size.div_ceil(PAGE_SIZE));
        for other in self.slots.values() {
            let bound = other.pages.start * PAGE_SIZE..other.pages.end * PAGE_SIZE;
            // Binding a part of the file twice was EINVAL before Linux 7.2.
            if !apart(&bound, &bytes) && !self.orphans.contains(&other.slot) {
                errors.extend([Errno::EEXIST, Errno::EINVAL]);
            }
            if !apart(&other.mapped_at(), &pages) {
                errors.push(Errno::EEXIST);
            }
        }
        CallRule::new(errors, clause)
    }
}
