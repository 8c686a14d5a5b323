// SPDX-License-Identifier: GPL-2.0-only
//! The system descriptor, and what each descriptor says about capabilities.

use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_CHECK_EXTENSION_VM, KVM_CAP_EXIT_HYPERCALL, KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_MAX_VCPUS,
    KVM_CAP_MEMORY_FAULT_INFO, KVM_CAP_NR_MEMSLOTS, KVM_CAP_USER_MEMORY, KVM_CAP_USER_MEMORY2,
    kvm_cpuid_entry2,
};

use super::fault::Fault;
use super::memslot::USER_MEM_SLOTS;
use super::vm::{ModelVm, VmState};
use super::vm_type::{self, VM_TYPES, VmType};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{Machine, Result, Vm};
use crate::uapi::CapabilityNumbers;
use crate::uapi::{
    ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_CAP_GUEST_MEMFD,
    KVM_CAP_GUEST_MEMFD_FLAGS, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_VM_TYPES, MODE_PRESERVE,
    MODE_ZERO,
};

/// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES` in RFC v4 and v5.
const CAP_ATTRIBUTES_RFC: u32 = 249;
/// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES` as queued for upstream.
const CAP_ATTRIBUTES_UPSTREAM: u32 = 252;
/// `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS`, in RFC v4 and v5 only.
const CAP_MODES_RFC: u32 = 250;
/// Bits that `KVM_CAP_EXIT_HYPERCALL` knows: `1 << KVM_HC_MAP_GPA_RANGE`.
pub(super) const HYPERCALL_EXITS: u64 = 1 << 12;

/// The numbers that the model gives the series' capabilities in a dialect: those of the postings.
pub fn capability_numbers(dialect: Dialect) -> CapabilityNumbers {
    let (attributes, modes) = match dialect {
        Dialect::None => (None, None),
        Dialect::RfcV4 | Dialect::RfcV5 => (Some(CAP_ATTRIBUTES_RFC), Some(CAP_MODES_RFC)),
        Dialect::Upstream => (Some(CAP_ATTRIBUTES_UPSTREAM), None),
    };
    CapabilityNumbers { guest_memfd_memory_attributes: attributes, memory_attributes2_flags: modes }
}

/// What kind of KVM a [`Model`] is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The revision of the interface that it speaks; [`Dialect::None`]: in-place conversion is switched off.
    pub dialect: Dialect,
    /// The bug or the liberty planted in it.
    pub fault: Option<Fault>,
}

/// A KVM in this process. All state is in the VMs made from it.
#[derive(Debug)]
pub struct Model {
    config: Config,
}

impl Model {
    /// A machine with this configuration.
    pub fn new(config: Config) -> Model {
        Model { config }
    }
}

/// `GUEST_MEMFD_FLAG_*` that may be used, on the system (no type) or on a VM.
pub(super) fn guest_memfd_flags(config: &Config, vm_type: Option<&VmType>) -> u64 {
    let per_vm = config.dialect == Dialect::None;
    match vm_type {
        // Without in-place conversion all of a file of such a VM is private for good.
        Some(t) if t.has_private_memory && per_vm => GUEST_MEMFD_FLAG_MMAP,
        _ => GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
    }
}

/// `KVM_CHECK_EXTENSION` on the system (no type) or on a VM.
pub(super) fn check_extension(config: &Config, vm_type: Option<&VmType>, capability: u32) -> i32 {
    let in_place = config.dialect != Dialect::None;
    let private = match vm_type {
        Some(t) if !t.has_private_memory => 0,
        _ => ATTRIBUTE_PRIVATE as i32,
    };
    let attributes = match config.dialect {
        Dialect::None => None,
        Dialect::RfcV4 | Dialect::RfcV5 => Some(CAP_ATTRIBUTES_RFC),
        Dialect::Upstream => Some(CAP_ATTRIBUTES_UPSTREAM),
    };
    if Some(capability) == attributes {
        return match config.fault {
            Some(Fault::CapabilityAttributesMissing) => 0,
            _ => private,
        };
    }
    if capability == CAP_MODES_RFC && config.dialect.has_content_modes() {
        let modes = (MODE_ZERO | MODE_PRESERVE) as i32;
        return match (config.fault, vm_type) {
            (Some(Fault::CapabilityModesMissing), _) => MODE_ZERO as i32,
            (Some(Fault::CapabilityModesOnDefault), _) | (_, None) => modes,
            (_, Some(t)) => t.advertised_modes as i32,
        };
    }
    match capability {
        KVM_CAP_VM_TYPES => VM_TYPES.iter().fold(0, |mask, t| mask | 1 << t.number),
        KVM_CAP_MEMORY_ATTRIBUTES if !in_place => private,
        KVM_CAP_GUEST_MEMFD_FLAGS => guest_memfd_flags(config, vm_type) as i32,
        KVM_CAP_NR_MEMSLOTS => USER_MEM_SLOTS as i32,
        KVM_CAP_MAX_VCPUS => 1024,
        KVM_CAP_EXIT_HYPERCALL => HYPERCALL_EXITS as i32,
        KVM_CAP_GUEST_MEMFD
        | KVM_CAP_USER_MEMORY
        | KVM_CAP_USER_MEMORY2
        | KVM_CAP_MEMORY_FAULT_INFO
        | KVM_CAP_CHECK_EXTENSION_VM
        | KVM_CAP_IMMEDIATE_EXIT => 1,
        _ => 0,
    }
}

impl Machine for Model {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        Ok(check_extension(&self.config, None, capability))
    }

    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        let leaf = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        // What the payload's start needs of a CPU: long mode, no-execute, SSE2; and 46 address bits, as the model has.
        Ok(vec![
            leaf(0, 1, 0, 0, 0),
            leaf(1, 0, 0, 0, 0x0789_fbff),
            leaf(0x8000_0000, 0x8000_0008, 0, 0, 0),
            leaf(0x8000_0001, 0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11),
            leaf(0x8000_0008, 48 << 8 | 46, 0, 0, 0),
        ])
    }

    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>> {
        let vm_type = vm_type::find(vm_type).ok_or(Errno::EINVAL)?;
        Ok(Box::new(ModelVm(Arc::new(VmState::new(self.config, vm_type)))))
    }
}
