// SPDX-License-Identifier: GPL-2.0-only
//! Requests of encrypted guests as they are: what reaches the host, and what the guest is told.

use super::case_end::CaseEnd;
use super::encrypted::{check_page_size, suite};
use super::look::guest_stop;
use super::session::{After, Session};
use crate::case::{Attribute, GuestRequest, PscList, RawConvert, Request, Returns};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::Petition;
use crate::payload::abi::{COPY_BUFFER, GHCB, LIST_WORDS, TEST_MEMORY};
use crate::platform::{GuestCommand, GuestStop};
use crate::uapi::{PAGE_SIZE, byte_length};

/// Where the shared buffer is in the GHCB.
const BUFFER: u64 = 0x800;
/// The MSR protocol's page state change, and the response to it: bits 11:0.
const MSR_PSC: u64 = 0x014;
const MSR_PSC_DONE: u64 = 0x015;
/// MapGPA: not all of it is done. R10.
const MAP_GPA_RETRY: u64 = 1;
/// How often a TD asks again when it is told to. Arbitrary; one exit for each 2 MiB needs no more.
const MOST_RETRIES: u32 = 64;

/// What the guest was told.
enum Told {
    /// Success.
    Done,
    /// MapGPA: to ask again from this address on.
    Again(u64),
    /// An error: the status.
    Error(String),
}

/// How far the host has come with what it is asked for.
struct Progress {
    petition: Petition,
    /// Number of what is asked for next, and how many of its pages are done.
    next: usize,
    within: u64,
    /// Exits so far.
    exits: usize,
    /// The error with which the host has answered.
    refused: Option<Errno>,
    /// Pages of the file that were converted.
    converted: Vec<u64>,
}

impl Progress {
    /// The page size that the guest names in what it asks for next. What has been done in part goes on with smaller pages.
    fn named_page_size(&self) -> Option<u64> {
        let asked = self.petition.asked.get(self.next).filter(|_| self.within == 0);
        asked.and_then(|asked| asked.page_size)
    }

    /// Takes up to `count` pages from `page` on, which the host is asked for; false if they are not what is next.
    fn take(&mut self, page: u64, count: u64, private: bool) -> bool {
        let mut done = 0;
        while done < count {
            let Some(asked) = self.petition.asked.get(self.next) else { return false };
            if asked.private != private || asked.pages.start + self.within != page + done {
                return false;
            }
            let length = asked.pages.end - asked.pages.start;
            let some = (length - self.within).min(count - done);
            done += some;
            self.within += some;
            if self.within == length {
                (self.next, self.within) = (self.next + 1, 0);
            }
        }
        count > 0
    }

    /// How what comes next reads.
    fn expected(&self) -> String {
        match self.petition.asked.get(self.next) {
            None => "no request".into(),
            Some(asked) => {
                let to = if asked.private { "private" } else { "shared" };
                let (start, end) = (asked.pages.start + self.within, asked.pages.end);
                format!("a request for pages {start}..{end} to {to}, or for some of them")
            }
        }
    }
}

