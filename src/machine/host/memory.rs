// SPDX-License-Identifier: GPL-2.0-only
//! guest_memfd, its mappings, and references on its pages.

use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

use super::system::non_negative;
use super::vm::ioctl_set_memory_attributes2;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView, Pin, Result};
use crate::uapi::{MemoryAttributes2, PAGE_SIZE};

/// A guest_memfd of /dev/kvm.
pub(super) struct HostGuestMemfd {
    fd: OwnedFd,
}

impl HostGuestMemfd {
    pub(super) fn new(fd: OwnedFd) -> HostGuestMemfd {
        HostGuestMemfd { fd }
    }
}

impl GuestMemfd for HostGuestMemfd {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()> {
        // SAFETY: the caller's promise about `argument` is the one that is asked for.
        unsafe { ioctl_set_memory_attributes2(self.fd.as_raw_fd(), argument) }
    }

    fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<()> {
        // What does not fit into an off_t becomes negative, which the kernel refuses by itself.
        let (offset, length) = (offset as libc::off_t, length as libc::off_t);
        // SAFETY: the call takes no pointers. It may discard pages, which views expose as raw pointers only.
        let value = unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, offset, length) };
        non_negative(value).map(drop)
    }

    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn HostView>> {
        // SAFETY: a new mapping, where the kernel likes, takes nothing away from anybody.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                length as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // The kernel maps nothing at 0 unless it is asked to.
        let address = NonNull::new(address.cast()).ok_or(Errno::EFAULT)?;
        Ok(Box::new(Mapping { address, length }))
    }

    fn mmap_private(&self, offset: u64, length: u64) -> Result<()> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        let (fd, offset) = (self.fd.as_raw_fd(), offset as libc::off_t);
        // SAFETY: a new mapping, where the kernel likes, takes nothing away from anybody.
        let address =
            unsafe { libc::mmap(null_mut(), length as usize, protection, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: the mapping was made above, and nobody else has its address.
        non_negative(unsafe { libc::munmap(address, length as usize) }).map(drop)
    }

    fn truncate(&self, length: u64) -> Result<()> {
        // SAFETY: the call takes no pointers. Memory that it discards is exposed as raw pointers only.
        let value = unsafe { libc::ftruncate(self.fd.as_raw_fd(), length as libc::off_t) };
        non_negative(value).map(drop)
    }

    fn size(&self) -> Result<u64> {
        let stat = nix::sys::stat::fstat(&self.fd)?;
        Ok(stat.st_size as u64)
    }

    fn cached_pages(&self, offset: u64, length: u64) -> Result<u64> {
        /// `struct cachestat_range`: offset and length in bytes.
        #[repr(C)]
        struct Range {
            offset: u64,
            length: u64,
        }
        /// `struct cachestat`, of which only the first word matters here: the pages that are in the page cache.
        #[repr(C)]
        #[derive(Default)]
        struct Counts {
            cached: u64,
            others: [u64; 4],
        }
        let (range, mut counts) = (Range { offset, length }, Counts::default());
        // SAFETY: the kernel reads 16 bytes of `range` and writes the 40 of `counts` (include/uapi/linux/mman.h).
        let value = unsafe {
            libc::syscall(SYS_CACHESTAT, self.fd.as_raw_fd(), &raw const range, &raw mut counts, 0)
        };
        if value < 0 {
            return Err(Errno::last());
        }
        Ok(counts.cached)
    }
}

/// `cachestat(2)`, which libc does not name on every C library; x86-64, arch/x86/entry/syscalls/syscall_64.tbl.
const SYS_CACHESTAT: libc::c_long = 451;

/// A shared mapping of a guest_memfd.
struct Mapping {
    address: NonNull<u8>,
    length: u64,
}

// SAFETY: a mapping belongs to no thread: any may use the address and unmap it. The address is handed out as a raw pointer
// only, and who accesses the memory does so as if a guest changed it meanwhile.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the value.
unsafe impl Sync for Mapping {}

impl HostView for Mapping {
    fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn pin(&self, offset: u64) -> Result<Box<dyn Pin>> {
        if offset >= self.length {
            return Err(Errno::EINVAL);
        }
        let (reader, writer) =
            std::io::pipe().map_err(|e| e.raw_os_error().map_or(Errno::EMFILE, Errno))?;
        let page = libc::iovec {
            // SAFETY: `offset` is inside the mapping.
            iov_base: unsafe { self.address.as_ptr().add(offset as usize) }.cast(),
            iov_len: PAGE_SIZE as usize,
        };
        // SAFETY: the kernel takes a reference on the page under the address and copies nothing; if the page cannot be
        // had, it says EFAULT.
        let spliced =
            unsafe { libc::vmsplice(writer.as_raw_fd(), &page, 1, libc::SPLICE_F_NONBLOCK) };
        if spliced < 0 {
            return Err(Errno::last());
        }
        Ok(Box::new(UndrainedPipe { reader, _writer: writer }))
    }

    fn sync_in_child(&self, _offset: u64, _length: u64) {}
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody may use the address after the view is gone. The length is
        // the one that mmap() accepted, so the call cannot fail.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length as usize) };
    }
}

/// A pipe with a page in it: the reference is given back when the page is read. vmsplice(2) needs no privilege and no
/// driver.
struct UndrainedPipe {
    reader: PipeReader,
    /// Without a writer a read would end at once.
    _writer: PipeWriter,
}

impl Pin for UndrainedPipe {}

impl Drop for UndrainedPipe {
    fn drop(&mut self) {
        // To close the pipe would not do: a child that was forked meanwhile has it open, too. The page is in it, so the
        // read does not wait; should it fail, the reference goes with the last of the processes.
        let _ = self.reader.read(&mut [0; PAGE_SIZE as usize]);
    }
}
