// SPDX-License-Identifier: GPL-2.0-only
//! Every reason why an encrypted platform cannot run, each with a slug of its own.

use super::support::*;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Machine;
use crate::platform::{Platform, Surroundings, missing};
use crate::uapi::sev::{KVM_SEV_INIT2, KVM_SEV_SNP_LAUNCH_START};
use crate::uapi::tdx::{KVM_TDX_CAPABILITIES, KVM_TDX_INIT_VM};

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| s.to_string()).collect()
}

fn amd() -> Surroundings {
    Surroundings {
        cpu_vendor: "AuthenticAMD".into(),
        cpu_flags: strings(&["fpu", "sev_snp"]),
        modules: strings(&["kvm_amd"]),
        parameters: [("kvm_amd.sev_snp".into(), "Y".into())].into(),
    }
}

fn intel() -> Surroundings {
    Surroundings {
        cpu_vendor: "GenuineIntel".into(),
        cpu_flags: strings(&["fpu", "tdx_host_platform"]),
        modules: strings(&["kvm_intel"]),
        parameters: [("kvm_intel.tdx".into(), "Y".into())].into(),
    }
}

fn slug(machine: &dyn Machine, platform: Platform, around: Option<&Surroundings>) -> String {
    missing(machine, platform, around).map_or(String::new(), |need| {
        assert!(need.prose.len() > 10, "{}", need.slug);
        need.slug
    })
}

/// From the CPU up to KVM, the first reason counts; with none left the platform can run.
#[test]
fn around_the_machine() {
    let machine = model(Dialect::Upstream);
    let rows = [
        (
            Platform::Snp,
            amd as fn() -> Surroundings,
            ["cpu-lacks-snp", "snp-not-set-up", "no-kvm-amd", "no-kvm-amd-sev", "snp-off"],
        ),
        (
            Platform::Tdx,
            intel,
            ["cpu-lacks-tdx", "tdx-not-set-up", "no-kvm-intel", "no-kvm-intel-tdx", "tdx-off"],
        ),
    ];
    for (platform, good, slugs) in rows {
        let mut around = good();
        around.parameters.values_mut().for_each(|value| *value = "N".into());
        let mut seen = vec![slug(&machine, platform, Some(&around))];
        // The module has parameters, but not this one.
        let module = around.modules[0].clone();
        around.parameters = [(format!("{module}.dump_invalid_vmcb"), "N".into())].into();
        seen.push(slug(&machine, platform, Some(&around)));
        // Where no parameter can be read, nothing follows from that.
        around.parameters.clear();
        assert_eq!(slug(&machine, platform, Some(&around)), "");
        around.modules.clear();
        seen.push(slug(&machine, platform, Some(&around)));
        around.cpu_flags.clear();
        seen.push(slug(&machine, platform, Some(&around)));
        around.cpu_vendor.clear();
        seen.push(slug(&machine, platform, Some(&around)));
        seen.reverse();
        assert_eq!(seen, slugs);
        assert_eq!(slug(&machine, platform, Some(&good())), "");
        assert_eq!(slug(&machine, platform, None), "");
    }
    assert_eq!(slug(&machine, Platform::Default, None), "");
}

/// A parameter that KVM itself has switched off is told with the one that is the cause, where that can be seen.
#[test]
fn the_cause_of_a_parameter_that_is_off() {
    let machine = model(Dialect::Upstream);
    let prose = |platform, mut around: Surroundings, off: &[&str]| {
        around.parameters.extend(off.iter().map(|name| (name.to_string(), "N".to_string())));
        missing(&machine, platform, Some(&around)).map_or(String::new(), |need| need.prose)
    };
    let (snp, tdx) = ("kvm_amd.sev_snp", "kvm_intel.tdx");
    for (cause, off) in [
        ("kvm_amd.npt", &[snp, "kvm_amd.sev_es", "kvm_amd.sev", "kvm_amd.npt"][..]),
        ("kvm_amd.sev", &[snp, "kvm_amd.sev_es", "kvm_amd.sev"]),
        ("kvm_amd.sev_es", &[snp, "kvm_amd.sev_es"]),
    ] {
        let expected = format!("{snp} is N because {cause} is off: boot with {cause}=1");
        assert_eq!(prose(Platform::Snp, amd(), off), expected);
    }
    assert!(prose(Platform::Snp, amd(), &[snp]).starts_with("kvm_amd.sev_snp is N: boot with"));
    // SNP may be there where plain SEV has no ASIDs left.
    assert_eq!(prose(Platform::Snp, amd(), &["kvm_amd.sev", "kvm_amd.sev_es"]), "");
    let expected = "kvm_intel.tdx is N because kvm_intel.ept is off: boot with kvm_intel.ept=1";
    assert_eq!(prose(Platform::Tdx, intel(), &[tdx, "kvm.tdp_mmu", "kvm_intel.ept"]), expected);
}

