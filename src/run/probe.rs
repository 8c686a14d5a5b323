// SPDX-License-Identifier: GPL-2.0-only
//! Asking what the machine offers, in a worker: a machine that is broken may take the asker down.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::results::Environment;

use super::child::{self, Death, End, Worker};
use super::pool::Options;
use super::protocol::{Job, MachineConfig, Reply};
use super::{signals, verdict};

/// Asks in a worker what the machine offers. The error is a sentence for people: the worker hung, died, or could not be
/// started.
pub fn probe(config: &MachineConfig, options: &Options) -> Result<Environment, String> {
    let cannot_start = |error| child::cannot_start(&options.worker, &error);
    let mut worker = Worker::start(&options.worker).map_err(cannot_start)?;
    worker
        .send(&Job::Configure(config.clone()))
        .and_then(|()| worker.send(&Job::Probe))
        .map_err(cannot_start)?;
    let deadline = Instant::now() + options.timeout;
    loop {
        let until = worker.closing.map_or(deadline, |closing| closing.min(deadline));
        let interrupt = options.interrupt.as_ref();
        let interrupted = child::wait(&mut [&mut worker], interrupt.map(AsFd::as_fd), Some(until))
            .map_err(|error| format!("poll: {error}"))?;
        if let (true, Some(fd)) = (interrupted, interrupt) {
            return Err(format!("interrupted by {}", signals::caught(fd)));
        }
        match worker.said.pop_front() {
            Some(Reply::Probed(environment)) => {
                worker.dismiss();
                return Ok(*environment);
            }
            Some(Reply::Done(_)) => {
                worker.end = Some(End::Garbage("to a case instead of the probe".to_string()));
            }
            None => {}
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
            let seconds = options.timeout.as_secs();
            let what = format!("no answer within {seconds} seconds{stuck}");
            return Err(failed(&mut worker, &what));
        }
    }
}

fn failed(worker: &mut Worker, what: &str) -> String {
    let mut message = format!("the machine could not be probed: {what}");
    let said = worker.stray_output();
    if !said.trim().is_empty() {
        message += &format!("; it wrote:\n{}", said.trim_end());
    }
    message
}
