// SPDX-License-Identifier: GPL-2.0-only
//! Memory that the caller of a KVM call names by address, and that may not be there.

use std::mem::{MaybeUninit, size_of};

use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::sev::{
    kvm_sev_cmd, kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start,
    kvm_sev_snp_launch_update,
};
use crate::uapi::tdx::{Cpuid, TdxCapabilities, TdxCommand, TdxInitMemRegion, TdxInitVm};
use crate::uapi::{MemoryAttributes2, PAGE_SIZE};

/// A page's contents.
pub(super) type PageWords = [u64; PAGE_SIZE as usize / 8];

/// A structure of the kernel's interface.
///
/// # Safety
///
/// Every bit pattern is a value of it: it consists of integers.
pub(super) unsafe trait Argument: Copy {}

/// Says so of several.
macro_rules! arguments {
    ($($name:ty)*) => { $(
        // SAFETY: all fields are integers, arrays of integers, or structures of such.
        unsafe impl Argument for $name {}
    )* };
}

arguments! {
    MemoryAttributes2 PageWords
    kvm_sev_cmd kvm_sev_init kvm_sev_snp_launch_start kvm_sev_snp_launch_update kvm_sev_snp_launch_finish
    TdxCommand TdxCapabilities TdxInitVm TdxInitMemRegion Cpuid
}

fn iovec<T>(base: *mut T) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: size_of::<T>() }
}

/// `copy_from_user()`: EFAULT if any byte of the argument cannot be read.
///
/// # Safety
///
/// The bytes at `argument`, as far as they are mapped, are the caller's to have read.
pub(super) unsafe fn copy_from_user<T: Argument>(argument: *mut T) -> Result<T> {
    let mut copy = MaybeUninit::<T>::uninit();
    let (local, remote) = (iovec(copy.as_mut_ptr()), iovec(argument));
    // The kernel copies, so that memory that is not mapped is an error and no signal.
    // SAFETY: `local` is ours to write; what `remote` names is only read, by the kernel, which checks it.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if copied != size_of::<T>() as isize {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the kernel has just written all bytes, and every bit pattern is a value of an `Argument`.
    Ok(unsafe { copy.assume_init() })
}

/// `copy_to_user()`: EFAULT if any byte of the argument cannot be written.
///
/// # Safety
///
/// The bytes at `argument`, as far as they are mapped, are the caller's to have written.
pub(super) unsafe fn copy_to_user<T: Argument>(argument: *mut T, mut value: T) -> Result<()> {
    let (local, remote) = (iovec(&raw mut value), iovec(argument));
    // SAFETY: `local` is ours to read; the kernel writes at `remote` only what is mapped writable, which the caller of the
    // call lets the machine write.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    if copied == size_of::<T>() as isize { Ok(()) } else { Err(Errno::EFAULT) }
}
