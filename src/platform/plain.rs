// SPDX-License-Identifier: GPL-2.0-only
//! The launch sequence of guests that nothing encrypts: `default` and `sw-protected`.
//!
//! The payload's memory is anonymous memory in a slot without a guest_memfd, so that no conversion can reach it. The
//! vCPU starts in 64-bit mode: KVM's instruction emulator, which real mode may need, cannot reach private memory.

use std::time::Instant;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_segment};

use super::encrypted::LaunchPages;
use super::guest::LaunchCall;
use super::kind::Platform;
use super::launch_error::{LaunchError, call};
use super::launcher::{Created, Launcher, Parts};
use super::memory::PayloadMemory;
use super::page_tables::{NoRoom, PageTables};
use crate::machine::{Machine, Vcpu, Vm};
use crate::payload::abi::{IMAGE, PAGE_TABLES, PAYLOAD_SIZE};

/// The payload, to be loaded and entered at [`IMAGE`].
pub(super) static PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.bin"));
const _: () = assert!(PAYLOAD.len() as u64 <= PAYLOAD_SIZE - IMAGE);

/// `KVM_CPUID_FEATURES`: the leaf in which KVM offers a guest its paravirtual features, in EAX.
const KVM_CPUID_FEATURES: u32 = 0x4000_0001;

// CR0: protected mode, coprocessor present and monitored, native FPU errors, write protection, paging.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
// CR4: PAE, OSFXSR, OSXMMEXCPT. The last two so that an instruction of SSE in a payload would not fault.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
// EFER: LME, LMA.
const EFER: u64 = 1 << 8 | 1 << 10;

/// Creates the VM with new memory in slot `slot`, and its vCPU.
pub(super) fn create(
    machine: &dyn Machine,
    platform: Platform,
    slot: u32,
) -> Result<Created, LaunchError> {
    let memory = call("map memory for the payload", PayloadMemory::new())?;
    let vm = call("create the VM with KVM_CREATE_VM", machine.create_vm(platform.vm_type()))?;
    let region = memory.region(slot, 0, PAYLOAD_SIZE);
    // SAFETY: `memory` goes with the VM, which is dropped first, here and in `Guest`; it is accessed through raw pointers
    // only.
    let added = unsafe { vm.set_user_memory_region2(&region) };
    call("add the payload's memslot with KVM_SET_USER_MEMORY_REGION2", added)?;

    let vcpu = create_vcpu(&*vm, 0, &cpuid(machine)?)?;
    let parts = Parts { vcpus: vec![vcpu], vm, memories: vec![memory] };
    Ok(Created { parts, launcher: Box::new(Plain(PageTables::new())) })
}

/// Nothing is launched. The host sets the registers and can do so again. The page tables grow.
struct Plain(PageTables);

impl Launcher for Plain {
    fn add_pages(
        &self,
        _: &dyn Vm,
        _: &dyn Vcpu,
        _: &LaunchPages,
        _: Instant,
    ) -> Result<(), LaunchError> {
        Err(LaunchError::Lacks("a launch that takes pages"))
    }

    fn add_once(&self, _: &dyn Vm, _: &dyn Vcpu, _: &mut LaunchCall) -> Result<(), LaunchError> {
        Err(LaunchError::Lacks("a launch that takes pages"))
    }

    fn finish(&self, _: &dyn Vm, _: Instant) -> Result<(), LaunchError> {
        Ok(())
    }

    fn map(&mut self, memory: &mut PayloadMemory, gpa: u64, size: u64) -> Result<(), NoRoom> {
        self.0.map(memory, gpa, size)
    }

    fn can_reset(&self) -> bool {
        true
    }
}

/// The features that guests are shown.
pub(super) fn cpuid(machine: &dyn Machine) -> Result<Vec<kvm_cpuid_entry2>, LaunchError> {
    let mut cpuid =
        call("ask for CPU features with KVM_GET_SUPPORTED_CPUID", machine.get_supported_cpuid())?;
    hide_paravirtual_features(&mut cpuid);
    Ok(cpuid)
}

/// A vCPU with these features.
pub(super) fn create_vcpu(
    vm: &dyn Vm,
    id: u64,
    cpuid: &[kvm_cpuid_entry2],
) -> Result<Box<dyn Vcpu>, LaunchError> {
    let vcpu = call("create the vCPU with KVM_CREATE_VCPU", vm.create_vcpu(id))?;
    call("set CPU features with KVM_SET_CPUID2", vcpu.set_cpuid2(cpuid))?;
    Ok(vcpu)
}

/// The paravirtual features make KVM itself write to guest memory; payloads do without.
pub(super) fn hide_paravirtual_features(cpuid: &mut [kvm_cpuid_entry2]) {
    for entry in cpuid {
        if entry.function == KVM_CPUID_FEATURES {
            entry.eax = 0;
            entry.edx = 0;
        }
    }
}

/// Puts the vCPU at `entry`: for the payload, [`IMAGE`].
pub(super) fn set_registers(vcpu: &dyn Vcpu, entry: u64) -> Result<(), LaunchError> {
    set_registers_with(vcpu, entry, PAGE_TABLES)
}

/// The same, with page tables at this guest physical address.
pub(super) fn set_registers_with(
    vcpu: &dyn Vcpu,
    entry: u64,
    page_tables: u64,
) -> Result<(), LaunchError> {
    // The segments that the payload's GDT describes.
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment { selector: 8, type_: 11, db: 0, l: 1, ..data };
    let mut sregs = call("read registers with KVM_GET_SREGS", vcpu.get_sregs())?;
    sregs.cs = code;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.cr0 = CR0;
    sregs.cr2 = 0;
    sregs.cr3 = page_tables;
    sregs.cr4 = CR4;
    sregs.efer = EFER;
    sregs.interrupt_bitmap = Default::default();
    call("set registers with KVM_SET_SREGS", vcpu.set_sregs(&sregs))?;
    let regs = kvm_regs {
        rip: entry,
        // Bit 1 is always set; interrupts are off.
        rflags: 1 << 1,
        ..Default::default()
    };
    call("set registers with KVM_SET_REGS", vcpu.set_regs(&regs))
}
