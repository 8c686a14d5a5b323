// SPDX-License-Identifier: GPL-2.0-only
//! GUP_TEST: the kernel's own test of pin_user_pages(), with which it pins what an assigned device would.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use crate::errno::Errno;
use crate::machine::{HostView, Pin, Result};
use crate::uapi::PAGE_SIZE;

/// Where debugfs has it.
const FILE: &str = "/sys/kernel/debug/gup_test";

/// `struct pin_longterm_test` (mm/gup_test.h).
#[repr(C)]
struct PinLongtermTest {
    addr: u64,
    size: u64,
    flags: u32,
}
const _: () = assert!(size_of::<PinLongtermTest>() == 24);

/// `PIN_LONGTERM_TEST_START`: `_IOW('g', 7, struct pin_longterm_test)`.
const START: libc::c_ulong = 1 << 30 | 24 << 16 | (b'g' as libc::c_ulong) << 8 | 7;
/// `PIN_LONGTERM_TEST_FLAG_USE_WRITE`: the pin is for writing.
const USE_WRITE: u32 = 1;
/// `PIN_LONGTERM_TEST_FLAG_USE_FAST`: pin_user_pages_fast(), which walks the page tables without locks.
const USE_FAST: u32 = 2;

/// Has the kernel pin the page at `offset` bytes into the view, for long and for writing. It has one such pin at a time:
/// EINVAL while there is another.
pub(super) fn pin(view: &dyn HostView, offset: u64, fast: bool) -> Result<Box<dyn Pin>> {
    if offset >= view.length() {
        return Err(Errno::EINVAL);
    }
    let open = OpenOptions::new().read(true).write(true).open(FILE);
    let file = open.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let flags = USE_WRITE | if fast { USE_FAST } else { 0 };
    let argument = PinLongtermTest { addr: view.address() as u64 + offset, size: PAGE_SIZE, flags };
    // SAFETY: the kernel reads the 24 bytes of `argument` and takes references on the page; it writes nothing.
    if unsafe { libc::ioctl(file.as_raw_fd(), START, &raw const argument) } < 0 {
        return Err(Errno::last());
    }
    Ok(Box::new(Pinned(file)))
}

/// GUP_TEST's file: the pin is given back when it is closed.
struct Pinned(#[expect(dead_code, reason = "kept open")] File);

impl Pin for Pinned {}
