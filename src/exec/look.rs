// SPDX-License-Identifier: GPL-2.0-only
//! Looking at pages through a view, and judging what is seen.

use std::ops::Range;

use super::access;
use super::case_end::CaseEnd;
use super::guard::{BUS_ADRERR, BusError};
use super::hexdiff::{data_in, describe, first_difference, hexdiff};
use super::session::{After, Session, failed, launch_failed};
use crate::case::View;
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::{Content, PageBytes, Sight};
use crate::payload::abi::CheckRange;
use crate::platform::{Answer, GuestCommand, GuestStop};
use crate::results::Blame;
use crate::uapi::{PAGE_SIZE, byte_length};

/// Pages that a guest command reads or writes, and what for.
pub(crate) fn guest_stop(stop: GuestStop, doing: &str, page: u64) -> CaseEnd {
    let broken = |what: String| {
        CaseEnd::broken(ClauseId::GuestAccess, format!("guest cannot {doing} page {page}: {what}"))
            .at("guest", page, None)
    };
    match stop {
        GuestStop::Mmio { gpa, .. } => broken(format!("KVM_EXIT_MMIO at {gpa:#x}")),
        GuestStop::MemoryFault { flags, gpa, size } => {
            let wanted =
                if flags & crate::uapi::ATTRIBUTE_PRIVATE != 0 { "private" } else { "shared" };
            broken(format!("KVM_EXIT_MEMORY_FAULT ({wanted} access, gpa {gpa:#x}, size {size:#x})"))
        }
        GuestStop::Failed(call, errno) => broken(format!("{call} failed with {errno}")),
        GuestStop::Hang { rip } => {
            let at = rip.map_or(String::new(), |rip| format!(" (RIP {rip:#x})"));
            let what = format!("guest did not {doing} page {page} in time{at}");
            CaseEnd::timeout(ClauseId::GuestAccess, what).at("guest", page, None)
        }
        GuestStop::Exception { .. }
        | GuestStop::BadAnswer(_)
        | GuestStop::Terminated { .. }
        | GuestStop::MapGpa { .. } => {
            CaseEnd::error(Blame::Payload, format!("guest was to {doing} page {page}: {stop}"))
        }
        GuestStop::Dead | GuestStop::Shutdown => broken(stop.to_string()),
        GuestStop::Unexpected(_) => {
            CaseEnd::error(Blame::Machine, format!("guest was to {doing} page {page}: {stop}"))
        }
    }
}

/// The page at byte `offset` of `pages`, as a guest names one of those that it had a command about. It is one of them even
/// if what the guest says makes no sense.
pub(super) fn page_at(pages: &Range<u64>, offset: u64) -> u64 {
    (pages.start + offset / PAGE_SIZE).min(pages.end - 1)
}

