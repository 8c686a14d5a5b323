// SPDX-License-Identifier: GPL-2.0-only
//! The commands of a TD's launch, none of which kvm-bindings has, and what the TDX module says.

use std::fmt;
use std::mem::{offset_of, size_of};

use kvm_bindings::kvm_cpuid_entry2;

/// `KVM_TDX_CAPABILITIES`, on the VM: what a TD may be given.
pub const KVM_TDX_CAPABILITIES: u32 = 0;
/// `KVM_TDX_INIT_VM`, on the VM.
pub const KVM_TDX_INIT_VM: u32 = 1;
/// `KVM_TDX_INIT_VCPU`, on the vCPU; the data is what the guest finds in RCX and R8.
pub const KVM_TDX_INIT_VCPU: u32 = 2;
/// `KVM_TDX_INIT_MEM_REGION`, on the vCPU: adds pages.
pub const KVM_TDX_INIT_MEM_REGION: u32 = 3;
/// `KVM_TDX_FINALIZE_VM`, on the VM: ends the launch.
pub const KVM_TDX_FINALIZE_VM: u32 = 4;
/// `KVM_TDX_GET_CPUID`, on the vCPU: what the guest will see, as far as KVM must know it.
pub const KVM_TDX_GET_CPUID: u32 = 5;

/// `KVM_TDX_MEASURE_MEMORY_REGION`: whether the pages' contents are measured as well as their addresses.
pub const MEASURE_MEMORY_REGION: u32 = 1 << 0;

/// Attribute of a TD: an access to a page that it has not accepted is no #VE in the guest. KVM answers it with EIO.
pub const ATTRIBUTE_SEPT_VE_DISABLE: u64 = 1 << 28;

/// `struct kvm_tdx_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TdxCommand {
    /// `KVM_TDX_*`.
    pub id: u32,
    /// The command's flags.
    pub flags: u32,
    /// The command's argument: a value, or the address of a structure.
    pub data: u64,
    /// In: 0. Out: the status of the SEAMCALL that failed.
    pub hw_error: u64,
}

const _: () = assert!(size_of::<TdxCommand>() == 24);
const _: () = assert!(offset_of!(TdxCommand, data) == 8);
const _: () = assert!(offset_of!(TdxCommand, hw_error) == 16);

/// Most entries that KVM takes or gives in a `struct kvm_cpuid2` (`KVM_MAX_CPUID_ENTRIES`).
pub const CPUID_ENTRIES: usize = 256;

/// `struct kvm_cpuid2` with room for [`CPUID_ENTRIES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cpuid {
    /// In: the room. Out: the number of entries.
    pub nent: u32,
    /// Must be zero.
    pub padding: u32,
    /// The entries.
    pub entries: [kvm_cpuid_entry2; CPUID_ENTRIES],
}

const _: () = assert!(size_of::<kvm_cpuid_entry2>() == 40);
const _: () = assert!(offset_of!(Cpuid, entries) == 8);

impl Default for Cpuid {
    /// All room, no entries.
    fn default() -> Cpuid {
        Cpuid {
            nent: CPUID_ENTRIES as u32,
            padding: 0,
            entries: [kvm_cpuid_entry2::default(); CPUID_ENTRIES],
        }
    }
}

impl Cpuid {
    /// These entries; those past [`CPUID_ENTRIES`] are left out.
    pub fn new(entries: &[kvm_cpuid_entry2]) -> Cpuid {
        let mut cpuid = Cpuid { nent: 0, ..Cpuid::default() };
        for (place, entry) in cpuid.entries.iter_mut().zip(entries) {
            *place = *entry;
            cpuid.nent += 1;
        }
        cpuid
    }

    /// The entries that there are.
    pub fn entries(&self) -> &[kvm_cpuid_entry2] {
        &self.entries[..(self.nent as usize).min(CPUID_ENTRIES)]
    }
}

/// `struct kvm_tdx_capabilities`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TdxCapabilities {
    /// Attributes that a TD may have.
    pub supported_attrs: u64,
    /// Extended features that a TD may have.
    pub supported_xfam: u64,
    /// TDVMCALLs that KVM, and userspace, may be made to support.
    pub tdvmcallinfo: [u64; 4],
    /// Zero.
    pub reserved: [u64; 250],
    /// The bits of CPUID that can be chosen, by leaf.
    pub cpuid: Cpuid,
}

