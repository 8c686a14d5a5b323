// SPDX-License-Identifier: GPL-2.0-only
//! A vCPU that runs the payload's command loop natively.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};

use super::memslot::Target;
use super::vm::VmState;
use crate::machine::{Exit, Result, Vcpu};
use crate::payload::abi::{DOORBELL_PORT, IMAGE, MAILBOX, Mailbox, doorbell};
use crate::payload::command_loop::{self, Cpu};
use crate::uapi::PAGE_SIZE;

/// Where guest virtual addresses stop being mapped.
const MAPPED_END: u64 = 1 << 46;
/// Where the vCPU is said to be while it waits for a command or executes one; arbitrary, in the image.
const LOOP: u64 = IMAGE + 0x10;
/// Size of every access of the command loop, in bytes.
const ACCESS: u32 = 8;

/// After so many accesses a command looks at the clock, so that a long one ends with its deadline, too.
const ACCESSES_PER_LOOK: u32 = 1 << 16;

/// Vectors of the exceptions that an access can raise.
const ALIGNMENT_CHECK: u64 = 17;
const PAGE_FAULT: u64 = 14;
/// The bit of a page fault's error code that says it was a write.
const PAGE_FAULT_WRITE: u64 = 1 << 1;

/// How far the payload has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// At the image's entry, or in a place where there is no code, as RIP says.
    Reset,
    /// In the command loop.
    Loop,
    /// Stopped for good by an exception.
    Halted,
}

#[derive(Debug)]
struct Registers {
    regs: kvm_regs,
    sregs: kvm_sregs,
    cpuid: Vec<kvm_cpuid_entry2>,
    progress: Progress,
    /// The accesses of the command in progress that were completed as MMIO: address, and whether a write.
    completed: BTreeSet<(u64, bool)>,
}

/// A vCPU's descriptor.
pub(super) struct ModelVcpu {
    vm: Arc<VmState>,
    registers: RefCell<Registers>,
}

/// Why the command loop stopped in the middle of a command.
enum Stop {
    Exit(Exit),
    Exception { vector: u64, error_code: u64, address: u64 },
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
                completed: BTreeSet::new(),
            }),
        }
    }
}

impl Vcpu for ModelVcpu {
    fn set_cpuid2(&self, entries: &[kvm_cpuid_entry2]) -> Result<()> {
        self.registers.borrow_mut().cpuid = entries.to_vec();
        Ok(())
    }

    fn get_sregs(&self) -> Result<kvm_sregs> {
        Ok(self.registers.borrow().sregs)
    }

    fn set_sregs(&self, sregs: &kvm_sregs) -> Result<()> {
        self.registers.borrow_mut().sregs = *sregs;
        Ok(())
    }

    fn get_regs(&self) -> Result<kvm_regs> {
        Ok(self.registers.borrow().regs)
    }

    fn set_regs(&self, regs: &kvm_regs) -> Result<()> {
        let mut registers = self.registers.borrow_mut();
        // Registers that are read and put back leave the payload where it was.
        if regs.rip != registers.regs.rip || regs.rip == IMAGE {
            registers.progress = Progress::Reset;
        }
        registers.regs = *regs;
        registers.completed.clear();
        Ok(())
    }

    fn run(&mut self, deadline: Instant) -> Result<Exit> {
        let registers = self.registers.get_mut();
        let ring = |data| Exit::IoOut { port: DOORBELL_PORT, data };
        match registers.progress {
            Progress::Reset if registers.regs.rip == IMAGE => {
                registers.progress = Progress::Loop;
                registers.regs.rip = LOOP;
                return Ok(ring(doorbell::READY));
            }
            // There is no code anywhere else, nor a handler for what comes of running none.
            Progress::Reset => return Ok(Exit::Shutdown),
            Progress::Halted => return Ok(Exit::Hlt),
            Progress::Loop => {}
        }
        let mut core =
            Core { vm: &self.vm, completed: &mut registers.completed, deadline, accesses: 0 };
        match command_loop::execute(&mut core) {
            Ok(()) => {
                registers.completed.clear();
                Ok(ring(doorbell::DONE))
            }
            Err(Stop::Exit(exit)) => Ok(exit),
            Err(Stop::Exception { vector, error_code, address }) => {
                match core.report_exception(vector, error_code, address) {
                    Ok(()) => {
                        registers.progress = Progress::Halted;
                        Ok(ring(doorbell::EXCEPTION))
                    }
                    // An exception in the handler of an exception.
                    Err(_) => Ok(Exit::Shutdown),
                }
            }
        }
    }
}

