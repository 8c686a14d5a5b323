// SPDX-License-Identifier: GPL-2.0-only
//! `KVM_PRE_FAULT_MEMORY`.

use super::case_end::CaseEnd;
use super::session::Session;
use crate::case::Pages;
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::payload::abi::PRIVATE_WINDOW;
use crate::results::Blame;
use crate::uapi::PAGE_SIZE;

impl Session<'_> {
    /// `KVM_PRE_FAULT_MEMORY` on pages of one memslot, or of none any more.
    pub fn pre_fault(&mut self, pages: &Pages) -> Result<(), CaseEnd> {
        let count = pages.end - pages.start;
        let Some(mut gpa) = self.guest_physical(pages) else {
            let why = "pages are pre-faulted that are not next to each other in the guest";
            return Err(CaseEnd::error(Blame::Suite, why));
        };
        let end = gpa + count * PAGE_SIZE;
        if self.oracle.takes_launch_calls() {
            return self.pre_fault_in_launch(pages, gpa..end);
        }
        let mapped = self.oracle.slot_of(pages.start).is_some();
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
                self.attribution.memory_clause = ClauseId::PrefaultPages;
                return Ok(());
            }
        }
        let summary = format!("KVM_PRE_FAULT_MEMORY does not come to an end at {gpa:#x}");
        Err(CaseEnd::broken(ClauseId::PrefaultPages, summary).at("guest", pages.start, None))
    }

    /// The launch of an encrypted guest is not finished: its memory is the launch's, and nothing may be put into it.
    fn pre_fault_in_launch(&mut self, pages: &Pages, gpas: Pages) -> Result<(), CaseEnd> {
        let found = match self.guest.pre_fault(gpas.start, gpas.end - gpas.start) {
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(errno) => errno.to_string(),
            Ok(left) => format!("success, with {left:#x} bytes left"),
        };
        let summary = format!(
            "KVM_PRE_FAULT_MEMORY at {:#x}, before the launch is finished, gives {found}",
            gpas.start
        );
        Err(CaseEnd::broken(ClauseId::PrefaultLaunch, summary)
            .at("guest", pages.start, None)
            .but(Errno::EOPNOTSUPP.to_string(), found))
    }

    /// The guest physical address of pages that lie next to each other in one memslot, whatever alias an encrypted guest
    /// reaches each of them by.
    fn guest_physical(&self, pages: &Pages) -> Option<u64> {
        let address = |page| self.guest_address(page).map(|address| address & !PRIVATE_WINDOW);
        let first = address(pages.start)?;
        let follows = |page| address(page) == Some(first + (page - pages.start) * PAGE_SIZE);
        pages.clone().all(follows).then_some(first)
    }
}
