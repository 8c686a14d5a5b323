// SPDX-License-Identifier: GPL-2.0-only
//! What the launch sequences of the platforms have in common: how a VM is made, and how its guest gets its memory and its
//! first instruction.

use std::time::Instant;

use super::encrypted::LaunchPages;
use super::guest::LaunchCall;
use super::kind::Platform;
use super::launch_error::LaunchError;
use super::memory::PayloadMemory;
use super::page_tables::{self, NoRoom};
use super::{plain, snp, tdx};
use crate::machine::{Machine, Vcpu, Vm};

/// What a platform's launch sequence makes: at least one vCPU, and as many payloads.
pub(super) struct Created {
    pub(super) parts: Parts,
    pub(super) launcher: Box<dyn Launcher>,
}

/// A VM that is being made. Dropped in this order: no vCPU, then no VM, then no memory that it uses.
pub(super) struct Parts {
    pub(super) vcpus: Vec<Box<dyn Vcpu>>,
    pub(super) vm: Box<dyn Vm>,
    pub(super) memories: Vec<PayloadMemory>,
}

impl Parts {
    /// A VM without vCPUs and memory.
    pub(super) fn new(vm: Box<dyn Vm>) -> Parts {
        Parts { vcpus: Vec::new(), vm, memories: Vec::new() }
    }
}

/// Makes a VM of `platform` with a vCPU and a payload in each of `slots`, all of it launched. The launch is not finished yet.
pub(super) fn create(
    machine: &dyn Machine,
    platform: Platform,
    slots: &[u32],
    deadline: Instant,
) -> Result<Created, LaunchError> {
    match platform {
        Platform::Default | Platform::SwProtected => plain::create(machine, platform, slots[0]),
        Platform::Snp => snp::create(machine, slots, deadline),
        Platform::Tdx => tdx::create(machine, slots, deadline),
    }
}

/// The calls of a platform's launch sequence. What is the same for all encrypted guests is here.
pub(super) trait Launcher {
    /// Makes private pages part of the launch. The guest has not to accept them.
    fn add_pages(
        &self,
        vm: &dyn Vm,
        vcpu: &dyn Vcpu,
        pages: &LaunchPages,
        deadline: Instant,
    ) -> Result<(), LaunchError>;

    /// Makes one launch call as it is, and has in `call` what KVM writes back.
    fn add_once(
        &self,
        vm: &dyn Vm,
        vcpu: &dyn Vcpu,
        call: &mut LaunchCall,
    ) -> Result<(), LaunchError>;

    /// The call that finishes the launch.
    fn finish(&self, vm: &dyn Vm, deadline: Instant) -> Result<(), LaunchError>;

    /// Maps guest virtual addresses to the same guest physical addresses. An encrypted guest has both aliases of the test
    /// memory mapped from the start, and nothing can be added.
    fn map(&mut self, _: &mut PayloadMemory, gpa: u64, size: u64) -> Result<(), NoRoom> {
        page_tables::check_encrypted(gpa, size)
    }

    /// The bit of guest physical addresses that says that a page is shared, if there is one.
    fn shared_bit(&self) -> u64 {
        0
    }

    /// Whether the host can set the registers again.
    fn can_reset(&self) -> bool {
        false
    }
}
