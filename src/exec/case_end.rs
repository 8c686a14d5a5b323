// SPDX-License-Identifier: GPL-2.0-only
//! Why a case ended before its last step.

use crate::clause::ClauseId;
use crate::results::{Blame, Failure, Verdict};

/// A case ended early. Boxed: it travels through every `?`, and is large.
#[derive(Debug)]
pub(crate) struct CaseEnd {
    pub verdict: Verdict,
    pub failure: Box<Failure>,
}

impl CaseEnd {
    /// The kernel broke `clause`.
    pub fn broken(clause: ClauseId, summary: impl Into<String>) -> CaseEnd {
        let mut stop = CaseEnd::new(Verdict::Fail, Blame::Kernel, summary);
        stop.failure.breaks(clause);
        stop
    }

    /// The suite could not decide.
    pub fn error(blame: Blame, summary: impl Into<String>) -> CaseEnd {
        CaseEnd::new(Verdict::Error, blame, summary)
    }

    /// A deadline passed for what must end by `clause`: in what the clause says, or in an exit. A payload does nothing there
    /// but that, so it is the kernel that hangs.
    pub fn timeout(clause: ClauseId, summary: impl Into<String>) -> CaseEnd {
        CaseEnd { verdict: Verdict::Timeout, ..CaseEnd::broken(clause, summary) }
    }

    fn new(verdict: Verdict, blame: Blame, summary: impl Into<String>) -> CaseEnd {
        let summary = summary.into();
        let failure = Failure { summary, blame: Some(blame), ..Failure::default() };
        CaseEnd { verdict, failure: Box::new(failure) }
    }

    /// Says what was expected and what was found.
    pub fn but(mut self, expected: impl Into<String>, found: impl Into<String>) -> CaseEnd {
        self.failure.expected = Some(expected.into());
        self.failure.found = Some(found.into());
        self
    }

    /// Says where.
    pub fn at(mut self, view: &str, page: u64, offset: Option<u64>) -> CaseEnd {
        self.failure.view = Some(view.to_string());
        self.failure.page = Some(page);
        self.failure.offset = offset;
        self
    }

    /// Adds lines of detail.
    pub fn detail(mut self, lines: Vec<String>) -> CaseEnd {
        self.failure.detail.extend(lines);
        self
    }
}
