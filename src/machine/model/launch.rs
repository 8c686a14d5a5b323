// SPDX-License-Identifier: GPL-2.0-only
//! What the launch calls of SNP guests and TDs have in common: `kvm_gmem_populate()`, and how far it got.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::fault::Fault;
use super::user::{PageWords, copy_from_user};
use super::vm::VmState;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::PAGE_SIZE;

/// How many pages a launch call does before a bug shows that is about longer ones. Arbitrary.
const LAUNCH_BATCH: u64 = 32;

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
            _ if self.planted(Fault::LaunchSourceRounded) => {
                Some(Contents::Address(address / PAGE_SIZE * PAGE_SIZE))
            }
            _ => None,
        }
    }

    /// `kvm_gmem_populate()` of the page at `gpa`, the one after `done` others of the call: gives it its first contents.
    /// EINVAL if it is not private or of no guest_memfd, EEXIST if it has been given contents before, EFAULT if there
    /// are none.
    ///
    /// # Safety
    ///
    /// As [`copy_from_user`].
    pub(super) unsafe fn populate(&self, gpa: u64, from: Contents, done: u64) -> Result<()> {
        let from = match from.at(done) {
            Contents::Address(address) => Contents::Address(self.launch_source(address, done)),
            other => other,
        };
        let contents = match from {
            Contents::InPlace => None,
            Contents::Zeros => Some([0; PAGE_SIZE as usize / 8]),
            Contents::Address(address) => {
                let source = std::ptr::with_exposed_provenance_mut::<PageWords>(address as usize);
                // SAFETY: the caller's promise is the one that is asked for.
                match unsafe { copy_from_user(source) } {
                    Err(_) if self.planted(Fault::LaunchSkipsSource) => None,
                    contents => Some(contents?),
                }
            }
        };
        let (inode, page, _) = self.gmem_page(gpa).ok_or(Errno::EINVAL)?;
        if self.config.dialect == Dialect::None && !self.gfn_is_private(gpa / PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let unchecked = done > 0 && self.planted(Fault::LaunchChecksFirstOnly);
        inode.populate(page, contents.as_ref(), unchecked)
    }

    /// After how many pages a launch call stops, as if a signal had come.
    pub(super) fn launch_batch(&self) -> Option<u64> {
        match self.config.fault {
            Some(Fault::LaunchPiecemeal) => Some(1),
            Some(Fault::LaunchProgressOverstated) => Some(LAUNCH_BATCH),
            _ => None,
        }
    }

    /// Where the contents of page `done` of a launch call are, which should be at `source`.
    fn launch_source(&self, source: u64, done: u64) -> u64 {
        let stuck = self.planted(Fault::LaunchSourceStuck);
        if stuck { source - done / LAUNCH_BATCH * LAUNCH_BATCH * PAGE_SIZE } else { source }
    }

    /// By how many bytes the source's address that is written back has moved after `taken` pages.
    pub(super) fn source_moved(&self, from: Contents, taken: u64) -> u64 {
        let moves = match from {
            Contents::Address(_) => !self.planted(Fault::LaunchSourceNotAdvanced),
            Contents::InPlace => self.planted(Fault::LaunchInPlaceAdvances),
            Contents::Zeros => false,
        };
        if moves { taken * PAGE_SIZE } else { 0 }
    }

    /// How many of the pages from `gpa` on, where a call has stopped after `taken`, it says that it has taken.
    pub(super) fn counted_at_stop(&self, gpa: u64, taken: u64, left: u64) -> u64 {
        match self.config.fault {
            Some(Fault::LaunchSkipsNowhere) if self.gmem_page(gpa).is_none() => left,
            Some(Fault::LaunchStopCounted) if taken > 0 => 1.min(left),
            _ => 0,
        }
    }

    /// Whether the launch cannot be finished just now.
    pub(super) fn is_busy(&self) -> bool {
        self.planted(Fault::LaunchBusy) && !self.was_busy.swap(true, Ordering::Relaxed)
    }

    /// Whether the firmware takes what is there for a table of CPUID leaves: their number comes first.
    pub(super) fn is_cpuid_table(&self, from: Contents) -> bool {
        let Contents::Address(address) = from else { return true };
        let source = std::ptr::with_exposed_provenance_mut::<PageWords>(address as usize);
        // SAFETY: what is there is only read, if there is anything.
        let Ok(mut contents) = (unsafe { copy_from_user(source) }) else { return true };
        if contents[0] & 0xffff_ffff <= CPUID_LEAVES {
            return true;
        }
        if self.planted(Fault::LaunchWritesSource) {
            contents[0] = CPUID_LEAVES;
            let bytes: Vec<u8> = contents.iter().flat_map(|word| word.to_le_bytes()).collect();
            // The kernel's own mapping of the page can be written. Should that fail, the bug does not show.
            let memory = File::options().write(true).open("/proc/self/mem");
            let _ = memory.and_then(|memory| memory.write_all_at(&bytes, address));
        }
        false
    }
}
