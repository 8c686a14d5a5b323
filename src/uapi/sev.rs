// SPDX-License-Identifier: GPL-2.0-only
//! The commands of an SEV-SNP guest's launch, and what its firmware says.

use std::fmt;
use std::mem::{offset_of, size_of};

pub use kvm_bindings::{
    kvm_sev_cmd, kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start,
    kvm_sev_snp_launch_update,
};

const _: () = assert!(size_of::<kvm_sev_cmd>() == 24);
const _: () = assert!(offset_of!(kvm_sev_cmd, data) == 8);
const _: () = assert!(offset_of!(kvm_sev_cmd, error) == 16);
const _: () = assert!(offset_of!(kvm_sev_cmd, sev_fd) == 20);
const _: () = assert!(size_of::<kvm_sev_init>() == 48);
const _: () = assert!(offset_of!(kvm_sev_init, flags) == 8);
const _: () = assert!(offset_of!(kvm_sev_init, ghcb_version) == 12);
const _: () = assert!(size_of::<kvm_sev_snp_launch_start>() == 64);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_start, gosvw) == 8);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_start, flags) == 24);
const _: () = assert!(size_of::<kvm_sev_snp_launch_update>() == 64);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_update, uaddr) == 8);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_update, len) == 16);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_update, type_) == 24);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_update, flags) == 26);
const _: () = assert!(size_of::<kvm_sev_snp_launch_finish>() == 88);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_finish, host_data) == 19);
const _: () = assert!(offset_of!(kvm_sev_snp_launch_finish, flags) == 54);

/// `KVM_SEV_INIT2`: makes the VM a guest of its type.
pub const KVM_SEV_INIT2: u32 = 22;
/// `KVM_SEV_SNP_LAUNCH_START`: creates the guest's context in the firmware.
pub const KVM_SEV_SNP_LAUNCH_START: u32 = 100;
/// `KVM_SEV_SNP_LAUNCH_UPDATE`: encrypts and measures pages.
pub const KVM_SEV_SNP_LAUNCH_UPDATE: u32 = 101;
/// `KVM_SEV_SNP_LAUNCH_FINISH`: encrypts the vCPUs' registers and ends the launch.
pub const KVM_SEV_SNP_LAUNCH_FINISH: u32 = 102;
const _: () = assert!(KVM_SEV_INIT2 == kvm_bindings::sev_cmd_id_KVM_SEV_INIT2);
const _: () =
    assert!(KVM_SEV_SNP_LAUNCH_START == kvm_bindings::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START);
const _: () =
    assert!(KVM_SEV_SNP_LAUNCH_UPDATE == kvm_bindings::sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE);
const _: () =
    assert!(KVM_SEV_SNP_LAUNCH_FINISH == kvm_bindings::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH);

/// `KVM_SEV_SNP_PAGE_TYPE_NORMAL`: data, measured.
pub const PAGE_TYPE_NORMAL: u8 = 1;
/// `KVM_SEV_SNP_PAGE_TYPE_ZERO`: zeros, without a source.
pub const PAGE_TYPE_ZERO: u8 = 3;
/// `KVM_SEV_SNP_PAGE_TYPE_UNMEASURED`: data, of which only the address is measured.
pub const PAGE_TYPE_UNMEASURED: u8 = 4;
/// `KVM_SEV_SNP_PAGE_TYPE_SECRETS`.
pub const PAGE_TYPE_SECRETS: u8 = 5;
/// `KVM_SEV_SNP_PAGE_TYPE_CPUID`.
pub const PAGE_TYPE_CPUID: u8 = 6;

/// `KVM_X86_GRP_SEV`, a group of device attributes of /dev/kvm.
pub const KVM_X86_GRP_SEV: u32 = 1;
/// `KVM_X86_SEV_VMSA_FEATURES`: what `kvm_sev_init::vmsa_features` may hold.
pub const KVM_X86_SEV_VMSA_FEATURES: u64 = 0;
/// `KVM_X86_SNP_POLICY_BITS`: what `kvm_sev_snp_launch_start::policy` may hold.
pub const KVM_X86_SNP_POLICY_BITS: u64 = 1;

/// Policy: the guest may run on a machine whose cores have two threads.
pub const POLICY_SMT: u64 = 1 << 16;
/// Policy: reserved, must be one.
pub const POLICY_RESERVED: u64 = 1 << 17;

/// CPUID leaf of memory encryption: EAX has what there is, EBX bits 5:0 the position of the C-bit.
pub const CPUID_ENCRYPTION: u32 = 0x8000_001f;
/// EAX of [`CPUID_ENCRYPTION`]: SEV-SNP.
pub const CPUID_ENCRYPTION_SNP: u32 = 1 << 4;

/// What the firmware answered: `kvm_sev_cmd::error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareStatus(pub u32);

impl FirmwareStatus {
    /// The firmware did as it was told, or had no part in the failure.
    pub const SUCCESS: FirmwareStatus = FirmwareStatus(0);
    /// The guest is not in the state for the command, such as an update after the finish.
    pub const INVALID_GUEST_STATE: FirmwareStatus = FirmwareStatus(2);
    /// A parameter, or the contents of a page, is bad.
    pub const INVALID_PARAM: FirmwareStatus = FirmwareStatus(0x16);
    /// The guest's policy does not permit it.
    pub const POLICY_FAILURE: FirmwareStatus = FirmwareStatus(7);

    /// The name in the firmware's ABI specification, where it is one that a launch may meet.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "SUCCESS",
            1 => "INVALID_PLATFORM_STATE",
            2 => "INVALID_GUEST_STATE",
            3 => "INVALID_CONFIG",
            4 => "INVALID_LENGTH",
            7 => "POLICY_FAILURE",
            8 => "INACTIVE",
            9 => "INVALID_ADDRESS",
            0xd => "INVALID_ASID",
            0xf => "DFFLUSH_REQUIRED",
            0x10 => "INVALID_GUEST",
            0x11 => "INVALID_COMMAND",
            0x13 => "HWERROR_PLATFORM",
            0x14 => "HWERROR_UNSAFE",
            0x15 => "UNSUPPORTED",
            0x16 => "INVALID_PARAM",
            0x17 => "RESOURCE_LIMIT",
            0x18 => "SECURE_DATA_INVALID",
            0x19 => "INVALID_PAGE_SIZE",
            0x1a => "INVALID_PAGE_STATE",
            0x1b => "INVALID_MDATA_ENTRY",
            0x1c => "INVALID_PAGE_OWNER",
            0x20 => "RMP_INIT_REQUIRED",
            0x21 => "BAD_SVN",
            0x22 => "BAD_VERSION",
            0xffff_ffff => "NO_FW_CALL",
            _ => return None,
        })
    }
}

impl fmt::Display for FirmwareStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "firmware status {:#x} {name}", self.0),
            None => write!(f, "firmware status {:#x}", self.0),
        }
    }
}
