// SPDX-License-Identifier: GPL-2.0-only
//! What the types of VM differ in: one row each.

use crate::uapi::{KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM, MODE_PRESERVE, MODE_ZERO};

/// One type of VM.
#[derive(Debug)]
pub(super) struct VmType {
    /// The argument of `KVM_CREATE_VM`, and the bit in `KVM_CAP_VM_TYPES`.
    pub(super) number: u32,
    /// `kvm_arch_has_private_mem()`.
    pub(super) has_private_memory: bool,
    /// What `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS` says on the VM.
    pub(super) advertised_modes: u64,
    /// Content modes of a conversion to shared.
    pub(super) modes_to_shared: u64,
    /// Content modes of a conversion to private. Never ZERO: KVM is not trusted, so it cannot promise the guest anything.
    pub(super) modes_to_private: u64,
    /// Whether an unspecified mode fills folios with random bytes, so that nobody comes to rely on what was there.
    pub(super) scrambles: bool,
}

/// Every type that the model offers.
pub(super) const VM_TYPES: &[VmType] = &[
    VmType {
        number: KVM_X86_DEFAULT_VM,
        has_private_memory: false,
        advertised_modes: 0,
        modes_to_shared: 0,
        modes_to_private: 0,
        scrambles: false,
    },
    VmType {
        number: KVM_X86_SW_PROTECTED_VM,
        has_private_memory: true,
        advertised_modes: MODE_ZERO | MODE_PRESERVE,
        modes_to_shared: MODE_ZERO | MODE_PRESERVE,
        modes_to_private: MODE_PRESERVE,
        scrambles: true,
    },
];

/// The row of the type with this number.
pub(super) fn find(number: u64) -> Option<&'static VmType> {
    VM_TYPES.iter().find(|t| u64::from(t.number) == number)
}
