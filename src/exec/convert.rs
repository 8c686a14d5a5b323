// SPDX-License-Identifier: GPL-2.0-only
//! Issuing a conversion and judging what it returns.

use std::ptr::null_mut;
use std::thread;

use super::case_end::CaseEnd;
use super::session::{After, Session, failed};
use crate::case::{Attribute, Descriptor, Pointer, RawConvert, Returns};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::{Allowed, Content, ErrorOffset};
use crate::results::Blame;
use crate::uapi::{ATTRIBUTE_PRIVATE, MemoryAttributes2, PAGE_SIZE};

/// How often a conversion to private may be refused although no page is in use. A page may be in flight elsewhere for a
/// moment: a racing fault, a per-CPU list. Arbitrary, but far beyond what a correct kernel needs when nothing else runs.
pub(crate) const TRANSIENT_TRIES: u32 = 100;

/// Contents remembered per conversion for observations; more would only repeat what these say.
const REMEMBERED: usize = 64;

/// What a call returned.
struct Returned {
    result: Result<(), Errno>,
    error_offset: u64,
}

impl Returned {
    fn describe(&self) -> String {
        match self.result {
            Ok(()) if self.error_offset == 0 => "success".into(),
            Ok(()) => format!("success, error_offset {}", offset(self.error_offset)),
            Err(errno) => format!("{errno}, error_offset {}", offset(self.error_offset)),
        }
    }
}

/// A byte offset, and the page that it is.
fn offset(offset: u64) -> String {
    match offset % PAGE_SIZE {
        0 => format!("{offset:#x} (page {})", offset / PAGE_SIZE),
        _ => format!("{offset:#x}"),
    }
}

fn describe(allowed: &Allowed) -> String {
    let result = match allowed.result {
        Ok(()) => "success".to_string(),
        Err(errno) => errno.to_string(),
    };
    match (allowed.result, allowed.error_offset) {
        (Err(_), ErrorOffset::At(at)) => format!("{result}, error_offset {}", offset(at)),
        _ => result,
    }
}

impl Session<'_> {
    /// Issues the call, retries it while the refusal may be a transient one, and judges the result.
    pub fn convert(
        &mut self,
        call: &RawConvert,
        explicit: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let allowed = self.oracle.judge(call);
        if let Some(explicit) = explicit {
            check_explicit(explicit, &allowed)?;
        }
        if call.attributes == 0 && allowed.iter().all(|a| a.result.is_ok()) {
            self.rescind(call.offset / PAGE_SIZE..(call.offset + call.size) / PAGE_SIZE)?;
        }
        let mut returned = self.issue(call)?;
        let mut tries = 1;
        while tries < TRANSIENT_TRIES && self.is_transient(call, &returned) {
            thread::yield_now();
            returned = self.issue(call)?;
            tries += 1;
        }
        if tries > 1 {
            self.observations.add(self.line, "transient-eagain", "yes");
        }
        let Some(outcome) = allowed.iter().find(|a| a.result == returned.result) else {
            return Err(refusal(call, &allowed, &returned, tries));
        };
        let wrong_offset = match outcome.error_offset {
            ErrorOffset::Anything => false,
            ErrorOffset::Untouched => returned.error_offset != call.error_offset,
            ErrorOffset::At(at) => returned.error_offset != at,
        };
        if wrong_offset {
            let want = match outcome.error_offset {
                ErrorOffset::At(at) => offset(at),
                _ => format!("{} as before the call", offset(call.error_offset)),
            };
            let name = returned.result.map_or_else(|e| e.to_string(), |()| "success".into());
            let got = offset(returned.error_offset);
            return Err(CaseEnd::broken(
                outcome.error_offset_clause,
                format!("{name} with error_offset {got} instead of {want}"),
            )
            .but(format!("{name}, error_offset {want}"), format!("{name}, error_offset {got}")));
        }
        let no_effect = outcome.no_effect_clause;
        self.remember_contents(call, returned.result);
        self.oracle.apply(call, returned.result);
        let range =
            call.offset / PAGE_SIZE..call.offset.saturating_add(call.size).div_ceil(PAGE_SIZE);
        self.coverage.watch_ends(range.start, range.end);
        Ok(match returned.result {
            Ok(()) => {
                self.attribution.convert(&range);
                After::Converted(range)
            }
            Err(_) => {
                self.attribution.refuse(range, no_effect);
                After::Refused(no_effect)
            }
        })
    }

    /// For the observation of what an unspecified mode did.
    fn remember_contents(&mut self, call: &RawConvert, result: Result<(), Errno>) {
        let unspecified =
            self.setup.dialect.has_content_modes() || self.setup.platform.is_encrypted();
        if result.is_err() || call.flags != 0 || !unspecified {
            return;
        }
        let to = match call.attributes & ATTRIBUTE_PRIVATE {
            0 => Attribute::Shared,
            _ => Attribute::Private,
        };
        let range = call.offset / PAGE_SIZE..(call.offset + call.size) / PAGE_SIZE;
        for page in self.oracle.pages_with_memory(range).into_iter().take(REMEMBERED) {
            let content = self.oracle.content(page);
            if !matches!(content, Content::Unwritten | Content::Unknown) {
                self.observations.remember(page, content, self.line, to);
            }
        }
    }

    /// Whether a refusal may be a page in flight: EAGAIN to private that names a page of the range that nothing of ours
    /// uses. Whatever else is to be said against the call: the order of a kernel's checks is no promise.
    fn is_transient(&self, call: &RawConvert, returned: &Returned) -> bool {
        let page = returned.error_offset / PAGE_SIZE;
        call.attributes == ATTRIBUTE_PRIVATE
            && returned.result == Err(Errno::EAGAIN)
            && returned.error_offset.is_multiple_of(PAGE_SIZE)
            && returned.error_offset >= call.offset
            && returned.error_offset - call.offset < call.size
            && !self.oracle.is_pinned(page)
    }

    /// Makes the call once.
    fn issue(&self, call: &RawConvert) -> Result<Returned, CaseEnd> {
        let mut argument = Argument::new(call)?;
        // SAFETY: the argument is memory of ours, or deliberately none; pages of the guest_memfd are touched through raw
        // pointers only.
        let result = unsafe {
            match call.descriptor {
                Descriptor::GuestMemfd => self.gmem.set_memory_attributes2(argument.pointer()),
                Descriptor::Vm => self.guest.vm().set_memory_attributes2(argument.pointer()),
            }
        };
        // The selftests retry a call that a signal interrupted; nothing has happened then.
        if result == Err(Errno::EINTR) {
            return self.issue(call);
        }
        Ok(Returned { result, error_offset: argument.error_offset(call) })
    }
}