const _: () = assert!(offset_of!(TdxCapabilities, supported_xfam) == 8);
const _: () = assert!(offset_of!(TdxCapabilities, tdvmcallinfo) == 16);
const _: () = assert!(offset_of!(TdxCapabilities, reserved) == 48);
const _: () = assert!(offset_of!(TdxCapabilities, cpuid) == 2048);

impl Default for TdxCapabilities {
    fn default() -> TdxCapabilities {
        TdxCapabilities {
            supported_attrs: 0,
            supported_xfam: 0,
            tdvmcallinfo: [0; 4],
            reserved: [0; 250],
            cpuid: Cpuid::default(),
        }
    }
}

/// `struct kvm_tdx_init_vm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TdxInitVm {
    /// The TD's attributes.
    pub attributes: u64,
    /// The TD's extended features; x87 and SSE are added.
    pub xfam: u64,
    /// For attestation.
    pub mrconfigid: [u64; 6],
    /// For attestation.
    pub mrowner: [u64; 6],
    /// For attestation.
    pub mrownerconfig: [u64; 6],
    /// Must be zero.
    pub reserved: [u64; 12],
    /// The chosen bits of CPUID.
    pub cpuid: Cpuid,
}

const _: () = assert!(offset_of!(TdxInitVm, xfam) == 8);
const _: () = assert!(offset_of!(TdxInitVm, mrconfigid) == 16);
const _: () = assert!(offset_of!(TdxInitVm, mrowner) == 64);
const _: () = assert!(offset_of!(TdxInitVm, mrownerconfig) == 112);
const _: () = assert!(offset_of!(TdxInitVm, reserved) == 160);
const _: () = assert!(offset_of!(TdxInitVm, cpuid) == 256);

impl Default for TdxInitVm {
    fn default() -> TdxInitVm {
        TdxInitVm {
            attributes: 0,
            xfam: 0,
            mrconfigid: [0; 6],
            mrowner: [0; 6],
            mrownerconfig: [0; 6],
            reserved: [0; 12],
            cpuid: Cpuid::new(&[]),
        }
    }
}

/// `struct kvm_tdx_init_mem_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TdxInitMemRegion {
    /// Where the contents are in this process; 0, where in-place conversion is there: in the guest_memfd already.
    pub source_addr: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// Number of 4 KiB pages.
    pub nr_pages: u64,
}

const _: () = assert!(size_of::<TdxInitMemRegion>() == 24);
const _: () = assert!(offset_of!(TdxInitMemRegion, gpa) == 8);
const _: () = assert!(offset_of!(TdxInitMemRegion, nr_pages) == 16);

/// What the TDX module answered a SEAMCALL: `kvm_tdx_cmd::hw_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeamcallStatus(pub u64);

impl SeamcallStatus {
    /// The module did as it was told, or had no part in the failure.
    pub const SUCCESS: SeamcallStatus = SeamcallStatus(0);
    /// An operand is invalid. The lower 32 bits say which one.
    pub const OPERAND_INVALID: SeamcallStatus = SeamcallStatus(0xc000_0100_0000_0000);
    /// The page is in the secure EPT already.
    pub const EPT_ENTRY_STATE_INCORRECT: SeamcallStatus = SeamcallStatus(0xc000_0b0d_0000_0000);

    /// The name in the module's ABI specification, where it is one that a launch may meet. The low half is detail.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 >> 32 {
            0 if self.0 == 0 => "SUCCESS",
            0x4000_0001 => "NON_RECOVERABLE_VCPU",
            0x4000_0002 => "NON_RECOVERABLE_TD",
            0x8000_0003 => "INTERRUPTED_RESUMABLE",
            0x8000_0200 => "OPERAND_BUSY",
            0x8000_0201 => "PREVIOUS_TLB_EPOCH_BUSY",
            0x8000_0203 => "RND_NO_ENTROPY",
            0x8000_0702 => "VCPU_NOT_ASSOCIATED",
            0x8000_0800 => "KEY_GENERATION_FAILED",
            0x8000_ff00 => "the module could not be called",
            0xc000_0100 => "OPERAND_INVALID",
            0xc000_0300 => "PAGE_METADATA_INCORRECT",
            0xc000_0b00 => "EPT_WALK_FAILED",
            0xc000_0b02 => "EPT_ENTRY_NOT_FREE",
            0xc000_0b0d => "EPT_ENTRY_STATE_INCORRECT",
            _ => return None,
        })
    }
}

impl fmt::Display for SeamcallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SEAMCALL status {:#018x} {name}", self.0),
            None => write!(f, "SEAMCALL status {:#018x}", self.0),
        }
    }
}