impl Session<'_> {
    /// Looks at every page of `pages` through `view` and compares with what the oracle says. With `writes`, a page that
    /// must fault is also tried with a write.
    pub fn look(
        &mut self,
        view: View,
        pages: &[u64],
        after: &After,
        writes: bool,
    ) -> Result<(), CaseEnd> {
        match view {
            View::Host | View::Host2 => {
                pages.iter().try_for_each(|p| self.look_host(view, *p, after, writes))
            }
            View::Child => pages.iter().try_for_each(|p| self.look_child(*p, after, writes)),
            View::Guest => self.look_guest(pages, after),
        }
    }

    /// A fresh file that is private is so before anything was done. A fault leaves no trace; a look at a shared page
    /// would allocate it.
    pub fn look_before_anything(&mut self) -> Result<(), CaseEnd> {
        match self.oracle.sight(View::Host, 0) {
            Sight::Fault => self.look_host(View::Host, 0, &After::Nothing, false),
            _ => Ok(()),
        }
    }

    fn look_host(
        &mut self,
        view: View,
        page: u64,
        after: &After,
        writes: bool,
    ) -> Result<(), CaseEnd> {
        match self.oracle.sight(view, page) {
            Sight::Fault => {
                let read = access::read_word(self.mapping(view)?, page, 0);
                self.must_fault(view, page, read, after, "read")?;
                if writes {
                    let write = access::write_word(self.mapping(view)?, page, 0, 0);
                    self.must_fault(view, page, write, after, "wrote")?;
                }
                Ok(())
            }
            Sight::Content(_) => {
                let read = access::read_page(self.mapping(view)?, page);
                let bytes = read.map_err(|fault| self.must_not_fault(view, page, fault, after))?;
                self.seen(view, page, &bytes, after)
            }
            // Only guest accesses exit; without a mapping there is nothing to look through.
            Sight::Mmio | Sight::MemoryFault | Sight::Absent => Ok(()),
        }
    }

    fn look_child(&mut self, page: u64, after: &After, writes: bool) -> Result<(), CaseEnd> {
        let sight = self.oracle.sight(View::Child, page);
        let Some(child) = &mut self.child else {
            return Err(CaseEnd::error(Blame::Suite, "the case asks a child that was not forked"));
        };
        let read = child.read(page).map_err(child_failed)?;
        match sight {
            Sight::Fault => {
                let write = if writes {
                    Some(child.write(page, &[0; PAGE_SIZE as usize]).map_err(child_failed)?)
                } else {
                    None
                };
                self.must_fault(View::Child, page, read, after, "read")?;
                write.map_or(Ok(()), |w| self.must_fault(View::Child, page, w, after, "wrote"))
            }
            Sight::Content(_) => {
                let bytes =
                    read.map_err(|fault| self.must_not_fault(View::Child, page, fault, after))?;
                self.seen(View::Child, page, &bytes, after)
            }
            Sight::Mmio | Sight::MemoryFault | Sight::Absent => Ok(()),
        }
    }

    fn look_guest(&mut self, pages: &[u64], after: &After) -> Result<(), CaseEnd> {
        self.accept_for_guest(pages.iter().copied())?;
        // Consecutive pages with the same known pattern are one command.
        let checkable = |content: &Content| match content {
            // Nobody's data is zeros as a rule; if not, the page is looked at itself.
            Content::Zero | Content::Unwritten => Some(crate::payload::pattern::ZERO),
            Content::Pattern(tag) => Some(*tag),
            Content::Bytes(_) | Content::Unknown => None,
        };
        let groups =
            self.groups(pages.iter().copied(), |p| match self.oracle.sight(View::Guest, p) {
                Sight::Content(content) => checkable(&content).ok_or(p),
                Sight::Fault | Sight::Mmio | Sight::MemoryFault | Sight::Absent => Err(p),
            });
        let mut known: Vec<(Range<u64>, CheckRange)> = Vec::new();
        for group in groups {
            let page = group.start;
            let Some(address) = self.guest_address(page) else {
                continue;
            };
            match self.oracle.sight(View::Guest, page) {
                Sight::Mmio => self.must_be_mmio(page, address)?,
                Sight::MemoryFault => self.must_be_memory_fault(page, address)?,
                Sight::Fault | Sight::Absent => {}
                Sight::Content(content) => match checkable(&content) {
                    Some(pattern) => {
                        let length = byte_length(&group);
                        let range = CheckRange { address, length, pattern, first_page: page };
                        known.push((group, range));
                    }
                    None => {
                        let bytes = self.guest_copy_out(page, address)?;
                        self.seen(View::Guest, page, &bytes, after)?;
                    }
                },
            }
        }
        self.guest_check(&known, after)
    }

    /// Has the guest compare groups of pages with the patterns that are known of them.
    fn guest_check(
        &mut self,
        known: &[(Range<u64>, CheckRange)],
        after: &After,
    ) -> Result<(), CaseEnd> {
        if known.is_empty() {
            return Ok(());
        }
        let ranges: Vec<CheckRange> = known.iter().map(|(_, range)| *range).collect();
        let deadline = self.deadline();
        let answer = self.guest.check(&ranges, deadline);
        let pages = known.iter().flat_map(|(group, _)| group.clone());
        let mismatch = answer.map_err(|stop| self.guest_failed(stop, "read", pages))?;
        if let Some(mismatch) = mismatch {
            let Some((group, range)) = known.get(mismatch.range) else {
                let why = format!("the guest found a difference in range {}", mismatch.range);
                return Err(CaseEnd::error(Blame::Payload, why));
            };
            let page = page_at(group, mismatch.offset);
            let address = range.address + (page - group.start) * PAGE_SIZE;
            let bytes = self.guest_copy_out(page, address)?;
            let unwritten = self.oracle.content(page) == Content::Unwritten;
            self.seen(View::Guest, page, &bytes, after)?;
            if unwritten {
                let pages: Vec<u64> = known.iter().flat_map(|(group, _)| group.clone()).collect();
                return self.look_guest(&pages, after);
            }
            // The page is as it must be now, but the guest has seen it otherwise.
            let clause = self.content_clause(page, after);
            let summary = format!("guest saw a change of page {page} that went away");
            return Err(CaseEnd::broken(clause, summary)
                .at("guest", page, Some(mismatch.offset % PAGE_SIZE))
                .but(format!("{:#018x}", mismatch.expected), format!("{:#018x}", mismatch.found)));
        }
        for page in known.iter().flat_map(|(group, _)| group.clone()) {
            match self.oracle.content(page) {
                Content::Unwritten => self.oracle.learn(page, &[0; PAGE_SIZE as usize]),
                _ => self.oracle.touch(page),
            }
            self.coverage.touch(page, View::Guest);
        }
        Ok(())
    }

    /// Has the guest copy a page to where the host can read it.
    fn guest_copy_out(&mut self, page: u64, address: u64) -> Result<PageBytes, CaseEnd> {
        self.guest_command(GuestCommand::CopyOut { address }, "read", page)?;
        let mut bytes = [0; PAGE_SIZE as usize];
        self.guest.copy_buffer(&mut bytes);
        Ok(bytes)
    }

    /// Gives the guest a command about `page`.
    pub fn guest_command(
        &mut self,
        command: GuestCommand,
        doing: &str,
        page: u64,
    ) -> Result<Answer, CaseEnd> {
        let deadline = self.deadline();
        let answer = self.guest.command(command, deadline);
        answer.map_err(|stop| self.guest_failed(stop, doing, [page]))
    }

    /// The guest's access to `page` must be an MMIO exit.
    fn must_be_mmio(&mut self, page: u64, address: u64) -> Result<(), CaseEnd> {
        let deadline = self.deadline();
        // KVM remembers the address as MMIO, which is in the way of a private page that another case may have there.
        self.spoiled = true;
        let command = GuestCommand::Read { address };
        let answer = self.guest.command_without_retries(command, deadline);
        let is_mmio =
            |stop: &GuestStop| matches!(stop, GuestStop::Mmio { gpa, .. } if *gpa == address);
        let Some(found) = self.other_than(page, answer, is_mmio)? else {
            return Ok(());
        };
        let summary =
            format!("guest access to page {page}, whose memslot was deleted, is not an MMIO exit");
        Err(CaseEnd::broken(ClauseId::MemslotDeleted, summary)
            .at("guest", page, None)
            .but(format!("KVM_EXIT_MMIO at {address:#x}"), found))
    }

    /// What the guest's read of `page` ended with, in words, unless with an exit that `expected` knows: then the payload is
    /// started anew, since the vCPU is in the middle of the instruction.
    pub(super) fn other_than(
        &mut self,
        page: u64,
        answer: Result<Answer, GuestStop>,
        expected: impl Fn(&GuestStop) -> bool,
    ) -> Result<Option<String>, CaseEnd> {
        match answer {
            Err(stop) if expected(&stop) => {
                let reset = self.guest.reset(self.deadline());
                reset.map(|()| None).map_err(|e| launch_failed(&e))
            }
            Err(stop @ (GuestStop::Hang { .. } | GuestStop::BadAnswer(_))) => {
                Err(guest_stop(stop, "read", page))
            }
            Err(stop) => Ok(Some(stop.to_string())),
            Ok(answer) => Ok(Some(format!("the guest read {:#018x}", answer.found))),
        }
    }

    /// Judges bytes that a view has seen in a page that it may access.
    pub fn seen(
        &mut self,
        view: View,
        page: u64,
        bytes: &PageBytes,
        after: &After,
    ) -> Result<(), CaseEnd> {
        self.must_be_confidential(view, page, bytes)?;
        let content = self.oracle.content(page);
        if let Some(expected) = content.bytes(page)
            && let Some(at) = first_difference(&expected, bytes)
        {
            let clause = match view {
                View::Child => ClauseId::ForkView,
                View::Host | View::Host2 | View::Guest => self.content_clause(page, after),
            };
            let found = describe(bytes, page);
            let summary =
                format!("{view} sees {found} in page {page} instead of {}", content.describe());
            return Err(CaseEnd::broken(clause, summary)
                .at(view.name(), page, Some(at as u64 & !7))
                .but(content.describe(), found)
                .detail(hexdiff(&expected, bytes)));
        }
        if content == Content::Unwritten {
            self.must_be_nobodys(view, page, bytes, after)?;
        }
        self.observations.look(page, bytes);
        self.oracle.learn(page, bytes);
        self.coverage.touch(page, view);
        Ok(())
    }

    /// What a page holds that nobody has written must not be what somebody has written elsewhere.
    fn must_be_nobodys(
        &mut self,
        view: View,
        page: u64,
        bytes: &PageBytes,
        after: &After,
    ) -> Result<(), CaseEnd> {
        if let Some((at, letter, of_page)) = data_in(bytes) {
            let found = format!("pattern {letter} of page {of_page}");
            let summary = format!("{view} sees {found} in page {page}, which nobody has written");
            return Err(CaseEnd::broken(self.content_clause(page, after), summary)
                .at(view.name(), page, Some(at as u64))
                .but(Content::Unwritten.describe(), found));
        }
        if bytes.iter().any(|byte| *byte != 0) {
            self.observations.add(self.line, "contents-of-unwritten-page", "other");
        }
        Ok(())
    }

    /// A private page must fault, with the right code.
    fn must_fault<T>(
        &mut self,
        view: View,
        page: u64,
        access: Result<T, BusError>,
        after: &After,
        verb: &str,
    ) -> Result<(), CaseEnd> {
        // A fault leaves no trace, so it does not count as a touch.
        match access {
            Err(BusError { code: BUS_ADRERR, .. }) => Ok(()),
            Err(BusError { code, .. }) => {
                let summary =
                    format!("{view} gets a SIGBUS of another kind at private page {page}");
                Err(CaseEnd::broken(ClauseId::HostFaultPrivate, summary)
                    .at(view.name(), page, None)
                    .but("SIGBUS, si_code 2 (BUS_ADRERR)", format!("SIGBUS, si_code {code}")))
            }
            Ok(_) => {
                let clause = self.attribute_clause(view, page, after, ClauseId::HostFaultPrivate);
                let summary = format!("{view} {verb} page {page}, which is private");
                Err(CaseEnd::broken(clause, summary)
                    .at(view.name(), page, None)
                    .but("SIGBUS", "no fault"))
            }
        }
    }

    /// A shared page must not fault.
    pub fn must_not_fault(&self, view: View, page: u64, fault: BusError, after: &After) -> CaseEnd {
        let clause = self.attribute_clause(view, page, after, ClauseId::HostAccessShared);
        CaseEnd::broken(clause, format!("{view} gets SIGBUS at page {page}, which is shared"))
            .at(view.name(), page, Some(fault.copied as u64))
            .but("no fault", format!("SIGBUS, si_code {}", fault.code))
    }

    /// The clause that a wrong attribute breaks; `otherwise` when it was right before, or nobody knows.
    fn attribute_clause(
        &self,
        view: View,
        page: u64,
        after: &After,
        otherwise: ClauseId,
    ) -> ClauseId {
        match after {
            After::Refused(clause) => *clause,
            After::Converted(range) if !range.contains(&page) => ClauseId::ConvertPrecise,
            After::Punched(_) => ClauseId::PunchAttribute,
            After::Remapped => ClauseId::MemslotRecreated,
            After::Allocated => ClauseId::AllocateHarmless,
            _ if view == View::Child => ClauseId::ForkView,
            // The first mapping was looked at before and is right, so the attribute is: only this mapping is wrong.
            _ if view == View::Host2 => otherwise,
            After::Converted(_) => self.oracle.attribute_clause(page),
            After::Nothing => self.attribution.refusal(page).unwrap_or_else(|| {
                let seen = self.coverage.has_touched(page, view);
                match self.oracle.attribute_clause(page) {
                    _ if seen => otherwise,
                    // Nobody has looked since a conversion of other pages.
                    ClauseId::FreshAttribute if self.attribution.converted => {
                        ClauseId::ConvertPrecise
                    }
                    clause => clause,
                }
            }),
        }
    }

    /// The clause that wrong contents break.
    pub fn content_clause(&self, page: u64, after: &After) -> ClauseId {
        let clause = self.oracle.content_clause(page);
        match after {
            After::Refused(clause) => *clause,
            After::Converted(range) if !range.contains(&page) => ClauseId::ConvertPrecise,
            After::Remapped => ClauseId::MemslotRecreated,
            After::Allocated => ClauseId::AllocateHarmless,
            After::Converted(_) | After::Punched(_) => clause,
            After::Nothing => self.attribution.refusal(page).unwrap_or(clause),
        }
    }
}

