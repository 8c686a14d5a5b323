// SPDX-License-Identifier: GPL-2.0-only
//! One case from its first step to its last.

use std::collections::VecDeque;
use std::time::Instant;

use super::case_end::CaseEnd;
use super::session::{Session, Setup, launch_failed};
use super::used::UsedVm;
use crate::case::{Action, Case, Pages, Step};
use crate::oracle::Oracle;
use crate::platform::Guest;
use crate::results::{Observation, TrailStep, Verdict};

/// Pages of the map that a failure shows.
const MAP_PAGES: u64 = 64;

/// Steps that a failure shows the pages after: those of a case that people wrote, and the end of a long history.
pub(crate) const TRAIL_STEPS: usize = 64;

/// Runs a case in this VM, or in a fresh one. Returns the VM if it can be used again.
pub(crate) fn run_case(
    setup: &Setup,
    case: &Case,
    vm: Option<UsedVm>,
    progress: &mut dyn FnMut(usize),
    observations: &mut Vec<Observation>,
) -> Result<Option<UsedVm>, CaseEnd> {
    let vm = match vm {
        Some(vm) => vm,
        None => {
            let deadline = Instant::now() + setup.guest_deadline;
            let mut guest = Guest::begin(setup.machine, setup.platform, deadline)
                .map_err(|e| launch_failed(&e))?;
            if !case.begins_in_launch() {
                guest.finish(deadline).map_err(|e| launch_failed(&e))?;
            }
            UsedVm::new(guest)
        }
    };
    let mut session = Session::start(setup, case, vm)?;
    let result = steps(&mut session, case, progress);
    observations.extend(session.observations.take());
    result?;
    session.finish(case)
}

fn steps(
    session: &mut Session,
    case: &Case,
    progress: &mut dyn FnMut(usize),
) -> Result<(), CaseEnd> {
    let mut trail = VecDeque::new();
    for step in &case.steps {
        progress(step.line);
        if trail.len() == TRAIL_STEPS {
            trail.pop_front();
        }
        trail.push_back((step, session.oracle.clone()));
        let done = session.step(step).and_then(|after| match after {
            Some(after) if !case.audit_end => session.audit(&after),
            Some(_) | None => Ok(()),
        });
        done.map_err(|stop| place(stop, &trail, session, case))?;
    }
    if let Some(step) = case.steps.last() {
        // The final audit runs after the last step, so record the state after it too.
        trail.push_back((step, session.oracle.clone()));
    }
    session.final_audit().and_then(|()| session.try_other_aliases()).map_err(|mut stop| {
        stop.failure.detail.insert(0, "seen in the look at all pages after the last step".into());
        place(stop, &trail, session, case)
    })
}

/// Says at which step a case ended, what the pages were to be before and after it, and how the host finds them. `trail`
/// is each step with the state before it.
fn place(
    mut stop: CaseEnd,
    trail: &VecDeque<(&Step, Oracle)>,
    session: &Session,
    case: &Case,
) -> CaseEnd {
    let Some((step, before)) = trail.back() else {
        return stop;
    };
    let failure = &mut stop.failure;
    failure.fixes.extend(case.fixes.iter().filter(|_| stop.verdict == Verdict::Fail).cloned());
    failure.line = Some(step.line);
    failure.statement = Some(step.text());
    let shown = shown_pages(step, failure.page, case.pages);
    failure.map_first_page = shown.start;
    failure.map_before = Some(before.map(shown.clone()));
    failure.map_after = Some(session.oracle.map(shown.clone()));
    let after = trail.iter().skip(1).map(|(_, before)| before).chain([&session.oracle]);
    failure.trail = trail
        .iter()
        .zip(after)
        .map(|((step, _), after)| TrailStep {
            line: step.line,
            statement: step.text(),
            map: after.map(shown.clone()),
        })
        .collect();
    // After the look in the end the last step is there twice.
    failure.trail.dedup_by_key(|step| step.line);
    if stop.verdict == Verdict::Fail {
        failure.map_found = session.survey(shown);
    }
    stop
}

/// The pages that a map shows: all of a small file, otherwise those around the step's range or the page that failed.
fn shown_pages(step: &Step, page: Option<u64>, file_pages: u64) -> Pages {
    if file_pages <= MAP_PAGES {
        return 0..file_pages;
    }
    let range = match &step.action {
        Action::Convert { pages, .. } | Action::Punch(pages) => pages.start,
        _ => 0,
    };
    let start = page.unwrap_or(range).saturating_sub(MAP_PAGES / 4).min(file_pages - MAP_PAGES);
    start..start + MAP_PAGES
}
