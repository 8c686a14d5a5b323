// SPDX-License-Identifier: GPL-2.0-only
//! VM file descriptors.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use kvm_bindings::{kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use libc::c_ulong;

use super::memory::HostGuestMemfd;
use super::system::non_negative;
use super::vcpu::HostVcpu;
use crate::machine::{GuestMemfd, Result, Vcpu, Vm};
use crate::uapi::{
    KVM_MEMORY_ENCRYPT_OP, KVM_SET_MEMORY_ATTRIBUTES2, MemoryAttributes2, kvm_create_guest_memfd,
    kvm_memory_attributes, kvm_userspace_memory_region2,
};

/// A VM of /dev/kvm.
pub(super) struct HostVm {
    vm: VmFd,
}

impl HostVm {
    pub(super) fn new(vm: VmFd) -> HostVm {
        HostVm { vm }
    }
}

impl Vm for HostVm {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        non_negative(self.vm.check_extension_raw(c_ulong::from(capability)))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the VM is there.
        unsafe { BorrowedFd::borrow_raw(self.vm.as_raw_fd()) }
    }

    fn enable_cap(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        Ok(self.vm.enable_cap(&kvm_enable_cap { cap: capability, args, ..Default::default() })?)
    }

    fn create_irqchip(&self) -> Result<()> {
        Ok(self.vm.create_irq_chip()?)
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        // SAFETY: the caller's promise about `command` is the one that is asked for.
        unsafe { ioctl_memory_encrypt_op(self.vm.as_raw_fd(), command) }
    }

    fn create_guest_memfd(&self, size: u64, flags: u64) -> Result<Box<dyn GuestMemfd>> {
        let fd = self.vm.create_guest_memfd(kvm_create_guest_memfd {
            size,
            flags,
            ..Default::default()
        })?;
        // SAFETY: KVM has just made this descriptor for us; nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Box::new(HostGuestMemfd::new(fd)))
    }

    unsafe fn set_user_memory_region2(&self, region: &kvm_userspace_memory_region2) -> Result<()> {
        // SAFETY: the caller keeps the memory at `region.userspace_addr` mapped and out of Rust's hands. Whether slots
        // overlap and whose the guest_memfd is, KVM checks itself.
        Ok(unsafe { self.vm.set_user_memory_region2(*region) }?)
    }

    unsafe fn set_user_memory_region(&self, region: &kvm_userspace_memory_region) -> Result<()> {
        // SAFETY: as above.
        Ok(unsafe { self.vm.set_user_memory_region(*region) }?)
    }

    fn set_memory_attributes(&self, attributes: &kvm_memory_attributes) -> Result<()> {
        Ok(self.vm.set_memory_attributes(*attributes)?)
    }

    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()> {
        // SAFETY: the caller's promise about `argument` is the one that is asked for.
        unsafe { ioctl_set_memory_attributes2(self.vm.as_raw_fd(), argument) }
    }

    fn create_vcpu(&self, id: u64) -> Result<Box<dyn Vcpu>> {
        Ok(Box::new(HostVcpu::new(self.vm.create_vcpu(id)?)?))
    }
}

/// `KVM_SET_MEMORY_ATTRIBUTES2`, which kvm-ioctls does not have, on the descriptor of a guest_memfd or a VM.
///
/// # Safety
///
/// As [`GuestMemfd::set_memory_attributes2`].
pub(super) unsafe fn ioctl_set_memory_attributes2(
    fd: RawFd,
    argument: *mut MemoryAttributes2,
) -> Result<()> {
    // SAFETY: KVM reads and writes the 128 bytes that the number encodes, with copy_from_user() and copy_to_user(), which
    // fail if they are not mapped; the caller owns them if they are. What the call does to guest memory is the caller's
    // to keep away from references, too.
    let value = unsafe { libc::ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, argument) };
    non_negative(value).map(drop)
}

/// `KVM_MEMORY_ENCRYPT_OP`, which kvm-ioctls does not have for vCPUs, on the descriptor of a VM or a vCPU.
///
/// # Safety
///
/// As [`Vm::memory_encrypt_op`].
pub(super) unsafe fn ioctl_memory_encrypt_op(fd: RawFd, command: *mut c_void) -> Result<()> {
    // SAFETY: KVM reads and writes the command and what it names with copy_from_user() and copy_to_user(), or pins it,
    // which fails where nothing is mapped; the caller owns what is, and keeps guest memory away from references.
    let value = unsafe { libc::ioctl(fd, KVM_MEMORY_ENCRYPT_OP, command) };
    non_negative(value).map(drop)
}
