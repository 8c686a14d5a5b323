// SPDX-License-Identifier: GPL-2.0-only
//! `KVM_PRE_FAULT_MEMORY`.

use super::case_end::CaseEnd;
use super::session::Session;
use crate::case::{Pages, View};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::Sight;
use crate::results::Blame;
use crate::uapi::PAGE_SIZE;

impl Session<'_> {
    /// `KVM_PRE_FAULT_MEMORY` on pages of one memslot, or of none any more.
    pub fn pre_fault(&mut self, pages: &Pages) -> Result<(), CaseEnd> {
        let count = pages.end - pages.start;
        let address = self.guest_address(pages.start).filter(|_| {
            self.groups(pages.clone(), |_| ()).len() == 1 && !self.setup.platform.is_encrypted()
        });
        let Some(mut gpa) = address else {
            let why = "pages are pre-faulted that are not next to each other in the guest, or an encrypted one's";
            return Err(CaseEnd::error(Blame::Suite, why));
        };
        let end = gpa + count * PAGE_SIZE;
        let mapped = self.oracle.sight(View::Guest, pages.start) != Sight::Mmio;
        // KVM may stop after any page, and says how much is left.
        for _ in 0..=2 * count {
            let broken = |found: String| {
                let expected = if mapped { "success" } else { "ENOENT" };
                let summary = format!("KVM_PRE_FAULT_MEMORY at {gpa:#x} gives {found}");
                CaseEnd::broken(ClauseId::PrefaultPages, summary)
                    .at("guest", pages.start, None)
                    .but(expected, found)
            };
            match self.guest.pre_fault(gpa, end - gpa) {
                Err(Errno::ENOENT) if !mapped => return Ok(()),
                // A signal came, or a page was in flight.
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(broken(errno.to_string())),
                Ok(left) if !mapped || left >= end - gpa => {
                    return Err(broken(format!("success, with {left:#x} bytes left")));
                }
                Ok(left) => gpa = end - left,
            }
            if gpa == end {
                pages.clone().for_each(|page| self.oracle.touch(page));
                self.memory_clause = ClauseId::PrefaultPages;
                return Ok(());
            }
        }
        let summary = format!("KVM_PRE_FAULT_MEMORY does not come to an end at {gpa:#x}");
        Err(CaseEnd::broken(ClauseId::PrefaultPages, summary).at("guest", pages.start, None))
    }
}
