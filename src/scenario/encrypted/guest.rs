// SPDX-License-Identifier: GPL-2.0-only
//! What an encrypted guest does with its private pages.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Attribute;
use crate::clause::ClauseId;
use crate::exec::{CaseEnd, guest_stop, is_accepted_already};
use crate::payload::abi::PRIVATE_WINDOW;
use crate::platform::{Answer, Commands, GuestCommand, GuestStop};
use crate::scenario::arena::{GuestSide, is_over, place};
use crate::scenario::memory::{Memory, describe};
use crate::uapi::PAGE_SIZE;

/// Vectors of the exceptions that a guest gets at a page that is not its own: #VE, #VC.
const NOT_THE_GUESTS: [u64; 2] = [20, 29];

/// How long an access may go on to meet private pages when nobody converts any more.
const LAST_TRY: Duration = Duration::from_secs(1);

/// The clause that acceptance is about.
const ACCEPTANCE: ClauseId = ClauseId::CocoAcceptance;

impl<G: Commands> GuestSide<G> {
    /// The guest accepts `pages`, which are private and are not accepted.
    pub fn accept(&mut self, memory: &Memory, pages: &Range<u64>) -> Result<(), CaseEnd> {
        let (address, length, _) = place(pages);
        let command = GuestCommand::Accept { address: address + PRIVATE_WINDOW, length };
        self.settle(memory, command, "accept", pages)
    }

    /// The guest accepts those of `pages`, which are private, that nobody has accepted: which these were.
    pub fn accept_the_rest(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
    ) -> Result<Vec<u64>, CaseEnd> {
        let mut accepted = Vec::new();
        let mut left = pages.clone();
        while !left.is_empty() {
            let (address, length, _) = place(&left);
            let command = GuestCommand::Accept { address: address + PRIVATE_WINDOW, length };
            let Some(refusal) = self.private_command(memory, command, "accept", &left)?.refusal
            else {
                accepted.extend(left);
                break;
            };
            let page = left.start + refusal.offset / PAGE_SIZE;
            if !is_accepted_already(memory.platform, refusal.status) {
                return Err(refused("accept", page, refusal.status));
            }
            accepted.extend(left.start..page);
            left.start = page + 1;
        }
        Ok(accepted)
    }

    /// The guest gives up `pages`, which it has accepted, before they become shared.
    pub fn give_up(&mut self, memory: &Memory, pages: &Range<u64>) -> Result<(), CaseEnd> {
        let (address, length, _) = place(pages);
        let command = GuestCommand::Rescind { address: address + PRIVATE_WINDOW, length };
        self.settle(memory, command, "rescind", pages)
    }

    fn settle(
        &mut self,
        memory: &Memory,
        command: GuestCommand,
        doing: &str,
        pages: &Range<u64>,
    ) -> Result<(), CaseEnd> {
        let Some(refusal) = self.private_command(memory, command, doing, pages)?.refusal else {
            return Ok(());
        };
        Err(refused(doing, pages.start + refusal.offset / PAGE_SIZE, refusal.status))
    }

    /// The guest writes the pattern `tag` into private pages that it has accepted.
    pub fn fill_private(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        tag: u64,
    ) -> Result<(), CaseEnd> {
        let (address, length, first_page) = place(pages);
        let command =
            GuestCommand::Fill { address: address + PRIVATE_WINDOW, length, tag, first_page };
        self.private_command(memory, command, "write", pages).map(drop)
    }

    /// The guest must find the pattern `tag` in private pages that it has accepted; `clause` says so.
    pub fn check_private(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        tag: u64,
        clause: ClauseId,
    ) -> Result<(), CaseEnd> {
        let (address, length, first_page) = place(pages);
        let command =
            GuestCommand::Check { address: address + PRIVATE_WINDOW, length, tag, first_page };
        let answer = self.private_command(memory, command, "read", pages)?;
        let Some(mismatch) = answer.mismatch else {
            return Ok(());
        };
        let page = pages.start + mismatch.offset / PAGE_SIZE;
        Err(CaseEnd::broken(clause, format!("guest finds another word in its private page {page}"))
            .but(format!("{:#018x}", mismatch.expected), format!("{:#018x}", mismatch.found))
            .at("guest", page, Some(mismatch.offset % PAGE_SIZE)))
    }