/// The clause that a wrong result breaks: that of the expected one, unless the result says more.
fn broken_by(call: &RawConvert, allowed: &Allowed, result: Result<(), Errno>) -> ClauseId {
    match (allowed.clause, result) {
        (_, Err(Errno::EOPNOTSUPP)) if call.flags == 0 => ClauseId::UnspecifiedAccepted,
        (_, Err(Errno::EINVAL)) if allowed.result.is_ok() && call.error_offset != 0 => {
            ClauseId::ArgumentsErrorOffset
        }
        // It is refused, but as if the answer could be written.
        (_, Err(_)) if call.pointer == Pointer::ReadOnly && allowed.result.is_err() => {
            ClauseId::ArgumentsPointer
        }
        // It is offered, but the call fails for another reason.
        (ClauseId::UnspecifiedAccepted, Err(_)) => ClauseId::ConvertAccepted,
        // It is not offered, but another error says so.
        (ClauseId::ZeroToPrivateRefused, Err(_)) => ClauseId::ModeRefused,
        (clause, _) => clause,
    }
}

fn refusal(call: &RawConvert, allowed: &[Allowed], returned: &Returned, tries: u32) -> CaseEnd {
    let expected: Vec<String> = allowed.iter().map(describe).collect();
    let expected = expected.join(" or ");
    let found = returned.describe();
    let mut summary = format!("the conversion returned {found} instead of {expected}");
    if tries > 1 {
        summary += &format!(", in each of {tries} tries");
    }
    let clause = broken_by(call, &allowed[0], returned.result);
    CaseEnd::broken(clause, summary).but(expected, found)
}

/// What the case says must be what the clauses say: a difference is a mistake in the case or in the oracle.
fn check_explicit(explicit: &Returns, allowed: &[Allowed]) -> Result<(), CaseEnd> {
    let same = explicit.any_of.len() == allowed.len()
        && allowed.iter().all(|a| explicit.any_of.contains(&a.result.err()));
    let same_page = explicit.error_page.is_none_or(|page| {
        allowed.iter().any(|a| a.error_offset == ErrorOffset::At(page * PAGE_SIZE))
    });
    if same && same_page {
        return Ok(());
    }
    let oracle: Vec<String> = allowed.iter().map(describe).collect();
    Err(CaseEnd::error(
        Blame::Suite,
        format!("the case expects {explicit}, the clauses say {}", oracle.join(" or ")),
    ))
}

/// The argument of a call, where the case wants it.
enum Argument {
    Good(Box<MemoryAttributes2>),
    /// A page that cannot be accessed, or only read.
    Page(*mut libc::c_void),
}

