// SPDX-License-Identifier: GPL-2.0-only
//! The guest_memfd of a scenario as all of its threads see it, and calls that are judged by what a race allows.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use crate::case::Attribute;
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::exec::{CaseEnd, access, failed, pattern_bytes};
use crate::machine::{GuestMemfd, HostView};
use crate::payload::pattern;
use crate::platform::Platform;
use crate::uapi::{MODE_PRESERVE, MemoryAttributes2, PAGE_SIZE, byte_length};

/// How often a conversion may be refused while others keep pages in flight, before they are asked to pause. Arbitrary:
/// how many it takes says nothing about the kernel.
const RACING_TRIES: usize = 50;
/// How often it may be refused while nobody else touches the memory. Far beyond what a correct kernel needs.
const QUIET_TRIES: usize = 100;

/// What a conversion returned.
pub(super) struct Returned {
    pub result: Result<(), Errno>,
    /// What was then in `error_offset`, which was 0.
    pub error_offset: u64,
}

/// A guest_memfd and a mapping of all of it.
pub(super) struct Memory {
    /// Before the guest_memfd: dropped first.
    pub view: Box<dyn HostView>,
    pub gmem: Box<dyn GuestMemfd>,
    pub dialect: Dialect,
    pub platform: Platform,
    /// Pages of the guest_memfd, which the view maps all of.
    pub pages: u64,
    /// Held for reading by whoever touches pages, for writing by who needs that nobody does.
    pub gate: RwLock<()>,
    /// Whether a conversion was refused with EAGAIN because the kernel used a page for a moment.
    pub was_refused: AtomicBool,
}

impl Memory {
    /// Whether the guest is encrypted: no conversion keeps its contents.
    pub fn encrypted(&self) -> bool {
        self.platform.is_encrypted()
    }

    /// The flags with which a conversion keeps the contents, or, of an encrypted guest, may do with them what it likes.
    pub fn keep(&self) -> u64 {
        if self.dialect.has_content_modes() && !self.encrypted() { MODE_PRESERVE } else { 0 }
    }

    /// The clause that says that it does.
    pub fn kept_clause(&self, to: Attribute) -> ClauseId {
        match to {
            _ if !self.dialect.has_content_modes() => ClauseId::UpstreamContentsKept,
            Attribute::Private => ClauseId::PreserveToPrivate,
            Attribute::Shared => ClauseId::PreserveToShared,
        }
    }

    /// Lets the caller touch pages, unless somebody needs quiet.
    pub fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the call once. Allocates nothing, for those who make allocations fail.
    pub fn issue(&self, pages: &Range<u64>, to: Attribute, flags: u64) -> Returned {
        let mut argument = MemoryAttributes2::of_pages(pages, to.bits(), flags);
        // SAFETY: the argument is ours; pages of the guest_memfd are touched through raw pointers only.
        let result = unsafe { self.gmem.set_memory_attributes2(&mut argument) };
        Returned { result, error_offset: argument.error_offset }
    }

