// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in an encrypted guest's requests.

use crate::machine::model::fault::Fault;
use crate::machine::model::vm::VmState;
use crate::uapi::{KVM_MEMORY_EXIT_FLAG_PRIVATE, PAGE_SIZE};

impl VmState {
    /// Whether a list is refused for where it is: `outside` of the GHCB's shared buffer.
    pub fn hook_scratch_refused(&self, outside: bool) -> bool {
        outside && !self.planted(Fault::PscScratchAnywhere)
    }

    /// The entries that there is room for, of at most `most`.
    pub fn hook_list_room(&self, room: u64, most: u64) -> u64 {
        if self.planted(Fault::PscRoomIgnored) { most } else { room }
    }

    /// Whether a list is refused that says to end behind the room that there is.
    pub fn hook_list_end_refused(&self, behind: bool) -> bool {
        behind && !self.planted(Fault::PscLastNotChecked)
    }

    /// The entry that a list begins with.
    pub fn hook_list_start(&self, current: u64) -> u64 {
        if self.planted(Fault::PscCurrentIgnored) { 0 } else { current }
    }

    /// Whether an entry is refused whose page is not aligned to its size.
    pub fn hook_entry_refused(&self, unaligned: bool) -> bool {
        unaligned && !self.planted(Fault::PscUnaligned)
    }

    /// Whether an entry's pages follow those before it.
    pub fn hook_entries_adjoin(&self, adjoin: bool) -> bool {
        adjoin || self.planted(Fault::PscMergesApart)
    }

    /// Whether two entries ask for the same.
    pub fn hook_entries_agree(&self, agree: bool) -> bool {
        agree || self.planted(Fault::PscMergesDirections)
    }

    /// How many of the `entries` that the host has refused count as done.
    pub fn hook_refused_entries_done(&self, entries: u64) -> u64 {
        if self.planted(Fault::PscErrorCounted) { entries } else { 0 }
    }

    /// The entry that is next after a change, of those up to `last`.
    pub fn hook_next_entry(&self, current: u64, last: u64) -> u64 {
        let stops = self.planted(Fault::PscStopsAtChange) && current <= last;
        if stops { last + 1 } else { current }
    }

    /// Whether the MSR protocol has this operation.
    pub fn hook_msr_operation(&self, known: bool) -> bool {
        known || self.planted(Fault::PscMsrAnyOperation)
    }

    /// Whether MapGPA refuses a range that is `empty`.
    pub fn hook_map_gpa_empty(&self, empty: bool) -> bool {
        empty && !self.planted(Fault::MapGpaEmpty)
    }

    /// Whether MapGPA refuses a range that `wraps`.
    pub fn hook_map_gpa_wraps(&self, wraps: bool) -> bool {
        wraps && !self.planted(Fault::MapGpaWraps)
    }

    /// Whether MapGPA refuses a range that `crosses` from one alias into the other.
    pub fn hook_map_gpa_crosses(&self, crosses: bool) -> bool {
        crosses && !self.planted(Fault::MapGpaCrosses)
    }

    /// Whether MapGPA refuses a range that is `unaligned`.
    pub fn hook_map_gpa_unaligned(&self, unaligned: bool) -> bool {
        unaligned && !self.planted(Fault::MapGpaRounded)
    }

    /// From where a TD is told to try MapGPA again, which began at `start` and got to `at`.
    pub fn hook_retry_from(&self, start: u64, at: u64) -> u64 {
        if self.planted(Fault::MapGpaRetriesFromStart) { start } else { at }
    }

    /// Whether a request by the MSR protocol gets no answer but success.
    pub fn hook_msr_request_dropped(&self) -> bool {
        self.planted(Fault::RequestByMsrDropped)
    }

    /// How many bytes the guest asks for at once.
    pub fn hook_request_size(&self, size: u64) -> u64 {
        if self.planted(Fault::RequestPagewise) { PAGE_SIZE } else { size }
    }

    /// What reaches the host of a request that began at `start`: address, bytes, and whether to private.
    pub fn hook_request(
        &self,
        start: u64,
        (at, size, private): (u64, u64, bool),
        alias_bit: u64,
    ) -> (u64, u64, bool) {
        match self.config.fault {
            Some(Fault::RequestFirstPageOnly) => (at, PAGE_SIZE, private),
            Some(Fault::RequestLastPageMissed) if size > PAGE_SIZE => {
                (at, size - PAGE_SIZE, private)
            }
            Some(Fault::RequestDirectionInverted) => (at, size, !private),
            Some(Fault::RequestKeepsSharedBit) if !private => (at | alias_bit, size, private),
            Some(Fault::RequestPartsFromStart) => (start, size, private),
            _ => (at, size, private),
        }
    }

    /// Whether a TD that was refused is told to try again.
    pub fn hook_request_retried(&self, retried: bool) -> bool {
        match self.config.fault {
            Some(Fault::RequestRefusalRetried) => true,
            Some(Fault::RequestRetryLost) => false,
            _ => retried,
        }
    }

    /// Whether the host has granted a request.
    pub fn hook_request_granted(&self, granted: bool) -> bool {
        granted || self.planted(Fault::RequestAnswerIgnored)
    }

    /// What the exit for an access at `gpa` through the wrong alias says: flags, address and size. `has_bit` is whether it is
    /// the alias of the access that has `alias_bit` set.
    pub fn hook_alias_fault(
        &self,
        gpa: u64,
        (flags, at, size): (u64, u64, u64),
        has_bit: bool,
        alias_bit: u64,
    ) -> (u64, u64, u64) {
        match self.config.fault {
            Some(Fault::FaultFlagMissing) => (0, at, size),
            Some(Fault::FaultFlagAlways) => (u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE), at, size),
            Some(Fault::FaultAddressOfAccess) => (flags, gpa, size),
            Some(Fault::FaultSizeOfAccess) => (flags, at, 8),
            Some(Fault::FaultKeepsAliasBit) if has_bit => (flags, at | alias_bit, size),
            _ => (flags, at, size),
        }
    }
}
