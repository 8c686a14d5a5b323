// SPDX-License-Identifier: GPL-2.0-only
//! The launch sequence of TDX guests.
//!
//! The vCPU's registers are the module's from the start: it begins at the reset vector, in the last page below 4 GiB, which
//! gets a memslot of its own. What the TD sees of CPUID is chosen when it is made, among what the module leaves to choose.

use std::ffi::c_void;
use std::time::Instant;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_cpuid_entry2};

use super::encrypted::{self, INTERRUPTED, INTERRUPTED_OR_BUSY, LaunchPages, retry};
use super::guest::{LaunchCall, RESET_SLOT};
use super::kind::Platform;
use super::launch_error::{LaunchError, call};
use super::launcher::{Created, Launcher, Parts};
use super::memory::PayloadMemory;
use super::page_tables::Aliases;
use crate::errno::Errno;
use crate::machine::{self, Machine, Vcpu, Vm};
use crate::payload::abi::{PAYLOAD_SIZE, RESET_PAGE};
use crate::payload::{TDX_IMAGE, TDX_RESET};
use crate::uapi::PAGE_SIZE;
use crate::uapi::tdx::*;

const CAPABILITIES: &str = "ask what TDs may have with KVM_TDX_CAPABILITIES";
const INIT_VM: &str = "make the VM a TD with KVM_TDX_INIT_VM";
const GET_CPUID: &str = "ask for the TD's CPU features with KVM_TDX_GET_CPUID";
const INIT_VCPU: &str = "make the vCPU the TD's with KVM_TDX_INIT_VCPU";
const INIT_MEM_REGION: &str = "launch the payload's pages with KVM_TDX_INIT_MEM_REGION";
const FINALIZE_VM: &str = "finish the launch with KVM_TDX_FINALIZE_VM";

/// Routes that the split interrupt controller reserves: as many as an I/O APIC has pins.
const IRQ_ROUTES: u64 = 24;

/// The leaf of address widths, and the width that puts the shared bit at 47: every TDX machine can do that.
const ADDRESS_WIDTHS: u32 = 0x8000_0008;
const GUEST_WIDTH: u32 = 48;
/// The bit of a guest physical address that says it is shared.
pub(super) const SHARED_BIT: u64 = 1 << (GUEST_WIDTH - 1);
/// The leaf of features that a TD must not be given although the module would let it have them: HLE and RTM in EBX,
/// WAITPKG in ECX. KVM could not keep their MSRs apart.
const FEATURES: u32 = 7;
const FORBIDDEN_EBX: u32 = 1 << 4 | 1 << 11;
const FORBIDDEN_ECX: u32 = 1 << 5;

/// Makes a VM with a vCPU and a payload in each of `slots` and its first code in [`RESET_SLOT`], all of it launched. The
/// launch is not finished yet.
pub(super) fn create(
    machine: &dyn Machine,
    slots: &[u32],
    deadline: Instant,
) -> Result<Created, LaunchError> {
    let aliases = Aliases { private: 0, shared: SHARED_BIT };
    let vm = init(machine, deadline)?;
    encrypted::let_hypercalls_exit(&*vm)?;
    let mut parts = Parts::new(vm);
    let mut ranges = Vec::new();
    for (base, slot) in (0..).step_by(PAYLOAD_SIZE as usize).zip(slots) {
        let (mut memory, mut launched) =
            encrypted::create_memory(&*parts.vm, *slot, TDX_IMAGE, aliases, base)?;
        if base == 0 {
            add_reset_page(&*parts.vm, &mut memory, RESET_SLOT)?;
            launched.push(RESET_PAGE..RESET_PAGE + PAGE_SIZE);
        }
        parts.memories.push(memory);
        ranges.push(launched);
    }

    for (id, memory) in (0..).zip(&parts.memories) {
        parts.vcpus.push(create_vcpu(&*parts.vm, id, memory.base())?);
    }
    for (memory, ranges) in parts.memories.iter().zip(ranges) {
        for gpas in ranges {
            let pages = encrypted::make_private(memory, gpas)?;
            add_pages(&*parts.vcpus[0], &pages, deadline)?;
        }
    }
    Ok(Created { parts, launcher: Box::new(Tdx) })
}

/// The launch goes through KVM.
struct Tdx;

impl Launcher for Tdx {
    fn add_pages(
        &self,
        _: &dyn Vm,
        vcpu: &dyn Vcpu,
        pages: &LaunchPages,
        deadline: Instant,
    ) -> Result<(), LaunchError> {
        add_pages(vcpu, pages, deadline)
    }

