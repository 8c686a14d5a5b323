// SPDX-License-Identifier: GPL-2.0-only
//! Running histories in workers, as the cases of a run.

use std::ops::ControlFlow;

use crate::case::Case;
use crate::dialect::Dialect;
use crate::machine::MachineConfig;
use crate::plan::{self, PlannedCase};
use crate::platform::Platform;
use crate::results::{CaseRecord, Environment};
use crate::results::{Event, Sink};
use crate::run::{self, Options};

/// What histories run on.
pub(super) struct Ground<'a> {
    pub config: &'a MachineConfig,
    pub environment: &'a Environment,
    pub dialect: Dialect,
}

/// How a batch ended, besides the verdicts.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// What belongs to no history: a worker that died between two, a kernel that complained after the last.
    pub notes: Vec<String>,
    /// Why the batch was ended from outside, if it was.
    pub aborted: Option<String>,
}

/// A history with its id. `mark` tells candidates of one history apart.
pub(super) fn planned(
    ground: &Ground,
    platform: Platform,
    case: &Case,
    mark: Option<usize>,
) -> PlannedCase {
    let mut id = plan::case_id(ground.config.kind, platform, &case.name);
    if let Some(mark) = mark {
        id += &format!("-{mark}");
    }
    PlannedCase {
        id,
        platform,
        clauses: case.clauses.clone(),
        text: case.to_string(),
        unmet: Vec::new(),
    }
}

/// Runs `cases`; `ended` is told of each, and may end the batch.
pub(super) fn run(
    ground: &Ground,
    options: &Options,
    cases: Vec<PlannedCase>,
    ended: &mut dyn FnMut(&CaseRecord) -> ControlFlow<()>,
) -> Ended {
    let mut listener = Listener { tell: ended, ended: Ended::default() };
    run::run(cases, ground.config, options, ground.environment.clone(), &mut listener);
    listener.ended
}

struct Listener<'a> {
    tell: &'a mut dyn FnMut(&CaseRecord) -> ControlFlow<()>,
    ended: Ended,
}

impl Sink for Listener<'_> {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        match event {
            Event::Finished { record, .. } => return (self.tell)(record),
            Event::Note(note) => self.ended.notes.push(note.clone()),
            Event::Aborted(reason) => self.ended.aborted = Some(reason.clone()),
            Event::Started(_)
            | Event::CaseStarted { .. }
            | Event::Resumed(_)
            | Event::Waiver(_)
            | Event::NotRun(_)
            | Event::Ended(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn failed(&self) -> bool {
        false
    }
}
