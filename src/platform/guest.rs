// SPDX-License-Identifier: GPL-2.0-only
//! A running guest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cpu::{GuestCpu, Progress};
use super::encrypted::LaunchPages;
use super::kind::Platform;
use super::launch_error::{LaunchError, call};
use super::launcher::{self, Created, Launcher, Parts};
use super::mailbox::{Answer, GuestCommand, Mismatch};
use super::memory::PayloadMemory;
use super::stop::GuestStop;
use super::{plain, spin};
use crate::errno::Errno;
use crate::machine::{Exit, Machine, Vcpu, Vm};
use crate::payload::abi::{CHECK_RANGES, COPY_BUFFER, CheckRange, IMAGE, LIST_WORDS, PAYLOAD_SIZE};
use crate::uapi::PAGE_SIZE;

/// Number of the memslot that the payload is in; chosen arbitrarily, clear of those that cases use.
pub const PAYLOAD_SLOT: u32 = 9;

/// Number of the memslot that a TD starts in; as arbitrary.
pub const RESET_SLOT: u32 = 10;

/// How often [`Guest::reset`] lets KVM complete what an exit left open. One is enough for every exit of a payload; an MMIO
/// access across a page boundary would take two.
const SETTLE_TRIES: u32 = 4;

/// Numbers of the memslots of further vCPUs' payloads: from this one on.
const FURTHER_SLOTS: u32 = RESET_SLOT + 1;

/// A VM with a vCPU that runs the payload; an encrypted guest may have several, each with a payload of its own.
pub struct Guest {
    // Dropped in this order: no vCPU, then no VM, then no memory.
    vcpu: Box<dyn Vcpu>,
    /// Further vCPUs.
    others: Vec<(Box<dyn Vcpu>, Progress)>,
    vm: Box<dyn Vm>,
    memory: PayloadMemory,
    /// What the further vCPUs' payloads lie in, in their order.
    other_memories: Vec<PayloadMemory>,
    launcher: Box<dyn Launcher>,
    progress: Progress,
}

/// The arguments of one launch call, and what KVM makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchCall {
    /// Guest physical address. An SNP guest's is a multiple of a page.
    pub gpa: u64,
    /// Address of the contents in this process; 0 for in place.
    pub source: u64,
    /// SNP: bytes. TDX: pages.
    pub length: u64,
    /// SNP: the type of the pages.
    pub page_type: u8,
    /// Flags of the call.
    pub flags: u32,
}

/// Launches of encrypted guests that this process has begun.
static LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// How many launches of encrypted guests this process has begun. They are dear: firmware, keys and ASIDs take part.
pub fn launches() -> u64 {
    LAUNCHES.load(Ordering::Relaxed)
}

