// SPDX-License-Identifier: GPL-2.0-only
//! Why an encrypted platform cannot run here: the first reason that there is, from the CPU up to the firmware.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kind::Platform;
use super::launch_error::LaunchError;
use super::{snp, tdx};
use crate::errno::Errno;
use crate::machine::Machine;
use crate::results::Need;
use crate::uapi::KVM_CAP_VM_TYPES;

/// How long the trial of a platform may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Parameters without which KVM switches `kvm_amd.sev_snp` off (sev_hardware_setup() of Linux 7.3 and what it depends on),
/// the causes first: nested paging and the next RIP for SEV at all, MMIO caching and LBR virtualization for SEV-ES, and
/// each of SEV, SEV-ES and SNP for the next.
const SNP_NEEDS: [&str; 6] = [
    "kvm_amd.npt",
    "kvm_amd.nrips",
    "kvm_amd.sev",
    "kvm.mmio_caching",
    "kvm_amd.lbrv",
    "kvm_amd.sev_es",
];
/// The same for `kvm_intel.tdx` (tdx_bringup() of Linux 7.3).
const TDX_NEEDS: [&str; 5] = [
    "kvm_intel.ept",
    "kvm.tdp_mmu",
    "kvm_intel.eptad",
    "kvm.mmio_caching",
    "kvm_intel.enable_apicv",
];

/// What is around a kernel's /dev/kvm. The model has nothing around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `vendor_id` of /proc/cpuinfo.
    pub cpu_vendor: String,
    /// `flags` of /proc/cpuinfo.
    pub cpu_flags: Vec<String>,
    /// Those of kvm_amd and kvm_intel that are loaded or built in.
    pub modules: Vec<String>,
    /// Parameters of the kvm modules, as `module.parameter`.
    pub parameters: BTreeMap<String, String>,
}

impl Surroundings {
    fn has_flag(&self, flag: &str) -> bool {
        self.cpu_flags.iter().any(|f| f == flag)
    }

    fn has_module(&self, module: &str) -> bool {
        self.modules.iter().any(|m| m == module)
    }

    /// Whether a module has parameters, but not this one of the form `module.parameter`: the code that has it was not built.
    fn lacks_parameter(&self, parameter: &str) -> bool {
        let module = parameter.split_inclusive('.').next().unwrap_or_default();
        !self.parameters.contains_key(parameter)
            && self.parameters.keys().any(|known| known.starts_with(module))
    }

    fn is_off(&self, parameter: &str) -> bool {
        self.parameters.get(parameter).is_some_and(|value| value == "N" || value == "0")
    }

    /// Why `parameter` is off: those of `needed`, in this order, that are off as well, or else that nobody has switched it
    /// on, or what else may be.
    fn why_off(&self, parameter: &str, needed: &[&str], otherwise: &str) -> String {
        match needed.iter().find(|needed| self.is_off(needed)) {
            Some(needed) => {
                format!("{parameter} is N because {needed} is off: boot with {needed}=1")
            }
            None => format!("{parameter} is N: boot with {parameter}=1; if it was, {otherwise}"),
        }
    }
}

/// Why VMs of an encrypted platform cannot run on `machine`; `None` if a trial shows that they can, or if `platform` is not
/// encrypted. The trial leaves nothing behind.
pub fn missing(
    machine: &dyn Machine,
    platform: Platform,
    around: Option<&Surroundings>,
) -> Option<Need> {
    let types = machine.check_extension(KVM_CAP_VM_TYPES).unwrap_or(0);
    let offered = platform.is_among(types);
    match platform {
        Platform::Default | Platform::SwProtected => None,
        Platform::Snp => {
            let why = around.and_then(around_snp).or_else(|| {
                let why = "KVM does not offer SNP VMs";
                (!offered).then(|| Need::new("no-vm-type-snp", why))
            });
            why.or_else(|| try_snp(machine).err())
        }
        Platform::Tdx => {
            let why = around.and_then(around_tdx).or_else(|| {
                let why = "KVM does not offer TDX VMs";
                (!offered).then(|| Need::new("no-vm-type-tdx", why))
            });
            why.or_else(|| try_tdx(machine).err())
        }
    }
}