    /// Makes the call once and judges it: whether it has converted, or found a page of the range in flight.
    pub fn try_convert(
        &self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> Result<bool, CaseEnd> {
        let Returned { result, error_offset } = self.issue(pages, to, flags);
        let call = describe(pages, to);
        let found = match result {
            Ok(()) => format!("success, error_offset {error_offset:#x}"),
            Err(errno) => format!("{errno}, error_offset {error_offset:#x}"),
        };
        let wrong = |clause, expected: &str| {
            Err(CaseEnd::broken(clause, format!("{call} returned {found}")).but(expected, &*found))
        };
        match (result, to) {
            (Ok(()), _) if error_offset == 0 => Ok(true),
            (Ok(()), _) => {
                wrong(ClauseId::ConvertSuccessUntouched, "success, error_offset untouched")
            }
            (Err(Errno::EAGAIN), Attribute::Private) => {
                let inside = error_offset.is_multiple_of(PAGE_SIZE)
                    && pages.contains(&(error_offset / PAGE_SIZE));
                if inside {
                    self.was_refused.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                wrong(ClauseId::InUseErrorOffset, "EAGAIN with the offset of a page of the range")
            }
            (Err(Errno::EAGAIN), Attribute::Shared) => wrong(ClauseId::InUseToShared, "success"),
            (Err(_), Attribute::Private) => wrong(ClauseId::ConvertAccepted, "success or EAGAIN"),
            (Err(_), Attribute::Shared) => wrong(ClauseId::ConvertAccepted, "success"),
        }
    }

    /// Converts, however often a page is in flight at first. The caller holds no [`Memory::pass`].
    pub fn convert(&self, pages: &Range<u64>, to: Attribute, flags: u64) -> Result<(), CaseEnd> {
        for _ in 0..RACING_TRIES {
            if self.try_convert(pages, to, flags)? {
                return Ok(());
            }
            thread::yield_now();
        }
        let _quiet = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..QUIET_TRIES {
            if self.try_convert(pages, to, flags)? {
                return Ok(());
            }
            thread::yield_now();
        }
        let summary = format!(
            "{} is still refused in the last of {QUIET_TRIES} tries during which nobody touched the memory",
            describe(pages, to)
        );
        Err(CaseEnd::broken(ClauseId::InUseRetry, summary).but("success", "EAGAIN"))
    }

    /// Converts with the contents kept, then looks at each page of the range as the host: `clause` says that a page that
    /// was made private must not be readable.
    pub fn convert_and_look(
        &self,
        pages: &Range<u64>,
        to: Attribute,
        clause: ClauseId,
    ) -> Result<(), CaseEnd> {
        self.convert(pages, to, self.keep())?;
        pages.clone().try_for_each(|page| match to {
            Attribute::Private => self.must_fault(page, clause),
            Attribute::Shared => self.must_read(page).map(drop),
        })
    }

    /// Word `index` of a page, or `None` for a SIGBUS.
    pub fn read(&self, page: u64, index: usize) -> Option<u64> {
        access::read_word(&*self.view, page, index).ok()
    }

    /// A page that is private must not be readable by the host; `clause` says so.
    pub fn must_fault(&self, page: u64, clause: ClauseId) -> Result<(), CaseEnd> {
        match self.read(page, 0) {
            None => Ok(()),
            Some(word) => {
                let summary = format!("host can read page {page}, which is private");
                let found = format!("{word:#018x}");
                Err(CaseEnd::broken(clause, summary).but("SIGBUS", found).at("host", page, Some(0)))
            }
        }
    }

    /// A page that is shared must be readable by the host: its first word.
    pub fn must_read(&self, page: u64) -> Result<u64, CaseEnd> {
        self.read(page, 0).ok_or_else(|| {
            let summary = format!("host cannot read page {page}, which is shared");
            CaseEnd::broken(ClauseId::HostAccessShared, summary).but("a value", "SIGBUS").at(
                "host",
                page,
                Some(0),
            )
        })
    }

    /// The host writes the pattern `tag` into shared pages.
    pub fn fill(&self, pages: &Range<u64>, tag: u64) -> Result<(), CaseEnd> {
        pages.clone().try_for_each(|page| {
            let written = access::write_page(&*self.view, page, &pattern_bytes(tag, page));
            written.map_err(|_| {
                let summary = format!("host cannot write page {page}, which is shared");
                let stop = CaseEnd::broken(ClauseId::HostAccessShared, summary);
                stop.but("no fault", "SIGBUS").at("host", page, Some(0))
            })
        })
    }

    /// The host must find the pattern `tag` in a shared page, which the guest has written: the first word and the last.
    pub fn must_hold(&self, page: u64, tag: u64) -> Result<(), CaseEnd> {
        for index in [0, pattern::WORDS_PER_PAGE - 1] {
            let expected = pattern::word(tag, page, index);
            let found = self.read(page, index as usize);
            if found != Some(expected) {
                let found = found.map_or("SIGBUS".to_string(), |word| format!("{word:#018x}"));
                let summary =
                    format!("host does not find in page {page} what the guest has written there");
                return Err(CaseEnd::broken(ClauseId::MemorySame, summary)
                    .but(format!("{expected:#018x}"), found)
                    .at("host", page, Some(index * 8)));
            }
        }
        Ok(())
    }

    /// Each word of a shared page is the pattern's or zero; `clause` says so. They may be mixed: the page may have been
    /// cleared while it was being written.
    pub fn written_or_zero(&self, page: u64, tag: u64, clause: ClauseId) -> Result<(), CaseEnd> {
        for index in 0..pattern::WORDS_PER_PAGE {
            let expected = pattern::word(tag, page, index);
            match self.read(page, index as usize) {
                Some(word) if word == 0 || word == expected => {}
                found => {
                    let found = found.map_or("SIGBUS".to_string(), |word| format!("{word:#018x}"));
                    let clause =
                        if found == "SIGBUS" { ClauseId::HostAccessShared } else { clause };
                    let summary = format!("page {page} is neither as it was written nor zero");
                    return Err(CaseEnd::broken(clause, summary)
                        .but(format!("{expected:#018x} or 0"), found)
                        .at("host", page, Some(index * 8)));
                }
            }
        }
        Ok(())
    }

    /// Punches `pages` out.
    pub fn punch(&self, pages: &Range<u64>) -> Result<(), CaseEnd> {
        self.fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, pages)
            .map_err(|e| failed("fallocate(FALLOC_FL_PUNCH_HOLE)", e))
    }

    /// Allocates `pages`.
    pub fn allocate(&self, pages: &Range<u64>) -> Result<(), CaseEnd> {
        self.fallocate(libc::FALLOC_FL_KEEP_SIZE, pages).map_err(|e| failed("fallocate", e))
    }

    fn fallocate(&self, mode: i32, pages: &Range<u64>) -> Result<(), Errno> {
        let length = byte_length(pages);
        self.gmem.fallocate(mode, pages.start * PAGE_SIZE, length)
    }
}

/// A conversion in words.
pub(super) fn describe(pages: &Range<u64>, to: Attribute) -> String {
    format!("the conversion of pages {}..{} to {to}", pages.start, pages.end)
}
