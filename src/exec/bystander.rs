// SPDX-License-Identifier: GPL-2.0-only
//! Other guest_memfds of the VM: what is done to the one under test must not reach them.

use super::access;
use super::case_end::CaseEnd;
use super::convert::TRANSIENT_TRIES;
use super::session::Session;
use super::setup::{FailedCall, map_all, new_file};
use super::steps::pattern_bytes;
use crate::case::{Attribute, Pages};
use crate::clause::ClauseId;
use crate::machine::{GuestMemfd, HostView, convert_patiently};
use crate::oracle::PageBytes;
use crate::results::Blame;
use crate::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, MemoryAttributes2, PAGE_SIZE,
};

/// Pages of the largest file that may have a bystander: all of them are looked at after every step.
pub(crate) const BYSTANDER_PAGES: u64 = 64;

/// The letter of its pattern, one that no case can use.
const LETTER: u8 = b'Y';

/// `GUEST_MEMFD_FLAG_*` for a file that starts so.
pub(crate) fn creation_flags(start: Attribute, mmap: bool) -> u64 {
    let init = match start {
        Attribute::Shared => GUEST_MEMFD_FLAG_INIT_SHARED,
        Attribute::Private => 0,
    };
    if mmap { init | GUEST_MEMFD_FLAG_MMAP } else { init }
}

/// Another guest_memfd. Every page is as it was made: shared, with a pattern, or private.
pub(super) struct Bystander {
    view: Box<dyn HostView>,
    pages: Vec<PageState>,
    gmem: Box<dyn GuestMemfd>,
}

/// A page of a bystander.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageState {
    /// Shared, with the pattern that was written there.
    Pattern,
    /// Shared, after a conversion that promises nothing.
    Unknown,
    Private,
}

impl Session<'_> {
    /// Makes a bystander of the size of the file under test.
    pub fn add_bystander(&mut self, attribute: Attribute) -> Result<(), CaseEnd> {
        let pages = self.oracle.file_pages();
        if pages > BYSTANDER_PAGES {
            let why = format!("a case with a bystander has at most {BYSTANDER_PAGES} pages");
            return Err(CaseEnd::error(Blame::Suite, why));
        }
        let size = pages * PAGE_SIZE;
        let gmem = new_file(self.guest.vm(), size, creation_flags(attribute, true))
            .map_err(FailedCall::wrongly_refused)?;
        let view = map_all(&*gmem, size).map_err(FailedCall::wrongly_refused)?;
        if attribute == Attribute::Shared {
            for page in 0..pages {
                // Should it fault, the look below says so.
                let _ = access::write_page(&*view, page, &self.bystander_bytes(page));
            }
        }
        let state = match attribute {
            Attribute::Shared => PageState::Pattern,
            Attribute::Private => PageState::Private,
        };
        self.bystanders.push(Bystander { view, pages: vec![state; pages as usize], gmem });
        self.bystanders_are(ClauseId::FreshAttribute)
    }

    /// Converts pages of the newest bystander, with nothing promised about their contents.
    pub fn convert_bystander(&mut self, pages: &Pages, to: Attribute) -> Result<(), CaseEnd> {
        let Some(bystander) = self.bystanders.last_mut() else {
            return Err(CaseEnd::error(
                Blame::Suite,
                "the case converts a bystander that it has not made",
            ));
        };
        // Nobody but us uses these pages, yet one may be in a per-CPU list for a moment.
        let argument = MemoryAttributes2::of_pages(pages, to.bits(), 0);
        convert_patiently(&*bystander.gmem, &argument, TRANSIENT_TRIES).map_err(|errno| {
            let summary = format!("a conversion of another guest_memfd returned {errno}");
            CaseEnd::broken(ClauseId::ConvertAccepted, summary).but("success", errno.to_string())
        })?;
        for page in &mut bystander.pages[pages.start as usize..pages.end as usize] {
            *page = match to {
                Attribute::Shared => PageState::Unknown,
                Attribute::Private => PageState::Private,
            };
        }
        self.bystanders_are(ClauseId::ConvertRange)
    }

    /// No page of any bystander has changed.
    pub fn check_bystanders(&self) -> Result<(), CaseEnd> {
        self.bystanders_are(ClauseId::ConvertPrecise)
    }

    /// Every page of every bystander is as it was made; otherwise `clause` is broken.
    fn bystanders_are(&self, clause: ClauseId) -> Result<(), CaseEnd> {
        for bystander in &self.bystanders {
            for (page, state) in (0..).zip(&bystander.pages) {
                let read = access::read_page(&*bystander.view, page);
                let (was, expected, found) = match (state, read) {
                    (PageState::Pattern, Ok(bytes)) if bytes == self.bystander_bytes(page) => {
                        continue;
                    }
                    (PageState::Unknown, Ok(_)) | (PageState::Private, Err(_)) => continue,
                    (PageState::Pattern, Ok(_)) => {
                        ("shared", "the pattern that was written there", "other contents")
                    }
                    (PageState::Pattern | PageState::Unknown, Err(_)) => {
                        ("shared", "no fault", "SIGBUS")
                    }
                    (PageState::Private, Ok(_)) => ("private", "SIGBUS", "no fault"),
                };
                let summary = format!(
                    "page {page} of another guest_memfd of the VM, which was {was}, is not so any more"
                );
                return Err(CaseEnd::broken(clause, summary)
                    .at("host", page, None)
                    .but(expected, found));
            }
        }
        Ok(())
    }

    fn bystander_bytes(&self, page: u64) -> PageBytes {
        pattern_bytes(self.tag(LETTER), page)
    }
}
