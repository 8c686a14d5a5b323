// SPDX-License-Identifier: GPL-2.0-only
//! What happens during a run, in the order in which it happens. Reports know nothing else.

use std::ops::ControlFlow;

use crate::results::{CaseRecord, ResumedRecord, RunRecord, Summary, WaiverRecord};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first event.
    Started(Box<RunRecord>),
    /// A worker has been given a case.
    CaseStarted {
        /// The case.
        id: String,
        /// Process id of the worker, to attach a debugger to.
        pid: u32,
    },
    /// A case has a verdict.
    Finished {
        /// How many cases have ended, this one included: 1, 2, ... up to `total`.
        number: usize,
        /// How many cases were planned.
        total: usize,
        /// How it ended.
        record: Box<CaseRecord>,
    },
    /// The run goes on after an interruption.
    Resumed(Box<ResumedRecord>),
    /// Something that a reader of the results must know and that belongs to no case.
    Note(String),
    /// What became of a waiver, after the last case.
    Waiver(Box<WaiverRecord>),
    /// The run ends before its plan does, and why.
    Aborted(String),
    /// This planned case has no verdict; after the reason, if there is one.
    NotRun(String),
    /// The last event.
    Ended(Summary),
}

/// Where events go.
pub trait Sink {
    /// Takes an event. `Break` asks for the end of the run, because nobody reads on.
    fn event(&mut self, event: &Event) -> ControlFlow<()>;
    /// Whether something that should have been written was not.
    fn failed(&self) -> bool;
}
