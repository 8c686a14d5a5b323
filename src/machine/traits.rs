// SPDX-License-Identifier: GPL-2.0-only
//! The traits of a machine; see the module above.

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs, kvm_userspace_memory_region};

use crate::errno::Errno;
use crate::uapi::{MemoryAttributes2, kvm_memory_attributes, kvm_userspace_memory_region2};

/// What every call returns: its value or its error number.
pub type Result<T> = std::result::Result<T, Errno>;

/// The system file descriptor: /dev/kvm, or its likeness.
pub trait Machine {
    /// `KVM_CHECK_EXTENSION` on the system: 0 when the machine does not know `capability`.
    fn check_extension(&self, capability: u32) -> Result<i32>;
    /// `KVM_GET_SUPPORTED_CPUID`: the leaves that a guest may be shown.
    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>>;
    /// `KVM_GET_DEVICE_ATTR` on the system: a word of what a platform offers.
    fn get_device_attr(&self, group: u32, attribute: u64) -> Result<u64>;
    /// Opens /dev/sev, whose number goes into each command to an SNP guest's firmware.
    fn open_sev(&self) -> Result<OwnedFd>;
    /// `KVM_CREATE_VM` with a `KVM_X86_*_VM` type.
    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>>;
}

/// A VM file descriptor. Closed when dropped. Any thread may use it, several at once.
pub trait Vm: Sync {
    /// `KVM_CHECK_EXTENSION` on the VM: what this VM's type offers.
    fn check_extension(&self, capability: u32) -> Result<i32>;
    /// The descriptor, for calls of other VMs that name this one.
    fn fd(&self) -> BorrowedFd<'_>;
    /// `KVM_ENABLE_CAP`.
    fn enable_cap(&self, capability: u32, args: [u64; 4]) -> Result<()>;
    /// `KVM_CREATE_IRQCHIP`.
    fn create_irqchip(&self) -> Result<()>;
    /// `KVM_MEMORY_ENCRYPT_OP` with a `struct kvm_sev_cmd` or `struct kvm_tdx_cmd`, which the machine may write back, also
    /// when it fails.
    ///
    /// # Safety
    ///
    /// The machine reads and writes what `command` and the addresses in it name, as far as it is mapped, and answers
    /// EFAULT where it is not. Bytes that are mapped there must be the caller's to have read and written. Commands of a
    /// launch write guest memory, too: the caller touches it only through raw pointers.
    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()>;
    /// `KVM_CREATE_GUEST_MEMFD`: `size` in bytes, `flags` of `GUEST_MEMFD_FLAG_*`.
    fn create_guest_memfd(&self, size: u64, flags: u64) -> Result<Box<dyn GuestMemfd>>;
    /// `KVM_SET_USER_MEMORY_REGION2`; a region of size 0 deletes the slot. `region.guest_memfd` is the number of
    /// [`GuestMemfd::fd`].
    ///
    /// # Safety
    ///
    /// The guest may from now on read and write `region.memory_size` bytes at `region.userspace_addr`. The caller keeps
    /// that mapping until the slot or the VM is gone, and reads and writes it only through raw pointers.
    unsafe fn set_user_memory_region2(&self, region: &kvm_userspace_memory_region2) -> Result<()>;
    /// `KVM_SET_USER_MEMORY_REGION`, the first version of the call, which knows no guest_memfd.
    ///
    /// # Safety
    ///
    /// As [`Vm::set_user_memory_region2`].
    unsafe fn set_user_memory_region(&self, region: &kvm_userspace_memory_region) -> Result<()>;
    /// `KVM_SET_MEMORY_ATTRIBUTES`, the per-VM call of Linux 6.8, which in-place conversion replaces.
    fn set_memory_attributes(&self, attributes: &kvm_memory_attributes) -> Result<()>;
    /// `KVM_SET_MEMORY_ATTRIBUTES2` on the VM's descriptor instead of a guest_memfd's.
    ///
    /// # Safety
    ///
    /// As [`GuestMemfd::set_memory_attributes2`].
    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()>;
    /// `KVM_CREATE_VCPU`.
    fn create_vcpu(&self, id: u64) -> Result<Box<dyn Vcpu>>;
}

/// A guest_memfd file descriptor. Closed when dropped; mappings of it live on. Any thread may use it, several at once.
pub trait GuestMemfd: Send + Sync {
    /// The descriptor, for `kvm_userspace_memory_region2::guest_memfd`. Nothing may be read or written through it.
    fn fd(&self) -> BorrowedFd<'_>;
    /// `KVM_SET_MEMORY_ATTRIBUTES2`. On most failures the machine writes `error_offset` back into `*argument`.
    ///
    /// # Safety
    ///
    /// The machine reads and writes 128 bytes at `argument` if they are mapped, and answers EFAULT if they are not; so
    /// the pointer may be bad, but bytes that are mapped there must belong to the caller. A conversion unmaps and may
    /// rewrite pages of the guest_memfd: the caller touches them only through raw pointers, never through references.
    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()>;
    /// `fallocate(2)` on the guest_memfd, with `mode` of `FALLOC_FL_*`, `offset` and `length` in bytes.
    fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<()>;
    /// `mmap(2)` of `length` bytes at `offset`, shared, readable and writable.
    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn HostView>>;
    /// `mmap(2)` with `MAP_PRIVATE`; what was mapped is unmapped again.
    fn mmap_private(&self, offset: u64, length: u64) -> Result<()>;
    /// `ftruncate(2)`.
    fn truncate(&self, length: u64) -> Result<()>;
    /// `fstat(2)`: the size in bytes.
    fn size(&self) -> Result<u64>;
    /// `cachestat(2)`: how many pages of the `length` bytes from `offset` on have memory. ENOSYS before Linux 6.5.
    fn cached_pages(&self, offset: u64, length: u64) -> Result<u64>;
}

