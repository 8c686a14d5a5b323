// SPDX-License-Identifier: GPL-2.0-only
//! Asking what the machine offers.

use crate::results::Environment;

use super::interview::{Interview, NoAnswer};
use super::pool::Options;
use crate::machine::MachineConfig;
use crate::protocol::{Job, Reply};

/// Asks in a worker what the machine offers. The error is a sentence for people: the worker hung, died, or could not be
/// started.
pub fn probe(config: &MachineConfig, options: &Options) -> Result<Environment, String> {
    let mut interview = Interview::new(config, options);
    let why = match interview.ask(&Job::Probe) {
        Ok(Reply::Probed(environment)) => return Ok(*environment),
        Ok(_) => interview.out_of_turn(),
        Err(why) => why,
    };
    Err(match why {
        NoAnswer::Interrupted(text) => text,
        NoAnswer::Failed(text) => format!("the machine could not be probed: {text}"),
    })
}
