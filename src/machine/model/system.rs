// SPDX-License-Identifier: GPL-2.0-only
//! The system descriptor, and what each descriptor says about capabilities.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use kvm_bindings::{
    KVM_CAP_CHECK_EXTENSION_VM, KVM_CAP_EXIT_HYPERCALL, KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_MAX_VCPUS,
    KVM_CAP_MEMORY_FAULT_INFO, KVM_CAP_NR_MEMSLOTS, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_USER_MEMORY,
    KVM_CAP_USER_MEMORY2, kvm_cpuid_entry2,
};

use super::fault::Fault;
use super::memory::new_memfd;
use super::memslot::USER_MEM_SLOTS;
use super::planted;
use super::vm::{ModelVm, VmState};
use super::vm_type::{self, VM_TYPES, VmType};
use super::{snp, tdx};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{Machine, Result, Vm};
use crate::uapi::CapabilityNumbers;
use crate::uapi::sev::{
    CPUID_ENCRYPTION, CPUID_ENCRYPTION_SNP, KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES,
    KVM_X86_SNP_POLICY_BITS,
};
use crate::uapi::{
    ATTRIBUTE_PRIVATE, EXIT_HYPERCALL_MASK, GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP,
    KVM_CAP_GUEST_MEMFD, KVM_CAP_GUEST_MEMFD_FLAGS, KVM_CAP_MEMORY_ATTRIBUTES,
    KVM_CAP_PRE_FAULT_MEMORY, KVM_CAP_VM_TYPES, MODE_PRESERVE, MODE_ZERO,
};

/// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES` in RFC v4 and v5.
const CAP_ATTRIBUTES_RFC: u32 = 249;
/// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES` as queued for upstream.
const CAP_ATTRIBUTES_UPSTREAM: u32 = 252;
/// `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS`, in RFC v4 and v5 only.
const CAP_MODES_RFC: u32 = 250;
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
    sev: Arc<SevDevice>,
}

impl Model {
    /// A machine with this configuration.
    pub fn new(config: Config) -> Model {
        Model { config, sev: Arc::default() }
    }
}

/// The model's /dev/sev: a file that stands for it, and can be told from others.
#[derive(Debug, Default)]
pub(super) struct SevDevice(OnceLock<OwnedFd>);

impl SevDevice {
    fn open(&self) -> Result<OwnedFd> {
        let device = match self.0.get() {
            Some(device) => device,
            None => {
                let device = new_memfd(0)?;
                self.0.get_or_init(|| device)
            }
        };
        device.try_clone().map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EMFILE)))
    }

    /// Whether `fd` is this device.
    pub(super) fn is(&self, fd: RawFd) -> bool {
        let identity = |fd: RawFd| {
            // SAFETY: all fields of a `stat` are integers.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: `stat` is ours to write; a bad descriptor is an error.
            let found = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
            found.then_some((stat.st_dev, stat.st_ino))
        };
        let device = self.0.get().and_then(|device| identity(device.as_raw_fd()));
        device.is_some() && device == identity(fd)
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
        return planted::hook_attributes(config.fault, private);
    }
    if capability == CAP_MODES_RFC && config.dialect.has_content_modes() {
        let modes = match vm_type {
            Some(vm_type) => vm_type.advertised_modes(config.dialect),
            None => MODE_ZERO | MODE_PRESERVE,
        };
        return planted::hook_modes(config.fault, vm_type, modes) as i32;
    }
    match capability {
        KVM_CAP_VM_TYPES => VM_TYPES.iter().fold(0, |mask, t| mask | 1 << t.number),
        KVM_CAP_MEMORY_ATTRIBUTES if !in_place => private,
        KVM_CAP_GUEST_MEMFD_FLAGS => guest_memfd_flags(config, vm_type) as i32,
        KVM_CAP_NR_MEMSLOTS => USER_MEM_SLOTS as i32,
        KVM_CAP_PRE_FAULT_MEMORY => 1,
        KVM_CAP_MAX_VCPUS => 1024,
        KVM_CAP_EXIT_HYPERCALL => EXIT_HYPERCALL_MASK as i32,
        KVM_CAP_GUEST_MEMFD
        | KVM_CAP_USER_MEMORY
        | KVM_CAP_USER_MEMORY2
        | KVM_CAP_MEMORY_FAULT_INFO
        | KVM_CAP_CHECK_EXTENSION_VM
        | KVM_CAP_SPLIT_IRQCHIP
        | KVM_CAP_IMMEDIATE_EXIT => 1,
        _ => 0,
    }
}

/// `KVM_GET_SUPPORTED_CPUID`.
pub(super) fn supported_cpuid() -> Vec<kvm_cpuid_entry2> {
    let leaf = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    // What the payload's start needs of a CPU: long mode, no-execute, SSE2; and 46 address bits, as the model has. For a TD
    // x2APIC, and in leaf 7 features that it must not be given; for an SNP guest, where the C-bit is.
    let features = kvm_cpuid_entry2 {
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        ..leaf(7, 0, 1 << 4 | 1 << 11, 1 << 5, 0)
    };
    vec![
        leaf(0, 7, 0, 0, 0),
        leaf(1, 0, 0, tdx::X2APIC, 0x0789_fbff),
        features,
        leaf(0x8000_0000, CPUID_ENCRYPTION, 0, 0, 0),
        leaf(0x8000_0001, 0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11),
        leaf(0x8000_0008, 48 << 8 | 46, 0, 0, 0),
        leaf(CPUID_ENCRYPTION, CPUID_ENCRYPTION_SNP, snp::C_BIT, 0, 0),
    ]
}

impl Machine for Model {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        Ok(check_extension(&self.config, None, capability))
    }

    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        Ok(supported_cpuid())
    }

    fn get_device_attr(&self, group: u32, attribute: u64) -> Result<u64> {
        match (group, attribute) {
            (KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES) => Ok(snp::VMSA_FEATURES),
            (KVM_X86_GRP_SEV, KVM_X86_SNP_POLICY_BITS) => Ok(snp::POLICY_BITS),
            _ => Err(Errno::ENXIO),
        }
    }

    fn open_sev(&self) -> Result<OwnedFd> {
        self.sev.open()
    }

    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>> {
        let vm_type = vm_type::find(vm_type).ok_or(Errno::EINVAL)?;
        let (fd, _) = std::io::pipe().map_err(|_| Errno::EMFILE)?;
        let sev = Arc::clone(&self.sev);
        Ok(Box::new(ModelVm(Arc::new(VmState::new(self.config, vm_type, sev, fd)))))
    }
}
