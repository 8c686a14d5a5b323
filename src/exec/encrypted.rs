// SPDX-License-Identifier: GPL-2.0-only
//! What encrypted guests do besides accessing memory: accept pages, give them up, ask for conversions.

use super::case_end::CaseEnd;
use super::look::{guest_stop, page_at};
use super::session::{After, Session, launch_failed};
use super::steps::pattern_bytes;
use crate::case::{Attribute, Pages, RawConvert, Returns, View};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::PageBytes;
use crate::payload::abi::PRIVATE_WINDOW;
use crate::platform::{GuestCommand, GuestStop, LaunchPages, Platform, Refusal};
use crate::results::Blame;
use crate::uapi::{MAP_GPA_RANGE_PAGE_SZ_1G, MAP_GPA_RANGE_PAGE_SZ_2M, PAGE_SIZE, byte_length};

/// Bytes of the blocks in which plaintext is looked for: what the memory controller encrypts at once is smaller.
const BLOCK: usize = 64;

/// Vectors of the exceptions that a guest gets at a page that is not its own: #VE, #VC.
const NOT_THE_GUESTS: [u64; 2] = [20, 29];

/// TDG.MEM.PAGE.ACCEPT: the page has been accepted (class and code of TDX_PAGE_ALREADY_ACCEPTED).
const TDX_ALREADY_ACCEPTED: u64 = 0x0b0a;
/// PVALIDATE with the carry flag set: the page was in the wanted state already, as the payload reports it.
const SNP_NO_CHANGE: u64 = 1 << 32;

/// What the guest is doing, in messages.
pub(super) const ACCEPT: &str = "accept";

