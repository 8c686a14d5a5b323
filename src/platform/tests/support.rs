// SPDX-License-Identifier: GPL-2.0-only
//! A machine that passes calls on, unless it is told to do something else with one.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::result::Result;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs, kvm_userspace_memory_region};

use crate::dialect::Dialect;
use crate::errno::Errno;
pub use crate::machine::model::tests::support::soon;
use crate::machine::model::{Config, Model};
use crate::machine::*;
use crate::platform::{Guest, LaunchError, Platform};
use crate::uapi::{MemoryAttributes2, kvm_memory_attributes, kvm_userspace_memory_region2};

pub const ENCRYPTED: [Platform; 2] = [Platform::Snp, Platform::Tdx];

pub fn model(dialect: Dialect) -> Model {
    Model::new(Config { dialect, fault: None })
}

pub fn launch(machine: &dyn Machine, platform: Platform) -> Result<Guest, LaunchError> {
    Guest::launch(machine, platform, Duration::from_secs(60))
}

/// What is to happen instead of a call.
type Plan = dyn Fn(&Call) -> Option<Errno>;

/// Makes a call of `KVM_MEMORY_ENCRYPT_OP` with this argument, and what else is to happen.
type Around = dyn Fn(*mut c_void, &mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno>;

/// A call that is about to be made.
pub struct Call {
    /// How many calls were made before it.
    pub number: usize,
    /// The method's name.
    pub name: &'static str,
    /// The command of `KVM_MEMORY_ENCRYPT_OP`.
    pub command: Option<u32>,
}

/// What all parts of one machine share.
struct Script {
    plan: Box<Plan>,
    calls: Cell<usize>,
    log: RefCell<Vec<&'static str>>,
    /// Changes the argument of `KVM_MEMORY_ENCRYPT_OP` before and after the call.
    around: Box<Around>,
}

impl Script {
    fn call<T>(
        &self,
        name: &'static str,
        command: Option<u32>,
        call: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let number = self.calls.get();
        self.calls.set(number + 1);
        self.log.borrow_mut().push(name);
        match (self.plan)(&Call { number, name, command }) {
            Some(errno) => Err(errno),
            None => call(),
        }
    }

    fn encrypt_op(
        &self,
        name: &'static str,
        command: *mut c_void,
        mut call: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // SAFETY: both command structures start with their id, and the launches give valid ones.
        let id = unsafe { command.cast::<u32>().read() };
        self.call(name, Some(id), || (self.around)(command, &mut call))
    }
}

/// A machine that fails calls by a plan.
pub struct Scripted {
    inner: Model,
    script: Rc<Script>,
}

impl Scripted {
    pub fn new(dialect: Dialect, plan: impl Fn(&Call) -> Option<Errno> + 'static) -> Scripted {
        Scripted::around(dialect, plan, |_, call| call())
    }

    /// Also does something around each `KVM_MEMORY_ENCRYPT_OP`.
    pub fn around(
        dialect: Dialect,
        plan: impl Fn(&Call) -> Option<Errno> + 'static,
        around: impl Fn(*mut c_void, &mut dyn FnMut() -> Result<(), Errno>) -> Result<(), Errno>
        + 'static,
    ) -> Scripted {
        let script = Script {
            plan: Box::new(plan),
            calls: Cell::new(0),
            log: RefCell::default(),
            around: Box::new(around),
        };
        Scripted { inner: model(dialect), script: Rc::new(script) }
    }

    /// The names of the calls that were made.
    pub fn log(&self) -> Vec<&'static str> {
        self.script.log.borrow().clone()
    }
}

impl Machine for Scripted {
    fn check_extension(&self, capability: u32) -> Result<i32, Errno> {
        self.script.call("check_extension", None, || self.inner.check_extension(capability))
    }
    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Errno> {
        self.script.call("get_supported_cpuid", None, || self.inner.get_supported_cpuid())
    }
    fn get_device_attr(&self, group: u32, attribute: u64) -> Result<u64, Errno> {
        self.script.call("get_device_attr", None, || self.inner.get_device_attr(group, attribute))
    }
    fn open_sev(&self) -> Result<OwnedFd, Errno> {
        self.script.call("open_sev", None, || self.inner.open_sev())
    }
    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>, Errno> {
        let vm = self.script.call("create_vm", None, || self.inner.create_vm(vm_type))?;
        Ok(Box::new(ScriptedVm { inner: vm, script: Rc::clone(&self.script) }))
    }
}

struct ScriptedVm {
    inner: Box<dyn Vm>,
    script: Rc<Script>,
}

// SAFETY: these tests have one thread, and nothing else that they use starts one.
unsafe impl Sync for ScriptedVm {}

