// SPDX-License-Identifier: GPL-2.0-only
//! What the launch calls of SNP guests and TDs have in common: `kvm_gmem_populate()`, and how far it got.

use super::user::{PageWords, copy_from_user};
use super::vm::VmState;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::PAGE_SIZE;

/// Leaves that a CPUID page has room for.
const CPUID_LEAVES: u64 = 64;

/// Where the first contents of a page come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// From this address in the memory of the process.
    Address(u64),
    /// From the page itself.
    InPlace,
    /// They are zeros.
    Zeros,
}

impl Contents {
    /// Where those of the page after `done` others come from.
    pub(super) fn at(self, done: u64) -> Contents {
        match self {
            Contents::Address(address) => Contents::Address(address.wrapping_add(done * PAGE_SIZE)),
            other => other,
        }
    }
}

impl VmState {
    /// Whether a source address of 0 stands for what the page holds.
    pub(super) fn launches_in_place(&self) -> bool {
        matches!(self.config.dialect, Dialect::RfcV5 | Dialect::Upstream)
    }

    /// The source of a call, if its address is one.
    pub(super) fn source_at(&self, address: u64) -> Option<Contents> {
        match address {
            0 => self.launches_in_place().then_some(Contents::InPlace),
            _ if address.is_multiple_of(PAGE_SIZE) => Some(Contents::Address(address)),
            _ => self.hook_unaligned_source(address).map(Contents::Address),
        }
    }

    /// `kvm_gmem_populate()`: gives the page at `gpa` its first contents, after `done` other pages of the same call.
    /// Fails with EINVAL if the page is shared or belongs to no guest_memfd, with EEXIST if it has contents already,
    /// and with EFAULT if the source cannot be read.
    ///
    /// # Safety
    ///
    /// As [`copy_from_user`].
    pub(super) unsafe fn populate(&self, gpa: u64, from: Contents, done: u64) -> Result<()> {
        let from = match from.at(done) {
            Contents::Address(address) => Contents::Address(self.hook_launch_source(address, done)),
            other => other,
        };
        let contents = match from {
            Contents::InPlace => None,
            Contents::Zeros => Some([0; PAGE_SIZE as usize / 8]),
            Contents::Address(address) => {
                let source = std::ptr::with_exposed_provenance_mut::<PageWords>(address as usize);
                // SAFETY: the caller's promise is the one that is asked for.
                self.hook_source_copied(unsafe { copy_from_user(source) })?
            }
        };
        let (inode, page, _) = self.gmem_page(gpa).ok_or(Errno::EINVAL)?;
        if self.config.dialect == Dialect::None && !self.gfn_is_private(gpa / PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        inode.populate(page, contents.as_ref(), !self.hook_launch_checked(done))
    }

    /// By how many bytes the source's address that is written back has moved after `taken` pages.
    pub(super) fn source_moved(&self, from: Contents, taken: u64) -> u64 {
        let moves = self.hook_source_moves(matches!(from, Contents::Address(_)));
        if moves { taken * PAGE_SIZE } else { 0 }
    }

    /// Whether the firmware takes what is there for a table of CPUID leaves: their number comes first.
    pub(super) fn is_cpuid_table(&self, from: Contents) -> bool {
        let Contents::Address(address) = from else { return true };
        let source = std::ptr::with_exposed_provenance_mut::<PageWords>(address as usize);
        // SAFETY: what is there is only read, if there is anything.
        let Ok(contents) = (unsafe { copy_from_user(source) }) else { return true };
        if contents[0] & 0xffff_ffff <= CPUID_LEAVES {
            return true;
        }
        self.hook_cpuid_refused(address, contents, CPUID_LEAVES);
        false
    }
}