impl Session<'_> {
    /// Has the guest accept those of `pages` that it is about to use and has not accepted.
    pub fn accept_for_guest(
        &mut self,
        pages: impl IntoIterator<Item = u64>,
    ) -> Result<(), CaseEnd> {
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
    pub fn accept_explicitly(&mut self, pages: &Pages) -> Result<(), CaseEnd> {
        let private = |page: &u64| self.oracle.attribute(*page) == Attribute::Private;
        if !self.setup.platform.is_encrypted() || !pages.clone().all(|page| private(&page)) {
            return Err(suite("the case accepts pages that cannot be accepted".into()));
        }
        self.accept_for_guest(pages.clone())
    }

    /// The case gives up pages that are accepted.
    pub fn rescind_explicitly(&mut self, pages: &Pages) -> Result<(), CaseEnd> {
        if let Some(page) = pages.clone().find(|page| !self.oracle.is_accepted(*page)) {
            return Err(suite(format!("the case rescinds page {page}, which is not accepted")));
        }
        self.rescind(pages.clone())
    }

    /// Has the guest accept private pages that lie next to each other.
    fn accept(&mut self, pages: Pages) -> Result<(), CaseEnd> {
        let mut next = pages.start;
        while next < pages.end {
            let Some(address) = self.guest_address(next) else {
                return Ok(());
            };
            let length = (pages.end - next) * PAGE_SIZE;
            let command = GuestCommand::Accept { address, length };
            let done = match self.guest_command(command, ACCEPT, next)?.refusal {
                None => pages.end,
                Some(refusal) => {
                    let page = page_at(&(next..pages.end), refusal.offset);
                    let accepted = is_accepted_already(self.setup.platform, refusal.status);
                    if !self.oracle.may_be_accepted(page) || !accepted {
                        return Err(refused(ACCEPT, page, refusal));
                    }
                    page + 1
                }
            };
            for page in next..done {
                self.oracle.accept(page);
                self.coverage.touch(page, View::Guest);
            }
            next = done;
        }
        Ok(())
    }

    /// Has an SNP guest give up those of `pages` that it has accepted and can reach, before they become shared.
    pub fn rescind(&mut self, pages: Pages) -> Result<(), CaseEnd> {
        if !self.setup.platform.has(|e| e.rescinds) || self.oracle.is_guest_lost() {
            return Ok(());
        }
        let accepted =
            |page: &u64| self.oracle.is_accepted(*page) && self.oracle.slot_of(*page).is_some();
        let accepted: Vec<u64> = pages.filter(accepted).collect();
        for group in self.groups(accepted, |_| ()) {
            let Some(address) = self.guest_address(group.start) else {
                continue;
            };
            let length = byte_length(&group);
            let command = GuestCommand::Rescind { address, length };
            if let Some(refusal) = self.guest_command(command, "rescind", group.start)?.refusal {
                return Err(refused("rescind", page_at(&group, refusal.offset), refusal));
            }
            group.for_each(|page| self.oracle.rescind(page));
        }
        Ok(())
    }

    /// The guest asks for a conversion, and the host makes it, or answers its first request with the error that it is to
    /// return. A TD that is told EAGAIN asks again.
    pub fn guest_convert(
        &mut self,
        pages: &Pages,
        to: Attribute,
        by_msr: bool,
        expect: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let mut error = match expect.map_or(&[None][..], |returns| &returns.any_of) {
            [None] => None,
            [Some(errno @ (Errno::EINVAL | Errno::EAGAIN))] => Some(*errno),
            _ => {
                return Err(suite("a guest can be told OK, EINVAL or EAGAIN, one of them".into()));
            }
        };
        if to == Attribute::Shared {
            self.rescind(pages.clone())?;
        }
        let Some(address) = self.guest_address(pages.start) else {
            return Err(suite("the case has the guest convert pages of no memslot".into()));
        };
        let private = to == Attribute::Private;
        let (gpa, length) = (address & !PRIVATE_WINDOW, byte_length(pages));
        let command = GuestCommand::PageState { gpa, length, private, by_msr };
        let mut refused = None;
        let mut next = pages.start;
        let mut answer = self.guest.command(command, self.deadline());
        loop {
            match answer {
                Err(GuestStop::MapGpa { gpa: at, pages: count, private: wanted, page_size }) => {
                    if let Some(errno) = refused {
                        let what = format!("the guest asks again when it was to be told {errno}");
                        return Err(wrong_request(next, what));
                    }
                    let expected = gpa + (next - pages.start) * PAGE_SIZE;
                    let left = pages.end - next;
                    if at != expected || wanted != private || !(1..=left).contains(&count) {
                        let asked = if wanted { "private" } else { "shared" };
                        let found = format!("{count} pages from {at:#x} to {asked}");
                        let what = format!("KVM_EXIT_HYPERCALL asks for {found}");
                        let wanted = format!("at most {left} pages from {expected:#x} to {to}");
                        return Err(wrong_request(next, what).but(wanted, found));
                    }
                    // The payloads ask for pages of 4 KiB each, or name no size.
                    let named = self.setup.platform.has(|e| e.has_ghcb).then_some(0);
                    check_page_size(named, (at, count), page_size, ClauseId::CocoGuestConverts)
                        .map_err(|end| end.at("guest", next, None))?;
                    let result = match error.take() {
                        Some(errno) => {
                            let again =
                                self.setup.platform.has(|e| e.asks_again) && errno == Errno::EAGAIN;
                            refused = (!again).then_some(errno);
                            errno.0 as u64
                        }
                        None => {
                            let call = RawConvert::of_pages(&(next..next + count), to, 0);
                            self.convert(&call, None)?;
                            next += count;
                            0
                        }
                    };
                    self.guest.set_hypercall_result(result);
                    answer = self.guest.resume(self.deadline());
                }
                Err(stop) => return Err(guest_stop(stop, "convert", next)),
                Ok(done) => return request_ended(pages, next, done.refusal, refused),
            }
        }
    }

    /// Makes pages part of the launch.
    pub fn launch(
        &mut self,
        pages: &Pages,
        from: Option<u8>,
        expect: Option<&Returns>,
    ) -> Result<(), CaseEnd> {
        let address = self.guest_address(pages.start);
        let (Some(address), true) = (address, self.setup.platform.is_encrypted()) else {
            return Err(suite("the case launches pages that cannot be launched".into()));
        };
        let gpa = address & !PRIVATE_WINDOW;
        let gpas = gpa..gpa + byte_length(pages);
        let tag = from.map(|letter| self.tag(letter));
        let contents: Option<Vec<u8>> =
            tag.map(|tag| pages.clone().flat_map(|page| pattern_bytes(tag, page)).collect());
        let judged = pages.clone().try_for_each(|page| self.oracle.judge_launch(page));
        let allowed = match expect {
            Some(returns) => &returns.any_of[..],
            None => &[None],
        };
        if allowed.contains(&None) != judged.is_ok() {
            let says = if judged.is_ok() { "success" } else { "a refusal" };
            return Err(suite(format!("of this launch call the clauses expect {says}")));
        }
        let deadline = self.deadline();
        let launched = LaunchPages::new(gpas, contents.as_deref());
        let result = self.guest.launch_pages(&launched, deadline);
        let errno = match &result {
            Ok(()) => None,
            Err(error) => match error.errno() {
                Some(errno) => Some(errno),
                None => return Err(launch_failed(error)),
            },
        };
        self.coverage.watch(pages.clone());
        if !allowed.contains(&errno) {
            let clause = match (judged, from) {
                (Err(clause), _) => clause,
                (Ok(()), Some(_)) => ClauseId::CocoLaunchExact,
                (Ok(()), None) => self.oracle.in_place_clause(),
            };
            let found = match result {
                Ok(()) => "success".to_string(),
                Err(error) => format!("failed to {error}"),
            };
            let name = |errno: &Option<Errno>| errno.map_or("success".into(), |e| e.to_string());
            let expected: Vec<String> = allowed.iter().map(name).collect();
            let (start, end) = (pages.start, pages.end);
            let summary = format!("a launch call for pages {start}..{end} ended so: {found}");
            return Err(CaseEnd::broken(clause, summary).but(expected.join(" or "), found));
        }
        for page in pages.clone() {
            match errno {
                None => self.oracle.launch(page, tag),
                Some(_) => self.oracle.launch_refused(page),
            }
        }
        Ok(())
    }

    /// Finishes the launch, and starts the guest.
    pub fn finalize(&mut self) -> Result<(), CaseEnd> {
        let deadline = self.deadline();
        self.guest.finish(deadline).map_err(|error| launch_failed(&error))?;
        self.oracle.finalize();
        Ok(())
    }

    /// A command to the guest about `pages` did not end well, or not at all.
    pub fn guest_failed(
        &self,
        stop: GuestStop,
        doing: &str,
        pages: impl IntoIterator<Item = u64>,
    ) -> CaseEnd {
        let taken = match &stop {
            GuestStop::Dead => true,
            GuestStop::Exception { vector, .. } => NOT_THE_GUESTS.contains(vector),
            _ => false,
        };
        let mut pages = pages.into_iter().peekable();
        let first = pages.peek().copied().unwrap_or(0);
        let Some(page) = pages.find(|page| taken && self.oracle.is_accepted(*page)) else {
            return match doing {
                ACCEPT => hang_of_kernel(stop, doing, first, ClauseId::CocoAcceptance),
                _ => guest_stop(stop, doing, first),
            };
        };
        let clause = match self.oracle.content_clause(page) {
            clause @ (ClauseId::CocoMixedRange
            | ClauseId::CocoLaunchExact
            | ClauseId::CocoLaunchPreserve) => clause,
            _ => ClauseId::CocoAcceptance,
        };
        let summary = format!("guest cannot {doing} page {page}, which it has accepted: {stop}");
        CaseEnd::broken(clause, summary).at("guest", page, None)
    }

    /// Nothing that the guest wrote to a page while it was private may be seen there by the host.
    pub fn must_be_confidential(
        &self,
        view: View,
        page: u64,
        bytes: &PageBytes,
    ) -> Result<(), CaseEnd> {
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
        Err(CaseEnd::broken(ClauseId::CocoConfidential, summary)
            .at(view.name(), page, Some((at * BLOCK) as u64))
            .but("anything else", "the guest's plaintext"))
    }
}