/// The host's view of a guest_memfd: a mapping of it in this process, unmapped when dropped.
///
/// An access to a private page of it is a SIGBUS, on both machines; [`crate::exec::guard`] is the way to try one. Any
/// thread may do so, several at once: what they reach is memory that a guest may change at any time anyway.
pub trait HostView: Send + Sync {
    /// Address of the first byte.
    fn address(&self) -> *mut u8;
    /// Length in bytes.
    fn length(&self) -> u64;
    /// Takes a reference on the page at `offset` bytes into the view, as a driver that does I/O to it would, until the
    /// returned value is dropped. The page is allocated by it. EFAULT if the page is private.
    fn pin(&self, offset: u64) -> Result<Box<dyn Pin>>;
    /// In a forked child, before each access there: makes the child's page tables for `length` bytes at `offset` say
    /// what the machine's state says. A kernel does this by itself, so for the host there is nothing to do; the model
    /// cannot reach into another process.
    fn sync_in_child(&self, offset: u64, length: u64);
}

/// A reference on a page of a guest_memfd, given back when dropped.
pub trait Pin {}

/// A vCPU file descriptor. Closed when dropped. One thread at a time may use it, whichever.
pub trait Vcpu: Send {
    /// `KVM_SET_CPUID2`.
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<()>;
    /// `KVM_GET_SREGS`.
    fn get_sregs(&self) -> Result<kvm_sregs>;
    /// `KVM_SET_SREGS`.
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()>;
    /// `KVM_SET_MP_STATE`: it runs, and does not wait for another vCPU to start it.
    fn set_runnable(&self) -> Result<()>;
    /// `KVM_PRE_FAULT_MEMORY`: maps `size` bytes of guest memory at `gpa`, as an access would. How many bytes are left to do.
    fn pre_fault_memory(&self, gpa: u64, size: u64) -> Result<u64>;
    /// `KVM_GET_REGS`.
    fn get_regs(&self) -> Result<kvm_regs>;
    /// `KVM_SET_REGS`.
    fn set_regs(&self, regs: &kvm_regs) -> Result<()>;
    /// `KVM_MEMORY_ENCRYPT_OP` on the vCPU, with a `struct kvm_tdx_cmd`.
    ///
    /// # Safety
    ///
    /// As [`Vm::memory_encrypt_op`].
    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()>;
    /// `kvm_run::hypercall.ret`: what the guest's hypercall returns when the vCPU runs next, after [`Exit::Hypercall`]; 0
    /// if it is not set. KVM lets userspace answer an encrypted guest with 0, EINVAL and EAGAIN, as positive numbers.
    fn set_hypercall_result(&mut self, result: u64);
    /// `KVM_RUN` until the guest exits to the host, or until `deadline`, then [`Exit::Interrupted`]. A signal before the
    /// deadline does not end the run. With a deadline that has passed the guest does not run; only what the last exit left
    /// open, such as the result of an MMIO read, is completed, so that registers can be set afterwards.
    fn run(&mut self, deadline: Instant) -> Result<Exit>;
}

/// Why `KVM_RUN` returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `KVM_EXIT_IO`, a write of `size` bytes.
    IoOut {
        /// Port number.
        port: u16,
        /// What was written, zero-extended.
        data: u32,
    },
    /// `KVM_EXIT_HYPERCALL`. It is answered with [`Vcpu::set_hypercall_result`].
    Hypercall {
        /// `KVM_HC_*`.
        number: u64,
        /// The arguments.
        args: [u64; 6],
    },
    /// `KVM_EXIT_SYSTEM_EVENT`.
    SystemEvent {
        /// `KVM_SYSTEM_EVENT_*`.
        event: u32,
        /// What comes with the event.
        data: Vec<u64>,
    },
    /// `KVM_RUN` failed with EIO: a TD touched a page that it had not accepted, or the VM is dead for another reason.
    Dead,
    /// `KVM_EXIT_MMIO`: an access to an address that no memslot backs. A read is answered with zeros when the vCPU runs again.
    Mmio {
        /// Guest physical address.
        gpa: u64,
        /// Size of the access in bytes.
        length: u32,
        /// Whether it was a write.
        write: bool,
    },
    /// `KVM_EXIT_MEMORY_FAULT`, which comes with `KVM_RUN` failing with EFAULT or EHWPOISON.
    MemoryFault {
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// Guest physical address, page-aligned.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// `KVM_EXIT_HLT`.
    Hlt,
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    Shutdown,
    /// `KVM_EXIT_FAIL_ENTRY`.
    FailEntry {
        /// Hardware's reason.
        reason: u64,
    },
    /// `KVM_EXIT_INTERNAL_ERROR`.
    InternalError,
    /// The deadline passed while the guest was running.
    Interrupted,
    /// Any other exit, described.
    Other(String),
}