/// Tries whether the launch calls of an encrypted platform's guests take a page without a source. The error is theirs where
/// it has an errno.
pub fn try_launch_in_place(machine: &dyn Machine, platform: Platform) -> Result<(), LaunchError> {
    /// How long the trial may be busy.
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    let mut guest = Guest::begin(machine, platform, deadline)?;
    // A page of the payload's memory that is not part of its launch. The guest never runs.
    let gpas = COPY_BUFFER..COPY_BUFFER + PAGE_SIZE;
    super::encrypted::make_private(&guest.memory, gpas.clone())?;
    guest.launch_pages(&LaunchPages::new(gpas, None), deadline)
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
        let mut guest = Guest::begin(machine, platform, deadline)?;
        guest.finish(deadline)?;
        Ok(guest)
    }

    /// The same, of an encrypted `platform` with `vcpus` vCPUs, each of which waits for commands: see [`Guest::cpus`].
    pub fn launch_several(
        machine: &dyn Machine,
        platform: Platform,
        vcpus: u32,
        timeout: Duration,
    ) -> Result<Guest, LaunchError> {
        let deadline = Instant::now() + timeout;
        let mut guest = Guest::begin_several(machine, platform, vcpus, deadline)?;
        guest.finish(deadline)?;
        for cpu in guest.cpus().iter_mut().skip(1) {
            let ready = cpu.progress.wait_until_ready(cpu.vcpu, cpu.memory, deadline);
            ready.map_err(LaunchError::StoppedAfterLaunch)?;
        }
        Ok(guest)
    }

    /// Creates a VM of `platform` with one vCPU. What remains to be done is [`Guest::finish`]; until then an encrypted
    /// guest's launch takes more pages.
    pub fn begin(
        machine: &dyn Machine,
        platform: Platform,
        deadline: Instant,
    ) -> Result<Guest, LaunchError> {
        Guest::begin_several(machine, platform, 1, deadline)
    }

    fn begin_several(
        machine: &dyn Machine,
        platform: Platform,
        vcpus: u32,
        deadline: Instant,
    ) -> Result<Guest, LaunchError> {
        let mut slots = vec![PAYLOAD_SLOT];
        slots.extend(FURTHER_SLOTS..FURTHER_SLOTS + vcpus.saturating_sub(1));
        if platform.is_encrypted() {
            LAUNCHES.fetch_add(1, Ordering::Relaxed);
        }
        let Created { parts, launcher } = launcher::create(machine, platform, &slots, deadline)?;
        let Parts { mut vcpus, vm, mut memories } = parts;
        let mut guest = Guest {
            vcpu: vcpus.remove(0),
            others: vcpus.into_iter().map(|vcpu| (vcpu, Progress::new())).collect(),
            vm,
            memory: memories.remove(0),
            other_memories: memories,
            launcher,
            progress: Progress::new(),
        };
        if guest.can_reset() {
            guest.map(0, PAYLOAD_SIZE)?;
        }
        Ok(guest)
    }

    /// Finishes the launch, and runs the guest until the payload waits for its first command.
    pub fn finish(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        if self.can_reset() {
            return self.start(deadline);
        }
        self.finish_only(deadline)?;
        self.wait_until_ready(deadline).map_err(|error| match error {
            LaunchError::Stopped(stop) => LaunchError::StoppedAfterLaunch(stop),
            error => error,
        })
    }

    /// Makes private pages part of the launch of an encrypted guest. The guest has not to accept them.
    pub fn launch_pages(
        &mut self,
        pages: &LaunchPages,
        deadline: Instant,
    ) -> Result<(), LaunchError> {
        self.launcher.add_pages(&*self.vm, &*self.vcpu, pages, deadline)
    }

    /// Makes one launch call as it is, and has in `call` what KVM writes back.
    pub fn launch_once(&mut self, call: &mut LaunchCall) -> Result<(), LaunchError> {
        self.launcher.add_once(&*self.vm, &*self.vcpu, call)
    }

    /// The call that finishes the launch, and nothing else: the guest does not run.
    pub fn finish_only(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        self.launcher.finish(&*self.vm, deadline)
    }

    /// The VM, for memslots and guest_memfds.
    pub fn vm(&self) -> &dyn Vm {
        &*self.vm
    }

    /// Maps the guest virtual addresses `gpa..gpa + size` to the same guest physical addresses, in units of 2 MiB. To be
    /// called before the guest accesses them; again is a no-op. An encrypted guest has both aliases of the test memory
    /// mapped from the start, and nothing can be added.
    pub fn map(&mut self, gpa: u64, size: u64) -> Result<(), LaunchError> {
        let mapped = self.launcher.map(&mut self.memory, gpa, size);
        mapped.map_err(|_| LaunchError::NoRoom { gpa, size })
    }

    /// Lets one command survive `retries` exits with `KVM_EXIT_MEMORY_FAULT`: while conversions go on all the time, each
    /// access of it may meet one.
    pub fn set_memory_fault_retries(&mut self, retries: u32) {
        self.progress.memory_fault_retries = retries;
    }

    /// Every vCPU, each to be used by a thread of its own.
    pub fn cpus(&mut self) -> Vec<GuestCpu<'_>> {
        let (vcpu, memory) = (&mut *self.vcpu, &mut self.memory);
        let first = GuestCpu { vcpu, memory, progress: &mut self.progress };
        let others = self.others.iter_mut().zip(&mut self.other_memories);
        let others = others.map(|((vcpu, progress), memory)| GuestCpu {
            vcpu: &mut **vcpu,
            memory,
            progress,
        });
        std::iter::once(first).chain(others).collect()
    }

    /// Has the guest execute `command`.
    ///
    /// After an error the guest is somewhere inside the command, and takes no other until [`Guest::reset`] or until
    /// [`Guest::resume`] has had it end this one. Some errors are no failures: [`GuestStop::MapGpa`] is the guest's request
    /// for a conversion, which the caller makes or not, answers with [`Guest::set_hypercall_result`] and resumes;
    /// [`GuestStop::MemoryFault`] is what an encrypted guest's access through the wrong alias ends with.
    pub fn command(
        &mut self,
        command: GuestCommand,
        deadline: Instant,
    ) -> Result<Answer, GuestStop> {
        self.progress.command(&mut *self.vcpu, &mut self.memory, command, deadline)
    }

    /// As [`Guest::command`], for an access that nothing races with: `KVM_EXIT_MEMORY_FAULT` is told the first time.
    pub fn command_without_retries(
        &mut self,
        command: GuestCommand,
        deadline: Instant,
    ) -> Result<Answer, GuestStop> {
        let retries = std::mem::replace(&mut self.progress.memory_fault_retries, 0);
        let answer = self.command(command, deadline);
        self.progress.memory_fault_retries = retries;
        answer
    }

    /// `KVM_PRE_FAULT_MEMORY`, as [`Vcpu::pre_fault_memory`].
    pub fn pre_fault(&self, gpa: u64, size: u64) -> Result<u64, Errno> {
        self.vcpu.pre_fault_memory(gpa, size)
    }

    /// Runs the guest on in the command that the last error has left open.
    pub fn resume(&mut self, deadline: Instant) -> Result<Answer, GuestStop> {
        self.progress.resume(&mut *self.vcpu, &self.memory, deadline)
    }

    /// After [`GuestStop::MapGpa`]: what the guest's request returns when it is resumed, as a positive error number. 0,
    /// unless this is called. KVM lets encrypted guests be told 0, EINVAL and EAGAIN only.
    pub fn set_hypercall_result(&mut self, result: u64) {
        self.vcpu.set_hypercall_result(result);
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
            let command = GuestCommand::CheckList { ranges: some.len() as u64 };
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

    /// Leaves what [`GuestCommand::RawList`] fills the GHCB's shared buffer with.
    pub fn put_list(&mut self, words: &[u64; LIST_WORDS as usize]) {
        for (word, gpa) in words.iter().zip((COPY_BUFFER..).step_by(8)) {
            self.memory.write(gpa, *word);
        }
    }

    /// What the last [`GuestCommand::RawList`] has found in the GHCB's shared buffer.
    pub fn list(&self) -> [u64; LIST_WORDS as usize] {
        std::array::from_fn(|word| self.memory.read(COPY_BUFFER + word as u64 * 8))
    }

    /// Guest physical address of the shared bit of a TD, which its requests have in their addresses.
    pub fn shared_bit(&self) -> u64 {
        self.launcher.shared_bit()
    }

    /// The page that the last [`GuestCommand::CopyOut`] copied.
    pub fn copy_buffer(&self, out: &mut [u8; 4096]) {
        for (word, gpa) in out.chunks_exact_mut(8).zip((COPY_BUFFER..).step_by(8)) {
            word.copy_from_slice(&self.memory.read(gpa).to_le_bytes());
        }
    }

    /// Whether [`Guest::reset`] can do anything: not for an encrypted guest, whose registers are its own.
    pub fn can_reset(&self) -> bool {
        self.launcher.can_reset()
    }

    /// Starts the payload anew, wherever the vCPU is. Memory other than the payload's image keeps its contents.
    pub fn reset(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        if !self.can_reset() {
            return Err(LaunchError::CannotReset);
        }
        self.progress.ready = false;
        self.progress.stopped = false;
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
        self.wait_until_ready(deadline)
    }

    /// Runs the payload until it waits for a command.
    fn wait_until_ready(&mut self, deadline: Instant) -> Result<(), LaunchError> {
        let ready = self.progress.wait_until_ready(&mut *self.vcpu, &self.memory, deadline);
        ready.map_err(LaunchError::Stopped)
    }
}
