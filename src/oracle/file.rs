// SPDX-License-Identifier: GPL-2.0-only
//! What calls on a guest_memfd's descriptor must return, those that make and map one included.

use std::fmt;

use super::state::{Backing, Hole, Oracle};
use crate::case::{FileCall, Pages};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::uapi::PAGE_SIZE;

/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE` (fallocate(2)).
const KEEP_SIZE: u64 = 0x01;
const PUNCH_HOLE: u64 = 0x02;

/// What a call must return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRule {
    /// Any of these errors; empty if the call must succeed.
    pub errors: Vec<Errno>,
    /// The clause that says so.
    pub clause: ClauseId,
}

impl CallRule {
    pub(super) fn new(mut errors: Vec<Errno>, clause: ClauseId) -> CallRule {
        errors.sort_unstable_by_key(|errno| errno.0);
        errors.dedup();
        CallRule { errors, clause }
    }

    /// Whether the call may return `result`.
    pub fn allows(&self, result: Result<(), Errno>) -> bool {
        match result {
            Ok(()) => self.errors.is_empty(),
            Err(errno) => self.errors.contains(&errno),
        }
    }
}

impl fmt::Display for CallRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return f.write_str("success");
        }
        let names: Vec<String> = self.errors.iter().map(Errno::to_string).collect();
        f.write_str(&names.join(" or "))
    }
}

impl Oracle {
    /// What `call` must return. Which of several reasons for a refusal a kernel finds first is not promised.
    /// `creation_flags` are those that `KVM_CAP_GUEST_MEMFD_FLAGS` lists for the VM.
    pub fn judge_file_call(&self, call: &FileCall, creation_flags: u64) -> CallRule {
        let mut errors = Vec::new();
        let mut refuse = |when: bool, errno| {
            if when {
                errors.push(errno);
            }
        };
        let whole_pages = |bytes: u64| bytes.is_multiple_of(PAGE_SIZE);
        let signed = |bytes: u64| i64::try_from(bytes).is_ok();
        let clause = match call {
            FileCall::Fallocate { mode, offset, length } => {
                let known = mode & KEEP_SIZE != 0 && mode & !(KEEP_SIZE | PUNCH_HOLE) == 0;
                let punch = mode & PUNCH_HOLE != 0;
                let end = offset.checked_add(*length).filter(|end| signed(*end));
                let outside = end.is_none_or(|end| end > self.file_pages * PAGE_SIZE);
                let aligned = whole_pages(*offset) && whole_pages(*length);
                refuse(!known, Errno::EOPNOTSUPP);
                refuse(*length == 0 || !aligned || !punch && outside, Errno::EINVAL);
                refuse(!signed(*offset) || !signed(*length), Errno::EINVAL);
                refuse(end.is_none(), Errno::EFBIG);
                ClauseId::FallocateArguments
            }
            FileCall::Truncate { .. } => {
                refuse(true, Errno::EINVAL);
                ClauseId::DescriptorCalls
            }
            FileCall::Map { private, offset, length } => {
                refuse(!self.mappable, Errno::ENODEV);
                refuse(*private || *length == 0 || !whole_pages(*offset), Errno::EINVAL);
                ClauseId::DescriptorCalls
            }
            FileCall::Create { size, flags } => {
                let bad_size = *size == 0 || !whole_pages(*size) || !signed(*size);
                refuse(bad_size || flags & !creation_flags != 0, Errno::EINVAL);
                ClauseId::CreateArguments
            }
        };
        CallRule::new(errors, clause)
    }

    /// Pages of the file that a `fallocate()` that must succeed allocates, or punches out: then the second is true.
    pub fn fallocated(&self, call: &FileCall) -> Option<(Pages, bool)> {
        let FileCall::Fallocate { mode, offset, length } = call else {
            return None;
        };
        let page = |bytes: u64| (bytes / PAGE_SIZE).min(self.file_pages);
        Some((page(*offset)..page(offset + length), mode & PUNCH_HOLE != 0))
    }

    /// Whether `page` must have memory; `None` if nothing is promised: a conversion may have given it some.
    pub fn must_have_memory(&self, page: u64) -> Option<bool> {
        match (self.backing(page), self.holes.get(page)) {
            (Backing::Reserved | Backing::Allocated, _) => Some(true),
            (Backing::Hole, Hole::Fresh | Hole::Punched) => Some(false),
            (Backing::Hole, Hole::Converted) => None,
        }
    }
}
