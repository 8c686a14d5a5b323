// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the launch of encrypted guests.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::user::PageWords;
use crate::machine::model::vm::VmState;
use crate::uapi::PAGE_SIZE;

/// How many pages a launch call does before a bug shows that is about longer ones. Arbitrary.
const LAUNCH_BATCH: u64 = 32;

impl VmState {
    /// Whether the context of another VM is taken over.
    pub fn hook_context_moved(&self) -> bool {
        self.planted(Fault::ContextMoved)
    }

    /// Whether the context of another VM is shared.
    pub fn hook_context_copied(&self) -> bool {
        self.planted(Fault::ContextCopied)
    }

    /// Whether the launch takes pages and vCPU commands after it was finished.
    pub fn hook_launch_goes_on(&self) -> bool {
        self.planted(Fault::LaunchNeverEnds)
    }

    /// Whether a launch can be finished once more.
    pub fn hook_finished_again(&self) -> bool {
        self.planted(Fault::FinishedAgain)
    }

    /// Whether the launch cannot be finished just now.
    pub fn hook_busy(&self) -> bool {
        self.planted(Fault::LaunchBusy) && !self.was_busy.swap(true, Ordering::Relaxed)
    }

    /// The attributes that a TD may be given.
    pub fn hook_td_attributes(&self, attributes: u64) -> u64 {
        if self.planted(Fault::SeptVeNotOffered) { 0 } else { attributes }
    }

    /// Whether a launch call about an address without a guest_memfd is refused.
    pub fn hook_nowhere_refused(&self) -> bool {
        !self.planted(Fault::LaunchSkipsNowhere)
    }

    /// Whether the type of pages is good.
    pub fn hook_launch_type(&self, known: bool) -> bool {
        known || self.planted(Fault::LaunchTypeIgnored)
    }

    /// Whether the flags are good.
    pub fn hook_launch_flags(&self, known: bool) -> bool {
        known || self.planted(Fault::LaunchFlagsIgnored)
    }

    /// Whether the length is good, as far as it has to be one of whole pages.
    pub fn hook_launch_length(&self, whole: bool) -> bool {
        whole || self.planted(Fault::LaunchLengthRounded)
    }

    /// Whether the address is good, as far as it has to be one of a page.
    pub fn hook_launch_address(&self, aligned: bool) -> bool {
        aligned || self.planted(Fault::LaunchAddressRounded)
    }

    /// Whether a call for no page at all succeeds.
    pub fn hook_empty_launch_accepted(&self) -> bool {
        self.planted(Fault::LaunchEmptyAccepted)
    }

    /// The source of a call whose address is none of a page.
    pub fn hook_unaligned_source(&self, address: u64) -> Option<u64> {
        self.planted(Fault::LaunchSourceRounded).then_some(address / PAGE_SIZE * PAGE_SIZE)
    }

    /// Where the contents of page `done` of a launch call are, which should be at `source`.
    pub fn hook_launch_source(&self, source: u64, done: u64) -> u64 {
        let stuck = self.planted(Fault::LaunchSourceStuck);
        if stuck { source - done / LAUNCH_BATCH * LAUNCH_BATCH * PAGE_SIZE } else { source }
    }

    /// The contents that were copied from a source; `None` for what the page holds.
    pub fn hook_source_copied(&self, contents: Result<PageWords>) -> Result<Option<PageWords>> {
        match contents {
            Err(_) if self.planted(Fault::LaunchSkipsSource) => Ok(None),
            contents => contents.map(Some),
        }
    }

    /// Whether page `done` of a launch call is checked.
    pub fn hook_launch_checked(&self, done: u64) -> bool {
        done == 0 || !self.planted(Fault::LaunchChecksFirstOnly)
    }

    /// After how many pages a launch call stops, as if a signal had come.
    pub fn hook_launch_batch(&self) -> Option<u64> {
        match self.config.fault {
            Some(Fault::LaunchPiecemeal) => Some(1),
            Some(Fault::LaunchProgressOverstated) => Some(LAUNCH_BATCH),
            _ => None,
        }
    }

    /// Whether a call that stopped so says that it has taken every page.
    pub fn hook_progress_overstated(&self) -> bool {
        self.planted(Fault::LaunchProgressOverstated)
    }

    /// Whether the source's address that is written back has moved on with the pages.
    pub fn hook_source_moves(&self, from_memory: bool) -> bool {
        match self.config.fault {
            Some(Fault::LaunchSourceNotAdvanced) if from_memory => false,
            Some(Fault::LaunchInPlaceAdvances) if !from_memory => true,
            _ => from_memory,
        }
    }

    /// How many of the pages from `gpa` on, where a call has stopped after `taken`, it says that it has taken.
    pub fn hook_counted_at_stop(&self, gpa: u64, taken: u64, left: u64) -> u64 {
        match self.config.fault {
            Some(Fault::LaunchSkipsNowhere) if self.gmem_page(gpa).is_none() => left,
            Some(Fault::LaunchStopCounted) if taken > 0 => 1.min(left),
            _ => 0,
        }
    }

    /// The firmware has refused the table of CPUID leaves at `address`, of which at most `leaves` can be.
    pub fn hook_cpuid_refused(&self, address: u64, mut contents: PageWords, leaves: u64) {
        if !self.planted(Fault::LaunchWritesSource) {
            return;
        }
        contents[0] = leaves;
        let bytes: Vec<u8> = contents.iter().flat_map(|word| word.to_le_bytes()).collect();
        // The kernel's own mapping of the page can be written. Should that fail, the bug does not show.
        let memory = File::options().write(true).open("/proc/self/mem");
        let _ = memory.and_then(|memory| memory.write_all_at(&bytes, address));
    }
}
