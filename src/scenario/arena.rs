// SPDX-License-Identifier: GPL-2.0-only
//! What a scenario runs in: a VM, its guest, and a guest_memfd.

use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::memory::Memory;
use crate::clause::ClauseId;
use crate::exec::{
    CaseEnd, Setup, failed, guard, guest_stop, launch_failed, map_all, new_file, whole_slot,
};
use crate::oracle::PageBytes;
use crate::payload::abi::TEST_MEMORY;
use crate::platform::{Answer, Commands, Guest, GuestCommand, GuestCpu};
use crate::results::Blame;
use crate::uapi::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, PAGE_SIZE, byte_length};

/// How often one command of the guest may meet a conversion. A round trip takes at least as long as a conversion, so a
/// guest that needs more is not making progress.
const MEMORY_FAULT_RETRIES: u32 = 10_000;

/// When a race ends, however slow the machine: there are several, and a quick run has seconds for all of its cases.
const TIME: Duration = Duration::from_millis(150);

/// A guest and the memory under test. Dropped in this order: first who uses the memory.
pub(crate) struct Arena {
    pub(super) guest: GuestSide,
    pub(super) memory: Memory,
    /// What was seen where nothing is promised: what, and how it was.
    observations: Vec<(&'static str, String)>,
}

/// The guest, or one of its vCPUs.
pub(super) struct GuestSide<G = Guest> {
    pub(super) guest: G,
    /// How long it may take for one command.
    pub(super) deadline: Duration,
}

impl Arena {
    /// Launches a guest with a guest_memfd of `pages` shared pages, mapped by the guest and by the host.
    /// An encrypted guest may have several vCPUs.
    pub(super) fn new(setup: &Setup<'_>, pages: u64, vcpus: u32) -> Result<Arena, CaseEnd> {
        guard::install().map_err(|e| failed("sigaction", e))?;
        let Setup { machine, platform, guest_deadline, .. } = *setup;
        let launched = Guest::launch_several(machine, platform, vcpus, guest_deadline);
        let mut guest = launched.map_err(|e| launch_failed(&e))?;
        guest.set_memory_fault_retries(MEMORY_FAULT_RETRIES);
        let size = pages * PAGE_SIZE;
        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let gmem = new_file(guest.vm(), size, flags)?;
        let view = map_all(&*gmem, size)?;
        let memory = Memory {
            view,
            gmem,
            dialect: setup.dialect,
            platform: setup.platform,
            pages,
            gate: RwLock::new(()),
            was_refused: AtomicBool::new(false),
        };
        let region = whole_slot(&*memory.gmem, &*memory.view);
        // From here on the order of the fields sees to it that the VM goes before the mapping.
        let guest = GuestSide { guest, deadline: setup.guest_deadline };
        let mut arena = Arena { guest, memory, observations: Vec::new() };
        let guest = &mut arena.guest.guest;
        // SAFETY: the view is mapped for as long as the VM exists, and is accessed through raw pointers only.
        unsafe { guest.vm().set_user_memory_region2(&region) }
            .map_err(|e| failed("KVM_SET_USER_MEMORY_REGION2", e))?;
        guest.map(TEST_MEMORY, size).map_err(|e| launch_failed(&e))?;
        Ok(arena)
    }

    /// Records what was seen where nothing is promised.
    pub(super) fn observe(&mut self, what: &'static str, seen: impl ToString) {
        self.observations.push((what, seen.to_string()));
    }

    /// What was observed.
    pub(super) fn take_observations(&mut self) -> Vec<(&'static str, String)> {
        if self.memory.was_refused.load(Ordering::Relaxed) {
            self.observe("transient-eagain", "yes");
        }
        std::mem::take(&mut self.observations)
    }
}

impl GuestSide {
    /// Every vCPU, each to be used by a thread of its own.
    pub fn cpus(&mut self) -> Vec<GuestSide<GuestCpu<'_>>> {
        let deadline = self.deadline;
        let side = |guest| GuestSide { guest, deadline };
        self.guest.cpus().into_iter().map(side).collect()
    }