impl Argument {
    fn new(call: &RawConvert) -> Result<Argument, CaseEnd> {
        let argument = MemoryAttributes2 {
            offset: call.offset,
            size: call.size,
            attributes: call.attributes,
            flags: call.flags,
            error_offset: call.error_offset,
            reserved: call.reserved,
        };
        let protection = match call.pointer {
            Pointer::Good => return Ok(Argument::Good(Box::new(argument))),
            Pointer::Bad => libc::PROT_NONE,
            Pointer::ReadOnly => libc::PROT_READ,
        };
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { libc::mmap(null_mut(), PAGE_SIZE as usize, both, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(failed("mmap", Errno::last()));
        }
        // SAFETY: the page was mapped above, is page-aligned and larger than the structure.
        unsafe { page.cast::<MemoryAttributes2>().write(argument) };
        // SAFETY: as above; nothing refers to the page.
        if unsafe { libc::mprotect(page, PAGE_SIZE as usize, protection) } != 0 {
            return Err(failed("mprotect", Errno::last()));
        }
        Ok(Argument::Page(page))
    }

    fn pointer(&mut self) -> *mut MemoryAttributes2 {
        match self {
            Argument::Good(argument) => &mut **argument,
            Argument::Page(page) => page.cast(),
        }
    }

    /// The value of `error_offset` after the call. A kernel cannot write to a read-only argument, so there it is the
    /// value from before.
    fn error_offset(&self, call: &RawConvert) -> u64 {
        match self {
            Argument::Good(argument) => argument.error_offset,
            Argument::Page(_) => call.error_offset,
        }
    }
}

impl Drop for Argument {
    fn drop(&mut self) {
        if let Argument::Page(page) = self {
            // SAFETY: mapped in `new`, and the call that was given its address has returned.
            unsafe { libc::munmap(*page, PAGE_SIZE as usize) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::machine::{GuestMemfd, convert_patiently};

    use super::*;
    use crate::machine::{HostView, Result as MachineResult};

    /// Refuses conversions as long as `refusals` lasts, and as rfc-v4 does any argument with an error_offset.
    struct Refusing {
        refusals: u32,
        calls: AtomicU32,
    }

    impl GuestMemfd for Refusing {
        fn fd(&self) -> BorrowedFd<'_> {
            unreachable!("nobody maps it")
        }

        unsafe fn set_memory_attributes2(
            &self,
            argument: *mut MemoryAttributes2,
        ) -> MachineResult<()> {
            // SAFETY: convert_unjudged passes an argument of its own.
            let argument = unsafe { &mut *argument };
            if argument.error_offset != 0 {
                return Err(Errno::EINVAL);
            }
            if self.calls.fetch_add(1, Ordering::Relaxed) < self.refusals {
                argument.error_offset = argument.offset;
                return Err(Errno::EAGAIN);
            }
            Ok(())
        }

        fn fallocate(&self, _: i32, _: u64, _: u64) -> MachineResult<()> {
            unreachable!("nobody allocates")
        }

        fn mmap(&self, _: u64, _: u64) -> MachineResult<Box<dyn HostView>> {
            unreachable!("nobody maps it")
        }

        fn mmap_private(&self, _: u64, _: u64) -> MachineResult<()> {
            unreachable!("nobody maps it")
        }

        fn truncate(&self, _: u64) -> MachineResult<()> {
            unreachable!("nobody resizes it")
        }

        fn size(&self) -> MachineResult<u64> {
            unreachable!("nobody asks")
        }

        fn cached_pages(&self, _: u64, _: u64) -> MachineResult<u64> {
            unreachable!("nobody asks")
        }
    }

    /// What was returned and what is allowed are told in words, with offsets as bytes and, where they are whole pages, as
    /// pages.
    #[test]
    fn results_in_words() {
        let returned = |result, error_offset| Returned { result, error_offset }.describe();
        assert_eq!(returned(Ok(()), 0), "success");
        assert_eq!(returned(Ok(()), 7), "success, error_offset 0x7");
        assert_eq!(returned(Err(Errno::EAGAIN), 0x3000), "EAGAIN, error_offset 0x3000 (page 3)");
        let allowed = |result, error_offset| {
            let clause = ClauseId::ConvertAccepted;
            describe(&Allowed {
                result,
                error_offset,
                clause,
                error_offset_clause: clause,
                no_effect_clause: clause,
            })
        };
        assert_eq!(allowed(Ok(()), ErrorOffset::Untouched), "success");
        assert_eq!(allowed(Err(Errno::EINVAL), ErrorOffset::Anything), "EINVAL");
        assert_eq!(
            allowed(Err(Errno::EAGAIN), ErrorOffset::At(0x1000)),
            "EAGAIN, error_offset 0x1000 (page 1)"
        );
    }

    /// A page in flight is tried again with a fresh argument, but not for ever.
    #[test]
    fn unjudged_conversions_are_tried_again() {
        let argument = MemoryAttributes2::of_pages(&(1..2), ATTRIBUTE_PRIVATE, 0);
        for (refusals, result, calls) in [
            (0, Ok(0), 1),
            (3, Ok(3), 4),
            (TRANSIENT_TRIES - 1, Ok(TRANSIENT_TRIES - 1), TRANSIENT_TRIES),
            (TRANSIENT_TRIES, Err(Errno::EAGAIN), TRANSIENT_TRIES),
        ] {
            let gmem = Refusing { refusals, calls: AtomicU32::new(0) };
            assert_eq!(convert_patiently(&gmem, &argument, TRANSIENT_TRIES), result);
            assert_eq!(gmem.calls.into_inner(), calls);
        }
    }
}