impl Session<'_> {
    /// Has the guest make a request, and answers it.
    pub fn request(
        &mut self,
        request: &GuestRequest,
        expect: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let petition = self.oracle.judge_guest_request(&request.what);
        let allowed = expect.map_or(&[None][..], |returns| &returns.any_of);
        let answered = request.answers.iter().any(Option::is_some);
        let may_succeed = !petition.refused && !answered;
        let must_succeed = may_succeed && !petition.may_be_refused;
        if allowed.contains(&None) != may_succeed || must_succeed && allowed != [None] {
            return Err(suite("of this request the clauses expect another answer".into()));
        }
        self.rescind_for(&petition)?;
        let clause = clause_of(&petition, &request.what);
        let mut progress = Progress {
            petition,
            next: 0,
            within: 0,
            exits: 0,
            refused: None,
            converted: Vec::new(),
        };
        let mut command = self.command_for(&request.what)?;
        let mut retries = 0;
        let told = loop {
            let told = self.until_told(command, request, &mut progress, clause)?;
            match (told, command) {
                (Told::Again(at), GuestCommand::RawMapGpa { gpa, size })
                    if progress.refused.is_none() && retries < MOST_RETRIES =>
                {
                    // An interrupt may have come in between.
                    let expected = self.map_gpa_left(&progress);
                    if expected != Some(at) {
                        let what = format!("the guest is told to go on at {at:#x}");
                        return Err(CaseEnd::broken(clause, what)
                            .but(format!("{:#x}", expected.unwrap_or(0)), format!("{at:#x}")));
                    }
                    let done = at.wrapping_sub(gpa & !self.guest.shared_bit());
                    let (gpa, size) = (gpa.wrapping_add(done), size.wrapping_sub(done));
                    command = GuestCommand::RawMapGpa { gpa, size };
                    retries += 1;
                }
                (told, _) => break told,
            }
        };
        self.judge_told(told, allowed, &progress, clause)?;
        if let Request::List(list) = &request.what {
            self.judge_current(list, &progress)?;
        }
        Ok(match (progress.converted.iter().min(), progress.converted.iter().max()) {
            (Some(first), Some(last)) => After::Converted(*first..last + 1),
            _ => After::Refused(clause),
        })
    }

    /// Has an SNP guest give up the pages that it asks to be made shared.
    fn rescind_for(&mut self, petition: &Petition) -> Result<(), CaseEnd> {
        let shared = petition.asked.iter().filter(|asked| !asked.private);
        let pages: Vec<u64> = shared
            .filter(|asked| asked.pages.end <= self.oracle.file_pages() * 2)
            .flat_map(|asked| asked.pages.clone())
            .filter_map(|page| self.oracle.page_at(page))
            .collect();
        pages.into_iter().try_for_each(|page| self.rescind(page..page + 1))
    }

    /// The guest's command, with the list where it reads it.
    fn command_for(&mut self, request: &Request) -> Result<GuestCommand, CaseEnd> {
        let has_ghcb = self.setup.platform.has(|e| e.has_ghcb);
        match request {
            Request::List(list) if has_ghcb => {
                let scratch = list.scratch.unwrap_or(BUFFER);
                self.guest.put_list(&words(list));
                // Outside the GHCB the list is in the page before it, which is shared as well.
                let outside = scratch >= PAGE_SIZE;
                let scratch = if outside { COPY_BUFFER } else { GHCB + scratch };
                Ok(GuestCommand::RawList { scratch })
            }
            Request::Msr { operation, page } if has_ghcb => {
                let gpa = TEST_MEMORY.wrapping_add(page.wrapping_mul(PAGE_SIZE));
                Ok(GuestCommand::RawMsr { request: operation << 52 | gpa | MSR_PSC })
            }
            Request::MapGpa { offset, size, to } if !has_ghcb => {
                let alias = if *to == Attribute::Shared { self.guest.shared_bit() } else { 0 };
                let gpa = TEST_MEMORY.wrapping_add(*offset) | alias;
                Ok(GuestCommand::RawMapGpa { gpa, size: *size })
            }
            _ => Err(suite("the guest has no such request".into())),
        }
    }

    /// Runs the guest until its request is answered. On the way the host answers each KVM_EXIT_HYPERCALL.
    fn until_told(
        &mut self,
        command: GuestCommand,
        request: &GuestRequest,
        progress: &mut Progress,
        clause: ClauseId,
    ) -> Result<Told, CaseEnd> {
        let first = progress.petition.asked.first().map_or(0, |asked| asked.pages.start);
        let mut answer = self.guest.command(command, self.deadline());
        loop {
            match answer {
                Ok(answer) => return Ok(told(command, answer.found, answer.second)),
                Err(GuestStop::MapGpa { gpa, pages, private, page_size }) => {
                    let named = progress.named_page_size();
                    check_page_size(named, (gpa, pages), page_size, clause)?;
                    let result = self.answer(request, progress, (gpa, pages, private), clause)?;
                    self.guest.set_hypercall_result(result);
                    answer = self.guest.resume(self.deadline());
                }
                Err(stop) => return Err(guest_stop(stop, "ask for a conversion of", first)),
            }
        }
    }

    /// What the host answers an exit with, having made the conversion if that is success.
    fn answer(
        &mut self,
        request: &GuestRequest,
        progress: &mut Progress,
        (gpa, count, private): (u64, u64, bool),
        clause: ClauseId,
    ) -> Result<u64, CaseEnd> {
        let (page, into) = (gpa.wrapping_sub(TEST_MEMORY) / PAGE_SIZE, gpa % PAGE_SIZE);
        let expected = progress.expected();
        let (next, within) = (progress.next, progress.within);
        let good = into == 0 && gpa >= TEST_MEMORY && progress.refused.is_none();
        if !good || !progress.take(page, count, private) {
            let to = if private { "private" } else { "shared" };
            let found = format!("a request for {count} pages from {gpa:#x} to {to}");
            let what = format!("KVM_EXIT_HYPERCALL is {found}");
            let expected = match progress.refused {
                Some(errno) => format!("no request after {errno}"),
                None => expected,
            };
            return Err(CaseEnd::broken(clause, what).but(expected, found));
        }
        let answer = request.answers.get(progress.exits).copied().flatten();
        progress.exits += 1;
        if let Some(errno) = answer {
            (progress.next, progress.within) = (next, within);
            progress.refused = Some(errno);
            return Ok(errno.0 as u64);
        }
        let to = if private { Attribute::Private } else { Attribute::Shared };
        let mut pages = Vec::new();
        for page in page..page + count {
            let page = self.oracle.page_at(page);
            pages.push(page.ok_or_else(|| suite("the host cannot convert these pages".into()))?);
        }
        for group in self.groups(pages.iter().copied(), |_| ()) {
            let call = RawConvert {
                offset: group.start * PAGE_SIZE,
                size: byte_length(&group),
                attributes: to.bits(),
                ..RawConvert::default()
            };
            self.convert(&call, None)?;
        }
        progress.converted.extend(pages);
        Ok(0)
    }

    /// Whether the guest was told what it had to be told.
    fn judge_told(
        &self,
        told: Told,
        allowed: &[Option<Errno>],
        progress: &Progress,
        clause: ClauseId,
    ) -> Result<(), CaseEnd> {
        let (errno, found) = match &told {
            Told::Done => (None, "success".to_string()),
            Told::Again(at) => (Some(Errno::EAGAIN), format!("to try again from {at:#x} on")),
            Told::Error(status) => (Some(Errno::EINVAL), status.clone()),
        };
        if !allowed.contains(&errno) {
            let name = |errno: &Option<Errno>| match errno {
                None => "success".to_string(),
                Some(Errno::EAGAIN) => "to try again".to_string(),
                Some(_) => "an error".to_string(),
            };
            let expected: Vec<String> = allowed.iter().map(name).collect();
            let what = format!("the guest was told {found}");
            return Err(CaseEnd::broken(clause, what).but(expected.join(" or "), found));
        }
        let all = progress.next == progress.petition.asked.len();
        // What is bad about a request may be told before anything of it is done.
        if !all && progress.refused.is_none() && errno.is_none() {
            let what = "the guest was told success, but a part of its request never came";
            return Err(CaseEnd::broken(clause, what).but(progress.expected(), "nothing"));
        }
        if let Told::Again(at) = told
            && self.map_gpa_left(progress) != Some(at)
        {
            let left = self.map_gpa_left(progress).unwrap_or(0);
            let what = "the guest was told to try again from elsewhere than where the host refused";
            return Err(CaseEnd::broken(clause, what).but(format!("{left:#x}"), format!("{at:#x}")));
        }
        Ok(())
    }

    /// The guest physical address that a MapGPA has got to.
    fn map_gpa_left(&self, progress: &Progress) -> Option<u64> {
        let asked = progress.petition.asked.get(progress.next)?;
        Some(TEST_MEMORY + (asked.pages.start + progress.within) * PAGE_SIZE)
    }

    /// Whether the list's header says how far it has got.
    fn judge_current(&self, list: &PscList, progress: &Progress) -> Result<(), CaseEnd> {
        let Some(entries) = progress.petition.entries.clone() else { return Ok(()) };
        let scratch = list.scratch.unwrap_or(BUFFER);
        let word = ((scratch - BUFFER) / 8) as usize;
        let current = self.guest.list()[word] & 0xffff;
        let asked = &progress.petition.asked;
        // Behind what was done, and not behind what was not; in between are entries that nobody does anything about.
        let least = match progress.next.checked_sub(1) {
            Some(done) => asked[done].entry + 1,
            None => entries.start,
        };
        let most = asked.get(progress.next).map_or(entries.end, |asked| asked.entry);
        if (least..=most).contains(&current) {
            return Ok(());
        }
        let what = "the list's current entry is not where the page state change got to";
        Err(CaseEnd::broken(ClauseId::CocoRequestList, what)
            .but(format!("{least} to {most}"), current.to_string()))
    }
}

