// SPDX-License-Identifier: GPL-2.0-only
//! Which mapping of the guest_memfd a view is.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::case_end::CaseEnd;
use super::session::{Session, wrongly_refused};
use crate::case::View;
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::machine::{HostView, Pin, Result};

impl Session<'_> {
    /// The mapping that `view` looks through; the second one is made when it is first asked for.
    pub fn mapping(&mut self, view: View) -> std::result::Result<&dyn HostView, CaseEnd> {
        if view != View::Host2 {
            return Ok(&*self.view);
        }
        let second = match self.view2.take() {
            Some(second) => second,
            None => {
                let length = self.view.length();
                let second = self.gmem.mmap(0, length);
                second.map_err(|e| {
                    wrongly_refused(
                        ClauseId::DescriptorCalls,
                        "a second mmap of the guest_memfd",
                        e,
                    )
                })?
            }
        };
        Ok(&**self.view2.insert(second))
    }
}

/// Anonymous memory that nobody accesses: a `userspace_addr` that has nothing to do with the guest_memfd.
pub(super) struct Elsewhere {
    start: NonNull<c_void>,
    size: usize,
}

impl Elsewhere {
    /// `size` bytes of it.
    pub(super) fn new(size: u64) -> std::result::Result<Elsewhere, Errno> {
        let size = NonZeroUsize::new(size as usize).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { mmap_anonymous(None, size, protection, flags) };
        let start = start.map_err(|errno| Errno(errno as i32))?;
        Ok(Elsewhere { start, size: size.get() })
    }

    /// Makes it inaccessible: a guest that is served from there shall not find memory.
    pub(super) fn hide(&self) -> std::result::Result<(), Errno> {
        // SAFETY: the mapping is ours, and nobody has a reference into it. A guest's access to it fails from now on.
        unsafe { mprotect(self.start, self.size, ProtFlags::PROT_NONE) }
            .map_err(|errno| Errno(errno as i32))
    }

    /// Its address.
    pub(super) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it. The VM, whose memslots name it, has been dropped
        // before, or its memslots have been deleted.
        let _ = unsafe { munmap(self.start, self.size) };
    }
}

/// The view of a guest_memfd that cannot be mapped. The oracle says that no page of it can be seen, so nobody looks.
struct NoView;

/// No view.
pub(super) fn no_view() -> Box<dyn HostView> {
    Box::new(NoView)
}

impl HostView for NoView {
    fn address(&self) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn length(&self) -> u64 {
        0
    }

    fn pin(&self, _offset: u64) -> Result<Box<dyn Pin>> {
        Err(Errno::EFAULT)
    }

    fn sync_in_child(&self, _offset: u64, _length: u64) {}
}
