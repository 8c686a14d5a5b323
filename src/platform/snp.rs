// SPDX-License-Identifier: GPL-2.0-only
//! The launch sequence of SEV-SNP guests.
//!
//! The order of the calls is the kernel's: INIT2 before the vCPU, all register state before the finish, LAUNCH_START before
//! the pages, the pages private before they are launched. The vCPU's registers and the pages are encrypted and measured;
//! whatever else the guest needs is shared memory.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use kvm_bindings::kvm_cpuid_entry2;

use super::encrypted::{self, INTERRUPTED, INTERRUPTED_OR_BUSY, LaunchPages, retry};
use super::guest::LaunchCall;
use super::kind::Platform;
use super::launch_error::{LaunchError, call};
use super::launcher::{Created, Launcher, Parts};
use super::page_tables::Aliases;
use super::plain;
use crate::errno::Errno;
use crate::machine::{Machine, Vcpu, Vm};
use crate::payload::SNP;
use crate::payload::abi::{IMAGE, PAGE_TABLES, PAYLOAD_SIZE};
use crate::uapi::PAGE_SIZE;
use crate::uapi::sev::*;

const INIT2: &str = "make the VM an SNP guest with KVM_SEV_INIT2";
const START: &str = "start the launch with KVM_SEV_SNP_LAUNCH_START";
const UPDATE: &str = "launch the payload's pages with KVM_SEV_SNP_LAUNCH_UPDATE";
const FINISH: &str = "finish the launch with KVM_SEV_SNP_LAUNCH_FINISH";

/// The guest's policy: may run where cores have two threads, which costs nothing where they do not.
const POLICY: u64 = POLICY_RESERVED | POLICY_SMT;

/// An SNP VM up to the start of its launch.
pub(super) struct Started {
    pub(super) vm: Box<dyn Vm>,
    sev: OwnedFd,
}

/// Makes a VM with a vCPU and a payload in each of `slots`, all of it launched. The launch is not finished yet.
pub(super) fn create(
    machine: &dyn Machine,
    slots: &[u32],
    deadline: Instant,
) -> Result<Created, LaunchError> {
    let Started { vm, sev } = init(machine)?;
    let mut cpuid =
        call("ask for CPU features with KVM_GET_SUPPORTED_CPUID", machine.get_supported_cpuid())?;
    plain::hide_paravirtual_features(&mut cpuid);
    let aliases = Aliases { private: c_bit(&cpuid)?, shared: 0 };
    encrypted::let_hypercalls_exit(&*vm)?;
    call("create the interrupt controller with KVM_CREATE_IRQCHIP", vm.create_irqchip())?;
    let mut parts = Parts::new(vm);
    let mut ranges = Vec::new();
    for (base, slot) in (0..).step_by(PAYLOAD_SIZE as usize).zip(slots) {
        let (memory, launched) = encrypted::create_memory(&*parts.vm, *slot, SNP, aliases, base)?;
        parts.memories.push(memory);
        ranges.push(launched);
    }
    for (id, memory) in (0..).zip(&parts.memories) {
        let vcpu = plain::create_vcpu(&*parts.vm, id, &cpuid)?;
        plain::set_registers_with(&*vcpu, IMAGE, memory.place(PAGE_TABLES))?;
        if id > 0 {
            // With an interrupt controller it would wait to be woken by the first one.
            call("start the vCPU with KVM_SET_MP_STATE", vcpu.set_runnable())?;
        }
        parts.vcpus.push(vcpu);
    }

    start(&*parts.vm, &sev)?;
    for (memory, ranges) in parts.memories.iter().zip(ranges) {
        for gpas in ranges {
            let pages = encrypted::make_private(memory, gpas)?;
            update(&*parts.vm, &sev, &pages, deadline)?;
        }
    }
    Ok(Created { parts, launcher: Box::new(Snp(sev)) })
}

/// The launch goes through the firmware, which is this file.
struct Snp(OwnedFd);

impl Launcher for Snp {
    fn add_pages(
        &self,
        vm: &dyn Vm,
        _: &dyn Vcpu,
        pages: &LaunchPages,
        deadline: Instant,
    ) -> Result<(), LaunchError> {
        update(vm, &self.0, pages, deadline)
    }

    fn add_once(
        &self,
        vm: &dyn Vm,
        _: &dyn Vcpu,
        call: &mut LaunchCall,
    ) -> Result<(), LaunchError> {
        update_once(vm, &self.0, call)
    }

