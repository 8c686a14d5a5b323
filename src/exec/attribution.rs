// SPDX-License-Identifier: GPL-2.0-only
//! What the calls of a case were, for deciding which clause a difference breaks.

use std::ops::Range;

use crate::case::apart;
use crate::clause::ClauseId;

/// What the calls of a case were.
pub(super) struct Attribution {
    /// Ranges of refused calls since they were last converted, with the clause that says that they had no effect.
    refused: Vec<(Range<u64>, ClauseId)>,
    /// Whether a conversion has succeeded.
    pub converted: bool,
    /// The clause of the call that gave or took memory last: which pages have memory is its doing.
    pub memory_clause: ClauseId,
}

impl Attribution {
    /// Before the first call.
    pub fn new() -> Attribution {
        Attribution {
            refused: Vec::new(),
            converted: false,
            memory_clause: ClauseId::FallocatePages,
        }
    }

    /// A conversion of `range` has succeeded.
    pub fn convert(&mut self, range: &Range<u64>) {
        self.converted = true;
        self.refused.retain(|(refused, _)| apart(refused, range));
    }

    /// A call about `range` was refused. `no_effect` says that it had no effect.
    pub fn refuse(&mut self, range: Range<u64>, no_effect: ClauseId) {
        self.refused.push((range, no_effect));
    }

    /// The clause that says that the last call about `page`, which was refused, had no effect.
    pub fn refusal(&self, page: u64) -> Option<ClauseId> {
        let about = |(range, _): &&(Range<u64>, ClauseId)| range.contains(&page);
        self.refused.iter().rev().find(about).map(|(_, clause)| *clause)
    }

    /// The file is another one.
    pub fn clear(&mut self) {
        self.refused.clear();
    }
}