fn around_snp(around: &Surroundings) -> Option<Need> {
    let need = |slug, prose: &str| Some(Need::new(slug, prose));
    if around.cpu_vendor != "AuthenticAMD" {
        return Some(wrong_vendor("cpu-lacks-snp", "SEV-SNP", "AuthenticAMD", around));
    }
    if !around.has_flag("sev_snp") {
        return need(
            "snp-not-set-up",
            "no flag sev_snp in /proc/cpuinfo: the CPU does not have SEV-SNP, the firmware setup has it disabled or \
             reserves no memory for the RMP, or the kernel was built without CONFIG_AMD_MEM_ENCRYPT",
        );
    }
    if !around.has_module("kvm_amd") {
        return need("no-kvm-amd", "kvm_amd is not loaded");
    }
    if around.lacks_parameter("kvm_amd.sev_snp") {
        let why =
            "kvm_amd has no parameter sev_snp: the kernel was built without CONFIG_KVM_AMD_SEV";
        return need("no-kvm-amd-sev", why);
    }
    if around.is_off("kvm_amd.sev_snp") {
        let otherwise = "firmware setup, IOMMU or the ccp driver do not have SNP ready, see the kernel log for SEV-SNP";
        return need("snp-off", &around.why_off("kvm_amd.sev_snp", &SNP_NEEDS, otherwise));
    }
    None
}

fn around_tdx(around: &Surroundings) -> Option<Need> {
    let need = |slug, prose: &str| Some(Need::new(slug, prose));
    if around.cpu_vendor != "GenuineIntel" {
        return Some(wrong_vendor("cpu-lacks-tdx", "TDX", "GenuineIntel", around));
    }
    if !around.has_flag("tdx_host_platform") {
        return need(
            "tdx-not-set-up",
            "no flag tdx_host_platform in /proc/cpuinfo: the CPU does not have TDX, the firmware setup has it disabled, or \
             the kernel was built without CONFIG_INTEL_TDX_HOST",
        );
    }
    if !around.has_module("kvm_intel") {
        return need("no-kvm-intel", "kvm_intel is not loaded");
    }
    if around.lacks_parameter("kvm_intel.tdx") {
        let why =
            "kvm_intel has no parameter tdx: the kernel was built without CONFIG_KVM_INTEL_TDX";
        return need("no-kvm-intel-tdx", why);
    }
    if around.is_off("kvm_intel.tdx") {
        let otherwise = "hibernation is not off (nohibernate) or the TDX module could not be started, see the kernel log \
                         for tdx";
        return need("tdx-off", &around.why_off("kvm_intel.tdx", &TDX_NEEDS, otherwise));
    }
    None
}

/// The need of a platform whose technology, `what`, only CPUs of `vendor` have.
fn wrong_vendor(slug: &str, what: &str, vendor: &str, around: &Surroundings) -> Need {
    let found = &around.cpu_vendor;
    Need::new(
        slug,
        format!("only {vendor} CPUs have {what}, and this one says that it is {found:?}"),
    )
}

/// Makes a VM an SNP guest and starts a launch.
fn try_snp(machine: &dyn Machine) -> Result<(), Need> {
    drop(machine.open_sev().map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => {
            let why = "there is no /dev/sev: the ccp driver is not loaded, was built without CONFIG_CRYPTO_DEV_SP_PSP, or found no \
                       firmware";
            Need::new("no-dev-sev", why)
        }
        Errno::EACCES | Errno::EPERM => {
            Need::new("no-sev-permission", "no permission to open /dev/sev: run as root")
        }
        errno => Need::new("no-dev-sev", format!("opening /dev/sev fails with {errno}")),
    })?);
    let started = snp::init(machine).map_err(|error| match error {
        LaunchError::Firmware { errno: Errno::EBUSY, .. } => Need::new(
            "no-snp-asid",
            "no ASID is free for another SNP guest: end one, or configure more in the firmware setup",
        ),
        error => Need::new("snp-init-failed", format!("KVM failed to {error}")),
    })?;
    started.start().map_err(|error| {
        Need::new("snp-firmware-failed", format!("the firmware failed to {error}"))
    })
}

/// Makes a VM a TD.
fn try_tdx(machine: &dyn Machine) -> Result<(), Need> {
    match tdx::init(machine, Instant::now() + PATIENCE) {
        Ok(_) => Ok(()),
        Err(LaunchError::Seamcall { errno: Errno::EBUSY | Errno::ENOSPC, .. }) => Err(Need::new(
            "no-tdx-keyid",
            "no KeyID is free for another TD: end one, or reserve more in the firmware setup",
        )),
        Err(error) => Err(Need::new("tdx-init-failed", format!("KVM failed to {error}"))),
    }
}