/// The clause that is broken if anything about the request goes wrong.
fn clause_of(petition: &Petition, request: &Request) -> ClauseId {
    match request {
        _ if petition.refused && petition.asked.is_empty() => ClauseId::CocoRequestRefused,
        Request::List(_) => ClauseId::CocoRequestList,
        Request::Msr { .. } | Request::MapGpa { .. } => ClauseId::CocoGuestConverts,
    }
}

/// What the hypervisor's answer means to the guest.
fn told(command: GuestCommand, found: u64, second: u64) -> Told {
    match command {
        GuestCommand::RawList { .. } if found & 0xffff_ffff != 0 || second != 0 => {
            Told::Error(format!("SW_EXITINFO1 {found:#x}, SW_EXITINFO2 {second:#x}"))
        }
        GuestCommand::RawMsr { .. } if found != MSR_PSC_DONE => {
            Told::Error(format!("the response {found:#x}"))
        }
        GuestCommand::RawMapGpa { .. } if found == MAP_GPA_RETRY => {
            Told::Again(second & !(1 << 47))
        }
        GuestCommand::RawMapGpa { .. } if found != 0 => Told::Error(format!("R10 {found:#x}")),
        _ => Told::Done,
    }
}

/// The list as it lies in memory, in an area of the shared buffer's size.
fn words(list: &PscList) -> [u64; LIST_WORDS as usize] {
    let mut words = [0; LIST_WORDS as usize];
    let scratch = list.scratch.unwrap_or(BUFFER);
    // Where it does not fit in, nobody will read it.
    let first = scratch.checked_sub(BUFFER).map_or(0, |bytes| (bytes / 8) as usize);
    let first = if first < words.len() { first } else { 0 };
    let header = u64::from(list.current) | u64::from(list.last()) << 16;
    let entries = list.flat().into_iter().map(|(kind, page)| {
        let gfn = TEST_MEMORY / PAGE_SIZE + page;
        kind.bits() | gfn << 12
    });
    for (word, value) in words[first..].iter_mut().zip([header].into_iter().chain(entries)) {
        *word = value;
    }
    words
}
