// SPDX-License-Identifier: GPL-2.0-only
//! One case from its text to its outcome.

use std::time::Duration;

use super::session::{Session, Setup};
use super::stop::Stop;
use crate::case::{self, Action, Case, Pages, Step};
use crate::dialect::Dialect;
use crate::machine::Machine;
use crate::machine::host::Host;
use crate::machine::model::{self, Config, Fault, Model};
use crate::oracle::Oracle;
use crate::platform::Platform;
use crate::results::{Blame, Observation, Verdict};
use crate::run::protocol::{MachineConfig, MachineKind, Outcome};
use crate::scenario;
use crate::uapi::CapabilityNumbers;

/// The dialect that the model speaks when none is asked for.
const MODEL_DIALECT: Dialect = Dialect::RfcV4;

/// Pages of the map that a failure shows.
const MAP_PAGES: u64 = 64;

/// Opens the machine that a worker drives.
pub(super) fn open_machine(config: &MachineConfig) -> Result<Box<dyn Machine>, String> {
    match config.kind {
        MachineKind::Host => match Host::open(std::path::Path::new("/dev/kvm")) {
            Ok(host) => Ok(Box::new(host)),
            Err(errno) => Err(format!("failed to open /dev/kvm: {errno}")),
        },
        MachineKind::Model => {
            let fault = match &config.fault {
                None => None,
                Some(name) => {
                    Some(Fault::from_name(name).ok_or(format!("the model has no fault `{name}`"))?)
                }
            };
            let dialect = config.dialect.unwrap_or(MODEL_DIALECT);
            Ok(Box::new(Model::new(Config { dialect, fault })))
        }
    }
}

/// The numbers of the series' capabilities, where they are known: on the model always.
pub(super) fn capability_numbers(config: &MachineConfig) -> Option<CapabilityNumbers> {
    config.capability_numbers.or_else(|| match config.kind {
        MachineKind::Host => None,
        MachineKind::Model => {
            Some(model::capability_numbers(config.dialect.unwrap_or(MODEL_DIALECT)))
        }
    })
}

/// Runs a case given as text; `progress` is told the line of each statement before it is executed.
pub fn run_case(
    config: &MachineConfig,
    id: &str,
    platform: &str,
    text: &str,
    timeout_s: u64,
    progress: &mut dyn FnMut(usize),
) -> Outcome {
    let mut observations = Vec::new();
    let stop = run(config, platform, text, timeout_s, progress, &mut observations).err();
    let (verdict, failure) = match stop {
        None => (Verdict::Pass, None),
        Some(stop) => (stop.verdict, Some(*stop.failure)),
    };
    Outcome { id: id.to_string(), verdict, failure, observations }
}

fn run(
    config: &MachineConfig,
    platform: &str,
    text: &str,
    timeout_s: u64,
    progress: &mut dyn FnMut(usize),
    observations: &mut Vec<Observation>,
) -> Result<(), Stop> {
    let suite = |why: String| Stop::error(Blame::Suite, why);
    let platform = Platform::from_name(platform)
        .ok_or_else(|| suite(format!("there is no platform `{platform}`")))?;
    let dialect = config.dialect.ok_or_else(|| suite("the dialect is not known".into()))?;
    let machine = open_machine(config).map_err(|e| Stop::error(Blame::Machine, e))?;
    let setup = Setup {
        machine: &*machine,
        platform,
        dialect,
        capability_numbers: capability_numbers(config),
        // The guest's deadline comes first, so that its hanging is told from the host's.
        guest_deadline: Duration::from_secs(timeout_s.max(1)) / 2,
    };
    if let Some(result) = scenario::run(text, &setup, progress, observations) {
        return result;
    }
    let case = match case::parse("case", text).map_err(|e| suite(e.to_string()))?.as_slice() {
        [case] => case.clone(),
        cases => {
            return Err(suite(format!("a job holds {} cases instead of one", cases.len())));
        }
    };
    let mut session = Session::start(&setup, &case)?;
    let result = steps(&mut session, &case, progress);
    observations.extend(session.take_observations());
    result
}

fn steps(session: &mut Session, case: &Case, progress: &mut dyn FnMut(usize)) -> Result<(), Stop> {
    for step in &case.steps {
        progress(step.line);
        let before = session.oracle.clone();
        let done = session.step(step).and_then(|after| match after {
            Some(after) => session.audit(&after),
            None => Ok(()),
        });
        done.map_err(|stop| place(stop, step, &before, &session.oracle, case))?;
    }
    let last = case.steps.last();
    let before = session.oracle.clone();
    session.final_audit().map_err(|mut stop| {
        stop.failure.detail.insert(0, "seen in the look at all pages after the last step".into());
        match last {
            Some(step) => place(stop, step, &before, &before, case),
            None => stop,
        }
    })
}

/// Says at which step a case ended, and what the pages were to be before and after it.
fn place(mut stop: Stop, step: &Step, before: &Oracle, after: &Oracle, case: &Case) -> Stop {
    let failure = &mut stop.failure;
    failure.line = Some(step.line);
    failure.statement = Some(step.text());
    let shown = shown_pages(step, failure.page, case.pages);
    failure.map_first_page = shown.start;
    failure.map_before = Some(before.map(shown.clone()));
    failure.map_after = Some(after.map(shown));
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