/// Whether a guest of this platform was told that it has accepted the page already.
pub(crate) fn is_accepted_already(platform: Platform, status: u64) -> bool {
    match platform {
        Platform::Tdx => status >> 32 == TDX_ALREADY_ACCEPTED,
        _ => status == SNP_NO_CHANGE,
    }
}

/// The guest could not accept a page, or give it up.
pub(super) fn refused(verb: &str, page: u64, refusal: Refusal) -> CaseEnd {
    let found = format!("{:#x}", refusal.status);
    let summary = format!("guest cannot {verb} page {page}: {found}");
    CaseEnd::broken(ClauseId::CocoAcceptance, summary).at("guest", page, None).but("success", found)
}

/// Checks the page size that a request reaches the host with, against the one that the guest has `named`; `clause` says
/// that it reaches the host as it is.
pub(super) fn check_page_size(
    named: Option<u64>,
    range: (u64, u64),
    page_size: u64,
    clause: ClauseId,
) -> Result<(), CaseEnd> {
    let Some(expected) = wrong_page_size(named, range, page_size) else { return Ok(()) };
    let found = format!("{page_size:#x}");
    let what = format!("KVM_EXIT_HYPERCALL has {found} for a page size");
    Err(CaseEnd::broken(clause, what).but(expected, found))
}

