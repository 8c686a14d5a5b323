// SPDX-License-Identifier: GPL-2.0-only
//! Calls on the guest_memfd's descriptor, and what is left when it is closed.

use super::access;
use super::bystander::creation_flags;
use super::case_end::CaseEnd;
use super::guard::BUS_ADRERR;
use super::session::{After, SHORTAGES, Session, failed, wrongly_refused};
use crate::case::{Attribute, FileCall, Pages, Returns};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::oracle::CallRule;
use crate::platform::{GuestCommand, GuestStop};
use crate::results::Blame;
use crate::uapi::{KVM_CAP_GUEST_MEMFD_FLAGS, PAGE_SIZE};

impl Session<'_> {
    /// Makes a call on the file, which must return what the clauses say.
    pub fn file_call(
        &mut self,
        call: &FileCall,
        explicit: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let listed = self.guest.vm().check_extension(KVM_CAP_GUEST_MEMFD_FLAGS);
        let listed = listed.map_err(|e| failed("KVM_CHECK_EXTENSION", e))? as u64;
        let rule = self.oracle.judge_file_call(call, listed);
        check_explicit(explicit, &rule)?;
        let result = self.issue_file_call(call);
        if let Err(errno) = result
            && SHORTAGES.contains(&errno)
            && !rule.errors.contains(&errno)
        {
            return Err(failed(&call.to_string(), errno));
        }
        if !rule.allows(result) {
            let found = result.map_or_else(|errno| errno.to_string(), |()| "success".into());
            let summary = format!("{call} gives {found} instead of {rule}");
            return Err(CaseEnd::broken(rule.clause, summary).but(rule.to_string(), found));
        }
        self.must_keep_size()?;
        if result.is_err() {
            return Ok(After::Refused(rule.clause));
        }
        if let FileCall::Map { private: false, offset, length } = *call {
            self.must_end_with_file(offset, length)?;
        }
        let Some((pages, punched)) = self.oracle.fallocated(call).filter(|(p, _)| !p.is_empty())
        else {
            return Ok(After::Nothing);
        };
        if punched {
            self.punched(&pages);
            return Ok(After::Punched(pages));
        }
        Ok(self.allocated(&pages))
    }

    fn issue_file_call(&mut self, call: &FileCall) -> Result<(), Errno> {
        match *call {
            FileCall::Fallocate { mode, offset, length } => {
                self.gmem.fallocate(mode as i32, offset, length)
            }
            FileCall::Truncate { size } => self.gmem.truncate(size),
            FileCall::Map { private: true, offset, length } => {
                self.gmem.mmap_private(offset, length)
            }
            FileCall::Map { private: false, offset, length } => {
                self.gmem.mmap(offset, length).map(drop)
            }
            FileCall::Create { size, flags } => {
                self.guest.vm().create_guest_memfd(size, flags).map(drop)
            }
        }
    }

    /// What a mapping has behind the end of the file is SIGBUS.
    fn must_end_with_file(&self, offset: u64, length: u64) -> Result<(), CaseEnd> {
        let view = self
            .gmem
            .mmap(offset, length)
            .map_err(|e| wrongly_refused(ClauseId::DescriptorCalls, "mmap", e))?;
        let first = offset / PAGE_SIZE;
        for page in self.oracle.file_pages().max(first)..first + length / PAGE_SIZE {
            match access::read_word(&*view, page - first, 0) {
                Err(fault) if fault.code == BUS_ADRERR => {}
                _ => {
                    let summary =
                        format!("page {page} is behind the end of the file, and is there");
                    return Err(CaseEnd::broken(ClauseId::DescriptorCalls, summary)
                        .at("host", page, None)
                        .but("SIGBUS, si_code 2 (BUS_ADRERR)", "no such fault"));
                }
            }
        }
        Ok(())
    }

    /// Checks the size of the guest_memfd: no call may change it.
    fn must_keep_size(&self) -> Result<(), CaseEnd> {
        let expected = self.oracle.file_pages() * PAGE_SIZE;
        let found = self.gmem.size().map_err(|e| failed("fstat", e))?;
        if found == expected {
            return Ok(());
        }
        let summary = format!("the guest_memfd of {expected:#x} bytes has {found:#x} now");
        Err(CaseEnd::broken(ClauseId::DescriptorCalls, summary)
            .but(format!("{expected:#x}"), format!("{found:#x}")))
    }

    /// Pages have memory, or none has.
    pub fn file_expect(&mut self, pages: &Pages, allocated: bool) -> Result<(), CaseEnd> {
        let what = |allocated| if allocated { "memory" } else { "no memory" };
        for page in pages.clone() {
            if self.oracle.must_have_memory(page) != Some(allocated) {
                let why = format!(
                    "the case expects page {page} to have {}, the clauses do not say that",
                    what(allocated)
                );
                return Err(CaseEnd::error(Blame::Suite, why));
            }
            let cached = match self.gmem.cached_pages(page * PAGE_SIZE, PAGE_SIZE) {
                Ok(cached) => cached != 0,
                // Before Linux 6.5 nobody can tell.
                Err(Errno::ENOSYS) => {
                    self.observations.add(self.line, "cachestat", "ENOSYS");
                    return Ok(());
                }
                Err(errno) => return Err(failed("cachestat", errno)),
            };
            if cached != allocated {
                let summary = format!("page {page} has {}", what(cached));
                return Err(CaseEnd::broken(self.attribution.memory_clause, summary)
                    .at("file", page, None)
                    .but(what(allocated), what(cached)));
            }
        }
        Ok(())
    }

    /// Closes the file with its mapping, and makes another one.
    pub fn replace_file(&mut self, start: Attribute) -> Result<(), CaseEnd> {
        let mappable = self.oracle.is_mappable();
        // A memslot that names the mapping would name whatever comes to lie there.
        let named = mappable && !self.hide_elsewhere()?;
        if named || self.child.is_some() || !self.pins.is_empty() || !self.guest.can_reset() {
            let why = "a file is replaced in a case with `mmap none` or `userspace elsewhere`, without a child, without \
                       pins, and not of encrypted guests";
            return Err(CaseEnd::error(Blame::Suite, why));
        }
        let size = self.oracle.file_pages() * PAGE_SIZE;
        let gmem = self.guest.vm().create_guest_memfd(size, creation_flags(start, mappable));
        let gmem = gmem
            .map_err(|e| wrongly_refused(ClauseId::CreateArguments, "KVM_CREATE_GUEST_MEMFD", e))?;
        if mappable {
            self.view = gmem.mmap(0, size).map_err(|e| {
                wrongly_refused(ClauseId::DescriptorCalls, "mmap of the guest_memfd", e)
            })?;
        }
        self.view2 = None;
        self.gmem = gmem;
        self.oracle.replace_file(start);
        self.coverage.clear();
        self.observations.clear();
        self.attribution.clear();
        Ok(())
    }

    /// The guest's access to a page whose memslot has lost its file must say which page it was.
    pub fn must_be_memory_fault(&mut self, page: u64, address: u64) -> Result<(), CaseEnd> {
        let deadline = self.deadline();
        self.spoiled = true;
        let expected = GuestStop::MemoryFault { flags: 0, gpa: address, size: PAGE_SIZE };
        // A page without its file counts as a shared one. A kernel that looks for these where userspace_addr says finds
        // nothing there, which api.rst wants no memory fault for: the call fails, or the access is emulated as MMIO. From v8
        // on a kernel may do so for a file that cannot be mapped only.
        let by_userspace = !self.oracle.is_mappable() || self.setup.dialect != Dialect::Upstream;
        let unmapped = [
            GuestStop::Failed("KVM_RUN", Errno::EFAULT),
            GuestStop::Mmio { gpa: address, write: false },
        ];
        let answer = self.guest.command(GuestCommand::Read { address }, deadline);
        let is_good =
            |stop: &GuestStop| *stop == expected || by_userspace && unmapped.contains(stop);
        let Some(found) = self.other_than(page, answer, is_good)? else {
            return Ok(());
        };
        let summary = format!(
            "guest access to page {page}, whose guest_memfd is closed, is not the exit that it must be"
        );
        Err(CaseEnd::broken(ClauseId::DescriptorClosed, summary)
            .at("guest", page, None)
            .but(expected.to_string(), found))
    }
}

/// What the case says must be what the clauses say: a difference is a mistake in the case or in the oracle.
pub(super) fn check_explicit(explicit: Option<&Returns>, rule: &CallRule) -> Result<(), CaseEnd> {
    let Some(explicit) = explicit else {
        return Ok(());
    };
    let wanted: Vec<Errno> = explicit.any_of.iter().flatten().copied().collect();
    let same = wanted.len() == rule.errors.len()
        && wanted.iter().all(|errno| rule.errors.contains(errno))
        && explicit.any_of.contains(&None) == rule.errors.is_empty();
    if same && explicit.error_page.is_none() {
        return Ok(());
    }
    let why = format!("the case expects {explicit}, the clauses say {rule}");
    Err(CaseEnd::error(Blame::Suite, why))
}
