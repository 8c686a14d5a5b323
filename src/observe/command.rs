// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform observe`: every situation, so and so often.

use std::time::Instant;

use super::record::{OBSERVE_SCHEMA_VERSION, ObserveRecord, ObserveSummary, SpotRecord};
use super::table::table;
use crate::machine::MachineConfig;
use crate::measured::{Head, Spot, Trial, runnable, spots};
use crate::platform::Platform;
use crate::protocol::{Job, Reply, WorkerError};
use crate::report::WriteError;
use crate::results::Environment;
use crate::results::exit;
use crate::run::{Interview, NoAnswer, Options};

/// What to observe.
#[derive(Clone, Debug)]
pub struct Observing {
    /// Trials of each situation, at least 1.
    pub repeat: u32,
    /// The platforms' names; `None` for every one.
    pub platforms: Option<Vec<Platform>>,
}

/// Observes, hands each record to `sink` as it comes, and returns the table and the exit status.
pub fn observe(
    observing: &Observing,
    config: &MachineConfig,
    environment: Environment,
    options: &Options,
    sink: &mut dyn FnMut(&ObserveRecord) -> Result<(), WriteError>,
) -> Result<(String, u8), WriteError> {
    let since = Instant::now();
    let (platforms, missing) = runnable(&environment, observing.platforms.as_deref());
    let head =
        Head::new(OBSERVE_SCHEMA_VERSION, options.arguments.clone(), environment, observing.repeat);
    let mut text = format!("{}, {} trials each\n{missing}", head.line(), observing.repeat);
    sink(&ObserveRecord::Observe(Box::new(head)))?;
    let mut interview = Interview::new(config, options);
    let mut observations = Vec::new();
    let mut interrupted = None;
    'all: for spot in platforms.into_iter().flat_map(spots) {
        let mut trials = Vec::new();
        for trial in 0..observing.repeat {
            match ask(&mut interview, spot, trial) {
                Ok(trial) => trials.push(trial),
                Err(NoAnswer::Failed(why)) => {
                    trials.push(Err(WorkerError(format!("end well: {why}"))));
                }
                Err(NoAnswer::Interrupted(why)) => {
                    interrupted = Some(why);
                    break 'all;
                }
            }
        }
        let observation = SpotRecord::new(spot, &trials);
        sink(&ObserveRecord::Observation(observation.clone()))?;
        observations.push(observation);
    }
    text += &table(&observations);
    if let Some(why) = interrupted {
        text += &format!("\n{why}\n");
        return Ok((text, exit::FAILED));
    }
    let errors = observations.iter().filter(|o| !o.errors.is_empty()).count();
    let exit_status = match observations.iter().all(|o| o.conversion.is_empty()) {
        true if errors == 0 => exit::SKIPPED,
        true => exit::FAILED,
        false => exit::PASSED,
    };
    let summary = ObserveSummary {
        spots: observations.len() as u32,
        errors: errors as u32,
        elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        exit_status,
    };
    sink(&ObserveRecord::Summary(summary))?;
    Ok((text, exit_status))
}

fn ask(
    interview: &mut Interview<'_>,
    spot: Spot,
    trial: u32,
) -> Result<Result<Trial, WorkerError>, NoAnswer> {
    match interview.ask(&Job::Observe { spot, trial })? {
        Reply::Observed(observed) => Ok(observed),
        _ => Err(interview.out_of_turn()),
    }
}
