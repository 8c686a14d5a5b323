// SPDX-License-Identifier: GPL-2.0-only
//! The platform half of the command loop: how the vCPU's instructions reach memory.

use std::collections::{BTreeSet, HashMap};
use std::mem::offset_of;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::memslot::Target;
use super::vm::VmState;
use crate::machine::Exit;
use crate::payload::abi::{IMAGE, MAILBOX, Mailbox};
use crate::payload::command_loop::Cpu;
use crate::uapi::{KVM_MEMORY_EXIT_FLAG_PRIVATE, PAGE_SIZE};

/// Where the guest virtual addresses of guests that are not encrypted stop being mapped. The tables of encrypted ones are
/// walked.
const MAPPED_END: u64 = 1 << 46;
/// Size of every access of the command loop, in bytes.
const ACCESS: u32 = 8;

/// After so many accesses a command looks at the clock, so that a long one ends with its deadline, too.
const ACCESSES_PER_LOOK: u32 = 1 << 16;

/// Vectors of the exceptions that an access can raise.
const ALIGNMENT_CHECK: u64 = 17;
const PAGE_FAULT: u64 = 14;
/// The bit of a page fault's error code that says it was a write.
const PAGE_FAULT_WRITE: u64 = 1 << 1;

/// Why the command loop stopped in the middle of a command.
pub(super) enum VcpuStop {
    Exit(Exit),
    Exception { vector: u64, error_code: u64, address: u64 },
}

pub(super) type Result<T> = std::result::Result<T, VcpuStop>;

/// What a vCPU remembers when it leaves the guest in the middle of a command. The command is executed from its start when
/// it runs again, and must not do twice what can be done only once.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// The accesses that were completed as MMIO: address, and whether a write.
    completed: BTreeSet<(u64, bool)>,
    /// Whether an access that is MMIO has been taken for a missing page, for a bug that does so once a command.
    faulted: bool,
    /// The results of the instructions that change something else than memory, in order.
    results: Vec<u64>,
    /// Of an encrypted guest: which physical page is at a virtual one, and whether it is the private alias. Its page tables
    /// do not change.
    pub(super) translations: HashMap<u64, (u64, bool)>,
}

impl Memo {
    /// Forgets what belongs to the command that has ended.
    pub(super) fn end_of_command(&mut self) {
        self.completed.clear();
        self.faulted = false;
        self.results.clear();
    }

    /// The result of the instruction that the host has just completed.
    pub(super) fn push(&mut self, result: u64) {
        self.results.push(result);
    }
}

/// The platform half of the command loop.
pub(super) struct Core<'a> {
    pub(super) vm: &'a VmState,
    pub(super) memo: &'a mut Memo,
    /// Of an encrypted guest: where its page tables are.
    pub(super) cr3: u64,
    deadline: Instant,
    accesses: u32,
    /// How many of the memo's results have been used.
    replayed: usize,
    /// Where the last page state change was refused.
    pub(super) refused_at: u64,
}

impl<'a> Core<'a> {
    /// A vCPU that enters the guest.
    pub(super) fn new(
        vm: &'a VmState,
        memo: &'a mut Memo,
        cr3: u64,
        deadline: Instant,
    ) -> Core<'a> {
        Core { vm, memo, cr3, deadline, accesses: 0, replayed: 0, refused_at: 0 }
    }

    /// The exception handler of the payload.
    pub(super) fn report_exception(
        &mut self,
        vector: u64,
        error_code: u64,
        cr2: u64,
    ) -> Result<()> {
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
    fn look_at_clock(&self) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(VcpuStop::Exit(Exit::Interrupted));
        }
        Ok(())
    }

    /// One access: reads the word, or writes `word` and returns it.
    fn access(&mut self, address: u64, word: Option<u64>) -> Result<u64> {
        let write = word.is_some();
        self.accesses += 1;
        if self.accesses.is_multiple_of(ACCESSES_PER_LOOK) {
            self.accesses = 0;
            self.look_at_clock()?;
        }
        let encrypted = self.vm.vm_type.is_encrypted();
        if address >= MAPPED_END && !encrypted {
            return Err(page_fault(address, write));
        }
        if !address.is_multiple_of(u64::from(ACCESS)) {
            return Err(VcpuStop::Exception { vector: ALIGNMENT_CHECK, error_code: 0, address });
        }
        if encrypted {
            return self.encrypted_access(address, word);
        }
        if self.memo.completed.contains(&(address, write)) {
            return Ok(word.unwrap_or(0));
        }
        let fault = |private| memory_fault(address, private);
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
                if self.vm.hook_mmio_faults_first(&mut self.memo.faulted) {
                    return Err(memory_fault(address, false));
                }
                // It is complete when the vCPU runs again, which starts the command anew.
                self.memo.completed.insert((address, write));
                let gpa = self.vm.hook_mmio_address(address);
                return Err(VcpuStop::Exit(Exit::Mmio { gpa, length: ACCESS, write }));
            }
            Target::Fault(private) => {
                let (gpa, private) = self.vm.hook_memory_fault(address, private);
                return Err(memory_fault(gpa, private));
            }
        }
        Ok(word.unwrap_or(0))
    }
}

impl Core<'_> {
    /// Executes an instruction that changes something else than memory, unless this command has executed it before.
    pub(super) fn once(&mut self, execute: impl FnOnce(&mut Self) -> Result<u64>) -> Result<u64> {
        let result = match self.memo.results.get(self.replayed) {
            Some(result) => *result,
            None => {
                let result = execute(self)?;
                self.memo.results.push(result);
                result
            }
        };
        self.replayed += 1;
        Ok(result)
    }
}

/// The exception for an address that is not mapped.
pub(super) fn page_fault(address: u64, write: bool) -> VcpuStop {
    let error_code = if write { PAGE_FAULT_WRITE } else { 0 };
    VcpuStop::Exception { vector: PAGE_FAULT, error_code, address }
}

/// The exit for an access to a page that is not what the access needs it to be.
pub(super) fn memory_fault(gpa: u64, private: bool) -> VcpuStop {
    VcpuStop::Exit(Exit::MemoryFault {
        flags: if private { u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE) } else { 0 },
        gpa: gpa / PAGE_SIZE * PAGE_SIZE,
        size: PAGE_SIZE,
    })
}

impl Cpu for Core<'_> {
    type Stop = VcpuStop;

    fn read(&mut self, address: u64) -> Result<u64> {
        self.access(address, None)
    }

    fn write(&mut self, address: u64, word: u64) -> Result<()> {
        self.access(address, Some(word)).map(|_| ())
    }

    fn relax(&mut self) -> Result<()> {
        self.look_at_clock()?;
        std::thread::yield_now();
        Ok(())
    }

    fn accept(&mut self, address: u64) -> Result<u64> {
        self.validate(address, true)
    }

    fn rescind(&mut self, address: u64) -> Result<u64> {
        self.validate(address, false)
    }

    fn page_state_change(
        &mut self,
        gpa: u64,
        length: u64,
        private: bool,
        by_msr: bool,
    ) -> Result<u64> {
        self.request_page_state(gpa, length, private, by_msr)
    }

    fn raw_request(&mut self, operation: u64, address: u64, length: u64) -> Result<[u64; 2]> {
        self.request_raw(operation, address, length)
    }

    fn refused_at(&self) -> u64 {
        self.refused_at
    }
}
