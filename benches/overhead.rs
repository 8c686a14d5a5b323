// SPDX-License-Identifier: GPL-2.0-only
//! What checking costs: conversions verified per second, next to a bare loop that makes the same calls and touches the
//! same bytes without checking, and their ratio. Nothing is asserted: timings belong to whoever reads them.
//!
//! `cargo bench --bench overhead` runs on the model, and on /dev/kvm where that has the interface. The unit is a row of
//! the quick tier: a layout of three pages is set up, one range is converted, everything is looked at. Both empty the
//! guest_memfd for the next row and use it again.
//!
//! In a virtual machine: `cargo bench --bench overhead --no-run`, and then `scripts/run-in-vm KERNEL --idle 600 --binary`
//! with the program whose name that prints.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use gmem_conform::case::layouts::{Tier, rows};
use gmem_conform::case::{Action, Attribute, Case, View};
use gmem_conform::dialect::Dialect;
use gmem_conform::init;
use gmem_conform::machine::host::Host;
use gmem_conform::machine::model::{Config, Model};
use gmem_conform::machine::{GuestMemfd, HostView, Machine};
use gmem_conform::machine::{MachineConfig, MachineKind};
use gmem_conform::payload::abi::TEST_MEMORY;
use gmem_conform::platform::{Guest, GuestCommand, Platform};
use gmem_conform::results::Verdict;
use gmem_conform::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_MEM_GUEST_MEMFD, MemoryAttributes2,
    PAGE_SIZE, kvm_userspace_memory_region2,
};
use gmem_conform::worker::{Executor, probe};

/// Rounds of each kind, interleaved so that a drift of the machine's speed does not fake a difference. The medians count.
const ROUNDS: usize = 7;

/// How long the guest may take for a command.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    if init::is_init() {
        init::run()
    }
    let config =
        |kind, dialect| MachineConfig { kind, dialect, fault: None, capability_numbers: None };
    measure("model", Dialect::RfcV4, config(MachineKind::Model, Some(Dialect::RfcV4)), &|| {
        Box::new(Model::new(Config { dialect: Dialect::RfcV4, fault: None }))
    });
    let environment = probe(&config(MachineKind::Host, None));
    let missing = environment.platforms.iter().find(|p| p.name == "sw-protected");
    match (environment.dialect, missing.is_some_and(|p| p.missing.is_empty())) {
        (Some(dialect), true) => {
            measure("host", dialect, config(MachineKind::Host, Some(dialect)), &|| {
                Box::new(Host::open(Path::new("/dev/kvm")).expect("the probe has opened it"))
            });
        }
        _ => println!("host: skipped, /dev/kvm does not offer sw-protected VMs with the interface"),
    }
}

fn measure(
    name: &str,
    dialect: Dialect,
    config: MachineConfig,
    machine: &dyn Fn() -> Box<dyn Machine>,
) {
    let cases = rows(Tier::Quick, dialect);
    let texts: Vec<String> = cases.iter().map(Case::to_string).collect();
    let mut executor = Executor::new(config);
    let machine = machine();
    let mut guest =
        Guest::launch(&*machine, Platform::SwProtected, PATIENCE).expect("the guest starts");
    let size = cases[0].pages * PAGE_SIZE;
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let gmem = guest.vm().create_guest_memfd(size, flags).expect("a guest_memfd is made");
    let view = gmem.mmap(0, size).expect("it is mapped");
    set_slot(&guest, &*gmem, &*view, size);
    guest.map(TEST_MEMORY, size).expect("the page tables have room");
    let (mut checked, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for (case, text) in cases.iter().zip(&texts) {
            let outcome =
                executor.run(&case.name, Platform::SwProtected, text, PATIENCE, &mut |_| {});
            assert_eq!(outcome.verdict, Verdict::Pass, "{}: {:?}", case.name, outcome.failure);
        }
        checked.push(start.elapsed());
        let start = Instant::now();
        for case in &cases {
            bare_row(&mut guest, &*gmem, &*view, case);
        }
        bare.push(start.elapsed());
    }
    let per_second = |times: &mut Vec<Duration>| {
        times.sort();
        cases.len() as f64 / times[ROUNDS / 2].as_secs_f64()
    };
    let (checked, bare) = (per_second(&mut checked), per_second(&mut bare));
    println!(
        "{name} {dialect}: {checked:.0} conversions verified per second, {bare:.0} in a bare loop, ratio {:.2}",
        checked / bare
    );
}