impl Vm for ScriptedVm {
    fn check_extension(&self, capability: u32) -> Result<i32, Errno> {
        self.script.call("vm.check_extension", None, || self.inner.check_extension(capability))
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
    fn enable_cap(&self, capability: u32, args: [u64; 4]) -> Result<(), Errno> {
        self.script.call("enable_cap", None, || self.inner.enable_cap(capability, args))
    }
    fn create_irqchip(&self) -> Result<(), Errno> {
        self.script.call("create_irqchip", None, || self.inner.create_irqchip())
    }
    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        let call = || unsafe { self.inner.memory_encrypt_op(command) };
        self.script.encrypt_op("vm.memory_encrypt_op", command, call)
    }
    fn create_guest_memfd(&self, size: u64, flags: u64) -> Result<Box<dyn GuestMemfd>, Errno> {
        let create = || self.inner.create_guest_memfd(size, flags);
        let inner = self.script.call("create_guest_memfd", None, create)?;
        Ok(Box::new(ScriptedGmem { inner, script: Rc::clone(&self.script) }))
    }
    unsafe fn set_user_memory_region2(
        &self,
        region: &kvm_userspace_memory_region2,
    ) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        let set = || unsafe { self.inner.set_user_memory_region2(region) };
        self.script.call("set_user_memory_region2", None, set)
    }
    unsafe fn set_user_memory_region(
        &self,
        region: &kvm_userspace_memory_region,
    ) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        unsafe { self.inner.set_user_memory_region(region) }
    }
    fn set_memory_attributes(&self, attributes: &kvm_memory_attributes) -> Result<(), Errno> {
        self.inner.set_memory_attributes(attributes)
    }
    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        unsafe { self.inner.set_memory_attributes2(argument) }
    }
    fn create_vcpu(&self, id: u64) -> Result<Box<dyn Vcpu>, Errno> {
        let inner = self.script.call("create_vcpu", None, || self.inner.create_vcpu(id))?;
        Ok(Box::new(ScriptedVcpu { inner, script: Rc::clone(&self.script) }))
    }
}

struct ScriptedGmem {
    inner: Box<dyn GuestMemfd>,
    script: Rc<Script>,
}

// SAFETY: these tests have one thread, and nothing else that they use starts one.
unsafe impl Send for ScriptedGmem {}
// SAFETY: as above.
unsafe impl Sync for ScriptedGmem {}

impl GuestMemfd for ScriptedGmem {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        let set = || unsafe { self.inner.set_memory_attributes2(argument) };
        self.script.call("set_memory_attributes2", None, set)
    }
    fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Errno> {
        self.inner.fallocate(mode, offset, length)
    }
    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn HostView>, Errno> {
        self.script.call("mmap", None, || self.inner.mmap(offset, length))
    }
    fn mmap_private(&self, offset: u64, length: u64) -> Result<(), Errno> {
        self.inner.mmap_private(offset, length)
    }
    fn truncate(&self, length: u64) -> Result<(), Errno> {
        self.inner.truncate(length)
    }
    fn size(&self) -> Result<u64, Errno> {
        self.inner.size()
    }
    fn cached_pages(&self, offset: u64, length: u64) -> Result<u64, Errno> {
        self.inner.cached_pages(offset, length)
    }
}

struct ScriptedVcpu {
    inner: Box<dyn Vcpu>,
    script: Rc<Script>,
}

// SAFETY: these tests have one thread, and nothing else that they use starts one.
unsafe impl Send for ScriptedVcpu {}

impl Vcpu for ScriptedVcpu {
    fn pre_fault_memory(&self, gpa: u64, size: u64) -> Result<u64, Errno> {
        self.inner.pre_fault_memory(gpa, size)
    }
    fn set_runnable(&self) -> Result<(), Errno> {
        self.script.call("set_runnable", None, || self.inner.set_runnable())
    }
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), Errno> {
        self.script.call("set_cpuid2", None, || self.inner.set_cpuid2(entries))
    }
    fn get_sregs(&self) -> Result<kvm_sregs, Errno> {
        self.script.call("get_sregs", None, || self.inner.get_sregs())
    }
    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<(), Errno> {
        self.script.call("set_sregs", None, || self.inner.set_sregs(sregs))
    }
    fn get_regs(&self) -> Result<kvm_regs, Errno> {
        self.script.call("get_regs", None, || self.inner.get_regs())
    }
    fn set_regs(&self, regs: &kvm_regs) -> Result<(), Errno> {
        self.script.call("set_regs", None, || self.inner.set_regs(regs))
    }
    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<(), Errno> {
        // SAFETY: the caller keeps the same promise.
        let call = || unsafe { self.inner.memory_encrypt_op(command) };
        self.script.encrypt_op("vcpu.memory_encrypt_op", command, call)
    }
    fn set_hypercall_result(&mut self, result: u64) {
        self.inner.set_hypercall_result(result);
    }
    fn run(&mut self, deadline: Instant) -> Result<Exit, Errno> {
        let script = Rc::clone(&self.script);
        script.call("run", None, || self.inner.run(deadline))
    }
}

/// Runs `test` in a process of its own, with one thread and no files but this process's; how it ended if not well.
pub fn in_a_child(test: fn()) -> Result<(), Box<dyn std::error::Error>> {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    // SAFETY: the allocator of the C library works in forked children; no lock of ours is held by another thread, since
    // what the child uses is made in the child.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let passed = std::panic::catch_unwind(test).is_ok();
            // SAFETY: ends the process, without the destructors that belong to its parent.
            unsafe { libc::_exit(i32::from(!passed)) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("{other:?}").into()),
        },
    }
}

/// What a guest of `platform` is launched with.
pub fn image(platform: Platform) -> &'static [u8] {
    match platform {
        Platform::Snp => crate::payload::SNP,
        Platform::Tdx => crate::payload::TDX_IMAGE,
        Platform::Default | Platform::SwProtected => crate::platform::plain::PAYLOAD,
    }
}