    fn finish(&self, vm: &dyn Vm, deadline: Instant) -> Result<(), LaunchError> {
        finish(vm, &self.0, deadline)
    }
}

/// Finishes the launch.
fn finish(vm: &dyn Vm, sev: &OwnedFd, deadline: Instant) -> Result<(), LaunchError> {
    let mut finish = kvm_sev_snp_launch_finish::default();
    retry(INTERRUPTED_OR_BUSY, deadline, || {
        command(vm, sev, KVM_SEV_SNP_LAUNCH_FINISH, FINISH, &mut finish)
    })
}

/// Opens the firmware, creates the VM and makes it an SNP guest.
pub(super) fn init(machine: &dyn Machine) -> Result<Started, LaunchError> {
    let sev = call("open /dev/sev", machine.open_sev())?;
    let vm = machine.create_vm(Platform::Snp.vm_type());
    let vm = call("create the VM with KVM_CREATE_VM", vm)?;
    command(&*vm, &sev, KVM_SEV_INIT2, INIT2, &mut kvm_sev_init::default())?;
    Ok(Started { vm, sev })
}

impl Started {
    /// Has the firmware create the guest's context, for the probe.
    pub(super) fn start(&self) -> Result<(), LaunchError> {
        start(&*self.vm, &self.sev)
    }
}

fn start(vm: &dyn Vm, sev: &OwnedFd) -> Result<(), LaunchError> {
    let mut start = kvm_sev_snp_launch_start { policy: POLICY, ..Default::default() };
    command(vm, sev, KVM_SEV_SNP_LAUNCH_START, START, &mut start)
}

/// The C-bit, which makes a page table entry's alias the private one.
fn c_bit(cpuid: &[kvm_cpuid_entry2]) -> Result<u64, LaunchError> {
    let leaf = cpuid.iter().find(|leaf| leaf.function == CPUID_ENCRYPTION);
    let leaf = leaf.ok_or(LaunchError::Lacks("the C-bit's position in CPUID 0x8000001f"))?;
    Ok(1 << (leaf.ebx & 0x3f))
}

/// Launches pages. KVM does as many as it can and says how far it got; the next call says why it stopped there.
fn update(
    vm: &dyn Vm,
    sev: &OwnedFd,
    pages: &LaunchPages,
    deadline: Instant,
) -> Result<(), LaunchError> {
    let mut left = pages.length();
    while left > 0 {
        let gpa = pages.gpas.end - left;
        let mut update = kvm_sev_snp_launch_update {
            gfn_start: gpa / PAGE_SIZE,
            uaddr: pages.source_of(gpa),
            len: left,
            type_: PAGE_TYPE_NORMAL,
            ..Default::default()
        };
        retry(INTERRUPTED, deadline, || {
            command(vm, sev, KVM_SEV_SNP_LAUNCH_UPDATE, UPDATE, &mut update)
        })?;
        if update.len >= left {
            return Err(LaunchError::NoProgress { what: UPDATE });
        }
        left = update.len;
    }
    Ok(())
}

/// Makes one launch call, and says in `call` what KVM writes back.
fn update_once(vm: &dyn Vm, sev: &OwnedFd, call: &mut LaunchCall) -> Result<(), LaunchError> {
    let mut update = kvm_sev_snp_launch_update {
        gfn_start: call.gpa / PAGE_SIZE,
        uaddr: call.source,
        len: call.length,
        type_: call.page_type,
        // As many bits as there are.
        flags: call.flags as u16,
        ..Default::default()
    };
    let result = command(vm, sev, KVM_SEV_SNP_LAUNCH_UPDATE, UPDATE, &mut update);
    call.gpa = update.gfn_start.wrapping_mul(PAGE_SIZE);
    (call.source, call.length) = (update.uaddr, update.len);
    result
}

/// Gives one command to KVM or the firmware.
fn command<T>(
    vm: &dyn Vm,
    sev: &OwnedFd,
    id: u32,
    what: &'static str,
    data: &mut T,
) -> Result<(), LaunchError> {
    let mut command = kvm_sev_cmd {
        id,
        data: (&raw mut *data) as u64,
        sev_fd: sev.as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: `command` and `data` are ours, and `data` is the structure that `id` takes: this module calls it with no other.
    // The pages that a launch takes its contents from are only read, and what it writes is guest memory, accessed through
    // raw pointers only.
    let result = unsafe { vm.memory_encrypt_op((&raw mut command).cast()) };
    let status = FirmwareStatus(command.error);
    result.map_err(|errno: Errno| LaunchError::Firmware { what, errno, status })
}
