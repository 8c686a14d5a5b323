// SPDX-License-Identifier: GPL-2.0-only
//! Asking a machine what it offers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::run_case::{capability_numbers, open_machine};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, Machine};
use crate::platform::{self, Platform, Surroundings};
use crate::results::{Environment, Need, PlatformState};
use crate::run::protocol::{MachineConfig, MachineKind};
use crate::scenario;
use crate::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_CAP_GUEST_MEMFD,
    KVM_CAP_GUEST_MEMFD_FLAGS, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_VM_TYPES, MODE_ZERO,
    MemoryAttributes2, PAGE_SIZE,
};

/// Asks the machine what it offers. Never fails: what cannot be had is why the platforms cannot run.
pub fn probe(config: &MachineConfig) -> Environment {
    let kernel = |file: &str| read(&format!("/proc/sys/kernel/{file}"));
    let mut environment = Environment {
        machine: match config.kind {
            MachineKind::Host => "host".into(),
            MachineKind::Model => "model".into(),
        },
        kernel_release: kernel("osrelease"),
        kernel_version: kernel("version"),
        kernel_command_line: read("/proc/cmdline"),
        kvm_parameters: kvm_parameters(Path::new("/sys/module")),
        planted_fault: config.fault.clone(),
        dialect_forced: config.dialect.is_some(),
        ..Environment::default()
    };
    (environment.cpu, environment.virtualization) = cpu(&read("/proc/cpuinfo"));

    let missing = match open_machine(config) {
        Ok(machine) => {
            environment.capabilities = capabilities(&*machine, config);
            // The model has no kernel around it.
            if config.kind == MachineKind::Host {
                environment.capabilities.extend(scenario::ask(&*machine));
            }
            let asked = ask_dialect(&*machine, &mut environment.remarks);
            environment.dialect = asked.as_ref().ok().map(|found| match config.dialect {
                Some(forced) if *found != Dialect::None => {
                    if forced != *found {
                        environment.remarks.push(format!(
                            "the machine answers like {found} and is judged by {forced}, which was asked for"
                        ));
                    }
                    forced
                }
                _ => *found,
            });
            let mut common = Vec::new();
            match asked {
                Ok(Dialect::None) => {
                    common.push(no_memory_attributes2(&environment.kvm_parameters))
                }
                Ok(_) => {}
                Err(need) => common.push(need),
            }
            let around = match config.kind {
                MachineKind::Host => Some(surroundings(&environment.kvm_parameters)),
                MachineKind::Model => None,
            };
            Platform::ALL.map(|platform| {
                let why = match platform.is_encrypted() {
                    false => no_vm_type(&*machine, platform),
                    true => platform::missing(&*machine, platform, around.as_ref()),
                };
                let mut missing: Vec<Need> = why.into_iter().collect();
                missing.extend(common.iter().cloned());
                missing
            })
        }
        Err(why) => {
            let need = match config.kind {
                MachineKind::Host => no_kvm(),
                MachineKind::Model => Need::new("no-model", why),
            };
            Platform::ALL.map(|_| vec![need.clone()])
        }
    };
    environment.platforms = Platform::ALL
        .into_iter()
        .zip(missing)
        .map(|(platform, missing)| PlatformState { name: platform.name().into(), missing })
        .collect();
    environment
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

/// Why /dev/kvm cannot be opened.
fn no_kvm() -> Need {
    let result = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match result.err().and_then(|e| e.raw_os_error()).map(Errno) {
        Some(Errno::ENOENT) => Need::new(
            "no-dev-kvm",
            "there is no /dev/kvm: load kvm_intel or kvm_amd, and enable virtualization in the firmware",
        ),
        Some(Errno::EACCES | Errno::EPERM) => Need::new(
            "no-permission",
            "no permission to open /dev/kvm: run as root or join the group kvm",
        ),
        Some(errno) => Need::new("no-kvm", format!("opening /dev/kvm fails with {errno}")),
        None => Need::new("no-kvm", "/dev/kvm can be opened but does not answer like KVM"),
    }
}

fn no_vm_type(machine: &dyn Machine, platform: Platform) -> Option<Need> {
    let types = machine.check_extension(KVM_CAP_VM_TYPES).unwrap_or(0);
    // A kernel from before KVM_CAP_VM_TYPES has default VMs only.
    let offered =
        types >> platform.vm_type() & 1 == 1 || (types == 0 && platform == Platform::Default);
    if offered {
        return None;
    }
    let why = match platform {
        Platform::SwProtected => {
            "KVM does not offer software-protected VMs: they need CONFIG_KVM_SW_PROTECTED_VM and the TDP MMU"
        }
        _ => "KVM does not offer VMs of this type",
    };
    Some(Need::new(format!("no-vm-type-{platform}"), why))
}

fn no_memory_attributes2(parameters: &BTreeMap<String, String>) -> Need {
    let is = |name: &str, value: &str| parameters.get(name).is_some_and(|v| v == value);
    let why = if is("kvm.vm_memory_attributes", "Y") {
        "in-place conversion is switched off: boot with kvm.vm_memory_attributes=0"
    } else if is("kvm.gmem_in_place_conversion", "N") {
        "in-place conversion is switched off: boot with kvm.gmem_in_place_conversion=1"
    } else {
        "this kernel does not have KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd (the call is ENOTTY)"
    };
    Need::new("no-memory-attributes2", why)
}

/// Finds the dialect by calls that tell the revisions apart (facts of the interface: the capability numbers of an
/// unmerged series collide with others', so they are no evidence).
fn ask_dialect(machine: &dyn Machine, remarks: &mut Vec<String>) -> Result<Dialect, Need> {
    if machine.check_extension(KVM_CAP_GUEST_MEMFD).unwrap_or(0) <= 0 {
        return Err(Need::new("no-guest-memfd", "this kernel does not have guest_memfd"));
    }
    let types = machine.check_extension(KVM_CAP_VM_TYPES).unwrap_or(0);
    let sw_protected = Platform::SwProtected.vm_type();
    let vm_type =
        if types >> sw_protected & 1 == 1 { sw_protected } else { Platform::Default.vm_type() };
    let failed =
        |call: &str, e: Errno| Need::new("no-guest-memfd", format!("{call} fails with {e}"));
    let vm = machine.create_vm(vm_type).map_err(|e| failed("KVM_CREATE_VM", e))?;
    // Mapped and shared as the cases want it; a kernel without in-place conversion refuses INIT_SHARED here, and a
    // guest_memfd without any flag is enough to see that.
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let gmem = vm
        .create_guest_memfd(2 * PAGE_SIZE, flags)
        .or_else(|_| vm.create_guest_memfd(2 * PAGE_SIZE, 0))
        .map_err(|e| failed("KVM_CREATE_GUEST_MEMFD", e))?;

    let empty = MemoryAttributes2::default();
    if call(&*gmem, empty) == Err(Errno::ENOTTY) {
        return Ok(Dialect::None);
    }
    let valid = MemoryAttributes2 { size: PAGE_SIZE, ..empty };
    let plain = call(&*gmem, valid);
    let zero = call(&*gmem, MemoryAttributes2 { flags: MODE_ZERO, ..valid });
    let error_offset = call(&*gmem, MemoryAttributes2 { error_offset: 1, ..valid });
    let private_memory = vm_type == sw_protected;
    if let Err(errno) = plain
        && private_memory
    {
        remarks.push(format!("a plain conversion of a shared page to shared fails with {errno}"));
    }
    Ok(match (zero, error_offset) {
        (Err(Errno::EINVAL), _) => Dialect::Upstream,
        (_, Err(Errno::EINVAL)) => Dialect::RfcV4,
        _ => Dialect::RfcV5,
    })
}

fn call(gmem: &dyn GuestMemfd, mut argument: MemoryAttributes2) -> Result<(), Errno> {
    // SAFETY: the argument is ours, and nothing has mapped this guest_memfd.
    unsafe { gmem.set_memory_attributes2(&mut argument) }
}

fn capabilities(machine: &dyn Machine, config: &MachineConfig) -> BTreeMap<String, i64> {
    let mut known = vec![
        ("KVM_CAP_VM_TYPES", KVM_CAP_VM_TYPES),
        ("KVM_CAP_GUEST_MEMFD", KVM_CAP_GUEST_MEMFD),
        ("KVM_CAP_GUEST_MEMFD_FLAGS", KVM_CAP_GUEST_MEMFD_FLAGS),
        ("KVM_CAP_MEMORY_ATTRIBUTES", KVM_CAP_MEMORY_ATTRIBUTES),
    ];
    if let Some(numbers) = capability_numbers(config) {
        let named = [
            ("KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES", numbers.guest_memfd_memory_attributes),
            ("KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS", numbers.memory_attributes2_flags),
        ];
        known.extend(named.into_iter().filter_map(|(name, number)| Some((name, number?))));
    }
    known
        .into_iter()
        .map(|(name, number)| {
            let value = machine.check_extension(number).map_or_else(|e| -i64::from(e.0), i64::from);
            (name.to_string(), value)
        })
        .collect()
}

/// The parameters of the kvm modules, as `module.parameter`.
fn kvm_parameters(modules: &Path) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for module in ["kvm", "kvm_intel", "kvm_amd"] {
        let Ok(entries) = fs::read_dir(modules.join(module).join("parameters")) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = format!("{module}.{}", entry.file_name().to_string_lossy());
            // Some can be read by root only.
            if let Ok(value) = fs::read_to_string(entry.path()) {
                parameters.insert(name, value.trim().to_string());
            }
        }
    }
    parameters
}

