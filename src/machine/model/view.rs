// SPDX-License-Identifier: GPL-2.0-only
//! The host's mappings of a guest_memfd, and what the kernel's page tables and fault handler do for them.
//!
//! A mapping is of the page cache where pages are shared and of an empty file where they are private. The offset into
//! either file is the same, so that neighbouring pages of one kind are one VMA.

use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::Arc;

use super::inode::{Inode, State};
use super::memory::map;
use crate::errno::Errno;
use crate::machine::{HostView, Pin, Result};
use crate::uapi::{ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_MMAP, PAGE_SIZE};

/// A mapping as the inode knows it.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    address: usize,
    /// Pages of the file, which the last of them may be past the end of.
    pages: Range<u64>,
}

/// A mapping as its owner knows it.
pub(super) struct View {
    inode: Arc<Inode>,
    mapped: Mapped,
    length: u64,
}

impl Inode {
    /// `mmap(2)`.
    pub(super) fn mmap(self: &Arc<Inode>, offset: u64, length: u64) -> Result<View> {
        if length == 0 || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let bytes = length
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(Errno::ENOMEM)?;
        let end = offset.checked_add(bytes as u64).ok_or(Errno::EOVERFLOW)?;
        if self.flags & GUEST_MEMFD_FLAG_MMAP == 0 {
            return Err(Errno::ENODEV);
        }
        let mut state = self.lock();
        // SAFETY: no address is asked for.
        let address = unsafe { map(ptr::null_mut(), bytes, Some(self.backing.as_fd()), offset)? };
        let mapped = Mapped { address: address.addr(), pages: offset / PAGE_SIZE..end / PAGE_SIZE };
        // From here on dropping the view unmaps it.
        let view = View { inode: Arc::clone(self), mapped: mapped.clone(), length };
        let placed = self.place(&state, &mapped, mapped.pages.clone());
        if placed.is_ok() {
            state.mappings.push(mapped);
        }
        // The view takes the lock when it is dropped.
        drop(state);
        placed.map(|()| view)
    }

    /// Maps `pages` of one mapping over the page cache or over nothing.
    fn place_run(&self, mapped: &Mapped, pages: Range<u64>, private: bool) -> Result<()> {
        let start = pages.start.max(mapped.pages.start);
        let end = pages.end.min(mapped.pages.end);
        if start >= end {
            return Ok(());
        }
        let at = mapped.address + ((start - mapped.pages.start) * PAGE_SIZE) as usize;
        let file = if private { &self.nothing } else { &self.backing };
        // SAFETY: inside a mapping that `mmap` made and that is still there, since it is in the inode's list, or its view
        // is borrowed; the host touches it through raw pointers only, as the trait demands.
        let placed = unsafe {
            map(
                ptr::with_exposed_provenance_mut(at),
                ((end - start) * PAGE_SIZE) as usize,
                Some(file.as_fd()),
                start * PAGE_SIZE,
            )
        };
        placed.map(|_| ())
    }

    /// Makes `pages` of one mapping what the attributes say.
    fn place(&self, state: &State, mapped: &Mapped, pages: Range<u64>) -> Result<()> {
        for (run, attributes) in state.attributes.runs(pages) {
            let private = attributes & ATTRIBUTE_PRIVATE != 0;
            self.place_run(mapped, run, self.hook_host_refused(private))?;
        }
        Ok(())
    }

    /// `unmap_mapping_pages()` for pages that become private: the host's next touch is a SIGBUS.
    pub(super) fn zap(&self, state: &State, pages: Range<u64>) -> Result<()> {
        for (index, mapped) in state.mappings.iter().enumerate() {
            if self.hook_zapped(index) {
                self.place_run(mapped, pages.clone(), true)?;
            }
        }
        Ok(())
    }

    /// What the host's page faults would do after the attributes of `pages` have changed.
    pub(super) fn refault(&self, state: &State, pages: Range<u64>) -> Result<()> {
        for mapped in &state.mappings {
            self.place(state, mapped, pages.clone())?;
        }
        Ok(())
    }
}

impl HostView for View {
    fn address(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.mapped.address)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn pin(&self, offset: u64) -> Result<Box<dyn Pin>> {
        if offset >= self.length {
            return Err(Errno::EFAULT);
        }
        let page = self.mapped.pages.start + offset / PAGE_SIZE;
        Ok(Box::new(self.inode.pin(page)?))
    }

    fn sync_in_child(&self, offset: u64, length: u64) {
        let inode = &self.inode;
        let end = offset.saturating_add(length).min(self.length);
        let first = self.mapped.pages.start;
        let pages = first + offset / PAGE_SIZE..first + end.div_ceil(PAGE_SIZE);
        let end_of_file = inode.pages();
        let in_file = pages.start..pages.end.min(end_of_file);
        inode.published.for_each_run(in_file, |run, private| {
            if private && !inode.hook_zapped_in_child() {
                return;
            }
            // Without memory for it the mapping stays what it was, and the child's access shows that.
            let _ = inode.place_run(&self.mapped, run, private);
        });
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut state = self.inode.lock();
        state.mappings.retain(|m| m.address != self.mapped.address);
        let pages = self.mapped.pages.end - self.mapped.pages.start;
        // SAFETY: mapped by `mmap`, and nobody maps over it any more, now that it is not in the list.
        unsafe {
            libc::munmap(
                ptr::with_exposed_provenance_mut(self.mapped.address),
                (pages * PAGE_SIZE) as usize,
            )
        };
    }
}