/// The calls and accesses of a row, without looking at any result.
fn bare_row(guest: &mut Guest, gmem: &dyn GuestMemfd, view: &dyn HostView, case: &Case) {
    let size = case.pages * PAGE_SIZE;
    let mut private = vec![false; case.pages as usize];
    for step in &case.steps {
        match &step.action {
            Action::Convert { pages, to, mode } => {
                let done =
                    convert(gmem, MemoryAttributes2::of_pages(pages, to.bits(), mode.bits()));
                if done {
                    for page in pages.clone() {
                        private[page as usize] = *to == Attribute::Private;
                    }
                }
            }
            Action::Raw(call) => {
                convert(
                    gmem,
                    MemoryAttributes2 {
                        offset: call.offset,
                        size: call.size,
                        attributes: call.attributes,
                        flags: call.flags,
                        ..Default::default()
                    },
                );
            }
            Action::Write { view: View::Host, pages, .. } => {
                pages.clone().for_each(|page| write(view, page));
            }
            Action::Write { pages, .. } => {
                let address = TEST_MEMORY + pages.start * PAGE_SIZE;
                let length = (pages.end - pages.start) * PAGE_SIZE;
                command(guest, GuestCommand::Fill { address, length, tag: 0, first_page: 0 });
            }
            Action::Read { pages, .. } => {
                let address = TEST_MEMORY + pages.start * PAGE_SIZE;
                let length = (pages.end - pages.start) * PAGE_SIZE;
                command(guest, GuestCommand::Touch { address, length });
            }
            Action::Allocate(pages) => {
                let length = (pages.end - pages.start) * PAGE_SIZE;
                let offset = pages.start * PAGE_SIZE;
                gmem.fallocate(libc::FALLOC_FL_KEEP_SIZE, offset, length).expect("it allocates");
            }
            other => panic!("a row does not do this: {other}"),
        }
    }
    // What a check has to read: every byte of every page, from the host where it may, and from the guest.
    for page in (0..case.pages).filter(|page| !private[*page as usize]) {
        read(view, page);
    }
    let length = size;
    let check = GuestCommand::Fill { address: TEST_MEMORY, length, tag: 0, first_page: 0 };
    command(guest, check);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    gmem.fallocate(mode, 0, size).expect("it is emptied");
    convert(gmem, MemoryAttributes2 { size, ..Default::default() });
}

fn set_slot(guest: &Guest, gmem: &dyn GuestMemfd, view: &dyn HostView, size: u64) {
    let region = kvm_userspace_memory_region2 {
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: TEST_MEMORY,
        memory_size: size,
        userspace_addr: view.address() as u64,
        guest_memfd: gmem.fd().as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the guest does not run any more when `measure` drops the view, which is accessed through raw pointers only.
    unsafe { guest.vm().set_user_memory_region2(&region) }.expect("the slot is made");
}

fn convert(gmem: &dyn GuestMemfd, mut argument: MemoryAttributes2) -> bool {
    // SAFETY: the argument is ours; the pages are accessed through raw pointers only.
    unsafe { gmem.set_memory_attributes2(&mut argument) }.is_ok()
}

fn command(guest: &mut Guest, command: GuestCommand) {
    guest.command(command, Instant::now() + PATIENCE).expect("the guest answers");
}

fn write(view: &dyn HostView, page: u64) {
    let base = view.address().cast::<u64>();
    for word in page * 512..page * 512 + 512 {
        // SAFETY: the page lies in the view and is shared; nothing refers to it.
        unsafe { base.add(word as usize).write_volatile(word) };
    }
}

fn read(view: &dyn HostView, page: u64) {
    let base = view.address().cast::<u64>();
    for word in page * 512..page * 512 + 512 {
        // SAFETY: as in `write`.
        unsafe { base.add(word as usize).read_volatile() };
    }
}
