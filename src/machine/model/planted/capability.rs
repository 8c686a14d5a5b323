// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the answers of `KVM_CHECK_EXTENSION`.

use crate::machine::model::fault::Fault;
use crate::machine::model::vm_type::VmType;
use crate::uapi::{MODE_PRESERVE, MODE_ZERO};

/// The attributes that are said to be supported.
pub(in crate::machine::model) fn hook_attributes(fault: Option<Fault>, attributes: i32) -> i32 {
    if fault == Some(Fault::CapabilityAttributesMissing) { 0 } else { attributes }
}

/// The content modes that are said to be supported, on the system (no type) or on a VM.
pub(in crate::machine::model) fn hook_modes(
    fault: Option<Fault>,
    vm_type: Option<&VmType>,
    modes: u64,
) -> u64 {
    match (fault, vm_type) {
        (Some(Fault::CapabilityModesMissing), _) => MODE_ZERO,
        (Some(Fault::CapabilityModesNotEncrypted), Some(t)) if t.is_encrypted() => 0,
        (Some(Fault::CapabilityModesOnDefault), _) => MODE_ZERO | MODE_PRESERVE,
        _ => modes,
    }
}
