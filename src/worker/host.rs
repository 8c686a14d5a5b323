// SPDX-License-Identifier: GPL-2.0-only
//! What the machine below is made of: silicon, a virtual machine, or a program that emulates all of it.

use std::arch::x86_64::__cpuid;

/// The CPUID leaf in which whoever is below names himself: KVM's Documentation/virt/kvm/x86/cpuid.rst and QEMU's
/// target/i386/cpu.c. CPUs have nothing there: AMD's give zeros, Intel's the numbers of another leaf.
const SIGNATURE_LEAF: u32 = 0x4000_0000;
/// What QEMU's emulator says there, also where there is no hypervisor bit, as on the hosts of emulated-hosts/.
const TCG: &[u8; 12] = b"TCGTCGTCGTCG";
/// What firmware of QEMU's machines gives as their vendor, also where there is no hypervisor bit.
const QEMU: &str = "QEMU";

/// What the machine shows of itself.
struct Signs<'a> {
    /// The bit that CPUID has for that: a hypervisor is present.
    hypervisor_bit: bool,
    /// [`SIGNATURE_LEAF`].
    signature: [u8; 12],
    /// `/sys/class/dmi/id/sys_vendor`.
    vendor: &'a str,
}

/// Where this program runs: `emulated`, `virtual` or `bare-metal`. `hypervisor_bit` is what /proc/cpuinfo says.
pub(super) fn host(hypervisor_bit: bool) -> &'static str {
    let vendor = super::probe::read("/sys/class/dmi/id/sys_vendor");
    classify(&Signs { hypervisor_bit, signature: signature(), vendor: &vendor })
}

fn signature() -> [u8; 12] {
    // SAFETY: every x86-64 CPU has CPUID, and a leaf that it does not know does no harm.
    #[allow(unused_unsafe, reason = "a safe function since Rust 1.93, but not for rust-version")]
    let leaf = unsafe { __cpuid(SIGNATURE_LEAF) };
    let mut signature = [0; 12];
    for (bytes, register) in signature.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    signature
}

/// What is less than silicon is never taken for more: each sign alone is enough.
fn classify(signs: &Signs) -> &'static str {
    if signs.signature == *TCG {
        "emulated"
    } else if signs.hypervisor_bit || signs.vendor == QEMU {
        "virtual"
    } else {
        "bare-metal"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a machine without any sign is one of silicon; without the emulator's name it is not an emulated one.
    #[test]
    fn each_sign_is_enough() {
        const KVM: &[u8; 12] = b"KVMKVMKVM\0\0\0";
        // An Intel CPU answers with its highest basic leaf.
        const OTHER_LEAF: &[u8; 12] = &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (hypervisor_bit, signature, vendor, host) in [
            (false, &[0; 12], "Dell Inc.", "bare-metal"),
            (false, OTHER_LEAF, "", "bare-metal"),
            (false, OTHER_LEAF, "QEMU", "virtual"),
            (true, KVM, "QEMU", "virtual"),
            (true, &[0; 12], "Google", "virtual"),
            (true, TCG, "QEMU", "emulated"),
            // The hosts of emulated-hosts/.
            (false, TCG, "QEMU", "emulated"),
            (false, TCG, "", "emulated"),
        ] {
            let signs = Signs { hypervisor_bit, signature: *signature, vendor };
            assert_eq!(classify(&signs), host, "{hypervisor_bit} {signature:?} {vendor}");
        }
    }

    /// This machine's answer agrees with its hypervisor bit: under a hypervisor it is not of silicon.
    #[test]
    fn this_machine_is_classified() {
        assert_ne!(host(true), "bare-metal");
        assert!(["emulated", "virtual", "bare-metal"].contains(&host(false)));
    }
}
