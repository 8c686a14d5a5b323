// SPDX-License-Identifier: GPL-2.0-only
//! A running guest.

use std::fmt;
use std::time::{Duration, Instant};

use super::kind::Platform;
use super::mailbox::{self, Answer, Command, Mismatch};
use super::memory::PayloadMemory;
use super::page_tables::PageTables;
use super::stop::{GuestStop, MEMORY_FAULT_RETRIES, run_until};
use super::{plain, spin};
use crate::errno::Errno;
use crate::machine::{Exit, Machine, Vcpu, Vm};
use crate::payload::abi::{CHECK_RANGES, COPY_BUFFER, CheckRange, IMAGE, PAYLOAD_SIZE, doorbell};

/// Number of the memslot that the payload is in; chosen arbitrarily, clear of those that cases use.
pub const PAYLOAD_SLOT: u32 = 9;

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
    /// How often the vCPU is run again, in one command, after `KVM_EXIT_MEMORY_FAULT`.
    memory_fault_retries: u32,
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
            memory_fault_retries: MEMORY_FAULT_RETRIES,
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

    /// Lets one command survive `retries` exits with `KVM_EXIT_MEMORY_FAULT`: while conversions go on all the time, each
    /// access of it may meet one.
    pub fn set_memory_fault_retries(&mut self, retries: u32) {
        self.memory_fault_retries = retries;
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
        let (vcpu, limit) = (&mut *self.vcpu, self.memory_fault_retries);
        let retries = run_until(vcpu, &self.memory, doorbell::DONE, limit, deadline)?;
        let answer = mailbox::take(&self.memory, self.sequence, retries);
        let answer = answer.map_err(GuestStop::BadAnswer)?;
        self.ready = true;
        Ok(answer)
    }

    /// Has the guest compare ranges of its memory with patterns, in one command for as many as a command takes. The answer
    /// is of the first command that found a difference; [`Mismatch::range`] counts from the first of `ranges`.
    pub fn check(
        &mut self,
        ranges: &[CheckRange],
        deadline: Instant,
    ) -> Result<Option<Mismatch>, GuestStop> {
        for (number, some) in ranges.chunks(CHECK_RANGES).enumerate() {
            for (range, gpa) in some.iter().zip((COPY_BUFFER..).step_by(size_of::<CheckRange>())) {
                let CheckRange { address, length, pattern, first_page } = *range;
                for (word, at) in
                    [address, length, pattern, first_page].into_iter().zip((gpa..).step_by(8))
                {
                    self.memory.write(at, word);
                }
            }
            let command = Command::CheckList { ranges: some.len() as u64 };
            let answer = self.command(command, deadline)?;
            if let Some(mismatch) = answer.mismatch {
                let range = number * CHECK_RANGES + mismatch.range;
                return Ok(Some(Mismatch { range, ..mismatch }));
            }
        }
        Ok(None)
    }

    /// Does `work` while `count` more vCPUs are in the guest, where they do nothing that leaves it. The vCPUs stay created, so
    /// this can be done once, and only for a guest that nothing encrypts.
    pub fn while_others_run<R>(
        &mut self,
        machine: &dyn Machine,
        count: u32,
        deadline: Instant,
        work: impl FnOnce() -> R,
    ) -> Result<R, LaunchError> {
        let cpuid = plain::cpuid(machine)?;
        spin::while_running(&*self.vm, &mut self.memory, &cpuid, count, deadline, work)
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
        plain::set_registers(&*self.vcpu, IMAGE)?;
        let (vcpu, limit) = (&mut *self.vcpu, self.memory_fault_retries);
        run_until(vcpu, &self.memory, doorbell::READY, limit, deadline)
            .map_err(LaunchError::Stopped)?;
        self.ready = true;
        Ok(())
    }
}

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
                write!(f, "map {size:#x} bytes at {gpa:#x} in the guest's page tables")
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