    fn add_once(
        &self,
        _: &dyn Vm,
        vcpu: &dyn Vcpu,
        call: &mut LaunchCall,
    ) -> Result<(), LaunchError> {
        add_pages_once(vcpu, call)
    }

    fn finish(&self, vm: &dyn Vm, deadline: Instant) -> Result<(), LaunchError> {
        finish(vm, deadline)
    }

    fn shared_bit(&self) -> u64 {
        SHARED_BIT
    }
}

/// Creates a vCPU that finds `base` in RCX and R8: how far behind those of the first its page tables lie.
fn create_vcpu(vm: &dyn Vm, id: u64, base: u64) -> Result<Box<dyn Vcpu>, LaunchError> {
    let vcpu = call("create the vCPU with KVM_CREATE_VCPU", vm.create_vcpu(id))?;
    let mut cpuid = Box::<Cpuid>::default();
    on_vcpu(&*vcpu, KVM_TDX_GET_CPUID, GET_CPUID, &mut *cpuid)?;
    call("set CPU features with KVM_SET_CPUID2", vcpu.set_cpuid2(cpuid.entries()))?;
    let init = TdxCommand { id: KVM_TDX_INIT_VCPU, data: base, ..Default::default() };
    command(INIT_VCPU, init, |c| {
        // SAFETY: the command is ours and names no memory.
        unsafe { vcpu.memory_encrypt_op(c) }
    })?;
    Ok(vcpu)
}

/// Finishes the launch.
fn finish(vm: &dyn Vm, deadline: Instant) -> Result<(), LaunchError> {
    retry(INTERRUPTED_OR_BUSY, deadline, || {
        let finalize = TdxCommand { id: KVM_TDX_FINALIZE_VM, ..Default::default() };
        command(FINALIZE_VM, finalize, |c| {
            // SAFETY: the command is ours and names no memory.
            unsafe { vm.memory_encrypt_op(c) }
        })
    })
}

/// Creates the VM and makes it a TD.
pub(super) fn init(machine: &dyn Machine, deadline: Instant) -> Result<Box<dyn Vm>, LaunchError> {
    let vm = machine.create_vm(Platform::Tdx.vm_type());
    let vm = call("create the VM with KVM_CREATE_VM", vm)?;
    let mut offered = Box::<TdxCapabilities>::default();
    on_vm(&*vm, KVM_TDX_CAPABILITIES, CAPABILITIES, &mut *offered)?;
    let split = vm.enable_cap(KVM_CAP_SPLIT_IRQCHIP, [IRQ_ROUTES, 0, 0, 0]);
    call("split the interrupt controller with KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)", split)?;
    let supported =
        call("ask for CPU features with KVM_GET_SUPPORTED_CPUID", machine.get_supported_cpuid())?;
    let mut init = Box::new(TdxInitVm {
        // Without it a page that is not accepted is a #VE in the guest, which a hypervisor could cause anywhere.
        attributes: offered.supported_attrs & ATTRIBUTE_SEPT_VE_DISABLE,
        cpuid: td_cpuid(&supported, offered.cpuid.entries())?,
        ..TdxInitVm::default()
    });
    retry(INTERRUPTED, deadline, || on_vm(&*vm, KVM_TDX_INIT_VM, INIT_VM, &mut *init))?;
    Ok(vm)
}

/// Puts the page of the reset vector into its slot.
fn add_reset_page(vm: &dyn Vm, memory: &mut PayloadMemory, slot: u32) -> Result<(), LaunchError> {
    memory.load(RESET_PAGE, TDX_RESET);
    let region = memory.region(slot, RESET_PAGE, PAGE_SIZE);
    // SAFETY: the caller keeps `memory` as long as the VM; it is accessed through raw pointers only.
    let added = unsafe { vm.set_user_memory_region2(&region) };
    call("add the reset page's memslot with KVM_SET_USER_MEMORY_REGION2", added)
}

