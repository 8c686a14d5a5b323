// SPDX-License-Identifier: GPL-2.0-only
//! A TD's launch, call by call: the errors of calls that come too early, too late, or with the wrong arguments.

use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_cpuid_entry2};

use super::super::{Config, Model};
use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, RfcV5, Upstream};
use crate::errno::Errno;
use crate::machine::*;
use crate::uapi::tdx::*;
use crate::uapi::*;

type Outcome = std::result::Result<(), (Errno, u64)>;

fn kernel(errno: Errno) -> Outcome {
    Err((errno, 0))
}

fn vm(dialect: Dialect) -> Box<dyn Vm> {
    let machine = Model::new(Config { dialect, fault: None });
    machine.create_vm(KVM_X86_TDX_VM.into()).expect("create_vm")
}

fn on_vm<T>(vm: &dyn Vm, id: u32, flags: u32, data: &mut T) -> Outcome {
    let mut command = TdxCommand { id, flags, data: (&raw mut *data) as u64, hw_error: 0 };
    // SAFETY: command and data are ours.
    let result = unsafe { vm.memory_encrypt_op((&raw mut command).cast()) };
    result.map_err(|errno| (errno, command.hw_error))
}

fn on_vcpu<T>(vcpu: &dyn Vcpu, id: u32, flags: u32, data: &mut T) -> Outcome {
    let mut command = TdxCommand { id, flags, data: (&raw mut *data) as u64, hw_error: 0 };
    // SAFETY: as above.
    let result = unsafe { vcpu.memory_encrypt_op((&raw mut command).cast()) };
    result.map_err(|errno| (errno, command.hw_error))
}

fn widths(eax: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function: 0x8000_0008, eax, ..Default::default() }
}

fn good_init() -> TdxInitVm {
    TdxInitVm { cpuid: Cpuid::new(&[widths(48 << 16)]), ..TdxInitVm::default() }
}

fn init(vm: &dyn Vm, mut init: TdxInitVm) -> Outcome {
    on_vm(vm, KVM_TDX_INIT_VM, 0, &mut init)
}

/// A TD with its vCPU, and two pages of memory at address 0.
fn td(dialect: Dialect) -> (Box<dyn Vm>, Box<dyn Vcpu>, Box<dyn GuestMemfd>) {
    let vm = vm(dialect);
    assert_eq!(vm.enable_cap(KVM_CAP_SPLIT_IRQCHIP, [24, 0, 0, 0]), Ok(()));
    assert_eq!(init(&*vm, good_init()), Ok(()));
    let vcpu = vm.create_vcpu(0).expect("a vCPU");
    let file = vm.create_guest_memfd(2 * PAGE_SIZE, 3).expect("a file");
    let region = kvm_userspace_memory_region2 {
        flags: KVM_MEM_GUEST_MEMFD,
        memory_size: 2 * PAGE_SIZE,
        guest_memfd: file.fd().as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the slot has no memory of ours.
    unsafe { vm.set_user_memory_region2(&region) }.expect("a slot");
    (vm, vcpu, file)
}

fn convert(file: &dyn GuestMemfd, start: u64, end: u64, private: bool) {
    let mut argument = range(start, end, private, 0);
    // SAFETY: the argument is ours.
    unsafe { file.set_memory_attributes2(&raw mut argument) }.expect("a conversion");
}

/// What a TD needs before it can have a vCPU, and what it refuses for ever.
#[test]
fn order() {
    let none = vm(Upstream);
    assert_eq!(none.create_irqchip(), Err(Errno::EINVAL), "the kernel's is not for TDs");
    assert_eq!(none.create_vcpu(0).err(), Some(Errno::EINVAL), "the irqchip is not split");
    assert_eq!(none.enable_cap(KVM_CAP_SPLIT_IRQCHIP, [25, 0, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(none.enable_cap(KVM_CAP_SPLIT_IRQCHIP, [24, 0, 0, 0]), Ok(()));
    assert_eq!(none.enable_cap(KVM_CAP_SPLIT_IRQCHIP, [24, 0, 0, 0]), Err(Errno::EEXIST));
    assert_eq!(none.create_vcpu(0).err(), Some(Errno::EIO), "not initialised");
    assert_eq!(on_vm(&*none, KVM_TDX_FINALIZE_VM, 0, &mut 0), kernel(Errno::EINVAL));

    let (vm, mut vcpu, _file) = td(Upstream);
    assert_eq!(init(&*vm, good_init()), kernel(Errno::EINVAL), "twice");
    assert_eq!(vcpu.get_regs().err(), Some(Errno::EINVAL));
    assert_eq!(vcpu.set_sregs(&Default::default()), Err(Errno::EINVAL));
    assert_eq!(vcpu.run(soon()), Err(Errno::EINVAL));
    let region = &mut TdxInitMemRegion { nr_pages: 1, ..Default::default() };
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_INIT_MEM_REGION, 0, region), kernel(Errno::EINVAL));
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_INIT_VCPU, 0, &mut 0), kernel(Errno::EINVAL), "x2APIC");
    let mut cpuid = Box::<Cpuid>::default();
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_GET_CPUID, 0, &mut *cpuid), Ok(()));
    assert_eq!(vcpu.set_cpuid2(cpuid.entries()), Ok(()));
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_INIT_VCPU, 1, &mut 0), kernel(Errno::EINVAL), "flags");
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_INIT_VCPU, 0, &mut 0), Ok(()));
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_INIT_VCPU, 0, &mut 0), kernel(Errno::EINVAL), "twice");
    assert_eq!(on_vcpu(&*vcpu, 9, 0, &mut 0), kernel(Errno::EINVAL));
    assert_eq!(on_vm(&*vm, KVM_TDX_FINALIZE_VM, 1, &mut 0), kernel(Errno::EINVAL), "flags");
    assert_eq!(vcpu.run(soon()), Err(Errno::EINVAL), "not finalized");
    assert_eq!(on_vm(&*vm, KVM_TDX_FINALIZE_VM, 0, &mut 0), Ok(()));
    assert_eq!(on_vm(&*vm, KVM_TDX_FINALIZE_VM, 0, &mut 0), kernel(Errno::EINVAL), "twice");
    assert_eq!(on_vcpu(&*vcpu, KVM_TDX_GET_CPUID, 0, &mut *cpuid), kernel(Errno::EINVAL));
    // There is nothing at the reset vector, which is private.
    let fault = Exit::MemoryFault { flags: 8, gpa: 0xffff_f000, size: PAGE_SIZE };
    assert_eq!(vcpu.run(soon()), Ok(fault));
}

