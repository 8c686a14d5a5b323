// SPDX-License-Identifier: GPL-2.0-only
//! The memory that the model is made of: memfds, and mappings of them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::errno::Errno;
use crate::machine::Result;

/// A new memfd of `size` bytes, all of it a hole.
pub(super) fn new_memfd(size: u64) -> Result<OwnedFd> {
    let fd = memfd_create(c"gmem-conform-model", MFdFlags::MFD_CLOEXEC)?;
    let size = i64::try_from(size).map_err(|_| Errno::EINVAL)?;
    nix::unistd::ftruncate(&fd, size)?;
    Ok(fd)
}

/// `mmap(2)`, shared, readable and writable, of `length` bytes at `offset` of `fd`, or of anonymous memory. At `at`, in
/// place of what is there, unless `at` is null.
///
/// # Safety
///
/// If `at` is not null, the `length` bytes there are a mapping that nobody holds a reference into.
pub(super) unsafe fn map(
    at: *mut u8,
    length: usize,
    fd: Option<BorrowedFd<'_>>,
    offset: u64,
) -> Result<*mut u8> {
    let mut flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    if fd.is_none() {
        flags |= libc::MAP_ANONYMOUS;
    }
    if !at.is_null() {
        flags |= libc::MAP_FIXED;
    }
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
    // SAFETY: without MAP_FIXED the kernel chooses unused addresses; with it the caller has given up what is at `at`.
    let address = unsafe { libc::mmap(at.cast(), length, protection, flags, fd, offset) };
    if address == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // Where shmem is set to huge pages a touch would allocate 512 folios. EINVAL (no huge pages at all) is as good.
    // SAFETY: advice about the mapping just made; it does not change what the memory holds.
    unsafe { libc::madvise(address, length, libc::MADV_NOHUGEPAGE) };
    Ok(address.cast())
}

/// A mapping of the model's own, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    address: *mut u8,
    length: usize,
}

// SAFETY: the mapping belongs to no thread; its words are only accessed as atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `fd` from its start, or of anonymous memory that a forked child shares.
    pub(super) fn new(length: u64, fd: Option<BorrowedFd<'_>>) -> Result<Mapping> {
        let length = usize::try_from(length).map_err(|_| Errno::ENOMEM)?;
        // SAFETY: no address is asked for.
        let address = unsafe { map(ptr::null_mut(), length, fd, 0)? };
        Ok(Mapping { address, length })
    }

    /// The word at byte `offset`, a multiple of 8; `None` if the mapping is shorter.
    pub(super) fn word(&self, offset: u64) -> Option<&AtomicU64> {
        let offset = usize::try_from(offset).ok()?;
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.length {
            return None;
        }
        // SAFETY: inside the mapping and aligned; the mapping lives as long as `self`; the model reaches this memory only
        // as atomics, and the host's and the guests' accesses to it are through raw pointers.
        Some(unsafe { AtomicU64::from_ptr(self.address.add(offset).cast()) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and the references that `word` gave out do not outlive `self`.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}