    /// What the guest reads in a page.
    pub fn copy(&mut self, memory: &Memory, page: u64) -> Result<PageBytes, CaseEnd> {
        let address = TEST_MEMORY + page * PAGE_SIZE;
        self.command(memory, GuestCommand::CopyOut { address }, "read", page)?;
        let mut bytes = [0; PAGE_SIZE as usize];
        self.guest.copy_buffer(&mut bytes);
        Ok(bytes)
    }
}

impl<G: Commands> GuestSide<G> {
    fn command(
        &mut self,
        memory: &Memory,
        command: GuestCommand,
        doing: &str,
        page: u64,
    ) -> Result<Answer, CaseEnd> {
        let _pass = memory.pass();
        let deadline = Instant::now() + self.deadline;
        self.guest.command(command, deadline).map_err(|stop| guest_stop(stop, doing, page))
    }

    /// The guest writes the pattern `tag` into `pages`.
    pub fn fill(&mut self, memory: &Memory, pages: &Range<u64>, tag: u64) -> Result<(), CaseEnd> {
        let (address, length, first_page) = place(pages);
        let command = GuestCommand::Fill { address, length, tag, first_page };
        self.command(memory, command, "write", first_page).map(drop)
    }

    /// Whether the guest finds the pattern `tag` in `pages`.
    pub fn finds(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        tag: u64,
    ) -> Result<Result<(), (u64, u64, u64)>, CaseEnd> {
        let (address, length, first_page) = place(pages);
        let command = GuestCommand::Check { address, length, tag, first_page };
        let answer = self.command(memory, command, "read", first_page)?;
        Ok(match answer.mismatch {
            None => Ok(()),
            Some(mismatch) => Err((mismatch.offset, mismatch.expected, mismatch.found)),
        })
    }

    /// The guest must find the pattern `tag` in `pages`; `clause` says so.
    pub fn check(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        tag: u64,
        clause: ClauseId,
    ) -> Result<(), CaseEnd> {
        let Err((offset, expected, found)) = self.finds(memory, pages, tag)? else {
            return Ok(());
        };
        let page = pages.start + offset / PAGE_SIZE;
        Err(CaseEnd::broken(clause, format!("guest finds another word in page {page}"))
            .but(format!("{expected:#018x}"), format!("{found:#018x}"))
            .at("guest", page, Some(offset % PAGE_SIZE)))
    }
}

/// Guest address, length and first page of `pages`; an encrypted guest's of their shared alias.
pub(super) fn place(pages: &Range<u64>) -> (u64, u64, u64) {
    (TEST_MEMORY + pages.start * PAGE_SIZE, byte_length(pages), pages.start)
}

/// One side of a race; it ends soon once the flag is set.
pub(super) type Racer<'a> = Box<dyn FnOnce(&AtomicBool) -> Result<(), CaseEnd> + Send + 'a>;

/// Runs `others`, each in a thread of its own, and `main` in this one. When the first returns, the race is over. The
/// error is the first of main's and the others', in this order.
pub(super) fn race(
    others: Vec<Racer<'_>>,
    main: impl FnOnce(&AtomicBool) -> Result<(), CaseEnd>,
) -> Result<(), CaseEnd> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let threads: Vec<_> = others
            .into_iter()
            .map(|other| {
                scope.spawn(move || {
                    let _end = End(over);
                    other(over)
                })
            })
            .collect();
        let mut result = {
            let _end = End(over);
            main(over)
        };
        for thread in threads {
            result = result.and(thread.join().unwrap_or_else(|_| {
                Err(CaseEnd::error(Blame::Suite, "a thread of the scenario panicked"))
            }));
        }
        result
    })
}

/// Ends a race when dropped, also by a panic: nobody must wait for who is gone.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a race is over.
pub(super) fn is_over(over: &AtomicBool) -> bool {
    over.load(Ordering::Relaxed)
}

/// The rounds of a race: at least one, `limit` at most, until it is over or has taken long enough.
pub(super) fn rounds(limit: u64, over: &AtomicBool) -> impl Iterator<Item = u64> {
    let start = Instant::now();
    (0..limit).take_while(move |round| *round == 0 || !is_over(over) && start.elapsed() < TIME)
}
