// SPDX-License-Identifier: GPL-2.0-only
//! The names of the platforms.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use crate::uapi::{KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM};

/// A type of VM that guests of the suite run in.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[derive(strum::IntoStaticStr, strum::VariantArray, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum Platform {
    /// An ordinary VM, which has no private memory.
    Default,
    /// A VM whose private memory KVM keeps from the host's mappings, but nothing encrypts.
    SwProtected,
    /// An SEV-SNP guest.
    Snp,
    /// A TDX guest.
    Tdx,
}

impl Platform {
    /// Every platform, in the order in which they are shown.
    pub const ALL: [Platform; Platform::VARIANTS.len()] =
        *Platform::VARIANTS.first_chunk().unwrap();

    /// The name on the command line, in cases, in ids and in results.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The platform with this name.
    pub fn from_name(name: &str) -> Option<Platform> {
        name.parse().ok()
    }

    /// The name among the environment's capabilities of whether the launch calls of its guests take no source.
    pub fn launch_in_place(self) -> String {
        format!("launch.in-place.{self}")
    }

    /// The argument of `KVM_CREATE_VM`, and the bit of `KVM_CAP_VM_TYPES`.
    pub fn vm_type(self) -> u64 {
        match self {
            Platform::Default => u64::from(KVM_X86_DEFAULT_VM),
            Platform::SwProtected => u64::from(KVM_X86_SW_PROTECTED_VM),
            Platform::Snp => u64::from(KVM_X86_SNP_VM),
            Platform::Tdx => u64::from(KVM_X86_TDX_VM),
        }
    }

    /// Whether `KVM_CAP_VM_TYPES`, whose value is `types`, has VMs of this platform.
    pub fn is_among(self, types: i32) -> bool {
        types >> self.vm_type() & 1 == 1
    }

    /// Whether pages of its guest_memfd can be private at all (`kvm_arch_has_private_mem()`).
    pub fn has_private_memory(self) -> bool {
        match self {
            Platform::Default => false,
            Platform::SwProtected | Platform::Snp | Platform::Tdx => true,
        }
    }

    /// Whether private pages are encrypted with a key that only the guest's accesses use: the guest then has two aliases
    /// of each page, must accept private pages, and cannot be started anew.
    pub fn is_encrypted(self) -> bool {
        match self {
            Platform::Default | Platform::SwProtected => false,
            Platform::Snp | Platform::Tdx => true,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A platform has one name everywhere: in results, on the command line, in ids.
    #[test]
    fn names_agree() {
        for platform in Platform::ALL {
            assert_eq!(Platform::from_name(platform.name()), Some(platform));
            assert_eq!(
                serde_json::to_value(platform).unwrap(),
                platform.name(),
                "the name in results"
            );
            let value = clap::ValueEnum::to_possible_value(&platform).unwrap();
            assert_eq!(value.get_name(), platform.name());
        }
        assert_eq!(Platform::from_name("sev"), None);
    }
}