/// What KVM supports of the CPUID bits that can be chosen: every leaf that there is to choose about, and no other.
fn td_cpuid(
    supported: &[kvm_cpuid_entry2],
    configurable: &[kvm_cpuid_entry2],
) -> Result<Cpuid, LaunchError> {
    let mut entries = Vec::new();
    for mask in configurable {
        let same = |s: &&kvm_cpuid_entry2| s.function == mask.function && s.index == mask.index;
        let Some(leaf) = supported.iter().find(same) else { continue };
        // KVM_TDX_CAPABILITIES leaves the flags at 0, KVM_GET_SUPPORTED_CPUID does not. KVM_TDX_INIT_VM refuses a leaf that
        // has subleaves without KVM_CPUID_FLAG_SIGNIFCANT_INDEX.
        let mut entry = kvm_cpuid_entry2 {
            eax: leaf.eax & mask.eax,
            ebx: leaf.ebx & mask.ebx,
            ecx: leaf.ecx & mask.ecx,
            edx: leaf.edx & mask.edx,
            ..*leaf
        };
        match entry.function {
            FEATURES if entry.index == 0 => {
                entry.ebx &= !FORBIDDEN_EBX;
                entry.ecx &= !FORBIDDEN_ECX;
            }
            ADDRESS_WIDTHS => entry.eax = entry.eax & !0xff_0000 | GUEST_WIDTH << 16,
            _ => {}
        }
        entries.push(entry);
    }
    if !entries.iter().any(|entry| entry.function == ADDRESS_WIDTHS) {
        return Err(LaunchError::Lacks("CPUID 0x80000008 among what can be chosen for a TD"));
    }
    Ok(Cpuid::new(&entries))
}

/// Launches pages. KVM says how far it got, also when it fails; the next call says why it stopped there.
fn add_pages(vcpu: &dyn Vcpu, pages: &LaunchPages, deadline: Instant) -> Result<(), LaunchError> {
    let mut left = pages.length() / PAGE_SIZE;
    while left > 0 {
        let gpa = pages.gpas.end - left * PAGE_SIZE;
        let mut region =
            TdxInitMemRegion { source_addr: pages.source_of(gpa), gpa, nr_pages: left };
        retry(INTERRUPTED, deadline, || {
            let result = on_vcpu(vcpu, KVM_TDX_INIT_MEM_REGION, INIT_MEM_REGION, &mut region);
            // An interruption that comes with progress is success for now.
            if region.nr_pages < left { Ok(()) } else { result }
        })?;
        if region.nr_pages >= left {
            return Err(LaunchError::NoProgress { what: INIT_MEM_REGION });
        }
        left = region.nr_pages;
    }
    Ok(())
}

/// Makes one launch call, and says in `call` what KVM writes back.
fn add_pages_once(vcpu: &dyn Vcpu, call: &mut LaunchCall) -> Result<(), LaunchError> {
    let mut region =
        TdxInitMemRegion { source_addr: call.source, gpa: call.gpa, nr_pages: call.length };
    let argument = TdxCommand {
        id: KVM_TDX_INIT_MEM_REGION,
        flags: call.flags,
        data: (&raw mut region) as u64,
        ..Default::default()
    };
    let result = command(INIT_MEM_REGION, argument, |c| {
        // SAFETY: as in `on_vcpu`. What is mapped at the source's address is only read.
        unsafe { vcpu.memory_encrypt_op(c) }
    });
    (call.source, call.gpa, call.length) = (region.source_addr, region.gpa, region.nr_pages);
    result
}

/// Gives the VM a command whose data is `data`.
fn on_vm<T>(vm: &dyn Vm, id: u32, what: &'static str, data: &mut T) -> Result<(), LaunchError> {
    let argument = TdxCommand { id, data: (&raw mut *data) as u64, ..Default::default() };
    command(what, argument, |c| {
        // SAFETY: the command and `data` are ours, and `data` is the structure that `id` takes: this module calls it with
        // no other.
        unsafe { vm.memory_encrypt_op(c) }
    })
}

/// Gives the vCPU a command whose data is `data`.
fn on_vcpu<T>(
    vcpu: &dyn Vcpu,
    id: u32,
    what: &'static str,
    data: &mut T,
) -> Result<(), LaunchError> {
    let argument = TdxCommand { id, data: (&raw mut *data) as u64, ..Default::default() };
    command(what, argument, |c| {
        // SAFETY: as in `on_vm`. The pages that a launch takes its contents from are only read, and what it writes is guest
        // memory, accessed through raw pointers only.
        unsafe { vcpu.memory_encrypt_op(c) }
    })
}

/// Gives one command to KVM or the module.
fn command(
    what: &'static str,
    mut command: TdxCommand,
    give: impl FnOnce(*mut c_void) -> machine::Result<()>,
) -> Result<(), LaunchError> {
    let result = give((&raw mut command).cast());
    let status = SeamcallStatus(command.hw_error);
    result.map_err(|errno: Errno| LaunchError::Seamcall { what, errno, status })
}
