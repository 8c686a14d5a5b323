// SPDX-License-Identifier: GPL-2.0-only
//! What the runner and its workers say to each other: JSON Lines, one [`Job`] down the worker's standard input, one
//! [`Reply`] up the descriptor [`REPLY_FD`].
//!
//! The worker's standard output and error are pipes that nobody parses, so that nothing a case writes there can be taken
//! for a result. How far a case has come goes into the file at [`PROGRESS_FD`], a memfd, so that the runner still knows it
//! when the worker has died.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::machine::MachineConfig;
use crate::measured::{Point, Spot, Times, Trial};
use crate::platform::Platform;
use crate::results::{Environment, Failure, Observation, Verdict};
use crate::timings::Timings;

/// Descriptor on which a worker replies.
pub const REPLY_FD: i32 = 3;
/// Descriptor of the memfd in which a worker writes down what it is doing: see [`crate::activity`]. A worker that dies
/// before it has begun with its job has not run the case, which then goes to another worker.
pub const PROGRESS_FD: i32 = 4;

/// What the runner asks of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// First: which machine.
    Configure(MachineConfig),
    /// Find out what the machine offers. Answered by [`Reply::Probed`].
    Probe,
    /// Run a case. Answered by [`Reply::Done`].
    Case {
        /// The full id.
        id: String,
        /// The type of its VM.
        platform: Platform,
        /// The case in canonical text.
        text: String,
        /// Seconds that the runner will wait before it kills the worker.
        timeout_s: u64,
    },
    /// Convert pages in this situation, and look at them. Answered by [`Reply::Observed`].
    Observe {
        /// The situation.
        spot: Spot,
        /// How often it was tried before.
        trial: u32,
    },
    /// Measure what a call or an access costs. Answered by [`Reply::Measured`].
    Measure {
        /// What, and in which situation.
        point: Point,
    },
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// What the machine offers.
    Probed(Box<Environment>),
    /// Where the time of a case went, right before [`Reply::Done`]; from workers that were told to say so.
    Timings {
        /// By part.
        spent: Timings,
    },
    /// A case has ended.
    Done(Box<CaseOutcome>),
    /// What was seen; or why the situation could not be brought about.
    Observed(Result<Trial, WorkerError>),
    /// The times; or why nothing could be measured.
    Measured(Result<Times, WorkerError>),
}

/// What a worker could not do, as text, since it comes through a pipe. To be read after "failed to".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(transparent)]
#[error("{0}")]
pub struct WorkerError(pub String);

impl WorkerError {
    /// The text of an error.
    pub fn new(error: impl std::error::Error) -> WorkerError {
        WorkerError(error.to_string())
    }
}

/// How a case ended, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseOutcome {
    /// The id that was asked for.
    pub id: String,
    /// Pass, fail, error or timeout; never skip or waived, which others decide.
    pub verdict: Verdict,
    /// For all but a pass.
    pub failure: Option<Failure>,
    /// What was seen where nothing is promised.
    pub observations: Vec<Observation>,
    /// Launches of encrypted guests that it took.
    #[serde(default)]
    pub launches: u64,
}
