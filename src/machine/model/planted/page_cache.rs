// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the page cache: accesses of host and guest, and `fallocate`.

use std::ops::Range;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::folio::SHORT;
use crate::machine::model::inode::{Inode, State};
use crate::uapi::ATTRIBUTE_PRIVATE;

impl Inode {
    /// The guest is about to access a page.
    pub fn hook_guest_access(&self, state: &mut State, page: u64) -> Result<()> {
        match self.config.fault {
            Some(Fault::GuestPrivateRefused) if self.is_private(state, page) => Err(Errno::EFAULT),
            Some(Fault::FreshNotZeroed) if !self.is_up_to_date(page) => self.scramble(page),
            Some(Fault::UnspecifiedUnstable) if state.planted.scramble_later.remove(&page) => {
                self.scramble(page)
            }
            _ => Ok(()),
        }
    }

    /// Whether the host's access to a page, which is private or not, is refused.
    pub fn hook_host_refused(&self, private: bool) -> bool {
        private && !self.planted(Fault::HostFaultsPrivate)
    }

    /// Whether pages that become private are unmapped from the host's mapping of this number.
    pub fn hook_zapped(&self, mapping: usize) -> bool {
        match self.config.fault {
            Some(Fault::HostFaultsPrivate) => false,
            Some(Fault::OnlyFirstMappingZapped) => mapping == 0,
            _ => true,
        }
    }

    /// Whether private pages are unmapped from a forked child.
    pub fn hook_zapped_in_child(&self) -> bool {
        !self.planted(Fault::ChildNotZapped) && !self.planted(Fault::HostFaultsPrivate)
    }

    /// `fallocate` is about to allocate.
    pub fn hook_before_allocate(&self, state: &mut State, pages: &Range<u64>) -> Result<()> {
        match self.config.fault {
            Some(Fault::AllocateLosesContents) => self.free(state, pages.clone()),
            Some(Fault::AllocateMakesShared) => {
                self.store(state, pages.clone(), 0)?;
                self.refault(state, pages.clone())
            }
            _ => Ok(()),
        }
    }

    /// Whether `fallocate` refuses to allocate a range because it reaches past the end of the file.
    pub fn hook_allocates_past_end(&self, past_end: bool) -> bool {
        past_end && !self.planted(Fault::AllocatePastEndAccepted)
    }

    /// `fallocate` has allocated.
    pub fn hook_allocated(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        let (short, last) = (pages.end - pages.start <= SHORT, pages.end - 1..pages.end);
        let mut missing = pages.filter(|page| !self.is_up_to_date(*page));
        match self.config.fault {
            Some(Fault::AllocateLastMissed) => {
                state.allocated.set(last, false);
                Ok(())
            }
            Some(Fault::AllocatedNotCleared) if short => {
                missing.try_for_each(|page| self.scramble(page))
            }
            Some(Fault::AllocateClears) if short => missing.try_for_each(|page| self.touch(page)),
            _ => Ok(()),
        }
    }

    /// The runs that `fallocate` takes out of the page cache for a hole.
    pub fn hook_punched_out(
        &self,
        state: &mut State,
        pages: &Range<u64>,
    ) -> Result<Vec<Range<u64>>> {
        let runs_that_are = |private: bool| {
            let runs = state.attributes.runs(pages.clone()).into_iter();
            runs.filter(|(_, attributes)| (attributes & ATTRIBUTE_PRIVATE != 0) == private)
                .map(|(run, _)| run)
                .collect()
        };
        Ok(match self.config.fault {
            Some(Fault::PunchFirstFolioOnly) => {
                let first = pages.start..pages.start + 1;
                vec![first]
            }
            Some(Fault::PunchKeepsContents) => Vec::new(),
            Some(Fault::PunchSkipsShared) => runs_that_are(true),
            Some(Fault::PunchSkipsPrivate) => runs_that_are(false),
            Some(Fault::PunchGuestNotZapped) => {
                self.keep_for_guest(state, pages.clone())?;
                vec![pages.clone()]
            }
            _ => vec![pages.clone()],
        })
    }

    /// A hole has been punched.
    pub fn hook_punched(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        let attributes = match self.config.fault {
            Some(Fault::PunchResetsAttribute) => self.initial_attributes(),
            Some(Fault::PunchMakesShared) => 0,
            _ => return Ok(()),
        };
        self.store(state, pages.clone(), attributes)?;
        self.refault(state, pages)
    }

    /// Whether an encrypted guest loses pages that are taken out of the page cache.
    pub fn hook_freed_is_disowned(&self) -> bool {
        !self.planted(Fault::PunchStaysOwned)
    }
}
