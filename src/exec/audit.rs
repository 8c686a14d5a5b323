// SPDX-License-Identifier: GPL-2.0-only
//! Looking at everything that a step may have changed, without disturbing what is looked at.
//!
//! A read allocates a hole, and an access maps a page where it was not mapped. So after a step, only those views look at
//! a page that have touched it before; after a call about attributes the host also tries private pages, since a fault
//! leaves no trace. In the end, when nothing follows that could be disturbed, every view looks at every page of interest, holes last.

use super::access;
use super::case_end::CaseEnd;
use super::session::{After, Session, wrongly_refused};
use crate::case::{Attribute, View};
use crate::clause::ClauseId;
use crate::oracle::{Backing, Sight};
use crate::platform::GuestCommand;

/// The words of a page through which each side proves to the other that it sees the same memory. Any two would do.
const TO_HOST: usize = 3;
const TO_GUEST: usize = 508;

impl Session<'_> {
    /// After a step: every page that was touched, through the views that touched it, and every fault that must happen.
    pub fn audit(&mut self, after: &After) -> Result<(), CaseEnd> {
        self.check_bystanders()?;
        for view in View::ALL {
            let pages: Vec<u64> = self
                .coverage
                .pages()
                .into_iter()
                .filter(|page| match self.oracle.sight(view, *page) {
                    Sight::Content(_) => self.coverage.has_touched(*page, view),
                    // What faulted before a write faults after it: the end is soon enough to see it.
                    Sight::Fault if *after == After::Nothing => false,
                    Sight::Fault => view == View::Host || self.coverage.has_touched(*page, view),
                    Sight::Mmio | Sight::MemoryFault | Sight::Absent => false,
                })
                .filter(|_| view != View::Child || self.child.is_some())
                .collect();
            self.look(view, &pages, after, false)?;
        }
        Ok(())
    }

    /// After the last step: every page of interest through every view, holes last, and proof that they are the same
    /// memory.
    pub fn final_audit(&mut self) -> Result<(), CaseEnd> {
        let after = After::Nothing;
        let mapped_by_host = self.coverage.touched_by(View::Host);
        let (holes, memory): (Vec<u64>, Vec<u64>) = self
            .coverage
            .pages()
            .into_iter()
            .partition(|page| self.oracle.backing(*page) == Backing::Hole);
        let (even, odd): (Vec<u64>, Vec<u64>) =
            holes.into_iter().partition(|p| p.is_multiple_of(2));
        // The first look at a hole allocates it: once from the host's side, once from the guest's.
        let all = [&memory[..], &odd, &even].concat();
        let is_mapped = |page: &u64| {
            !matches!(self.oracle.sight(View::Guest, *page), Sight::Mmio | Sight::MemoryFault)
        };
        let mapped: Vec<u64> = all.iter().copied().filter(is_mapped).collect();
        let writes = self.coverage.thorough;
        self.look(View::Host, &memory, &after, writes)?;
        self.look(View::Host, &even, &after, writes)?;
        self.look(View::Guest, &mapped, &after, writes)?;
        self.look(View::Host, &odd, &after, writes)?;
        if self.view2.is_some() {
            self.look(View::Host2, &all, &after, writes)?;
        }
        if self.child.is_some() {
            self.look(View::Child, &all, &after, writes)?;
        }
        if !self.oracle.is_mappable() {
            return Ok(());
        }
        self.look_afresh(&mapped_by_host)?;
        if self.coverage.thorough { self.prove_same_memory() } else { Ok(()) }
    }

    /// The host looks through a new mapping at pages that it had touched: there each access is a page fault, which asks
    /// the kernel's record, while the old mapping may still hold a page that the record says is private. Where the old
    /// mapping held nothing, the look through it has asked the record already.
    fn look_afresh(&mut self, pages: &[u64]) -> Result<(), CaseEnd> {
        if pages.is_empty() {
            return Ok(());
        }
        let length = self.view.length();
        let mut fresh = self.gmem.mmap(0, length).map_err(|e| {
            wrongly_refused(ClauseId::DescriptorCalls, "a second mmap of the guest_memfd", e)
        })?;
        std::mem::swap(&mut self.view, &mut fresh);
        // Nobody has looked through this one: a fault is for the record to explain, not for the mapping.
        for page in pages {
            self.coverage.forget(*page, View::Host);
        }
        let result = self.look(View::Host, pages, &After::Nothing, false);
        std::mem::swap(&mut self.view, &mut fresh);
        result.map_err(|stop| {
            stop.detail(vec!["seen through a new mapping of the guest_memfd".into()])
        })
    }

    /// What the guest writes to a shared page the host reads, and the other way round.
    fn prove_same_memory(&mut self) -> Result<(), CaseEnd> {
        if self.oracle.is_guest_lost() {
            return Ok(());
        }
        let pages: Vec<u64> = self
            .coverage
            .pages()
            .into_iter()
            .filter(|p| self.oracle.attribute(*p) == Attribute::Shared)
            .filter(|p| self.oracle.slot_of(*p).is_some())
            .collect();
        // One page will do, another one in every case: contents are compared in all of them.
        let Some(page) = pages.iter().copied().cycle().nth(self.salt.into()) else {
            return Ok(());
        };
        if let Some(address) = self.guest_address(page) {
            let word = self.tag(b'Y');
            let command = GuestCommand::Write { address: address + TO_HOST as u64 * 8, word };
            self.guest_command(command, "write", page)?;
            let found = access::read_word(&*self.view, page, TO_HOST)
                .map_err(|fault| self.must_not_fault(View::Host, page, fault, &After::Nothing))?;
            self.same(View::Host, page, TO_HOST, word, found)?;

            let word = self.tag(b'Z');
            access::write_word(&*self.view, page, TO_GUEST, word)
                .map_err(|fault| self.must_not_fault(View::Host, page, fault, &After::Nothing))?;
            let command = GuestCommand::Read { address: address + TO_GUEST as u64 * 8 };
            let found = self.guest_command(command, "read", page)?.found;
            self.same(View::Guest, page, TO_GUEST, word, found)?;
        }
        Ok(())
    }

    pub fn same(
        &self,
        view: View,
        page: u64,
        index: usize,
        expected: u64,
        found: u64,
    ) -> Result<(), CaseEnd> {
        if found == expected {
            return Ok(());
        }
        let summary =
            format!("{view} does not see what was written to page {page} from the other side");
        Err(CaseEnd::broken(ClauseId::MemorySame, summary)
            .at(view.name(), page, Some(index as u64 * 8))
            .but(format!("{expected:#018x}"), format!("{found:#018x}")))
    }
}
