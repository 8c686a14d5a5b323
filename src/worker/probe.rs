// SPDX-License-Identifier: GPL-2.0-only
//! Asking a machine what it offers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::host::host;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{self, GuestMemfd, Machine, MachineConfig, MachineKind};
use crate::platform::{self, Platform, Surroundings, cpuinfo_field};
use crate::results::{Environment, Need, PlatformState};
use crate::scenario;
use crate::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_CAP_GUEST_MEMFD,
    KVM_CAP_GUEST_MEMFD_FLAGS, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_PRE_FAULT_MEMORY,
    KVM_CAP_VM_TYPES, MODE_ZERO, MemoryAttributes2, PAGE_SIZE,
};

/// Asks the machine what it offers. Never fails: what cannot be had is why the platforms cannot run.
pub fn probe(config: &MachineConfig) -> Environment {
    let kernel = |file: &str| read(&format!("/proc/sys/kernel/{file}"));
    let mut environment = Environment {
        machine: config.kind.name().into(),
        kernel_release: kernel("osrelease"),
        boot_id: kernel("random/boot_id"),
        kernel_version: kernel("version"),
        kernel_command_line: read("/proc/cmdline"),
        kvm_parameters: kvm_parameters(Path::new("/sys/module")),
        planted_fault: config.fault.map(|fault| fault.name().to_string()),
        dialect_forced: config.dialect.is_some(),
        ..Environment::default()
    };
    let hypervisor_bit;
    (environment.cpu, hypervisor_bit) = cpu(&read("/proc/cpuinfo"));
    environment.host = host(hypervisor_bit).into();
    environment.virtualization = virtualization(&environment.host).into();

    let missing = match machine::open(config) {
        Ok(machine) => {
            environment.capabilities = capabilities(&*machine, config);
            // The model has no kernel around it.
            if config.kind == MachineKind::Host {
                environment.capabilities.extend(scenario::ask(&*machine));
            }
            let common = match ask_dialect(&*machine, &mut environment.remarks) {
                Ok(found) => {
                    let (dialect, remark) = judged_by(found, config.dialect);
                    environment.dialect = Some(dialect);
                    environment.remarks.extend(remark);
                    let none = found == Dialect::None;
                    none.then(|| no_memory_attributes2(&environment.kvm_parameters))
                }
                Err(need) => Some(need),
            };
            let around = match config.kind {
                MachineKind::Host => Some(surroundings(&environment.kvm_parameters)),
                MachineKind::Model => None,
            };
            let missing = Platform::ALL.map(|platform| {
                let why = match platform.is_encrypted() {
                    false => no_vm_type(vm_types(&*machine), platform),
                    true => platform::missing(&*machine, platform, around.as_ref()),
                };
                let mut missing: Vec<Need> = why.into_iter().collect();
                missing.extend(common.iter().cloned());
                missing
            });
            let runs = Platform::ALL.into_iter().zip(&missing).filter(|(_, why)| why.is_empty());
            for platform in runs.map(|(platform, _)| platform).filter(|p| p.is_encrypted()) {
                let answer = ask_launch_in_place(&*machine, platform);
                environment.capabilities.extend(answer.map(|a| (platform.launch_in_place(), a)));
            }
            missing
        }
        Err(why) => {
            let need = match config.kind {
                MachineKind::Host => no_kvm(),
                MachineKind::Model => Need::new("no-model", format!("failed to {why}")),
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

/// Whether the launch calls of a platform's guests take no source: 1, or their error number as a negative number. `None` if
/// something else fails, which every case will say.
///
/// In a process of its own, because a launch accesses memory, and a kernel may have made it inaccessible by mistake.
fn ask_launch_in_place(machine: &dyn Machine, platform: Platform) -> Option<i64> {
    // SAFETY: a worker has one thread, so the child can go on with all that there is; it ends in this function.
    match unsafe { fork() }.ok()? {
        ForkResult::Child => {
            let errno = match platform::try_launch_in_place(machine, platform) {
                Ok(()) => Some(0),
                Err(error) => error.errno().map(|errno| errno.0),
            };
            // SAFETY: ends the child, without the destructors that belong to its parent.
            unsafe { libc::_exit(errno.unwrap_or(NOT_ASKED)) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).ok()? {
            WaitStatus::Exited(_, 0) => Some(1),
            WaitStatus::Exited(_, errno) if errno != NOT_ASKED => Some(-i64::from(errno)),
            _ => None,
        },
    }
}

/// Exit status of the trial of a launch that failed without an error number; no error has this one.
const NOT_ASKED: i32 = 255;

/// The dialect that a machine which answers like `found` is judged by, and what a reader of the results must know of that.
fn judged_by(found: Dialect, forced: Option<Dialect>) -> (Dialect, Option<String>) {
    match forced {
        Some(forced) if found != Dialect::None && found != forced => {
            let remark = format!(
                "the machine answers like {found} and is judged by {forced}, which was asked for"
            );
            (forced, Some(remark))
        }
        _ => (found, None),
    }
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

/// Why /dev/kvm cannot be opened.
fn no_kvm() -> Need {
    let result = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match result.err().and_then(|e| e.raw_os_error()).map(Errno) {
        Some(Errno::ENOENT) => Need::new(
            "no-dev-kvm",
            "there is no /dev/kvm: load kvm_intel or kvm_amd (CONFIG_KVM_INTEL, CONFIG_KVM_AMD), and enable virtualization in \
             the firmware",
        ),
        Some(Errno::EACCES | Errno::EPERM) => Need::new(
            "no-permission",
            "no permission to open /dev/kvm: run as root or join the group kvm",
        ),
        Some(errno) => Need::new("no-kvm", format!("opening /dev/kvm fails with {errno}")),
        None => Need::new("no-kvm", "/dev/kvm can be opened but does not answer like KVM"),
    }
}

/// The types of VM that KVM offers, a bit each.
fn vm_types(machine: &dyn Machine) -> i32 {
    machine.check_extension(KVM_CAP_VM_TYPES).unwrap_or(0)
}

fn no_vm_type(types: i32, platform: Platform) -> Option<Need> {
    // A kernel from before KVM_CAP_VM_TYPES has default VMs only.
    let offered = platform.is_among(types) || (types == 0 && platform == Platform::Default);
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
    Need::new(Need::NO_CONVERSION, why)
}

/// Finds the dialect by calls that tell the revisions apart (facts of the interface: the capability numbers of an
/// unmerged series collide with others', so they are no evidence).
fn ask_dialect(machine: &dyn Machine, remarks: &mut Vec<String>) -> Result<Dialect, Need> {
    if machine.check_extension(KVM_CAP_GUEST_MEMFD).unwrap_or(0) <= 0 {
        return Err(Need::new(
            "no-guest-memfd",
            "this kernel does not have guest_memfd: that takes Linux 6.8 or later and CONFIG_KVM_GUEST_MEMFD \
             (CONFIG_KVM_PRIVATE_MEM before 6.18)",
        ));
    }
    let has_private_memory = Platform::SwProtected.is_among(vm_types(machine));
    let platform = if has_private_memory { Platform::SwProtected } else { Platform::Default };
    let failed =
        |call: &str, e: Errno| Need::new("no-guest-memfd", format!("{call} fails with {e}"));
    let vm = machine.create_vm(platform.vm_type()).map_err(|e| failed("KVM_CREATE_VM", e))?;
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
    if let Err(errno) = plain
        && has_private_memory
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
        ("KVM_CAP_PRE_FAULT_MEMORY", KVM_CAP_PRE_FAULT_MEMORY),
    ];
    if let Some(numbers) = machine::capability_numbers(config) {
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

/// Vendor and model, and whether the CPU says that a hypervisor is present.
fn cpu(cpuinfo: &str) -> (String, bool) {
    let field = |name: &str| cpuinfo_field(cpuinfo, name);
    let hypervisor_bit = field("flags").split_whitespace().any(|f| f == "hypervisor");
    (format!("{} {}", field("vendor_id"), field("model name")).trim().to_string(), hypervisor_bit)
}

/// What readers of results from before there was [`Environment::host`] know: two kinds of machine, of which only that of
/// silicon is `bare-metal`.
fn virtualization(host: &str) -> &'static str {
    if host == "bare-metal" { "bare-metal" } else { "nested" }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::OwnedFd;

    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;
    use crate::machine::model::{Config, Fault, Model};
    use crate::machine::{Result as MachineResult, Vm};

    /// The model with other types of VM.
    struct Offering {
        model: Model,
        vm_types: i32,
        /// The type of the VM that was created last.
        created: Cell<Option<u64>>,
    }

    impl Offering {
        fn new(dialect: Dialect, fault: Option<Fault>, vm_types: i32) -> Offering {
            let model = Model::new(Config { dialect, fault });
            Offering { model, vm_types, created: Cell::new(None) }
        }
    }

    impl Machine for Offering {
        fn check_extension(&self, capability: u32) -> MachineResult<i32> {
            match capability {
                KVM_CAP_VM_TYPES => Ok(self.vm_types),
                KVM_CAP_MEMORY_ATTRIBUTES => Err(Errno::EINVAL),
                _ => self.model.check_extension(capability),
            }
        }

        fn get_supported_cpuid(&self) -> MachineResult<Vec<kvm_cpuid_entry2>> {
            self.model.get_supported_cpuid()
        }

        fn get_device_attr(&self, group: u32, attribute: u64) -> MachineResult<u64> {
            self.model.get_device_attr(group, attribute)
        }

        fn open_sev(&self) -> MachineResult<OwnedFd> {
            self.model.open_sev()
        }

        fn create_vm(&self, vm_type: u64) -> MachineResult<Box<dyn Vm>> {
            self.created.set(Some(vm_type));
            self.model.create_vm(vm_type)
        }
    }

    /// Bits of KVM_CAP_VM_TYPES.
    const DEFAULT: i32 = 1;
    const SW_PROTECTED: i32 = 2;

    /// What results are told apart by is what the machine and the program say of themselves.
    #[test]
    fn the_environment_is_recorded() {
        let fault = Fault::ErrorOffsetNotChecked;
        let environment = probe(&MachineConfig::model(Dialect::RfcV4, Some(fault)));
        let uname = |what: &str| {
            let output = std::process::Command::new("uname").arg(what).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_string()
        };
        assert_eq!(environment.machine, MachineKind::Model.name());
        assert_eq!(environment.kernel_release, uname("-r"));
        assert_eq!(environment.kernel_version, uname("-v"));
        assert_eq!(environment.kernel_command_line, read("/proc/cmdline"));
        assert_eq!(environment.kvm_parameters, kvm_parameters(Path::new("/sys/module")));
        assert_eq!(environment.planted_fault.as_deref(), Some(fault.name()));
        assert!(environment.dialect_forced);
        assert_eq!(environment.virtualization, virtualization(&environment.host));
        assert!(!environment.host.is_empty());
        // What scenarios ask of a kernel is nothing that the model has.
        assert_eq!(environment.capabilities.len(), 9);
        assert_eq!(environment.capabilities["launch.in-place.snp"], -22, "not in RFC v4");
        // This bug makes RFC v4 answer like RFC v5.
        assert_eq!(environment.dialect, Some(Dialect::RfcV4));
        let remark = "the machine answers like rfc-v5 and is judged by rfc-v4, which was asked for";
        assert_eq!(environment.remarks, [remark]);
        let around = surroundings(&environment.kvm_parameters);
        assert_eq!(around.parameters, environment.kvm_parameters);
        assert!(!around.cpu_vendor.is_empty());
    }

    /// The dialect that is asked for is what a machine is judged by, unless it does not have the call at all.
    #[test]
    fn a_forced_dialect_is_said() {
        use Dialect::{None as No, RfcV4, RfcV5};
        for (found, forced, dialect, says) in [
            (RfcV5, None, RfcV5, false),
            (RfcV5, Some(RfcV5), RfcV5, false),
            (RfcV5, Some(RfcV4), RfcV4, true),
            (No, Some(RfcV4), No, false),
            (No, None, No, false),
        ] {
            let (judged, remark) = judged_by(found, forced);
            assert_eq!((judged, remark.is_some()), (dialect, says), "{found} {forced:?}");
        }
    }

    /// KVM_CAP_VM_TYPES lists the VM types of a kernel. A kernel without that capability has default VMs only.
    #[test]
    fn vm_types_are_bits() {
        for (types, default, sw_protected) in [
            (0, true, false),
            (DEFAULT, true, false),
            (SW_PROTECTED, false, true),
            (DEFAULT | SW_PROTECTED, true, true),
            (1 << 4, false, false),
        ] {
            assert_eq!(no_vm_type(types, Platform::Default).is_none(), default, "{types}");
            assert_eq!(no_vm_type(types, Platform::SwProtected).is_none(), sw_protected, "{types}");
        }
        let way_out = no_vm_type(DEFAULT, Platform::SwProtected).unwrap().prose;
        assert!(way_out.contains("CONFIG_KVM_SW_PROTECTED_VM"), "{way_out}");
        let other = no_vm_type(SW_PROTECTED, Platform::Default).unwrap().prose;
        assert!(!other.contains("CONFIG_KVM_SW_PROTECTED_VM"), "{other}");
    }

    /// The dialect is found by what the calls answer, on a file such as the cases use, in a VM with private memory if there
    /// is one: elsewhere a kernel may refuse for other reasons.
    #[test]
    fn the_dialect_is_asked() {
        let all = DEFAULT | SW_PROTECTED;
        for (dialect, fault, vm_types, vm_type, remarks) in [
            (Dialect::RfcV4, None, all, 1, 0),
            (Dialect::RfcV5, None, all, 1, 0),
            (Dialect::Upstream, None, all, 1, 0),
            (Dialect::None, None, all, 1, 0),
            (Dialect::RfcV4, None, DEFAULT, 0, 0),
            // There a default VM refuses every call.
            (Dialect::Upstream, None, DEFAULT, 0, 0),
            (Dialect::RfcV4, Some(Fault::RequiresMmap), all, 1, 0),
        ] {
            let machine = Offering::new(dialect, fault, vm_types);
            let mut said = Vec::new();
            let found = ask_dialect(&machine, &mut said).ok();
            assert_eq!((found, said.len()), (Some(dialect), remarks), "{dialect} {fault:?}");
            assert_eq!(machine.created.get(), Some(vm_type), "{dialect} {vm_types}");
        }
        let machine = Offering::new(Dialect::RfcV4, Some(Fault::NoopRefused), all);
        let mut said = Vec::new();
        assert!(ask_dialect(&machine, &mut said).is_ok());
        assert_eq!(said, ["a plain conversion of a shared page to shared fails with EINVAL"]);
    }

    /// Parameters are told apart by their module; what is no module of KVM's is not recorded.
    #[test]
    fn parameters_of_kvm() {
        let modules = tempfile::TempDir::new().unwrap();
        for (module, name, value) in [
            ("kvm", "tdp_mmu", "Y\n"),
            ("kvm_amd", "sev_snp", "N\n"),
            ("vhost", "max_mem_regions", "64\n"),
        ] {
            let folder = modules.path().join(module).join("parameters");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), value).unwrap();
        }
        let found: Vec<(String, String)> = kvm_parameters(modules.path()).into_iter().collect();
        let of = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(found, [of("kvm.tdp_mmu", "Y"), of("kvm_amd.sev_snp", "N")]);
    }

    /// Of each capability the answer is recorded, an error as a negative number.
    #[test]
    fn capabilities_are_recorded() {
        let machine = Offering::new(Dialect::RfcV4, None, 3);
        let model = MachineConfig::model(Dialect::RfcV4, None);
        let found = capabilities(&machine, &model);
        assert_eq!(found["KVM_CAP_VM_TYPES"], 3);
        assert_eq!(found["KVM_CAP_GUEST_MEMFD"], 1);
        assert_eq!(found["KVM_CAP_MEMORY_ATTRIBUTES"], -22);
        let unnumbered = MachineConfig { kind: MachineKind::Host, ..model };
        assert_eq!((found.len(), capabilities(&machine, &unnumbered).len()), (7, 5));
    }

    /// A machine that is not of silicon is recorded as nested: nested KVM is known to be less reliable.
    #[test]
    fn only_silicon_is_not_nested() {
        let info =
            "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor svm\n";
        assert_eq!(cpu(info), ("AuthenticAMD AMD EPYC".into(), true));
        assert!(!cpu("flags : fpu svm").1);
        for (host, nested) in
            [("bare-metal", "bare-metal"), ("virtual", "nested"), ("emulated", "nested")]
        {
            assert_eq!(virtualization(host), nested);
        }
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
