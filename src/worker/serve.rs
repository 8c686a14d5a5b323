// SPDX-License-Identifier: GPL-2.0-only
//! The worker's side: jobs in, replies out. See [`crate::protocol`].

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::time::Duration;

use thiserror::Error;

use super::{Executor, probe};
use crate::activity;
use crate::bench::Meter;
use crate::errno::Errno;
use crate::observe::Observer;
use crate::timings::{self, Part, spend};

use crate::machine::MachineConfig;
use crate::protocol::{Job, PROGRESS_FD, REPLY_FD, Reply, WorkerError};

/// Why a worker ends before the runner closes its pipe.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The descriptors of the runner are not there.
    #[error("a worker is started by gmem-conform itself, not by hand")]
    ByHand,
    /// The progress file cannot be mapped.
    #[error("mapping the progress file: {0}")]
    Progress(#[source] Errno),
    /// The pipe of jobs cannot be read.
    #[error("reading jobs: {0}")]
    Read(#[source] io::Error),
    /// A line is no job.
    #[error("bad job: {0}")]
    BadJob(#[source] serde_json::Error),
    /// A job came before [`Job::Configure`].
    #[error("a job came before the machine was named")]
    NoMachine,
    /// A reply cannot be written.
    #[error("writing a reply: {0}")]
    Write(#[source] io::Error),
}

/// Serves jobs until the runner closes the pipe. The error is for the standard error, which the runner captures.
pub fn serve() -> Result<(), ServeError> {
    let (mut replies, progress) = descriptors()?;
    activity::map(&progress).map_err(ServeError::Progress)?;
    let mut crew: Option<Crew> = None;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(ServeError::Read)?;
        let job: Job = serde_json::from_str(&line).map_err(ServeError::BadJob)?;
        let said = match (job, &mut crew) {
            (Job::Configure(config), crew) => {
                *crew = Some(Crew::new(config));
                continue;
            }
            (_, None) => return Err(ServeError::NoMachine),
            (Job::Probe, Some(crew)) => Reply::Probed(Box::new(probe(&crew.config))),
            (Job::Case { id, platform, text, timeout_s }, Some(crew)) => {
                activity::begin();
                let mut tell = activity::set_line;
                let timeout = Duration::from_secs(timeout_s);
                let executor = &mut crew.executor;
                let outcome =
                    spend(Part::Cases, || executor.run(&id, platform, &text, timeout, &mut tell));
                if timings::is_on() {
                    reply(&mut replies, &Reply::Timings { spent: timings::take() })?;
                }
                Reply::Done(Box::new(outcome))
            }
            (Job::Observe { spot, trial }, Some(crew)) => {
                Reply::Observed(crew.observer.observe(&spot, trial).map_err(WorkerError::new))
            }
            (Job::Measure { point }, Some(crew)) => {
                Reply::Measured(crew.meter.measure(&point).map_err(WorkerError::new))
            }
        };
        reply(&mut replies, &said)?;
    }
    Ok(())
}

/// Who does the jobs. Each opens the machine when its first job comes.
struct Crew {
    config: MachineConfig,
    executor: Executor,
    observer: Observer,
    meter: Meter,
}

impl Crew {
    fn new(config: MachineConfig) -> Crew {
        Crew {
            executor: Executor::new(config.clone()),
            observer: Observer::new(config.clone()),
            meter: Meter::new(config.clone()),
            config,
        }
    }
}

/// The descriptors that the runner has put at fixed numbers: for replies and for progress.
fn descriptors() -> Result<(File, File), ServeError> {
    let take = |number: RawFd| -> Result<File, ServeError> {
        // SAFETY: F_SETFD takes integers only. Should the number be open for another purpose, because a person started
        // this, then it merely becomes close-on-exec.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(ServeError::ByHand);
        }
        // SAFETY: the descriptor is open, as fcntl has shown, and this process has just begun: the runner put it there
        // for this function, which is called once.
        Ok(unsafe { File::from_raw_fd(number) })
    };
    Ok((take(REPLY_FD)?, take(PROGRESS_FD)?))
}

/// Sends a reply with a single write where the pipe has room for it.
fn reply(replies: &mut File, reply: &Reply) -> Result<(), ServeError> {
    let mut line = serde_json::to_vec(reply).map_err(|error| ServeError::Write(error.into()))?;
    line.push(b'\n');
    replies.write_all(&line).map_err(ServeError::Write)
}
