// SPDX-License-Identifier: GPL-2.0-only
//! An SNP guest's launch, call by call: the errors of calls that come too early, too late, or with the wrong arguments.

use std::os::fd::{AsRawFd, OwnedFd};

use super::super::{Config, Model};
use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, RfcV5, Upstream};
use crate::errno::Errno;
use crate::machine::*;
use crate::uapi::sev::*;
use crate::uapi::*;

struct Launch {
    vm: Box<dyn Vm>,
    sev: OwnedFd,
}

/// A page to launch from.
#[repr(C, align(4096))]
struct Page([u64; 512]);

static SOURCE: [Page; 2] = [const { Page([0x5a5a; 512]) }; 2];

impl Launch {
    fn new(dialect: Dialect) -> Launch {
        let machine = Model::new(Config { dialect, fault: None });
        let sev = machine.open_sev().expect("open_sev");
        Launch { vm: machine.create_vm(KVM_X86_SNP_VM.into()).expect("create_vm"), sev }
    }

    /// A guest whose launch has been started, with two private pages at address 0.
    fn started(dialect: Dialect) -> (Launch, Box<dyn GuestMemfd>) {
        let launch = Launch::new(dialect);
        assert_eq!(launch.init(kvm_sev_init::default()), Ok(()));
        assert_eq!(launch.start(POLICY_RESERVED | POLICY_SMT), Ok(()));
        let file = launch.vm.create_guest_memfd(3 * PAGE_SIZE, 3).expect("a file");
        let region = kvm_userspace_memory_region2 {
            flags: KVM_MEM_GUEST_MEMFD,
            memory_size: 2 * PAGE_SIZE,
            guest_memfd: file.fd().as_raw_fd() as u32,
            ..Default::default()
        };
        // SAFETY: the slot has no memory of ours.
        unsafe { launch.vm.set_user_memory_region2(&region) }.expect("a slot");
        let mut argument = range(0, 2, PRIVATE, 0);
        // SAFETY: the argument is ours.
        unsafe { file.set_memory_attributes2(&raw mut argument) }.expect("a conversion");
        (launch, file)
    }

    fn command<T>(&self, id: u32, data: &mut T) -> std::result::Result<(), (Errno, u32)> {
        let mut command = kvm_sev_cmd {
            id,
            data: (&raw mut *data) as u64,
            sev_fd: self.sev.as_raw_fd() as u32,
            ..Default::default()
        };
        // SAFETY: command and data are ours.
        let result = unsafe { self.vm.memory_encrypt_op((&raw mut command).cast()) };
        result.map_err(|errno| (errno, command.error))
    }

    fn init(&self, mut init: kvm_sev_init) -> std::result::Result<(), (Errno, u32)> {
        self.command(KVM_SEV_INIT2, &mut init)
    }

    fn start(&self, policy: u64) -> std::result::Result<(), (Errno, u32)> {
        let mut start = kvm_sev_snp_launch_start { policy, ..Default::default() };
        self.command(KVM_SEV_SNP_LAUNCH_START, &mut start)
    }

    fn update(
        &self,
        update: &mut kvm_sev_snp_launch_update,
    ) -> std::result::Result<(), (Errno, u32)> {
        self.command(KVM_SEV_SNP_LAUNCH_UPDATE, update)
    }

    fn finish(&self) -> std::result::Result<(), (Errno, u32)> {
        self.command(KVM_SEV_SNP_LAUNCH_FINISH, &mut kvm_sev_snp_launch_finish::default())
    }
}

fn pages(first: u64, count: u64) -> kvm_sev_snp_launch_update {
    kvm_sev_snp_launch_update {
        gfn_start: first,
        uaddr: SOURCE.as_ptr() as u64,
        len: count * PAGE_SIZE,
        type_: PAGE_TYPE_NORMAL,
        ..Default::default()
    }
}

fn kernel(errno: Errno) -> std::result::Result<(), (Errno, u32)> {
    Err((errno, 0))
}

