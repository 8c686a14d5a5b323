// SPDX-License-Identifier: GPL-2.0-only
//! Asking what the machine offers.

use thiserror::Error;

use super::interview::{Interview, NoAnswer};
use super::kernel_watch::KernelWatch;
use super::options::Options;
use crate::machine::{MachineConfig, MachineKind};
use crate::protocol::{Job, Reply};
use crate::results::Environment;

/// Why nobody knows what the machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The program was told to end.
    #[error("{0}")]
    Interrupted(String),
    /// The worker hung, died, or could not be started.
    #[error("the machine could not be probed: {0}")]
    Failed(String),
}

/// Asks in a worker what the machine offers. What the kernel reports meanwhile becomes a record of the run that follows.
pub fn probe(config: &MachineConfig, options: &Options) -> Result<Environment, ProbeError> {
    if config.kind == MachineKind::Host {
        options.watch.0.set(Some(KernelWatch::start(&options.root)));
    }
    let mut interview = Interview::new(config, options);
    let why = match interview.ask(&Job::Probe) {
        Ok(Reply::Probed(environment)) => return Ok(*environment),
        Ok(_) => interview.out_of_turn(),
        Err(why) => why,
    };
    Err(match why {
        NoAnswer::Interrupted(text) => ProbeError::Interrupted(text),
        NoAnswer::Failed(text) => ProbeError::Failed(text),
    })
}
