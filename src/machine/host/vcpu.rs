// SPDX-License-Identifier: GPL-2.0-only
//! vCPU file descriptors.

use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::time::Instant;

use kvm_bindings::{
    CpuId, KVM_MP_STATE_RUNNABLE, kvm_cpuid_entry2, kvm_mp_state, kvm_regs, kvm_sregs,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::system::non_negative;
use super::vm::ioctl_memory_encrypt_op;
use super::watchdog;
use crate::errno::Errno;
use crate::machine::{Exit, Result, Vcpu};
use crate::uapi::{KVM_PRE_FAULT_MEMORY, PreFaultMemory};

/// A vCPU of /dev/kvm.
pub(super) struct HostVcpu {
    vcpu: VcpuFd,
    /// `kvm_run::immediate_exit`, mapped for as long as `vcpu` lives.
    immediate_exit: NonNull<u8>,
    /// The thread that has run it last, and lets the watchdog's signal in.
    thread: libc::pid_t,
}

// SAFETY: the byte belongs to the vCPU's mapping, which goes with it; there is one user at a time.
unsafe impl Send for HostVcpu {}

impl HostVcpu {
    pub(super) fn new(mut vcpu: VcpuFd) -> Result<HostVcpu> {
        let immediate_exit = NonNull::from(&mut vcpu.get_kvm_run().immediate_exit);
        watchdog::let_signal_in()?;
        Ok(HostVcpu { vcpu, immediate_exit, thread: this_thread() })
    }
}

impl Vcpu for HostVcpu {
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<()> {
        let cpuid = CpuId::from_entries(entries).map_err(|_| Errno::E2BIG)?;
        Ok(self.vcpu.set_cpuid2(&cpuid)?)
    }

    fn get_sregs(&self) -> Result<kvm_sregs> {
        Ok(self.vcpu.get_sregs()?)
    }

    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        Ok(self.vcpu.set_sregs(sregs)?)
    }

    fn set_runnable(&self) -> Result<()> {
        Ok(self.vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })?)
    }

    fn pre_fault_memory(&self, gpa: u64, size: u64) -> Result<u64> {
        let mut range = PreFaultMemory { gpa, size, ..PreFaultMemory::default() };
        // SAFETY: KVM reads and writes the 64 bytes of `range`. What it allocates, guest memory, is nobody's reference.
        let value =
            unsafe { libc::ioctl(self.vcpu.as_raw_fd(), KVM_PRE_FAULT_MEMORY, &raw mut range) };
        non_negative(value)?;
        Ok(range.size)
    }

    fn get_regs(&self) -> Result<kvm_regs> {
        Ok(self.vcpu.get_regs()?)
    }

    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        Ok(self.vcpu.set_regs(regs)?)
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        // SAFETY: the caller's promise about `command` is the one that is asked for.
        unsafe { ioctl_memory_encrypt_op(self.vcpu.as_raw_fd(), command) }
    }

    fn set_hypercall_result(&mut self, result: u64) {
        // The union belongs to the exit; nothing but a hypercall's completion reads this field of it.
        self.vcpu.get_kvm_run().__bindgen_anon_1.hypercall.ret = result;
    }

    fn run(&mut self, deadline: Instant) -> Result<Exit> {
        let thread = this_thread();
        if thread != self.thread {
            watchdog::let_signal_in()?;
            self.thread = thread;
        }
        // SAFETY: the byte stays mapped while `self.vcpu` lives, which is longer than `_watched`. The watchdog and KVM
        // access it atomically; kvm-ioctls does not access it in `run`.
        let _watched = unsafe { watchdog::watch(self.thread, deadline, self.immediate_exit) }?;
        loop {
            match self.vcpu.run() {
                Ok(exit) => return Ok(translate(exit)),
                Err(e) if e.errno() == libc::EINTR => {
                    if Instant::now() >= deadline {
                        return Ok(Exit::Interrupted);
                    }
                }
                Err(e) if e.errno() == libc::EIO => return Ok(Exit::Dead),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn this_thread() -> libc::pid_t {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// The exits that callers tell apart; a description of the others.
fn translate(exit: VcpuExit<'_>) -> Exit {
    match exit {
        // A string instruction may write several at once; nobody here uses one.
        VcpuExit::IoOut(port, &[a]) => Exit::IoOut { port, data: u32::from(a) },
        VcpuExit::IoOut(port, &[a, b]) => {
            Exit::IoOut { port, data: u32::from(u16::from_le_bytes([a, b])) }
        }
        VcpuExit::IoOut(port, &[a, b, c, d]) => {
            Exit::IoOut { port, data: u32::from_le_bytes([a, b, c, d]) }
        }
        VcpuExit::MmioRead(gpa, data) => {
            data.fill(0);
            Exit::Mmio { gpa, length: data.len() as u32, write: false }
        }
        VcpuExit::MmioWrite(gpa, data) => {
            Exit::Mmio { gpa, length: data.len() as u32, write: true }
        }
        VcpuExit::MemoryFault { flags, gpa, size } => Exit::MemoryFault { flags, gpa, size },
        VcpuExit::Hypercall(call) => Exit::Hypercall { number: call.nr, args: call.args },
        VcpuExit::SystemEvent(event, data) => Exit::SystemEvent { event, data: data.to_vec() },
        VcpuExit::Hlt => Exit::Hlt,
        VcpuExit::Shutdown => Exit::Shutdown,
        VcpuExit::FailEntry(reason, _cpu) => Exit::FailEntry { reason },
        VcpuExit::InternalError => Exit::InternalError,
        VcpuExit::Unsupported(reason) => Exit::Other(format!("exit reason {reason}")),
        other => Exit::Other(format!("{other:?}")),
    }
}