/// The platform half of the command loop.
struct Core<'a> {
    vm: &'a VmState,
    completed: &'a mut BTreeSet<(u64, bool)>,
    deadline: Instant,
    accesses: u32,
}

impl Core<'_> {
    /// The exception handler of the payload.
    fn report_exception(
        &mut self,
        vector: u64,
        error_code: u64,
        cr2: u64,
    ) -> std::result::Result<(), Stop> {
        let fields = [
            (offset_of!(Mailbox, vector), vector),
            (offset_of!(Mailbox, error_code), error_code),
            (offset_of!(Mailbox, rip), IMAGE),
            (offset_of!(Mailbox, cr2), cr2),
        ];
        for (offset, value) in fields {
            self.write(MAILBOX + offset as u64, value)?;
        }
        Ok(())
    }

    /// Ends the run once the deadline has passed.
    fn look_at_clock(&self) -> std::result::Result<(), Stop> {
        if Instant::now() >= self.deadline {
            return Err(Stop::Exit(Exit::Interrupted));
        }
        Ok(())
    }

    /// One access: reads the word, or writes `word` and returns it.
    fn access(&mut self, address: u64, word: Option<u64>) -> std::result::Result<u64, Stop> {
        let write = word.is_some();
        self.accesses += 1;
        if self.accesses.is_multiple_of(ACCESSES_PER_LOOK) {
            self.accesses = 0;
            self.look_at_clock()?;
        }
        if address >= MAPPED_END {
            return Err(Stop::Exception {
                vector: PAGE_FAULT,
                error_code: if write { PAGE_FAULT_WRITE } else { 0 },
                address,
            });
        }
        if !address.is_multiple_of(u64::from(ACCESS)) {
            return Err(Stop::Exception { vector: ALIGNMENT_CHECK, error_code: 0, address });
        }
        if self.completed.contains(&(address, write)) {
            return Ok(word.unwrap_or(0));
        }
        let fault = |private| {
            Stop::Exit(Exit::MemoryFault {
                flags: if private {
                    u64::from(kvm_bindings::KVM_MEMORY_EXIT_FLAG_PRIVATE)
                } else {
                    0
                },
                gpa: address / PAGE_SIZE * PAGE_SIZE,
                size: PAGE_SIZE,
            })
        };
        match self.vm.translate(address, write) {
            Target::User(pointer) => match word {
                // SAFETY: inside the memslot's memory and aligned, since both are; who made the memslot keeps that memory
                // mapped and reaches it through raw pointers only.
                Some(word) => unsafe { pointer.write_volatile(word) },
                // SAFETY: as above.
                None => return Ok(unsafe { pointer.read_volatile() }),
            },
            Target::GmemByUser(inode, page, pointer) => {
                // A conversion takes the mapping away. The lock keeps it here, as the reference does that a kernel takes on
                // the page.
                let state = inode.lock();
                if inode.is_private(&state, page) {
                    return Err(fault(true));
                }
                match word {
                    // SAFETY: as above, and shared pages of the mapping are there as long as the lock is held.
                    Some(word) => unsafe { pointer.write_volatile(word) },
                    // SAFETY: as above.
                    None => return Ok(unsafe { pointer.read_volatile() }),
                }
            }
            Target::Gmem(inode, page, offset) => {
                let cell = inode
                    .guest_word(page, offset)
                    .map_err(|_| fault(inode.is_private(&inode.lock(), page)))?;
                match word {
                    Some(word) => cell.store(word, Ordering::Relaxed),
                    None => return Ok(cell.load(Ordering::Relaxed)),
                }
            }
            Target::Mmio => {
                // It is complete when the vCPU runs again, which starts the command anew.
                self.completed.insert((address, write));
                return Err(Stop::Exit(Exit::Mmio { gpa: address, length: ACCESS, write }));
            }
            Target::Fault(private) => return Err(fault(private)),
        }
        Ok(word.unwrap_or(0))
    }
}

impl Cpu for Core<'_> {
    type Stop = Stop;

    fn read(&mut self, address: u64) -> std::result::Result<u64, Stop> {
        self.access(address, None)
    }

    fn write(&mut self, address: u64, word: u64) -> std::result::Result<(), Stop> {
        self.access(address, Some(word)).map(|_| ())
    }

    fn relax(&mut self) -> std::result::Result<(), Stop> {
        self.look_at_clock()?;
        std::thread::yield_now();
        Ok(())
    }
}
