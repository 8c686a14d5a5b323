// SPDX-License-Identifier: GPL-2.0-only
//! Which memslots a kernel must refuse.

use super::state::Oracle;
use crate::case::apart;
use crate::errno::Errno;
use crate::uapi::PAGE_SIZE;

impl Oracle {
    /// The errors that are allowed for a memslot over `size` bytes from byte `offset` of the file, at page `at` of the test
    /// memory; empty if it must be accepted. Which of several reasons a kernel finds first is not promised.
    pub fn judge_slot(&self, slot: u32, offset: u64, size: u64, at: u64) -> Vec<Errno> {
        let mut errors = Vec::new();
        let file = self.file_pages * PAGE_SIZE;
        let aligned = (offset | size).is_multiple_of(PAGE_SIZE);
        let inside = offset.checked_add(size).is_some_and(|end| end <= file);
        // A slot with a guest_memfd can be deleted, never changed.
        if !aligned || !inside || size == 0 || self.slots.contains_key(&slot) {
            errors.push(Errno::EINVAL);
        }
        let bytes = offset..offset.saturating_add(size);
        let pages = at..at.saturating_add(size.div_ceil(PAGE_SIZE));
        for other in self.slots.values() {
            let bound = other.pages.start * PAGE_SIZE..other.pages.end * PAGE_SIZE;
            // Binding a part of the file twice was EINVAL before Linux 7.3.
            if !apart(&bound, &bytes) {
                errors.extend([Errno::EEXIST, Errno::EINVAL]);
            }
            if !apart(&other.mapped_at(), &pages) {
                errors.push(Errno::EEXIST);
            }
        }
        errors.sort_unstable_by_key(|errno| errno.0);
        errors.dedup();
        errors
    }
}
