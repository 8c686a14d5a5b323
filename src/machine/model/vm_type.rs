// SPDX-License-Identifier: GPL-2.0-only
//! What the types of VM differ in: one row each.

use crate::dialect::Dialect;
use crate::uapi::{
    KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM, MODE_PRESERVE,
    MODE_ZERO,
};

/// What keeps a guest's private memory from others, besides KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hardware {
    /// Nothing.
    None,
    /// SEV-SNP: the RMP and the memory controller's keys.
    Snp,
    /// TDX: the module's secure EPT and the memory controller's keys.
    Tdx,
}

/// One type of VM.
#[derive(Debug)]
pub(super) struct VmType {
    /// The argument of `KVM_CREATE_VM`, and the bit in `KVM_CAP_VM_TYPES`.
    pub(super) number: u32,
    /// What protects it.
    pub(super) hardware: Hardware,
    /// `kvm_arch_has_private_mem()`.
    pub(super) has_private_memory: bool,
    /// Content modes of a conversion to shared.
    pub(super) modes_to_shared: u64,
    /// Content modes of a conversion to private. Never ZERO: KVM is not trusted, so it cannot promise the guest anything.
    modes_to_private: u64,
    /// What is offered besides, from RFC v5 on, as long as the launch is not finished.
    early_modes_to_private: u64,
    /// Whether an unspecified mode fills folios with random bytes, so that nobody comes to rely on what was there.
    pub(super) scrambles: bool,
}

/// A VM that the kernel alone cares for.
const NO_HARDWARE: VmType = VmType {
    number: KVM_X86_DEFAULT_VM,
    hardware: Hardware::None,
    has_private_memory: false,
    modes_to_shared: 0,
    modes_to_private: 0,
    early_modes_to_private: 0,
    scrambles: false,
};

/// An encrypted guest: KVM cannot preserve what it cannot read.
const ENCRYPTED: VmType = VmType {
    has_private_memory: true,
    modes_to_shared: MODE_ZERO,
    early_modes_to_private: MODE_PRESERVE,
    ..NO_HARDWARE
};

/// Every type that the model offers.
pub(super) const VM_TYPES: &[VmType] = &[
    NO_HARDWARE,
    VmType {
        number: KVM_X86_SW_PROTECTED_VM,
        has_private_memory: true,
        modes_to_shared: MODE_ZERO | MODE_PRESERVE,
        modes_to_private: MODE_PRESERVE,
        scrambles: true,
        ..NO_HARDWARE
    },
    VmType { number: KVM_X86_SNP_VM, hardware: Hardware::Snp, ..ENCRYPTED },
    VmType { number: KVM_X86_TDX_VM, hardware: Hardware::Tdx, ..ENCRYPTED },
];

impl VmType {
    /// Content modes of a conversion to private, before or after the launch is finished.
    pub(super) fn modes_to_private(&self, dialect: Dialect, launched: bool) -> u64 {
        if dialect == Dialect::RfcV5 && !launched {
            self.modes_to_private | self.early_modes_to_private
        } else {
            self.modes_to_private
        }
    }

    /// What `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS` says on the VM: all that is ever offered.
    pub(super) fn advertised_modes(&self, dialect: Dialect) -> u64 {
        self.modes_to_shared | self.modes_to_private(dialect, false)
    }

    /// Whether it is an encrypted guest.
    pub(super) fn is_encrypted(&self) -> bool {
        self.hardware != Hardware::None
    }
}

/// The row of the type with this number.
pub(super) fn find(number: u64) -> Option<&'static VmType> {
    VM_TYPES.iter().find(|t| u64::from(t.number) == number)
}