/// What decides whether encrypted guests can run, besides KVM's own answers.
fn surroundings(parameters: &BTreeMap<String, String>) -> Surroundings {
    let info = read("/proc/cpuinfo");
    let loaded = |module: &&str| Path::new("/sys/module").join(module).exists();
    Surroundings {
        cpu_vendor: cpuinfo_field(&info, "vendor_id"),
        cpu_flags: cpuinfo_field(&info, "flags").split_whitespace().map(String::from).collect(),
        modules: ["kvm_amd", "kvm_intel"]
            .iter()
            .filter(|m| loaded(m))
            .map(|m| m.to_string())
            .collect(),
        parameters: parameters.clone(),
    }
}

/// A field of the first CPU in /proc/cpuinfo.
pub(crate) fn cpuinfo_field(cpuinfo: &str, name: &str) -> String {
    let line = cpuinfo.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name));
    line.and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim()).to_string()
}

/// Vendor and model, and whether a hypervisor is present.
fn cpu(cpuinfo: &str) -> (String, String) {
    let field = |name: &str| cpuinfo_field(cpuinfo, name);
    let nested = field("flags").split_whitespace().any(|f| f == "hypervisor");
    let kind = if nested { "nested" } else { "bare-metal" };
    (format!("{} {}", field("vendor_id"), field("model name")).trim().to_string(), kind.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine under a hypervisor is recorded as nested: nested KVM is known to be less reliable.
    #[test]
    fn hypervisor_flag_means_nested() {
        let info =
            "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor svm\n";
        assert_eq!(cpu(info), ("AuthenticAMD AMD EPYC".into(), "nested".into()));
        assert_eq!(cpu("flags : fpu svm").1, "bare-metal");
    }

    /// A switched-off interface is told from a missing one, and the way out is named.
    #[test]
    fn the_way_out_is_named() {
        let with = |name: &str, value: &str| {
            no_memory_attributes2(&BTreeMap::from([(name.to_string(), value.to_string())])).prose
        };
        assert!(with("kvm.vm_memory_attributes", "Y").contains("kvm.vm_memory_attributes=0"));
        assert!(
            with("kvm.gmem_in_place_conversion", "N").contains("kvm.gmem_in_place_conversion=1")
        );
        assert!(with("kvm.vm_memory_attributes", "N").contains("ENOTTY"));
    }
}
