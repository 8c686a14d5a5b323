// SPDX-License-Identifier: GPL-2.0-only
//! Other guest_memfds of the VM: what is done to the one under test must not reach them.

use super::access;
use super::session::{Session, failed};
use super::steps::pattern_bytes;
use super::stop::Stop;
use crate::case::Attribute;
use crate::machine::{GuestMemfd, HostView};
use crate::oracle::PageBytes;
use crate::results::Blame;
use crate::uapi::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, PAGE_SIZE};

/// Pages of the largest file that may have a bystander: all of them are looked at after every step.
const MOST_PAGES: u64 = 64;

/// The letter of its pattern, one that no case can use.
const LETTER: u8 = b'Y';

/// `GUEST_MEMFD_FLAG_*` for a file that starts so.
pub(super) fn creation_flags(start: Attribute, mmap: bool) -> u64 {
    let init = match start {
        Attribute::Shared => GUEST_MEMFD_FLAG_INIT_SHARED,
        Attribute::Private => 0,
    };
    if mmap { init | GUEST_MEMFD_FLAG_MMAP } else { init }
}

/// Another guest_memfd. Every page is as it was at the start: shared, with a pattern, or private.
pub(super) struct Bystander {
    view: Box<dyn HostView>,
    attribute: Attribute,
    #[expect(dead_code, reason = "its descriptor is kept open, so that the VM knows the file")]
    gmem: Box<dyn GuestMemfd>,
}

impl Session<'_> {
    /// Makes a bystander of the size of the file under test.
    pub fn add_bystander(&mut self, attribute: Attribute) -> Result<(), Stop> {
        let pages = self.oracle.file_pages();
        if pages > MOST_PAGES {
            let why = format!("a case with a bystander has at most {MOST_PAGES} pages");
            return Err(Stop::error(Blame::Suite, why));
        }
        let size = pages * PAGE_SIZE;
        let gmem = self
            .guest
            .vm()
            .create_guest_memfd(size, creation_flags(attribute, true))
            .map_err(|e| failed("KVM_CREATE_GUEST_MEMFD", e))?;
        let view = gmem.mmap(0, size).map_err(|e| failed("mmap of the guest_memfd", e))?;
        if attribute == Attribute::Shared {
            for page in 0..pages {
                // Should it fault, the look below says so.
                let _ = access::write_page(&*view, page, &self.bystander_bytes(page));
            }
        }
        self.bystanders.push(Bystander { view, attribute, gmem });
        self.bystanders_are("fresh.attribute")
    }

    /// No page of any bystander has changed.
    pub fn check_bystanders(&self) -> Result<(), Stop> {
        self.bystanders_are("convert.precise")
    }

    /// Every page of every bystander is as it was made; otherwise `clause` is broken.
    fn bystanders_are(&self, clause: &'static str) -> Result<(), Stop> {
        for bystander in &self.bystanders {
            for page in 0..self.oracle.file_pages() {
                let read = access::read_page(&*bystander.view, page);
                let found = match (bystander.attribute, read) {
                    (Attribute::Shared, Ok(bytes)) if bytes == self.bystander_bytes(page) => {
                        continue;
                    }
                    (Attribute::Private, Err(_)) => continue,
                    (Attribute::Shared, Ok(_)) => "other contents",
                    (Attribute::Shared, Err(_)) => "SIGBUS",
                    (Attribute::Private, Ok(_)) => "no fault",
                };
                let expected = match bystander.attribute {
                    Attribute::Shared => "the pattern that was written there",
                    Attribute::Private => "SIGBUS",
                };
                let summary = format!(
                    "page {page} of another guest_memfd of the VM, which was {}, is not so any more",
                    bystander.attribute
                );
                return Err(Stop::broken(clause, summary)
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