/// What a request for `count` pages from `gpa` on must have for a page size, if it has not: what the guest has named, or, if
/// it has named none, one that the range consists of.
fn wrong_page_size(named: Option<u64>, (gpa, count): (u64, u64), found: u64) -> Option<String> {
    if let Some(named) = named {
        return (found != named).then(|| format!("{named:#x}"));
    }
    let pages = match found {
        0 => 1,
        MAP_GPA_RANGE_PAGE_SZ_2M => 512,
        MAP_GPA_RANGE_PAGE_SZ_1G => 512 * 512,
        _ => return Some("no bit that is reserved".into()),
    };
    let good = (gpa / PAGE_SIZE).is_multiple_of(pages) && count.is_multiple_of(pages);
    (!good).then(|| "a size that the range consists of".into())
}

/// Judges the end of a guest's request to convert `pages`: what the guest was told, `refusal`, is what the host has
/// answered, `refused`, and every page before `next` was asked for.
fn request_ended(
    pages: &Pages,
    next: u64,
    refusal: Option<Refusal>,
    refused: Option<Errno>,
) -> Result<After, CaseEnd> {
    match (refusal, refused) {
        (Some(_), Some(_)) => Ok(After::Refused(ClauseId::CocoGuestConverts)),
        (None, Some(errno)) => {
            Err(wrong_request(next, format!("the guest was told success instead of {errno}")))
        }
        (Some(Refusal { status, offset }), None) => {
            let page = page_at(pages, offset);
            Err(wrong_request(page, format!("the guest was told {status:#x} for page {page}")))
        }
        (None, None) if next != pages.end => {
            Err(wrong_request(next, format!("the guest's request ended at page {next}")))
        }
        (None, None) => Ok(After::Converted(pages.clone())),
    }
}

/// A guest's request for a conversion reached the host otherwise than it was made, or its answer the guest.
fn wrong_request(page: u64, what: String) -> CaseEnd {
    CaseEnd::broken(ClauseId::CocoGuestConverts, what).at("guest", page, None)
}

/// As [`guest_stop`], of a guest that was to do no more than one instruction for each page: if it hangs, KVM has it fault
/// for ever, and breaks `clause`.
pub(super) fn hang_of_kernel(stop: GuestStop, doing: &str, page: u64, clause: ClauseId) -> CaseEnd {
    let hangs = matches!(stop, GuestStop::Hang { .. });
    let told = guest_stop(stop, doing, page);
    if !hangs {
        return told;
    }
    CaseEnd { verdict: told.verdict, ..CaseEnd::broken(clause, told.failure.summary) }
}

pub(super) fn suite(why: String) -> CaseEnd {
    CaseEnd::error(Blame::Suite, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page size is what the guest has named; where it has named none, the range consists of such pages.
    #[test]
    fn page_sizes() {
        let large = (0, 512);
        for (named, range, found, good) in [
            (Some(0), (0x1000, 1), 0, true),
            (Some(0), large, 1, false),
            (Some(1), large, 1, true),
            (Some(1), large, 0, false),
            (None, (0x1000, 3), 0, true),
            (None, large, 1, true),
            (None, (0x1000, 512), 1, false),
            (None, (0, 513), 1, false),
            (None, large, 2, false),
            (None, (0, 512 * 512), 2, true),
            (None, large, 3, false),
            (None, large, 1 << 5, false),
        ] {
            let wrong = wrong_page_size(named, range, found);
            assert_eq!(wrong.is_none(), good, "{named:?} {range:?} {found:#x}: {wrong:?}");
        }
    }

    /// Of the statuses with which a guest cannot accept a page, one says that the page was accepted before. In a TD it
    /// is the upper half of the module's status; the lower half names the operand. In an SNP guest it is a PVALIDATE
    /// that changed nothing.
    #[test]
    fn accepted_already() {
        for (platform, status, already) in [
            (Platform::Tdx, 0x0000_0b0a_0000_0000, true),
            (Platform::Tdx, 0x0000_0b0a_0000_0001, true),
            // TDX_OPERAND_INVALID, TDX_OPERAND_BUSY.
            (Platform::Tdx, 0xc000_0100_0000_0001, false),
            (Platform::Tdx, 0x8000_0200_0000_0001, false),
            (Platform::Snp, 1 << 32, true),
            // FAIL_INPUT, FAIL_SIZEMISMATCH.
            (Platform::Snp, 1, false),
            (Platform::Snp, 6, false),
        ] {
            assert_eq!(is_accepted_already(platform, status), already, "{platform} {status:#x}");
        }
    }
}