/// The child does not answer: it has died, or its pipe broke.
pub(super) fn child_failed(errno: Errno) -> CaseEnd {
    failed("an access through the forked child", errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Verdict;

    /// Whatever byte a guest names, the page is one of those that it was asked about.
    #[test]
    fn a_page_of_the_command() {
        for (offset, page) in [
            (0, 2),
            (8, 2),
            (PAGE_SIZE, 3),
            (3 * PAGE_SIZE + 8, 5),
            (4 * PAGE_SIZE, 5),
            (u64::MAX, 5),
        ] {
            assert_eq!(page_at(&(2..6), offset), page, "{offset:#x}");
        }
    }

    /// A guest that stops where the kernel had to serve it is the kernel's failure, told with the access that the kernel
    /// took it for; one that goes astray or hangs is not.
    #[test]
    fn guest_stops() {
        let told = |stop| {
            let stop = guest_stop(stop, "read", 3);
            (stop.verdict, stop.failure.blame, stop.failure.summary)
        };
        let fault = |flags| GuestStop::MemoryFault { flags, gpa: 0x3000, size: 0x1000 };
        for (stop, verdict, blame, summary) in [
            (
                fault(8),
                Verdict::Fail,
                Some(Blame::Kernel),
                "guest cannot read page 3: KVM_EXIT_MEMORY_FAULT (private access, gpa 0x3000, size 0x1000)",
            ),
            (
                fault(0),
                Verdict::Fail,
                Some(Blame::Kernel),
                "guest cannot read page 3: KVM_EXIT_MEMORY_FAULT (shared access, gpa 0x3000, size 0x1000)",
            ),
            (
                GuestStop::Hang { rip: Some(0x10) },
                Verdict::Timeout,
                Some(Blame::Kernel),
                "guest did not read page 3 in time (RIP 0x10)",
            ),
        ] {
            assert_eq!(told(stop), (verdict, blame, summary.to_string()));
        }
        assert_eq!(told(GuestStop::Dead).1, Some(Blame::Kernel));
        let request = GuestStop::MapGpa { gpa: 0, pages: 1, private: true, page_size: 0 };
        assert_eq!(told(request).1, Some(Blame::Payload));
    }
}