    /// A command about private pages. A guest to which they do not belong cannot go on.
    fn private_command(
        &mut self,
        memory: &Memory,
        command: GuestCommand,
        doing: &str,
        pages: &Range<u64>,
    ) -> Result<Answer, CaseEnd> {
        let _pass = memory.pass();
        let deadline = Instant::now() + self.deadline;
        self.guest.command(command, deadline).map_err(|stop| taken(stop, doing, pages))
    }

    /// The guest writes the pattern `tag` into `pages` and reads them, as shared memory, while they become private and shared
    /// again. An access that meets a private page exits; it goes on when the page is shared, which none is left without when
    /// the race is over.
    pub fn use_shared(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        tag: u64,
        over: &AtomicBool,
    ) -> Result<(), CaseEnd> {
        let (address, length, first_page) = place(pages);
        let gpas = address..address + length;
        self.guest.set_memory_fault_retries(0);
        for (command, doing) in [
            (GuestCommand::Fill { address, length, tag, first_page }, "write"),
            (GuestCommand::Touch { address, length }, "read"),
        ] {
            let _pass = memory.pass();
            let mut deadline = Instant::now() + self.deadline;
            let mut answer = self.guest.command(command, deadline);
            while let Err(GuestStop::MemoryFault { flags: 0, gpa, size: PAGE_SIZE }) = &answer
                && gpas.contains(gpa)
                && Instant::now() < deadline
            {
                thread::yield_now();
                if is_over(over) {
                    deadline = deadline.min(Instant::now() + LAST_TRY);
                }
                answer = self.guest.resume(deadline);
            }
            answer.map_err(|stop| guest_stop(stop, doing, first_page))?;
        }
        Ok(())
    }

    /// The guest asks for a conversion without a mode, and the host makes it as far as it is asked to at a time.
    pub fn request(
        &mut self,
        memory: &Memory,
        pages: &Range<u64>,
        to: Attribute,
    ) -> Result<(), CaseEnd> {
        let (gpa, length, _) = place(pages);
        let private = to == Attribute::Private;
        let wrong = |what: String| {
            let what = format!("{what} when the guest asks for {}", describe(pages, to));
            Err(CaseEnd::broken(ClauseId::CocoGuestConverts, what).at("guest", pages.start, None))
        };
        let command = GuestCommand::PageState { gpa, length, private, by_msr: false };
        let mut next = pages.start;
        let mut answer = self.guest.command(command, Instant::now() + self.deadline);
        loop {
            match answer {
                Ok(Answer { refusal: None, .. }) if next == pages.end => return Ok(()),
                Ok(answer) => return wrong(format!("the answer is {answer:?} at page {next}")),
                Err(GuestStop::MapGpa { gpa: at, pages: count, private: wanted, .. }) => {
                    let expected = gpa + (next - pages.start) * PAGE_SIZE;
                    if at != expected
                        || wanted != private
                        || !(1..=pages.end - next).contains(&count)
                    {
                        return wrong(format!(
                            "KVM_EXIT_HYPERCALL is about {count} pages at {at:#x}, private: {wanted},"
                        ));
                    }
                    memory.convert(&(next..next + count), to, 0)?;
                    next += count;
                    self.guest.set_hypercall_result(0);
                    answer = self.guest.resume(Instant::now() + self.deadline);
                }
                Err(stop) => return Err(guest_stop(stop, "convert", next)),
            }
        }
    }
}

/// The guest could not accept a page, or give it up.
fn refused(doing: &str, page: u64, status: u64) -> CaseEnd {
    let found = format!("{status:#x}");
    let summary = format!("guest cannot {doing} page {page}: {found}");
    CaseEnd::broken(ACCEPTANCE, summary).at("guest", page, None).but("success", found)
}

/// The guest could not go on with private pages that are its own.
fn taken(stop: GuestStop, doing: &str, pages: &Range<u64>) -> CaseEnd {
    let not_the_guests = match &stop {
        GuestStop::Dead | GuestStop::MemoryFault { .. } => true,
        GuestStop::Exception { vector, .. } => NOT_THE_GUESTS.contains(vector),
        _ => false,
    };
    if !not_the_guests {
        return guest_stop(stop, doing, pages.start);
    }
    let (start, end) = (pages.start, pages.end);
    let summary = format!("guest cannot {doing} pages {start}..{end}, which are its own: {stop}");
    CaseEnd::broken(ACCEPTANCE, summary).at("guest", start, None)
}