/// INIT_VM looks at every argument, and the module at the CPUID bits.
#[test]
fn init_arguments() {
    let bad = kernel(Errno::EINVAL);
    let vm = vm(Upstream);
    let with = |change: fn(&mut TdxInitVm)| {
        let mut argument = good_init();
        change(&mut argument);
        init(&*vm, argument)
    };
    assert_eq!(on_vm(&*vm, KVM_TDX_INIT_VM, 1, &mut good_init()), bad);
    assert_eq!(with(|i| i.attributes = 1), bad);
    assert_eq!(with(|i| i.xfam = 1 << 40), bad);
    assert_eq!(with(|i| i.reserved[11] = 1), bad);
    assert_eq!(with(|i| i.cpuid.padding = 1), bad);
    assert_eq!(with(|i| i.cpuid.nent = 257), kernel(Errno::E2BIG));
    assert_eq!(with(|i| i.cpuid = Cpuid::new(&[])), bad, "no address width");
    assert_eq!(with(|i| i.cpuid = Cpuid::new(&[widths(46 << 16)])), bad);
    let foreign = kvm_cpuid_entry2 { function: 0x4000_0000, ..Default::default() };
    let cpuid = Cpuid::new(&[widths(48 << 16), foreign]);
    assert_eq!(init(&*vm, TdxInitVm { cpuid, ..good_init() }), bad, "not configurable");
    let flags = kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    let rtm = kvm_cpuid_entry2 { function: 7, flags, ebx: 1 << 11, ..Default::default() };
    let cpuid = Cpuid::new(&[widths(48 << 16), rtm]);
    assert_eq!(init(&*vm, TdxInitVm { cpuid, ..good_init() }), bad, "RTM");
    let every_subleaf = kvm_cpuid_entry2 { function: 7, ..Default::default() };
    let cpuid = Cpuid::new(&[widths(48 << 16), every_subleaf]);
    assert_eq!(init(&*vm, TdxInitVm { cpuid, ..good_init() }), bad, "a leaf without its subleaf");
    let module = with(|i| i.cpuid = Cpuid::new(&[widths(48 << 16 | 1)]));
    assert_eq!(module, Err((Errno::EINVAL, SeamcallStatus::OPERAND_INVALID.0)));
    let mut dirty = TdxCommand { id: KVM_TDX_FINALIZE_VM, hw_error: 1, ..Default::default() };
    // SAFETY: the command is ours and names no memory.
    let result = unsafe { vm.memory_encrypt_op((&raw mut dirty).cast()) };
    assert_eq!(result, Err(Errno::EINVAL));
    assert_eq!(
        init(&*vm, TdxInitVm { cpuid: Cpuid::new(&[widths(52 << 16)]), ..good_init() }),
        Ok(())
    );
}

