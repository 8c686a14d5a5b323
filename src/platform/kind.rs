// SPDX-License-Identifier: GPL-2.0-only
//! The names of the platforms.

use std::collections::BTreeMap;
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

    /// Whether they take none, by these capabilities of an environment.
    pub fn launches_in_place(self, capabilities: &BTreeMap<String, i64>) -> bool {
        capabilities.get(&self.launch_in_place()) == Some(&1)
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
        self.encryption().is_some()
    }

    /// What encrypted guests of this platform are like; `None` if nothing is encrypted.
    pub fn encryption(self) -> Option<&'static Encryption> {
        match self {
            Platform::Default | Platform::SwProtected => None,
            Platform::Snp => Some(&SNP),
            Platform::Tdx => Some(&TDX),
        }
    }

    /// Whether it is a platform of encrypted guests that have this property.
    pub fn has(self, property: fn(&Encryption) -> bool) -> bool {
        self.encryption().is_some_and(property)
    }
}

/// What encrypted guests of a platform are like, as far as platforms differ.
#[derive(Debug)]
pub struct Encryption {
    /// The guest gives private pages up before they become shared: PVALIDATE.
    pub rescinds: bool,
    /// The guest asks for conversions through a GHCB, page by page, and by the MSR protocol; otherwise by MapGPA, a range at
    /// once.
    pub has_ghcb: bool,
    /// A guest that is told EAGAIN asks again.
    pub asks_again: bool,
    /// The guest's reads of private pages through the shared alias are not checked (APM volume 2, table 15-39).
    pub reads_unchecked: bool,
    /// An RMP holds the guest physical address of each private page.
    pub has_rmp: bool,
    /// A page reads as zeros once the guest has accepted it.
    pub accepts_zeros: bool,
    /// The guest accepts pages anew after their memslot was deleted.
    pub forgets_with_memslot: bool,
    /// Launch calls count pages, from any address; otherwise bytes, from a frame, and each page has a type.
    pub launches_by_number: bool,
}

const SNP: Encryption = Encryption {
    rescinds: true,
    has_ghcb: true,
    asks_again: false,
    reads_unchecked: true,
    has_rmp: true,
    accepts_zeros: false,
    forgets_with_memslot: false,
    launches_by_number: false,
};

const TDX: Encryption = Encryption {
    rescinds: false,
    has_ghcb: false,
    asks_again: true,
    reads_unchecked: false,
    has_rmp: false,
    accepts_zeros: true,
    forgets_with_memslot: true,
    launches_by_number: true,
};

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