fn firmware(status: FirmwareStatus) -> std::result::Result<(), (Errno, u32)> {
    Err((Errno::EIO, status.0))
}

/// The order of the commands, and what each says out of it.
#[test]
fn order() {
    let launch = Launch::new(Upstream);
    assert_eq!(launch.start(POLICY_RESERVED), kernel(Errno::ENOTTY));
    assert_eq!(launch.update(&mut pages(0, 1)), kernel(Errno::EINVAL));
    assert_eq!(launch.finish(), kernel(Errno::ENOTTY));
    assert_eq!(launch.init(kvm_sev_init::default()), Ok(()));
    assert_eq!(launch.init(kvm_sev_init::default()), kernel(Errno::EPERM));
    assert_eq!(launch.update(&mut pages(0, 1)), kernel(Errno::EINVAL));
    assert_eq!(launch.finish(), kernel(Errno::EINVAL));

    let (launch, _file) = Launch::started(Upstream);
    assert_eq!(launch.start(POLICY_RESERVED | POLICY_SMT), kernel(Errno::EINVAL));
    assert_eq!(launch.command(99, &mut 0u64), kernel(Errno::EPERM));
    assert_eq!(launch.command(199, &mut 0u64), kernel(Errno::EINVAL));
    let mut vcpu = launch.vm.create_vcpu(0).expect("a vCPU");
    assert_eq!(vcpu.run(soon()), Err(Errno::EINVAL), "not launched yet");
    assert!(vcpu.get_regs().is_ok());
    assert_eq!(launch.finish(), Ok(()));
    assert_eq!(vcpu.get_regs().err(), Some(Errno::EINVAL), "the registers are encrypted");
    assert_eq!(vcpu.get_sregs().err(), Some(Errno::EINVAL));
    assert_eq!(vcpu.set_regs(&Default::default()), Err(Errno::EINVAL));
    let late = firmware(FirmwareStatus::INVALID_GUEST_STATE);
    assert_eq!(launch.update(&mut pages(0, 1)), late);
    assert_eq!(launch.finish(), late);
    // Nobody has set the registers.
    assert_eq!(vcpu.run(soon()), Ok(Exit::Shutdown));
}

/// INIT2 and START look at every argument; the firmware looks at the policy.
#[test]
fn arguments() {
    let bad = kernel(Errno::EINVAL);
    let launch = Launch::new(Upstream);
    let init = kvm_sev_init::default();
    assert_eq!(launch.init(kvm_sev_init { flags: 1, ..init }), bad);
    assert_eq!(launch.init(kvm_sev_init { ghcb_version: 1, ..init }), bad);
    assert_eq!(launch.init(kvm_sev_init { ghcb_version: 3, ..init }), bad);
    assert_eq!(launch.init(kvm_sev_init { vmsa_features: 1 << 63, ..init }), bad);
    assert_eq!(launch.init(kvm_sev_init { ghcb_version: 2, ..init }), Ok(()));
    assert_eq!(launch.start(POLICY_SMT), bad, "the reserved bit");
    assert_eq!(launch.start(POLICY_RESERVED | 1 << 40), bad, "no such bit");
    let policy = firmware(FirmwareStatus::POLICY_FAILURE);
    assert_eq!(launch.start(POLICY_RESERVED), policy);
    let mut start = kvm_sev_snp_launch_start { flags: 1, ..Default::default() };
    assert_eq!(launch.command(KVM_SEV_SNP_LAUNCH_START, &mut start), bad);
    let no_device = Launch { sev: std::fs::File::open("/dev/null").unwrap().into(), ..launch };
    assert_eq!(no_device.start(POLICY_RESERVED | POLICY_SMT), kernel(Errno::EBADF));

    let too_late = Launch::new(Upstream);
    too_late.vm.create_vcpu(0).expect("a vCPU");
    assert_eq!(too_late.init(init), bad, "there is a vCPU");

    // SAFETY: the call takes no memory.
    assert_eq!(unsafe { too_late.vm.memory_encrypt_op(std::ptr::null_mut()) }, Ok(()));
    let nowhere = std::ptr::without_provenance_mut(8);
    // SAFETY: nothing is mapped there.
    assert_eq!(unsafe { too_late.vm.memory_encrypt_op(nowhere) }, Err(Errno::EFAULT));
    let bench = Bench::new(Upstream, None, 1);
    // SAFETY: as above.
    assert_eq!(unsafe { bench.vm.memory_encrypt_op(nowhere) }, Err(Errno::ENOTTY));
}

