// SPDX-License-Identifier: GPL-2.0-only
//! Any machine, with its calls traced: which call a thread is in (see [`crate::activity`]), and how long calls take (see
//! [`crate::timings`]).

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs, kvm_userspace_memory_region};

use super::{Exit, GuestMemfd, HostView, Machine, Pin, Result, Vcpu, Vm};
use crate::activity::{self, Call, RunEnd};
use crate::timings::{Part, spend};
use crate::uapi::{MemoryAttributes2, kvm_memory_attributes, kvm_userspace_memory_region2};

/// A machine, or something of one. What it holds is destroyed in the time of [`Part::SetUp`].
pub struct Traced<T>(Option<T>);

impl<T> Traced<T> {
    /// Wraps what is to be traced.
    pub fn new(inner: T) -> Traced<T> {
        Traced(Some(inner))
    }

    fn inner(&self) -> &T {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T> Drop for Traced<T> {
    fn drop(&mut self) {
        call(Call::SetUp, Part::SetUp, || self.0 = None);
    }
}

/// A call, whose time belongs to `part`.
fn call<T>(call: Call, part: Part, work: impl FnOnce() -> T) -> T {
    activity::during(call, || spend(part, work))
}

/// A call that makes or changes something.
fn set_up<T>(work: impl FnOnce() -> T) -> T {
    call(Call::SetUp, Part::SetUp, work)
}

/// How `KVM_RUN` came back.
fn run_end(exit: &Result<Exit>) -> RunEnd {
    match exit {
        Ok(Exit::IoOut { .. }) => RunEnd::Io,
        Ok(Exit::Mmio { .. }) => RunEnd::Mmio,
        Ok(Exit::MemoryFault { .. }) => RunEnd::MemoryFault,
        Ok(Exit::Hypercall { .. }) => RunEnd::Hypercall,
        Ok(Exit::SystemEvent { .. }) => RunEnd::SystemEvent,
        Ok(Exit::Hlt) => RunEnd::Hlt,
        Ok(Exit::Shutdown) => RunEnd::Shutdown,
        Ok(Exit::FailEntry { .. }) => RunEnd::FailEntry,
        Ok(Exit::InternalError) => RunEnd::InternalError,
        Ok(Exit::Interrupted) => RunEnd::Interrupted,
        Ok(Exit::Dead) => RunEnd::Dead,
        Ok(Exit::Other(_)) => RunEnd::Other,
        Err(_) => RunEnd::Error,
    }
}

impl Machine for Traced<Box<dyn Machine>> {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        set_up(|| self.inner().check_extension(capability))
    }

    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        set_up(|| self.inner().get_supported_cpuid())
    }

    fn get_device_attr(&self, group: u32, attribute: u64) -> Result<u64> {
        set_up(|| self.inner().get_device_attr(group, attribute))
    }

    fn open_sev(&self) -> Result<OwnedFd> {
        set_up(|| self.inner().open_sev())
    }

    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>> {
        let vm = set_up(|| self.inner().create_vm(vm_type))?;
        Ok(Box::new(Traced::new(vm)))
    }
}

impl Vm for Traced<Box<dyn Vm>> {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        set_up(|| self.inner().check_extension(capability))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }

    fn enable_cap(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        set_up(|| self.inner().enable_cap(capability, args))
    }

    fn create_irqchip(&self) -> Result<()> {
        set_up(|| self.inner().create_irqchip())
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        call(Call::MemoryEncryptOp, Part::SetUp, || unsafe {
            self.inner().memory_encrypt_op(command)
        })
    }

    fn create_guest_memfd(&self, size: u64, flags: u64) -> Result<Box<dyn GuestMemfd>> {
        let gmem = set_up(|| self.inner().create_guest_memfd(size, flags))?;
        Ok(Box::new(Traced::new(gmem)))
    }

    unsafe fn set_user_memory_region2(&self, region: &kvm_userspace_memory_region2) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        set_up(|| unsafe { self.inner().set_user_memory_region2(region) })
    }

    unsafe fn set_user_memory_region(&self, region: &kvm_userspace_memory_region) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        set_up(|| unsafe { self.inner().set_user_memory_region(region) })
    }

    fn set_memory_attributes(&self, attributes: &kvm_memory_attributes) -> Result<()> {
        call(Call::SetMemoryAttributes, Part::Conversions, || {
            self.inner().set_memory_attributes(attributes)
        })
    }

    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        call(Call::SetMemoryAttributes2, Part::Conversions, || unsafe {
            self.inner().set_memory_attributes2(argument)
        })
    }

    fn create_vcpu(&self, id: u64) -> Result<Box<dyn Vcpu>> {
        let vcpu = set_up(|| self.inner().create_vcpu(id))?;
        Ok(Box::new(Traced::new(vcpu)))
    }
}

impl GuestMemfd for Traced<Box<dyn GuestMemfd>> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }

    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        call(Call::SetMemoryAttributes2, Part::Conversions, || unsafe {
            self.inner().set_memory_attributes2(argument)
        })
    }

    fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<()> {
        call(Call::Fallocate, Part::Conversions, || self.inner().fallocate(mode, offset, length))
    }

    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn HostView>> {
        let view = set_up(|| self.inner().mmap(offset, length))?;
        Ok(Box::new(Traced::new(view)))
    }

    fn mmap_private(&self, offset: u64, length: u64) -> Result<()> {
        set_up(|| self.inner().mmap_private(offset, length))
    }

    fn truncate(&self, length: u64) -> Result<()> {
        set_up(|| self.inner().truncate(length))
    }

    fn size(&self) -> Result<u64> {
        set_up(|| self.inner().size())
    }

    fn cached_pages(&self, offset: u64, length: u64) -> Result<u64> {
        set_up(|| self.inner().cached_pages(offset, length))
    }
}

impl HostView for Traced<Box<dyn HostView>> {
    fn address(&self) -> *mut u8 {
        self.inner().address()
    }

    fn length(&self) -> u64 {
        self.inner().length()
    }

    fn pin(&self, offset: u64) -> Result<Box<dyn Pin>> {
        set_up(|| self.inner().pin(offset))
    }

    fn sync_in_child(&self, offset: u64, length: u64) {
        self.inner().sync_in_child(offset, length);
    }
}

impl Vcpu for Traced<Box<dyn Vcpu>> {
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<()> {
        set_up(|| self.inner().set_cpuid2(entries))
    }

    fn pre_fault_memory(&self, gpa: u64, size: u64) -> Result<u64> {
        call(Call::PreFaultMemory, Part::Guest, || self.inner().pre_fault_memory(gpa, size))
    }

    fn set_runnable(&self) -> Result<()> {
        set_up(|| self.inner().set_runnable())
    }

    fn get_sregs(&self) -> Result<kvm_sregs> {
        set_up(|| self.inner().get_sregs())
    }

    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        set_up(|| self.inner().set_sregs(sregs))
    }

    fn get_regs(&self) -> Result<kvm_regs> {
        set_up(|| self.inner().get_regs())
    }

    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        set_up(|| self.inner().set_regs(regs))
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        call(Call::MemoryEncryptOp, Part::SetUp, || unsafe {
            self.inner().memory_encrypt_op(command)
        })
    }

    fn set_hypercall_result(&mut self, result: u64) {
        self.0.as_mut().expect("there until it is dropped").set_hypercall_result(result);
    }

    fn run(&mut self, deadline: Instant) -> Result<Exit> {
        let vcpu = self.0.as_mut().expect("there until it is dropped");
        activity::run(|| spend(Part::Guest, || vcpu.run(deadline)), run_end)
    }
}
