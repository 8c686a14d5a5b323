// SPDX-License-Identifier: GPL-2.0-only
//! Memory that the caller of a KVM call names by address, and that may not be there.

use std::mem::{MaybeUninit, size_of};

use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::MemoryAttributes2;

const SIZE: usize = size_of::<MemoryAttributes2>();

fn iovec(base: *mut MemoryAttributes2) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: SIZE }
}

/// `copy_from_user()`: EFAULT if any byte of the argument cannot be read.
///
/// # Safety
///
/// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
pub(super) unsafe fn copy_from_user(argument: *mut MemoryAttributes2) -> Result<MemoryAttributes2> {
    let mut copy = MaybeUninit::<MemoryAttributes2>::uninit();
    let (local, remote) = (iovec(copy.as_mut_ptr()), iovec(argument));
    // The kernel copies, so that memory that is not mapped is an error and no signal.
    // SAFETY: `local` is 128 bytes of ours to write; what `remote` names is only read, by the kernel, which checks it.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if copied != SIZE as isize {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the kernel has just written all 128 bytes, and every bit pattern is a valid value of these integers.
    Ok(unsafe { copy.assume_init() })
}

/// `copy_to_user()`: EFAULT if any byte of the argument cannot be written.
///
/// # Safety
///
/// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
pub(super) unsafe fn copy_to_user(
    argument: *mut MemoryAttributes2,
    mut value: MemoryAttributes2,
) -> Result<()> {
    let (local, remote) = (iovec(&raw mut value), iovec(argument));
    // SAFETY: `local` is 128 bytes of ours to read; the kernel writes at `remote` only what is mapped writable, which the
    // caller of the call lets the machine write.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    if copied == SIZE as isize { Ok(()) } else { Err(Errno::EFAULT) }
}
