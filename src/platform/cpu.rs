// SPDX-License-Identifier: GPL-2.0-only
//! One vCPU of a guest, and how far its payload has got.

use std::time::Instant;

use super::guest::Guest;
use super::mailbox::{self, Answer, GuestCommand};
use super::memory::PayloadMemory;
use super::stop::{GuestStop, MEMORY_FAULT_RETRIES, run_until};
use crate::machine::Vcpu;
use crate::payload::abi::doorbell;

/// How far a payload has got.
pub(super) struct Progress {
    /// Number of the last command.
    sequence: u64,
    /// Whether the vCPU waits for a command, rather than being somewhere inside one.
    pub(super) ready: bool,
    /// Whether the vCPU is inside a command that can go on.
    pub(super) stopped: bool,
    /// How often the vCPU is run again, in one command, after `KVM_EXIT_MEMORY_FAULT`.
    pub(super) memory_fault_retries: u32,
}

impl Progress {
    /// It has not begun.
    pub(super) fn new() -> Progress {
        let memory_fault_retries = MEMORY_FAULT_RETRIES;
        Progress { sequence: 0, ready: false, stopped: false, memory_fault_retries }
    }

    /// Runs the payload until it waits for a command.
    pub(super) fn wait_until_ready(
        &mut self,
        vcpu: &mut dyn Vcpu,
        memory: &PayloadMemory,
        deadline: Instant,
    ) -> Result<(), GuestStop> {
        run_until(vcpu, memory, doorbell::READY, self.memory_fault_retries, deadline)?;
        self.ready = true;
        Ok(())
    }

    /// Has the payload execute `command`.
    pub(super) fn command(
        &mut self,
        vcpu: &mut dyn Vcpu,
        memory: &mut PayloadMemory,
        command: GuestCommand,
        deadline: Instant,
    ) -> Result<Answer, GuestStop> {
        if !self.ready {
            return Err(GuestStop::Unexpected(
                "the guest has stopped and was not reset".to_string(),
            ));
        }
        self.sequence += 1;
        mailbox::put(memory, self.sequence, command);
        self.ready = false;
        self.finish_command(vcpu, memory, deadline)
    }

    /// Runs the payload on in the command that the last error has left open.
    pub(super) fn resume(
        &mut self,
        vcpu: &mut dyn Vcpu,
        memory: &PayloadMemory,
        deadline: Instant,
    ) -> Result<Answer, GuestStop> {
        if !self.stopped {
            return Err(GuestStop::Unexpected("the guest is in no command that can go on".into()));
        }
        self.finish_command(vcpu, memory, deadline)
    }

    fn finish_command(
        &mut self,
        vcpu: &mut dyn Vcpu,
        memory: &PayloadMemory,
        deadline: Instant,
    ) -> Result<Answer, GuestStop> {
        let run = run_until(vcpu, memory, doorbell::DONE, self.memory_fault_retries, deadline);
        self.stopped = run.as_ref().is_err_and(GuestStop::can_go_on);
        let answer = mailbox::take(memory, self.sequence, run?);
        let answer = answer.map_err(GuestStop::BadAnswer)?;
        self.ready = true;
        Ok(answer)
    }
}

/// One vCPU of a guest; any thread may use it.
pub struct GuestCpu<'a> {
    pub(super) vcpu: &'a mut dyn Vcpu,
    pub(super) memory: &'a mut PayloadMemory,
    pub(super) progress: &'a mut Progress,
}

/// Whoever executes commands: a guest, which does so on its first vCPU, or one of several vCPUs.
pub trait Commands {
    /// As [`Guest::command`].
    fn command(&mut self, command: GuestCommand, deadline: Instant) -> Result<Answer, GuestStop>;
    /// As [`Guest::resume`].
    fn resume(&mut self, deadline: Instant) -> Result<Answer, GuestStop>;
    /// As [`Guest::set_hypercall_result`].
    fn set_hypercall_result(&mut self, result: u64);
    /// As [`Guest::set_memory_fault_retries`].
    fn set_memory_fault_retries(&mut self, retries: u32);
}

impl Commands for GuestCpu<'_> {
    fn command(&mut self, command: GuestCommand, deadline: Instant) -> Result<Answer, GuestStop> {
        self.progress.command(self.vcpu, self.memory, command, deadline)
    }

    fn resume(&mut self, deadline: Instant) -> Result<Answer, GuestStop> {
        self.progress.resume(self.vcpu, self.memory, deadline)
    }

    fn set_hypercall_result(&mut self, result: u64) {
        self.vcpu.set_hypercall_result(result);
    }

    fn set_memory_fault_retries(&mut self, retries: u32) {
        self.progress.memory_fault_retries = retries;
    }
}

impl Commands for Guest {
    fn command(&mut self, command: GuestCommand, deadline: Instant) -> Result<Answer, GuestStop> {
        Guest::command(self, command, deadline)
    }

    fn resume(&mut self, deadline: Instant) -> Result<Answer, GuestStop> {
        Guest::resume(self, deadline)
    }

    fn set_hypercall_result(&mut self, result: u64) {
        Guest::set_hypercall_result(self, result);
    }

    fn set_memory_fault_retries(&mut self, retries: u32) {
        Guest::set_memory_fault_retries(self, retries);
    }
}
