// SPDX-License-Identifier: GPL-2.0-only
//! A running guest.

use std::fmt;
use std::time::{Duration, Instant};

use super::kind::Platform;
use super::mailbox::{self, Answer, Command};
use super::memory::PayloadMemory;
use super::page_tables::PageTables;
use super::plain;
use crate::errno::Errno;
use crate::machine::{Exit, Machine, Vcpu, Vm};
use crate::payload::abi::{COPY_BUFFER, DOORBELL_PORT, IMAGE, PAYLOAD_SIZE, doorbell};

/// Number of the memslot that the payload is in; chosen arbitrarily, clear of those that cases use.
pub const PAYLOAD_SLOT: u32 = 9;

/// How often a vCPU that exits with `KVM_EXIT_MEMORY_FAULT` is run again. A guest access that races with a conversion may
/// exit so although nothing is wrong, because KVM looks at the attribute twice. Arbitrary: such a race does not repeat.
const MEMORY_FAULT_RETRIES: u32 = 16;

/// How often [`Guest::reset`] lets KVM complete what an exit left open. One is enough for every exit of a payload; an MMIO
/// access across a page boundary would take two.
const SETTLE_TRIES: u32 = 4;

/// A VM with one vCPU that runs the payload.
pub struct Guest {
    // Dropped in this order: no vCPU, then no VM, then no memory.
    vcpu: Box<dyn Vcpu>,
    vm: Box<dyn Vm>,
    memory: PayloadMemory,
    page_tables: PageTables,
    /// Number of the last command.
    sequence: u64,
    /// Whether the vCPU waits for a command, rather than being somewhere inside one.
    ready: bool,
}

/// What a platform's launch sequence makes.
pub(super) struct Created {
    pub(super) vm: Box<dyn Vm>,
    pub(super) vcpu: Box<dyn Vcpu>,
}

impl Guest {
    /// Creates a VM of `platform` with one vCPU, and runs it until the payload waits for its first command, which must
    /// take no longer than `timeout`.
    pub fn launch(
        machine: &dyn Machine,
        platform: Platform,
        timeout: Duration,
    ) -> Result<Guest, LaunchError> {
        let deadline = Instant::now() + timeout;
        let memory = call("map memory for the payload", PayloadMemory::new())?;
        let Created { vm, vcpu } = match platform {
            Platform::Default | Platform::SwProtected => {
                // SAFETY: `memory` goes into the guest, which drops it last; should this fail, the VM goes first.
                unsafe { plain::create(machine, platform, PAYLOAD_SLOT, &memory) }?
            }
        };
        let mut guest = Guest {
            vcpu,
            vm,
            memory,
            page_tables: PageTables::new(),
            sequence: 0,
            ready: false,
        };
        guest.map(0, PAYLOAD_SIZE)?;
        guest.start(deadline)?;
        Ok(guest)
    }

    /// The VM, for memslots and guest_memfds.
    pub fn vm(&self) -> &dyn Vm {
        &*self.vm
    }

    /// Maps the guest virtual addresses `gpa..gpa + size` to the same guest physical addresses, in units of 2 MiB. To be
    /// called before the guest accesses them; again is a no-op.
    pub fn map(&mut self, gpa: u64, size: u64) -> Result<(), LaunchError> {
        let mapped = self.page_tables.map(&mut self.memory, gpa, size);
        mapped.map_err(|_| LaunchError::NoRoom { gpa, size })
    }

    /// Has the guest execute `command`.
    ///
    /// After an error the guest is somewhere inside the command, and takes no other until [`Guest::reset`].
    pub fn command(&mut self, command: Command, deadline: Instant) -> Result<Answer, GuestStop> {
        if !self.ready {
            return Err(GuestStop::Unexpected(
                "the guest has stopped and was not reset".to_string(),
            ));
        }
        self.sequence += 1;
        mailbox::put(&mut self.memory, self.sequence, command);
        self.ready = false;
        let retries = self.run_until(doorbell::DONE, deadline)?;
        let answer = mailbox::take(&self.memory, self.sequence, retries);
        let answer = answer.map_err(GuestStop::BadAnswer)?;
        self.ready = true;
        Ok(answer)
    }

    /// The page that the last [`Command::CopyOut`] copied.
    pub fn copy_buffer(&self, out: &mut [u8; 4096]) {
        for (word, gpa) in out.chunks_exact_mut(8).zip((COPY_BUFFER..).step_by(8)) {
            word.copy_from_slice(&self.memory.read(gpa).to_le_bytes());
        }
    }

    /// Starts the payload anew, wherever the vCPU is. Memory other than the payload's image keeps its contents.
    pub fn reset(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        self.ready = false;
        // KVM would otherwise complete an MMIO read after the registers have been set, and change them again.
        for _ in 0..SETTLE_TRIES {
            if call("run the vCPU with KVM_RUN", self.vcpu.run(Instant::now()))?
                == Exit::Interrupted
            {
                break;
            }
        }
        self.start(deadline)
    }

