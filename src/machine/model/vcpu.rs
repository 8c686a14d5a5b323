// SPDX-License-Identifier: GPL-2.0-only
//! A vCPU that runs the payload's command loop natively.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};

use super::core::{Core, Memo, VcpuStop};
use super::vm::VmState;
use super::vm_type::Hardware;
use super::{snp, tdx};
use crate::errno::Errno;
use crate::machine::{Exit, Result, Vcpu};
use crate::payload::abi::{DOORBELL_PORT, GHCB, IMAGE, PAGE_TABLES, doorbell, termination};
use crate::payload::command_loop::{self, Cpu};
use crate::uapi::{KVM_SYSTEM_EVENT_SEV_TERM, KVM_SYSTEM_EVENT_TDX_FATAL, PAGE_SIZE};

/// Where the vCPU is said to be while it waits for a command or executes one; arbitrary, in the image.
const LOOP: u64 = IMAGE + 0x10;

/// How far the payload has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// At the image's entry, or in a place where there is no code, as RIP says.
    Reset,
    /// In the command loop.
    Loop,
    /// Stopped for good by the exception with this vector.
    Halted(u64),
}

#[derive(Debug)]
struct Registers {
    regs: kvm_regs,
    sregs: kvm_sregs,
    cpuid: Vec<kvm_cpuid_entry2>,
    progress: Progress,
    /// What a TD's vCPU is before INIT_VCPU.
    initialized: bool,
    /// What INIT_VCPU has put into RCX and R8.
    rcx: u64,
    /// After a hypercall's exit: what the host makes it return.
    hypercall_result: Option<u64>,
    memo: Memo,
}

/// A vCPU's descriptor.
pub(super) struct ModelVcpu {
    vm: Arc<VmState>,
    registers: RefCell<Registers>,
}

impl ModelVcpu {
    /// A vCPU as it comes out of reset.
    pub(super) fn new(vm: Arc<VmState>) -> ModelVcpu {
        let regs = kvm_regs { rip: 0xfff0, rflags: 2, ..Default::default() };
        ModelVcpu {
            vm,
            registers: RefCell::new(Registers {
                regs,
                sregs: kvm_sregs::default(),
                cpuid: Vec::new(),
                progress: Progress::Reset,
                initialized: false,
                rcx: 0,
                hypercall_result: None,
                memo: Memo::default(),
            }),
        }
    }

