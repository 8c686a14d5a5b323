// SPDX-License-Identifier: GPL-2.0-only
//! Questions to a worker, one after the other: a machine that is broken may take down whoever asks it.

use std::os::fd::AsFd;
use std::time::Instant;

use thiserror::Error;

use super::options::Options;
use super::worker_process::{self, Death, End, StartError, WorkerProcess};
use super::{signals, verdict};
use crate::machine::MachineConfig;
use crate::protocol::{Job, Reply};

/// A worker that is asked. One that dies or hangs is replaced when the next question comes.
pub struct Interview<'a> {
    config: MachineConfig,
    options: &'a Options,
    worker: Option<WorkerProcess>,
}

/// Why a worker gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// The program was told to end.
    #[error("{0}")]
    Interrupted(String),
    /// The worker hung, died, or could not be started; what it was, to be read after "the machine could not be ...: ".
    #[error("{0}")]
    Failed(String),
}

impl<'a> Interview<'a> {
    /// With workers that drive this machine.
    pub fn new(config: &MachineConfig, options: &'a Options) -> Interview<'a> {
        Interview { config: config.clone(), options, worker: None }
    }

    /// Asks, and waits for the answer no longer than a case may take.
    pub fn ask(&mut self, question: &Job) -> Result<Reply, NoAnswer> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        worker.send(question).map_err(|error| self.cannot_start(error))?;
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let until = worker.closing.map_or(deadline, |closing| closing.min(deadline));
            let interrupt = self.options.interrupt.as_ref();
            let interrupted =
                worker_process::wait(&mut [&mut worker], interrupt.map(AsFd::as_fd), Some(until))
                    .map_err(|error| NoAnswer::Failed(format!("poll: {error}")))?;
            if let (true, Some(fd)) = (interrupted, interrupt) {
                let text = format!("interrupted by {}", signals::caught(fd));
                return Err(NoAnswer::Interrupted(text));
            }
            if let Some(reply) = worker.said.pop_front() {
                self.worker = Some(worker);
                return Ok(reply);
            }
            let now = Instant::now();
            worker.check_closing(now);
            if let Some(end) = worker.end.take() {
                let death = worker.kill();
                let what = verdict::misdeed(&end, &death);
                return Err(failed(&mut worker, &format!("its worker {what}")));
            }
            if deadline <= now {
                let stuck = match worker.kill() {
                    Death::Reaped(_) => String::new(),
                    Death::Stuck(place) => {
                        format!(", and its worker is stuck in the kernel at {place}")
                    }
                };
                let seconds = self.options.timeout.as_secs();
                let what = format!("no answer within {seconds} seconds{stuck}");
                return Err(failed(&mut worker, &what));
            }
        }
    }

    /// The worker has answered another question than the one that was asked: it is of no more use.
    pub fn out_of_turn(&mut self) -> NoAnswer {
        let Some(mut worker) = self.worker.take() else {
            return NoAnswer::Failed("there is no worker".to_string());
        };
        let death = worker.kill();
        let end = End::Garbage("to another question".to_string());
        failed(&mut worker, &format!("its worker {}", verdict::misdeed(&end, &death)))
    }

    fn start(&self) -> Result<WorkerProcess, NoAnswer> {
        WorkerProcess::start(&self.options.worker)
            .and_then(|mut worker| {
                worker.send(&Job::Configure(self.config.clone()))?;
                Ok(worker)
            })
            .map_err(|error| self.cannot_start(error))
    }

    fn cannot_start(&self, error: std::io::Error) -> NoAnswer {
        NoAnswer::Failed(StartError::new(&self.options.worker, error).to_string())
    }
}

impl Drop for Interview<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.dismiss();
        }
    }
}

fn failed(worker: &mut WorkerProcess, what: &str) -> NoAnswer {
    let mut message = what.to_string();
    let said = worker.stray_output();
    if !said.trim().is_empty() {
        message += &format!("; it wrote:\n{}", said.trim_end());
    }
    NoAnswer::Failed(message)
}