    /// Loads the payload, enters it, and runs until it is ready.
    fn start(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        self.memory.load(IMAGE, plain::PAYLOAD);
        plain::set_registers(&*self.vcpu)?;
        self.run_until(doorbell::READY, deadline)
            .map_err(LaunchError::Stopped)?;
        self.ready = true;
        Ok(())
    }

    /// Runs the vCPU until it rings the doorbell with `message`; how often that took another try.
    fn run_until(&mut self, message: u32, deadline: Instant) -> Result<u32, GuestStop> {
        let mut retries = 0;
        loop {
            let exit = self.vcpu.run(deadline);
            return Err(match exit.map_err(|e| GuestStop::Failed("KVM_RUN", e))? {
                Exit::IoOut {
                    port: DOORBELL_PORT,
                    data,
                } if data == message => return Ok(retries),
                Exit::IoOut {
                    port: DOORBELL_PORT,
                    data: doorbell::EXCEPTION,
                } => {
                    let [vector, error_code, rip, cr2] = mailbox::exception(&self.memory);
                    GuestStop::Exception {
                        vector,
                        error_code,
                        rip,
                        cr2,
                    }
                }
                Exit::MemoryFault { .. } if retries < MEMORY_FAULT_RETRIES => {
                    retries += 1;
                    continue;
                }
                Exit::MemoryFault { flags, gpa, size } => {
                    GuestStop::MemoryFault { flags, gpa, size }
                }
                Exit::Mmio { gpa, write, .. } => GuestStop::Mmio { gpa, write },
                Exit::Shutdown => GuestStop::Shutdown,
                Exit::Interrupted => GuestStop::Hang {
                    rip: self.vcpu.get_regs().ok().map(|regs| regs.rip),
                },
                other => GuestStop::Unexpected(format!("{other:?}")),
            });
        }
    }
}

/// What happened instead of the guest's answer. Displayed as a noun: "failed to have the guest read page 3: ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestStop {
    /// `KVM_EXIT_MMIO`: an access to an address that no memslot backs.
    Mmio {
        /// Guest physical address.
        gpa: u64,
        /// Whether it was a write.
        write: bool,
    },
    /// `KVM_EXIT_MEMORY_FAULT`, again and again.
    MemoryFault {
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The guest took an exception. Like an answer, this is what the guest says.
    Exception {
        /// Vector.
        vector: u64,
        /// Error code, 0 where the vector has none.
        error_code: u64,
        /// The instruction that faulted.
        rip: u64,
        /// CR2, the address for a page fault.
        cr2: u64,
    },
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    Shutdown,
    /// The deadline passed.
    Hang {
        /// Where the guest was, if the registers can be read.
        rip: Option<u64>,
    },
    /// An exit that nothing here asked for, described.
    Unexpected(String),
    /// A call failed: its name, and why.
    Failed(&'static str, Errno),
    /// The guest rang the doorbell without having answered; what is wrong.
    BadAnswer(String),
}

impl fmt::Display for GuestStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestStop::Mmio { gpa, write } => {
                let access = if *write { "write" } else { "read" };
                write!(
                    f,
                    "KVM_EXIT_MMIO for a {access} at guest physical address {gpa:#x}"
                )
            }
            GuestStop::MemoryFault { flags, gpa, size } => write!(
                f,
                "KVM_EXIT_MEMORY_FAULT at guest physical address {gpa:#x}, {size:#x} bytes, flags {flags:#x}"
            ),
            GuestStop::Exception {
                vector,
                error_code,
                rip,
                cr2,
            } => write!(
                f,
                "exception {vector} in the guest, error code {error_code:#x}, RIP {rip:#x}, CR2 {cr2:#x}"
            ),
            GuestStop::Shutdown => f.write_str("KVM_EXIT_SHUTDOWN, a triple fault"),
            GuestStop::Hang { rip: Some(rip) } => {
                write!(f, "no answer before the deadline, RIP {rip:#x}")
            }
            GuestStop::Hang { rip: None } => f.write_str("no answer before the deadline"),
            GuestStop::Unexpected(exit) => write!(f, "unexpected exit: {exit}"),
            GuestStop::Failed(call, errno) => write!(f, "{call}: {errno}"),
            GuestStop::BadAnswer(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for GuestStop {}

/// Why a guest could not be launched. Displayed to be read after "failed to".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// A call failed.
    Call {
        /// What it was to do, and its name.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The guest's page tables have no room for this range.
    NoRoom {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The payload did not get as far as to wait for a command.
    Stopped(GuestStop),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Call { what, errno } => write!(f, "{what}: {errno}"),
            LaunchError::NoRoom { gpa, size } => {
                write!(
                    f,
                    "map {size:#x} bytes at {gpa:#x} in the guest's page tables"
                )
            }
            LaunchError::Stopped(stop) => write!(f, "start the payload: {stop}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LaunchError::Call { errno, .. } => Some(errno),
            LaunchError::NoRoom { .. } => None,
            LaunchError::Stopped(stop) => Some(stop),
        }
    }
}

/// Says what a call was for when it has failed.
pub(super) fn call<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, LaunchError> {
    result.map_err(|errno| LaunchError::Call { what, errno })
}