/// Without room for all entries the calls say how much is needed.
#[test]
fn capabilities_need_room() {
    let vm = vm(Upstream);
    let mut capabilities = Box::<TdxCapabilities>::default();
    capabilities.cpuid.nent = 1;
    let small = on_vm(&*vm, KVM_TDX_CAPABILITIES, 0, &mut *capabilities);
    assert_eq!(small, kernel(Errno::E2BIG));
    let needed = capabilities.cpuid.nent;
    assert!(needed > 1);
    assert_eq!(on_vm(&*vm, KVM_TDX_CAPABILITIES, 1, &mut *capabilities), kernel(Errno::EINVAL));
    assert_eq!(on_vm(&*vm, KVM_TDX_CAPABILITIES, 0, &mut *capabilities), Ok(()));
    assert_eq!(capabilities.cpuid.entries().len() as u32, needed);
    assert_ne!(capabilities.supported_attrs & ATTRIBUTE_SEPT_VE_DISABLE, 0);
}

/// INIT_MEM_REGION's arguments, and that it says how far it got.
#[test]
fn memory_regions() {
    #[repr(C, align(4096))]
    struct Page([u64; 1024]);
    static SOURCE: Page = Page([7; 1024]);
    let source = SOURCE.0.as_ptr() as u64;
    for dialect in [RfcV4, RfcV5] {
        let (_vm, vcpu, file) = td(dialect);
        let mut cpuid = Box::<Cpuid>::default();
        on_vcpu(&*vcpu, KVM_TDX_GET_CPUID, 0, &mut *cpuid).expect("GET_CPUID");
        vcpu.set_cpuid2(cpuid.entries()).expect("SET_CPUID2");
        on_vcpu(&*vcpu, KVM_TDX_INIT_VCPU, 0, &mut 0).expect("INIT_VCPU");
        let add = |region: &mut TdxInitMemRegion, flags| {
            on_vcpu(&*vcpu, KVM_TDX_INIT_MEM_REGION, flags, region)
        };
        let good = TdxInitMemRegion { source_addr: source, gpa: 0, nr_pages: 2 };
        let bad = kernel(Errno::EINVAL);
        assert_eq!(add(&mut { good }, 2), bad, "flags");
        assert_eq!(add(&mut TdxInitMemRegion { nr_pages: 0, ..good }, 0), bad);
        assert_eq!(add(&mut TdxInitMemRegion { gpa: 8, ..good }, 0), bad);
        assert_eq!(add(&mut TdxInitMemRegion { source_addr: 8, ..good }, 0), bad);
        assert_eq!(add(&mut TdxInitMemRegion { gpa: 1 << 47, ..good }, 0), bad, "shared bit");
        assert_eq!(add(&mut TdxInitMemRegion { nr_pages: u64::MAX, ..good }, 0), bad, "wraps");
        assert_eq!(add(&mut TdxInitMemRegion { gpa: 1 << 30, ..good }, 0), bad, "no slot");
        assert_eq!(add(&mut { good }, 0), bad, "shared");

        convert(&*file, 0, 1, PRIVATE);
        let mut region = good;
        assert_eq!(add(&mut region, MEASURE_MEMORY_REGION), bad, "the second page is shared");
        let rest =
            TdxInitMemRegion { source_addr: source + PAGE_SIZE, gpa: PAGE_SIZE, nr_pages: 1 };
        assert_eq!(region, rest);
        let twice = SeamcallStatus::EPT_ENTRY_STATE_INCORRECT.0 | 1;
        assert_eq!(add(&mut { good }, 0), Err((Errno::EIO, twice)));
        convert(&*file, 1, 2, PRIVATE);
        let mut in_place = TdxInitMemRegion { source_addr: 0, ..rest };
        let expected = if dialect == RfcV5 { Ok(()) } else { bad };
        assert_eq!(add(&mut in_place, 0), expected, "{dialect}");
    }
}