    /// Every call that is about registers first: EINVAL where the host has no way to them.
    fn registers_accessible(&self) -> Result<()> {
        self.vm.alive()?;
        if self.vm.registers_are_protected() { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Whether the VM is as far as to run: EINVAL if not.
    fn may_run(&self) -> Result<()> {
        let ready = match self.vm.vm_type.hardware {
            Hardware::None => true,
            Hardware::Snp => *self.vm.snp.lock() == snp::Stage::Finished,
            Hardware::Tdx => {
                self.registers.borrow().initialized
                    && matches!(*self.vm.tdx.lock(), tdx::Stage::Finalized(_))
            }
        };
        if ready { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

impl Vcpu for ModelVcpu {
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<()> {
        self.vm.alive()?;
        self.registers.borrow_mut().cpuid = entries.to_vec();
        Ok(())
    }

    fn get_sregs(&self) -> Result<kvm_sregs> {
        self.registers_accessible()?;
        Ok(self.registers.borrow().sregs)
    }

    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        self.registers_accessible()?;
        self.registers.borrow_mut().sregs = *sregs;
        Ok(())
    }

    fn pre_fault_memory(&self, gpa: u64, size: u64) -> Result<u64> {
        self.vm.alive()?;
        let aligned = gpa.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        let end = gpa.checked_add(size).filter(|_| aligned && size != 0).ok_or(Errno::EINVAL)?;
        // pre_fault_allowed: an encrypted guest's memory is its launch's first.
        let encrypted = self.vm.vm_type.is_encrypted();
        if encrypted && !self.vm.hook_pre_fault_allowed(self.vm.protection.is_launched()) {
            return Err(Errno::EOPNOTSUPP);
        }
        for at in (gpa..end).step_by(PAGE_SIZE as usize) {
            let Some((inode, page, _)) = self.vm.gmem_page(at) else {
                // What was done is told; only if that is nothing the call fails.
                return if at == gpa { Err(Errno::ENOENT) } else { Ok(end - at) };
            };
            if !self.vm.hook_pre_fault_skips(at + PAGE_SIZE == end && at != gpa) {
                inode.touch(page)?;
                if encrypted {
                    inode.pre_fault(page);
                }
            }
        }
        Ok(0)
    }

    fn set_runnable(&self) -> Result<()> {
        self.vm.alive()?;
        Ok(())
    }

    fn get_regs(&self) -> Result<kvm_regs> {
        self.registers_accessible()?;
        Ok(self.registers.borrow().regs)
    }

    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        self.registers_accessible()?;
        let mut registers = self.registers.borrow_mut();
        // Registers that are read and put back leave the payload where it was.
        if regs.rip != registers.regs.rip || regs.rip == IMAGE {
            registers.progress = Progress::Reset;
        }
        registers.regs = *regs;
        registers.memo.end_of_command();
        Ok(())
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        self.vm.alive()?;
        if self.vm.vm_type.hardware != Hardware::Tdx {
            return Err(Errno::ENOTTY);
        }
        let registers = &mut *self.registers.borrow_mut();
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe {
            let (initialized, rcx) = (&mut registers.initialized, &mut registers.rcx);
            self.vm.tdx_vcpu_command(command, &registers.cpuid, initialized, rcx)
        }
    }

    fn set_hypercall_result(&mut self, result: u64) {
        let open = &mut self.registers.get_mut().hypercall_result;
        *open = open.map(|_| result);
    }

    fn run(&mut self, deadline: Instant) -> Result<Exit> {
        if self.vm.alive().is_err() {
            return Ok(Exit::Dead);
        }
        self.may_run()?;
        let hardware = self.vm.vm_type.hardware;
        let registers = self.registers.get_mut();
        if let Some(result) = registers.hypercall_result {
            if ![0, Errno::EAGAIN.0 as u64, Errno::EINVAL.0 as u64].contains(&result) {
                return Err(Errno::EINVAL);
            }
            registers.hypercall_result = None;
            registers.memo.push(result);
        }
        // What the last exit left open is complete; the guest is not entered.
        if Instant::now() >= deadline {
            return Ok(Exit::Interrupted);
        }
        // A TD's payload sets its own; see its entry.
        let cr3 = match hardware {
            Hardware::Tdx => PAGE_TABLES + registers.rcx,
            Hardware::None | Hardware::Snp => registers.sregs.cr3,
        };
        let mut core = Core::new(&self.vm, &mut registers.memo, cr3, deadline);
        let result = match registers.progress {
            Progress::Reset => {
                let entered = match hardware {
                    Hardware::None => Ok(registers.regs.rip == IMAGE),
                    Hardware::Snp => core.enter_snp(&registers.regs, &registers.sregs),
                    Hardware::Tdx => core.enter_tdx(),
                };
                match entered {
                    Ok(true) => {
                        registers.progress = Progress::Loop;
                        registers.regs.rip = LOOP;
                        Ok(doorbell::READY)
                    }
                    // There is no code anywhere else, nor a handler for what comes of running none.
                    Ok(false) | Err(VcpuStop::Exception { .. }) => return Ok(Exit::Shutdown),
                    Err(stop) => Err(stop),
                }
            }
            Progress::Halted(vector) => return Ok(end(hardware, vector)),
            Progress::Loop => command_loop::execute(&mut core).map(|()| doorbell::DONE),
        };
        let result = match result {
            Err(VcpuStop::Exception { vector, error_code, address }) => {
                registers.progress = Progress::Halted(vector);
                match core.report_exception(vector, error_code, address) {
                    Ok(()) => Ok(doorbell::EXCEPTION),
                    // An exception in the handler of an exception.
                    Err(_) => return Ok(Exit::Shutdown),
                }
            }
            other => other,
        };
        // An SNP guest's doorbell is rung through its GHCB. Without one that KVM can read the vCPU is resumed for ever.
        if result.is_ok() && hardware == Hardware::Snp && core.read(GHCB).is_err() {
            return Ok(Exit::Interrupted);
        }
        match result {
            Ok(data) => {
                registers.memo.end_of_command();
                Ok(Exit::IoOut { port: DOORBELL_PORT, data })
            }
            Err(VcpuStop::Exit(exit)) => {
                if matches!(exit, Exit::Hypercall { .. }) {
                    registers.hypercall_result = Some(0);
                }
                Ok(exit)
            }
            Err(VcpuStop::Exception { .. }) => Ok(Exit::Shutdown),
        }
    }
}

/// How a payload ends that has reported an exception.
fn end(hardware: Hardware, vector: u64) -> Exit {
    let code = termination::EXCEPTION + vector;
    match hardware {
        Hardware::None => Exit::Hlt,
        // The GHCB MSR protocol's termination request.
        Hardware::Snp => Exit::SystemEvent {
            event: KVM_SYSTEM_EVENT_SEV_TERM,
            data: vec![code << 16 | termination::SET << 12 | 0x100],
        },
        // The registers of TDG.VP.VMCALL<ReportFatalError>: the code is in R12.
        Hardware::Tdx => {
            let mut data = vec![0; 16];
            data[12] = code;
            Exit::SystemEvent { event: KVM_SYSTEM_EVENT_TDX_FATAL, data }
        }
    }
}