/// An option that the kernel was built without is named.
#[test]
fn kernel_options() {
    let machine = model(Dialect::Upstream);
    let prose = |platform, around: Surroundings| {
        missing(&machine, platform, Some(&around)).map_or(String::new(), |need| need.prose)
    };
    let without_flag = |good: Surroundings| Surroundings { cpu_flags: Vec::new(), ..good };
    let without_parameter = |good: Surroundings| {
        let other = format!("{}.other", good.modules[0]);
        Surroundings { parameters: [(other, "Y".into())].into(), ..good }
    };
    for (platform, around, option) in [
        (Platform::Snp, without_flag(amd()), "CONFIG_AMD_MEM_ENCRYPT"),
        (Platform::Snp, without_parameter(amd()), "CONFIG_KVM_AMD_SEV"),
        (Platform::Tdx, without_flag(intel()), "CONFIG_INTEL_TDX_HOST"),
        (Platform::Tdx, without_parameter(intel()), "CONFIG_KVM_INTEL_TDX"),
    ] {
        let prose = prose(platform, around);
        assert!(prose.contains(&format!("was built without {option}")), "{prose}");
    }
}

/// What only a trial shows.
#[test]
fn trials() {
    let fails = |platform, command: Option<u32>, name: &'static str, errno| {
        let machine = Scripted::new(Dialect::Upstream, move |call| {
            let this = call.command == command && call.name.ends_with(name);
            this.then_some(errno)
        });
        slug(&machine, platform, None)
    };
    let (snp, tdx) = (Platform::Snp, Platform::Tdx);
    assert_eq!(fails(snp, None, "check_extension", Errno::EIO), "no-vm-type-snp");
    assert_eq!(fails(tdx, None, "check_extension", Errno::EIO), "no-vm-type-tdx");
    assert_eq!(fails(snp, None, "open_sev", Errno::ENOENT), "no-dev-sev");
    assert_eq!(fails(snp, None, "open_sev", Errno::EIO), "no-dev-sev");
    assert_eq!(fails(snp, None, "open_sev", Errno::EACCES), "no-sev-permission");
    assert_eq!(fails(snp, None, "create_vm", Errno::EINVAL), "snp-init-failed");
    assert_eq!(fails(snp, Some(KVM_SEV_INIT2), "_op", Errno::EBUSY), "no-snp-asid");
    assert_eq!(fails(snp, Some(KVM_SEV_INIT2), "_op", Errno::ENOTTY), "snp-init-failed");
    assert_eq!(
        fails(snp, Some(KVM_SEV_SNP_LAUNCH_START), "_op", Errno::EIO),
        "snp-firmware-failed"
    );
    assert_eq!(fails(tdx, Some(KVM_TDX_INIT_VM), "_op", Errno::ENOSPC), "no-tdx-keyid");
    assert_eq!(fails(tdx, Some(KVM_TDX_INIT_VM), "_op", Errno::EIO), "tdx-init-failed");
    assert_eq!(fails(tdx, Some(KVM_TDX_CAPABILITIES), "_op", Errno::EIO), "tdx-init-failed");
    assert_eq!(fails(tdx, None, "create_vm", Errno::ENOMEM), "tdx-init-failed");
}
