// SPDX-License-Identifier: GPL-2.0-only
//! Memslots that a kernel must refuse.

use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_CAP_NR_MEMSLOTS, kvm_userspace_memory_region};

use super::case_end::CaseEnd;
use super::file::check_explicit;
use super::session::{After, Session, failed};
use crate::case::{RawSlot, Returns, SlotFile};
use crate::errno::Errno;
use crate::results::Blame;

/// A number that is no descriptor: more than any process may have (`fs.nr_open` ends at 2^30).
const NO_DESCRIPTOR: u32 = i32::MAX as u32;

impl Session<'_> {
    /// Tries to make a memslot; it must be refused, and nothing may have changed.
    pub fn refused_slot(
        &mut self,
        raw: &RawSlot,
        explicit: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let slots = self.guest.vm().check_extension(KVM_CAP_NR_MEMSLOTS);
        let slots = slots.map_err(|e| failed("KVM_CHECK_EXTENSION", e))?;
        let rule = self.oracle.judge_slot(raw, slots as u32);
        if rule.errors.is_empty() {
            let why = format!("memslot {} is a good one: say `slot N map RANGE`", raw.slot);
            return Err(CaseEnd::error(Blame::Suite, why));
        }
        check_explicit(explicit, &rule)?;
        let result = self.try_slot(raw)?;
        if rule.allows(result) {
            return Ok(After::Refused(rule.clause));
        }
        let found = result.map_or_else(|errno| errno.to_string(), |()| "success".into());
        let summary = format!(
            "a memslot of {:#x} bytes at {:#x} of the guest_memfd, flags {:#x}, gives {found} instead of {rule}",
            raw.size, raw.offset, raw.flags
        );
        Err(CaseEnd::broken(rule.clause, summary).but(rule.to_string(), found))
    }

    /// Makes the call.
    fn try_slot(&self, raw: &RawSlot) -> Result<Result<(), Errno>, CaseEnd> {
        let mut region = self.region(raw.slot, raw.offset, raw.size, raw.at);
        region.flags = raw.flags;
        // Open until the call has returned.
        let other = std::io::pipe()
            .map_err(|e| failed("pipe", Errno(e.raw_os_error().unwrap_or(libc::EMFILE))))?;
        match raw.file {
            SlotFile::GuestMemfd => {}
            SlotFile::Other => region.guest_memfd = other.0.as_raw_fd() as u32,
            SlotFile::Closed => region.guest_memfd = NO_DESCRIPTOR,
        }
        let vm = self.guest.vm();
        if raw.first_version {
            let region = kvm_userspace_memory_region {
                slot: region.slot,
                flags: region.flags,
                guest_phys_addr: region.guest_phys_addr,
                memory_size: region.memory_size,
                userspace_addr: region.userspace_addr,
            };
            // SAFETY: as below.
            return Ok(unsafe { vm.set_user_memory_region(&region) });
        }
        // SAFETY: should the machine accept it, the case ends here and the VM goes before the view, which is accessed
        // through raw pointers only; the guest, which could reach what lies behind the view, does not run any more.
        Ok(unsafe { vm.set_user_memory_region2(&region) })
    }
}
