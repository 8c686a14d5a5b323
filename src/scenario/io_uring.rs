// SPDX-License-Identifier: GPL-2.0-only
//! A page as a registered buffer of an io_uring: a long-term pin without privilege or hardware.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_long, c_uint};

use crate::errno::Errno;
use crate::machine::{HostView, Pin, Result};
use crate::uapi::PAGE_SIZE;

/// `IORING_REGISTER_BUFFERS` (uapi/linux/io_uring.h).
const REGISTER_BUFFERS: c_uint = 0;
/// `IORING_UNREGISTER_BUFFERS`.
const UNREGISTER_BUFFERS: c_uint = 1;
/// Size of `struct io_uring_params` in words of 8 bytes: 120 bytes.
const PARAMS_WORDS: usize = 15;

/// Registers the page at `offset` bytes into the view.
pub(super) fn pin(view: &dyn HostView, offset: u64) -> Result<Box<dyn Pin>> {
    if offset >= view.length() {
        return Err(Errno::EINVAL);
    }
    let mut params = [0u64; PARAMS_WORDS];
    let entries: c_uint = 1;
    // SAFETY: the kernel reads and writes the 120 bytes of `params`, and makes a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params.as_mut_ptr()) };
    let fd = i32::try_from(non_negative(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new and belongs to nobody else.
    let ring = unsafe { OwnedFd::from_raw_fd(fd) };
    let page = libc::iovec {
        // SAFETY: `offset` lies within the view.
        iov_base: unsafe { view.address().add(offset as usize) }.cast(),
        iov_len: PAGE_SIZE as usize,
    };
    let count: c_uint = 1;
    // SAFETY: the kernel reads one iovec and takes a reference on the page under its address, to which it writes only
    // when a request says so; none is made.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_BUFFERS,
            &raw const page,
            count,
        )
    };
    non_negative(registered)?;
    Ok(Box::new(Registered { ring }))
}

/// An io_uring with a registered buffer.
struct Registered {
    ring: OwnedFd,
}

impl Pin for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        let (nothing, count) = (std::ptr::null::<libc::iovec>(), 0 as c_uint);
        // Closing the ring would release the page too, but in a kernel thread, at some time.
        // SAFETY: the operation takes no argument. Should it fail, closing is left.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                UNREGISTER_BUFFERS,
                nothing,
                count,
            )
        };
    }
}

/// What a call that has just returned `value` means.
fn non_negative(value: c_long) -> Result<c_long> {
    if value < 0 { Err(Errno::last()) } else { Ok(value) }
}
