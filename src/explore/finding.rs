// SPDX-License-Identifier: GPL-2.0-only
//! From a history that failed to a case file that people can read.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::batch::{self, Ground};
use super::rules::is_valid;
use super::shrink::{Judge, shrink};
use crate::case::{Case, Requirement};
use crate::dialect::Dialect;
use crate::platform::Platform;
use crate::results::{Blame, CaseRecord, Verdict};
use crate::run::Options;

/// Candidates that are run to shrink one history.
const MOST_CANDIDATES: usize = 1500;

/// Time for shrinking one history.
const LONGEST: Duration = Duration::from_secs(60);

/// How often a history runs again by itself before it counts as one that does not fail again.
const REPEATS: usize = 3;

/// What tells one failure from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symptom {
    verdict: Verdict,
    clause: Option<String>,
    blame: Option<Blame>,
    /// Whether a view saw it, and not the caller.
    seen: bool,
}

impl Symptom {
    /// Whether `record` shows it: in all, or, `loosely`, in that a promise is broken by what a call returned or by what
    /// a view saw, whichever it was.
    fn shows(&self, record: &CaseRecord, loosely: bool) -> bool {
        let other = Symptom::of(record);
        other == *self || loosely && (Symptom { clause: self.clause.clone(), ..other }) == *self
    }

    pub fn of(record: &CaseRecord) -> Symptom {
        let failure = record.failure.as_ref();
        Symptom {
            verdict: record.verdict,
            clause: failure.and_then(|failure| failure.clause.clone()),
            blame: failure.and_then(|failure| failure.blame),
            seen: failure.is_some_and(|failure| failure.view.is_some()),
        }
    }
}

/// A failure, as small as it could be made.
pub(super) struct Finding {
    /// The history that is left.
    pub case: Case,
    /// How it failed.
    pub record: CaseRecord,
    /// What a reader must know about it, sentence by sentence.
    pub remarks: Vec<String>,
    /// Whether the user wants to end the program.
    pub interrupted: bool,
}

impl Finding {
    /// The history as it is, because there is no time to shrink it.
    pub fn unshrunk(case: Case, record: CaseRecord) -> Finding {
        let remarks = vec!["not shrunk: interrupted".into()];
        Finding { case, record, remarks, interrupted: true }
    }
}

/// Shrinks a history that failed with `record`. `progress` is told how many candidates have run and how many steps the
/// shortest has that fails.
pub(super) fn examine(
    ground: &Ground,
    options: &Options,
    platform: Platform,
    case: Case,
    record: CaseRecord,
    progress: &mut dyn FnMut(usize, usize),
) -> Finding {
    let mut search = Search {
        ground,
        options,
        platform,
        symptom: Symptom::of(&record),
        loosely: false,
        best: record,
        runs: 0,
        most: REPEATS,
        deadline: Instant::now() + LONGEST,
        interrupted: false,
        progress,
    };
    let steps = case.steps.len();
    let mut remarks = Vec::new();
    // Every run is a new worker's first, so nothing that went before can be the cause.
    let again = (0..REPEATS).any(|_| search.first_failure(std::slice::from_ref(&case)).is_some());
    let shrunk = if again {
        search.most = search.runs + MOST_CANDIDATES;
        let case = shrink(case, platform, ground.dialect, &mut search);
        // Which clause a difference breaks depends on what went before, so a simpler history with another clause may
        // tell the same story without a detour.
        search.loosely = search.symptom.verdict == Verdict::Fail;
        shrink(case, platform, ground.dialect, &mut search)
    } else {
        case
    };
    remarks.push(match again {
        true => {
            format!("shrunk from {steps} steps to {}, in {} runs", shrunk.steps.len(), search.runs)
        }
        false if search.interrupted => "not shrunk: interrupted".into(),
        false => format!("not shrunk: run by itself it did not fail again, {REPEATS} times"),
    });
    if let (Some(first), false) =
        (&search.symptom.clause, search.symptom.shows(&search.best, false))
    {
        remarks.push(format!("first seen as {first}"));
    }
    if again && search.is_exhausted() {
        remarks.push("shrinking ended early: no time or runs were left".into());
    }
    Finding {
        case: portable(shrunk, platform, ground.dialect),
        record: search.best,
        remarks,
        interrupted: search.interrupted,
    }
}

/// Says in its needs where the case makes sense: in other dialects a conversion that succeeds here may be refused, and
/// what follows would be asking for the impossible.
fn portable(mut case: Case, platform: Platform, dialect: Dialect) -> Case {
    let valid = |other: &Dialect| is_valid(platform, *other, &case);
    let dialects: Vec<Dialect> = Dialect::ALL.into_iter().filter(valid).collect();
    if dialects.len() < Dialect::ALL.len() {
        case.needs.push(Requirement::Dialect(match dialects.as_slice() {
            [] => vec![dialect],
            dialects => dialects.to_vec(),
        }));
    }
    case
}

struct Search<'a> {
    ground: &'a Ground<'a>,
    options: &'a Options,
    platform: Platform,
    symptom: Symptom,
    /// Whether another clause will do.
    loosely: bool,
    /// The last run that failed in the same way.
    best: CaseRecord,
    /// Candidates that have run.
    runs: usize,
    /// Candidates that may run.
    most: usize,
    deadline: Instant,
    interrupted: bool,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl Search<'_> {
    fn is_exhausted(&self) -> bool {
        self.runs >= self.most || self.deadline <= Instant::now() || self.interrupted
    }
}

impl Judge for Search<'_> {
    fn first_failure(&mut self, candidates: &[Case]) -> Option<usize> {
        if self.is_exhausted() {
            return None;
        }
        let left = self.most - self.runs;
        let plan: Vec<_> = candidates
            .iter()
            .take(left)
            .enumerate()
            .map(|(mark, case)| batch::planned(self.ground, self.platform, case, Some(mark)))
            .collect();
        let ids: Vec<String> = plan.iter().map(|case| case.id.clone()).collect();
        let mut found = None;
        let deadline = self.deadline;
        let runs = &mut self.runs;
        let (symptom, loosely) = (&self.symptom, self.loosely);
        let ended = batch::run(self.ground, self.options, plan, &mut |record| {
            *runs += 1;
            if symptom.shows(record, loosely) {
                found = Some(record.clone());
                return ControlFlow::Break(());
            }
            match deadline <= Instant::now() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.interrupted |= ended.aborted.is_some();
        let found = found?;
        let index = ids.iter().position(|id| *id == found.id)?;
        self.best = found;
        (self.progress)(self.runs, candidates[index].steps.len());
        Some(index)
    }
}
