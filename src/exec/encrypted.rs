// SPDX-License-Identifier: GPL-2.0-only
//! What encrypted guests do besides accessing memory: accept pages, give them up, ask for conversions.

use super::look::guest_stop;
use super::session::{After, Session};
use super::stop::Stop;
use crate::case::{Attribute, Pages, RawConvert, View};
use crate::oracle::PageBytes;
use crate::payload::abi::PRIVATE_WINDOW;
use crate::platform::{Command, GuestStop, Platform, Refusal};
use crate::results::Blame;
use crate::uapi::{KVM_MEMORY_EXIT_FLAG_PRIVATE, PAGE_SIZE};

/// Bytes of the blocks in which plaintext is looked for: what the memory controller encrypts at once is smaller.
const BLOCK: usize = 64;

/// TDG.MEM.PAGE.ACCEPT: the page has been accepted (class and code of TDX_PAGE_ALREADY_ACCEPTED).
const TDX_ALREADY_ACCEPTED: u64 = 0x0b0a;
/// PVALIDATE with the carry flag set: the page was in the wanted state already, as the payload reports it.
const SNP_NO_CHANGE: u64 = 1 << 32;

impl Session<'_> {
    /// Has the guest accept those of `pages` that it is about to use and has not accepted.
    pub fn accept_for_guest(&mut self, pages: impl IntoIterator<Item = u64>) -> Result<(), Stop> {
        if !self.setup.platform.is_encrypted() {
            return Ok(());
        }
        let unaccepted = |page: &u64| {
            self.oracle.must_be_accepted(*page) && self.oracle.slot_of(*page).is_some()
        };
        let pages: Vec<u64> = pages.into_iter().filter(unaccepted).collect();
        let groups = self.groups(pages, |_| ());
        groups.into_iter().try_for_each(|group| self.accept(group))
    }

    /// The case says when, at the latest: a look at what a conversion did may have come first.
    pub fn accept_explicitly(&mut self, pages: &Pages) -> Result<(), Stop> {
        let private = |page: &u64| self.oracle.attribute(*page) == Attribute::Private;
        if !self.setup.platform.is_encrypted() || !pages.clone().all(|page| private(&page)) {
            return Err(suite("the case accepts pages that cannot be accepted".into()));
        }
        self.accept_for_guest(pages.clone())
    }

    /// The case gives up pages that are accepted.
    pub fn rescind_explicitly(&mut self, pages: &Pages) -> Result<(), Stop> {
        if let Some(page) = pages.clone().find(|page| !self.oracle.is_accepted(*page)) {
            return Err(suite(format!("the case rescinds page {page}, which is not accepted")));
        }
        self.rescind(pages.clone())
    }

    /// Has the guest accept private pages that lie next to each other.
    fn accept(&mut self, pages: Pages) -> Result<(), Stop> {
        let mut next = pages.start;
        while next < pages.end {
            let Some(address) = self.guest_address(next) else {
                return Ok(());
            };
            let length = (pages.end - next) * PAGE_SIZE;
            let command = Command::Accept { address, length };
            let done = match self.guest_command(command, "accept", next)?.refusal {
                None => pages.end,
                Some(refusal) => {
                    let page = (next + refusal.offset / PAGE_SIZE).min(pages.end - 1);
                    if !self.oracle.may_be_accepted(page) || !self.is_accepted_already(refusal) {
                        return Err(refused("accept", page, refusal));
                    }
                    page + 1
                }
            };
            for page in next..done {
                self.oracle.accept(page);
                self.touched.insert((page, View::Guest));
            }
            next = done;
        }
        Ok(())
    }

    fn is_accepted_already(&self, refusal: Refusal) -> bool {
        match self.setup.platform {
            Platform::Tdx => refusal.status >> 32 == TDX_ALREADY_ACCEPTED,
            _ => refusal.status == SNP_NO_CHANGE,
        }
    }

    /// Has an SNP guest give up those of `pages` that it has accepted, as it must before they become shared.
    pub fn rescind(&mut self, pages: Pages) -> Result<(), Stop> {
        if self.setup.platform != Platform::Snp || self.oracle.is_guest_lost() {
            return Ok(());
        }
        let accepted: Vec<u64> = pages.filter(|page| self.oracle.is_accepted(*page)).collect();
        for group in self.groups(accepted, |_| ()) {
            let Some(address) = self.guest_address(group.start) else {
                continue;
            };
            let length = (group.end - group.start) * PAGE_SIZE;
            let command = Command::Rescind { address, length };
            if let Some(refusal) = self.guest_command(command, "rescind", group.start)?.refusal {
                let page = (group.start + refusal.offset / PAGE_SIZE).min(group.end - 1);
                return Err(refused("rescind", page, refusal));
            }
            group.for_each(|page| self.oracle.rescind(page));
        }
        Ok(())
    }

    /// The guest asks for a conversion, and the host makes it.
    pub fn guest_convert(&mut self, pages: &Pages, to: Attribute) -> Result<After, Stop> {
        if to == Attribute::Shared {
            self.rescind(pages.clone())?;
        }
        let Some(address) = self.guest_address(pages.start) else {
            return Err(suite("the case has the guest convert pages of no memslot".into()));
        };
        let private = to == Attribute::Private;
        let (gpa, length) = (address & !PRIVATE_WINDOW, (pages.end - pages.start) * PAGE_SIZE);
        let command = Command::PageState { gpa, length, private, by_msr: false };
        let wrong = |page: u64, what: String| {
            Stop::broken("coco.guest-converts", what).at("guest", page, None)
        };
        let mut next = pages.start;
        let mut answer = self.guest.command(command, self.deadline());
        loop {
            match answer {
                Err(GuestStop::MapGpa { gpa: at, pages: count, private: wanted }) => {
                    let expected = gpa + (next - pages.start) * PAGE_SIZE;
                    if at != expected || wanted != private || count == 0 || count > pages.end - next
                    {
                        let asked = if wanted { "private" } else { "shared" };
                        return Err(wrong(
                            next,
                            format!(
                                "KVM_EXIT_HYPERCALL asks for {count} pages from {at:#x} to {asked}"
                            ),
                        )
                        .but(
                            format!(
                                "at most {} pages from {expected:#x} to {to}",
                                pages.end - next
                            ),
                            format!("{count} pages from {at:#x} to {asked}"),
                        ));
                    }
                    let call = RawConvert {
                        offset: next * PAGE_SIZE,
                        size: count * PAGE_SIZE,
                        attributes: to.bits(),
                        ..RawConvert::default()
                    };
                    self.convert(&call, None)?;
                    next += count;
                    self.guest.set_hypercall_result(0);
                    answer = self.guest.resume(self.deadline());
                }
                Err(stop) => return Err(guest_stop(stop, "convert", next)),
                Ok(done) => {
                    if let Some(refusal) = done.refusal {
                        let status = refusal.status;
                        let page = pages.start + refusal.offset / PAGE_SIZE;
                        let what = format!("the guest was told {status:#x} for page {page}");
                        return Err(wrong(page, what));
                    }
                    if next != pages.end {
                        let what = format!("the guest's request ended at page {next}");
                        return Err(wrong(next, what));
                    }
                    return Ok(After::Converted(pages.clone()));
                }
            }
        }
    }

    /// The guest reads a page through the other alias: KVM says which page, and what it would have to be. The guest could
    /// go on only if it became that.
    pub fn wrong_alias(&mut self, page: u64) -> Result<(), Stop> {
        let address = self.guest_address(page).filter(|_| self.setup.platform.is_encrypted());
        let Some(address) = address else {
            return Err(suite(format!("page {page} has no other alias")));
        };
        let flags = match self.oracle.attribute(page) {
            Attribute::Shared => u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE),
            Attribute::Private => 0,
        };
        let gpa = address & !PRIVATE_WINDOW;
        let expected = GuestStop::MemoryFault { flags, gpa, size: PAGE_SIZE };
        let command = Command::Read { address: address ^ PRIVATE_WINDOW };
        let found = match self.guest.command(command, self.deadline()) {
            Err(stop) if stop == expected => {
                self.spoiled = true;
                self.oracle.lose_guest();
                return Ok(());
            }
            Err(stop) => stop.to_string(),
            Ok(answer) => format!("the guest read {:#018x}", answer.found),
        };
        let summary = format!(
            "guest access through the wrong alias to page {page} is not the right KVM_EXIT_MEMORY_FAULT"
        );
        Err(Stop::broken("coco.memory-fault", summary)
            .at("guest", page, None)
            .but(expected.to_string(), found))
    }

    /// Nothing that the guest wrote to a page while it was private may be seen there by the host.
    pub fn must_be_confidential(
        &self,
        view: View,
        page: u64,
        bytes: &PageBytes,
    ) -> Result<(), Stop> {
        if !view.is_mapping() {
            return Ok(());
        }
        let Some(secret) = self.oracle.secret(page) else {
            return Ok(());
        };
        let is_secret = |block: &&[u8]| secret.chunks_exact(BLOCK).any(|s| s == *block);
        let Some(at) = bytes.chunks_exact(BLOCK).position(|block| is_secret(&block)) else {
            return Ok(());
        };
        let summary = format!("{view} sees in page {page} what the guest wrote there in private");
        Err(Stop::broken("coco.confidential", summary)
            .at(view.name(), page, Some((at * BLOCK) as u64))
            .but("anything else", "the guest's plaintext"))
    }
}

/// The guest could not accept a page, or give it up.
fn refused(verb: &str, page: u64, refusal: Refusal) -> Stop {
    let found = format!("{:#x}", refusal.status);
    let summary = format!("guest cannot {verb} page {page}: {found}");
    Stop::broken("coco.acceptance", summary).at("guest", page, None).but("success", found)
}

fn suite(why: String) -> Stop {
    Stop::error(Blame::Suite, why)
}