/// UPDATE's arguments, and that a failure of its first page is EIO whatever it is.
#[test]
fn update_arguments() {
    let (launch, _file) = Launch::started(RfcV4);
    let bad = kernel(Errno::EINVAL);
    let good = pages(0, 1);
    let update = |update: kvm_sev_snp_launch_update| launch.update(&mut { update });
    assert_eq!(update(kvm_sev_snp_launch_update { len: 0, ..good }), bad);
    assert_eq!(update(kvm_sev_snp_launch_update { len: 100, ..good }), bad);
    assert_eq!(update(kvm_sev_snp_launch_update { flags: 1, ..good }), bad);
    assert_eq!(update(kvm_sev_snp_launch_update { type_: 2, ..good }), bad, "VMSA");
    assert_eq!(update(kvm_sev_snp_launch_update { uaddr: 8, ..good }), bad);
    assert_eq!(update(kvm_sev_snp_launch_update { uaddr: 0, ..good }), bad, "not in place");
    assert_eq!(update(kvm_sev_snp_launch_update { gfn_start: 7, ..good }), bad, "no slot");
    let unreadable = kvm_sev_snp_launch_update { uaddr: 4096, ..good };
    assert_eq!(update(unreadable), firmware(FirmwareStatus::SUCCESS));
    let zero = kvm_sev_snp_launch_update { uaddr: 0, type_: PAGE_TYPE_ZERO, ..good };
    assert_eq!(update(zero), Ok(()));
    assert_eq!(update(good), firmware(FirmwareStatus::SUCCESS), "launched twice");
}

/// UPDATE says how far it got: it stops at the end of the slot, and before a page that cannot be launched, which the next
/// call complains about.
#[test]
fn update_progress() {
    let (launch, file) = Launch::started(Upstream);
    let mut argument = range(1, 2, SHARED, 0);
    // SAFETY: the argument is ours.
    unsafe { file.set_memory_attributes2(&raw mut argument) }.expect("a conversion");
    let mut update = pages(0, 2);
    assert_eq!(launch.update(&mut update), Ok(()));
    let source = SOURCE.as_ptr() as u64 + PAGE_SIZE;
    assert_eq!((update.gfn_start, update.len, update.uaddr), (1, PAGE_SIZE, source));
    assert_eq!(launch.update(&mut update), firmware(FirmwareStatus::SUCCESS), "it is shared");
    assert_eq!((update.gfn_start, update.len), (1, PAGE_SIZE));
    let mut argument = range(1, 2, PRIVATE, 0);
    // SAFETY: as above.
    unsafe { file.set_memory_attributes2(&raw mut argument) }.expect("a conversion");
    let mut update = kvm_sev_snp_launch_update { len: 2 * PAGE_SIZE, ..pages(1, 2) };
    assert_eq!(launch.update(&mut update), Ok(()));
    assert_eq!((update.gfn_start, update.len), (2, PAGE_SIZE), "the slot ends there");

    // In place, where there is that.
    let (launch, _file) = Launch::started(RfcV5);
    let mut update = kvm_sev_snp_launch_update { uaddr: 0, ..pages(0, 2) };
    assert_eq!(launch.update(&mut update), Ok(()));
    assert_eq!(update.len, 0);
}
