// SPDX-License-Identifier: GPL-2.0-only
//! Guests on /dev/kvm: the payload, the launch sequence and the host machine together.
//!
//! Without a usable /dev/kvm these tests say so and check nothing; on the model the same is checked everywhere.

use std::time::{Duration, Instant};

use gmem_conform::errno::Errno;
use gmem_conform::machine::host::Host;
use gmem_conform::machine::{Exit, GuestMemfd, HostView, Machine};
use gmem_conform::payload::abi::{IMAGE, TEST_MEMORY};
use gmem_conform::payload::pattern::{self, tag};
use gmem_conform::platform::{Guest, GuestCommand, GuestStop, Mismatch, Platform, missing};
use gmem_conform::uapi::{
    ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP,
    KVM_CAP_GUEST_MEMFD_FLAGS, KVM_CAP_VM_TYPES, KVM_MEM_GUEST_MEMFD, KVM_X86_DEFAULT_VM,
    MODE_PRESERVE, MemoryAttributes2, PAGE_SIZE, kvm_userspace_memory_region2,
};

const PAGES: u64 = 4;
const SIZE: u64 = PAGES * PAGE_SIZE;
/// Generous: what is measured against it takes microseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// A guest with a mappable guest_memfd of [`PAGES`] at [`TEST_MEMORY`].
struct Setup {
    guest: Guest,
    view: Box<dyn HostView>,
    gmem: Box<dyn GuestMemfd>,
}

/// `None`, with a line that says why, where KVM or a mappable guest_memfd is missing.
fn machine() -> Option<Host> {
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let host = match Host::open("/dev/kvm") {
        Ok(host) => host,
        Err(e) => {
            eprintln!("SKIP: /dev/kvm cannot be opened: {e}");
            return None;
        }
    };
    let offered = host.check_extension(KVM_CAP_GUEST_MEMFD_FLAGS).unwrap() as u64;
    if offered & flags != flags {
        eprintln!("SKIP: KVM offers guest_memfd flags {offered:#x}, not {flags:#x}");
        return None;
    }
    Some(host)
}

fn set_up() -> Option<Setup> {
    let host = machine()?;
    Some(set_up_on(&host, Platform::Default))
}

fn set_up_on(host: &Host, platform: Platform) -> Setup {
    let mut guest = Guest::launch(host, platform, TIMEOUT).unwrap();
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let gmem = guest.vm().create_guest_memfd(SIZE, flags).unwrap();
    let view = gmem.mmap(0, SIZE).unwrap();
    let region = kvm_userspace_memory_region2 {
        slot: 0,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: TEST_MEMORY,
        memory_size: SIZE,
        userspace_addr: view.address() as u64,
        guest_memfd: std::os::fd::AsRawFd::as_raw_fd(&gmem.fd()) as u32,
        ..Default::default()
    };
    // SAFETY: `view` is dropped after `guest` and is accessed through raw pointers only.
    unsafe { guest.vm().set_user_memory_region2(&region) }.unwrap();
    guest.map(TEST_MEMORY, SIZE).unwrap();
    Setup { guest, view, gmem }
}

impl Setup {
    fn word(&self, page: u64, index: u64) -> *mut u64 {
        assert!(page < PAGES && index < pattern::WORDS_PER_PAGE);
        // SAFETY: inside the view, by the assertion.
        unsafe { self.view.address().add((page * PAGE_SIZE + index * 8) as usize) }.cast()
    }

    fn read(&self, page: u64, index: u64) -> u64 {
        // SAFETY: mapped and shared; volatile, as the guest writes there.
        unsafe { self.word(page, index).read_volatile() }
    }

    fn write(&self, page: u64, index: u64, word: u64) {
        // SAFETY: as in `read`.
        unsafe { self.word(page, index).write_volatile(word) }
    }
}

fn fill(tag: u64, first_page: u64, pages: u64) -> GuestCommand {
    GuestCommand::Fill {
        address: TEST_MEMORY + first_page * PAGE_SIZE,
        length: pages * PAGE_SIZE,
        tag,
        first_page,
    }
}

fn check(tag: u64, first_page: u64, pages: u64) -> GuestCommand {
    GuestCommand::Check {
        address: TEST_MEMORY + first_page * PAGE_SIZE,
        length: pages * PAGE_SIZE,
        tag,
        first_page,
    }
}

/// What the guest writes the host reads, word for word, and nothing beside it.
#[test]
fn host_sees_what_the_guest_fills() {
    let Some(mut s) = set_up() else { return };
    let a = tag(b'A', 1);
    let answer = s.guest.command(fill(a, 1, 2), soon()).unwrap();
    assert_eq!(answer.mismatch, None);
    for page in 0..PAGES {
        let tag = if (1..3).contains(&page) { a } else { pattern::ZERO };
        for index in 0..pattern::WORDS_PER_PAGE {
            let expected = pattern::word(tag, page, index);
            assert_eq!(s.read(page, index), expected, "page {page}, word {index}");
        }
    }
}

/// What the host writes the guest reads; a single wrong word is reported with its place and both values.
#[test]
fn guest_checks_what_the_host_writes() {
    let Some(mut s) = set_up() else { return };
    let b = tag(b'B', 2);
    for page in 0..PAGES {
        for index in 0..pattern::WORDS_PER_PAGE {
            s.write(page, index, pattern::word(b, page, index));
        }
    }
    assert_eq!(s.guest.command(check(b, 0, PAGES), soon()).unwrap().mismatch, None);

    s.write(2, 77, 0xbad);
    let answer = s.guest.command(check(b, 1, 3), soon()).unwrap();
    let expected = Mismatch {
        range: 0,
        offset: PAGE_SIZE + 77 * 8,
        expected: pattern::word(b, 2, 77),
        found: 0xbad,
    };
    assert_eq!(answer.mismatch, Some(expected));
}

/// The commands for single words and pages do what they say.
#[test]
fn words_and_pages() {
    let Some(mut s) = set_up() else { return };
    let address = TEST_MEMORY + PAGE_SIZE + 24;
    let write = GuestCommand::Write { address, word: 42 };
    s.guest.command(write, soon()).unwrap();
    assert_eq!(s.read(1, 3), 42);
    let answer = s.guest.command(GuestCommand::Read { address }, soon()).unwrap();
    assert_eq!(answer.found, 42);

    let touch = GuestCommand::Touch { address: TEST_MEMORY, length: SIZE };
    s.guest.command(touch, soon()).unwrap();

    s.guest.command(fill(tag(b'C', 3), 2, 1), soon()).unwrap();
    let copy = GuestCommand::CopyOut { address: TEST_MEMORY + 2 * PAGE_SIZE };
    s.guest.command(copy, soon()).unwrap();
    let mut page = [0; 4096];
    s.guest.copy_buffer(&mut page);
    for (index, word) in page.chunks(8).enumerate() {
        let expected = pattern::word(tag(b'C', 3), 2, index as u64);
        assert_eq!(word, expected.to_le_bytes(), "word {index}");
    }
}

/// An exception is reported with what the CPU said about it, and the guest works again after a reset.
#[test]
fn exceptions_are_reported() {
    let Some(mut s) = set_up() else { return };
    let address = 1 << 46;
    let stop = s.guest.command(GuestCommand::Read { address }, soon()).unwrap_err();
    let GuestStop::Exception { vector, error_code, rip, cr2 } = stop else {
        panic!("{stop}");
    };
    // A read of a page that is not present, in supervisor mode.
    assert_eq!((vector, error_code, cr2), (14, 0, address));
    assert!((IMAGE..IMAGE + 0x1000).contains(&rip), "RIP {rip:#x}");

    let touch = GuestCommand::Touch { address: TEST_MEMORY, length: SIZE };
    let refused = s.guest.command(touch, soon()).unwrap_err();
    assert!(matches!(refused, GuestStop::Unexpected(_)), "{refused}");
    s.guest.reset(soon()).unwrap();
    s.guest.command(touch, soon()).unwrap();
}

/// An access that no memslot backs is an exit with its address. After a reset the next access is the next command's: the
/// unfinished one is not completed into it.
#[test]
fn unbacked_addresses_exit() {
    let Some(mut s) = set_up() else { return };
    let address = TEST_MEMORY + SIZE;
    for (command, write) in
        [(GuestCommand::Read { address }, false), (GuestCommand::Write { address, word: 1 }, true)]
    {
        let stop = s.guest.command(command, soon()).unwrap_err();
        assert_eq!(stop, GuestStop::Mmio { gpa: address, write });
        s.guest.reset(soon()).unwrap();
        s.guest.command(fill(tag(b'D', 4), 0, PAGES), soon()).unwrap();
        let answer = s.guest.command(check(tag(b'D', 4), 0, PAGES), soon()).unwrap();
        assert_eq!(answer.mismatch, None);
    }
}

/// A guest that spins is stopped at the deadline, not before, again and again, and works after a reset.
#[test]
fn deadlines_end_a_spin() {
    let Some(mut s) = set_up() else { return };
    for milliseconds in [0, 1, 30, 5] {
        let deadline = Instant::now() + Duration::from_millis(milliseconds);
        let stop = s.guest.command(GuestCommand::Spin, deadline).unwrap_err();
        assert!(matches!(stop, GuestStop::Hang { rip: Some(_) }), "{stop}");
        assert!(Instant::now() >= deadline, "stopped before the deadline");
        s.guest.reset(soon()).unwrap();
        s.guest.command(fill(tag(b'E', 5), 0, 1), soon()).unwrap();
    }
}

/// The watchdog keeps several vCPUs apart: the earlier deadline ends its own run, not the other thread's.
#[test]
fn deadlines_of_several_threads() {
    if machine().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for milliseconds in [40, 10, 20] {
            scope.spawn(move || {
                let host = Host::open("/dev/kvm").unwrap();
                let mut guest = Guest::launch(&host, Platform::Default, TIMEOUT).unwrap();
                let deadline = Instant::now() + Duration::from_millis(milliseconds);
                let stop = guest.command(GuestCommand::Spin, deadline).unwrap_err();
                assert!(matches!(stop, GuestStop::Hang { .. }), "{stop}");
                assert!(Instant::now() >= deadline, "another's deadline ended the run");
            });
        }
    });
}

/// A deadline ends a run also in a process that was started with all signals blocked.
#[test]
fn blocked_signals_do_not_matter() {
    let Some(host) = machine() else { return };
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    let mut guest = Guest::launch(&host, Platform::Default, TIMEOUT).unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    let stop = guest.command(GuestCommand::Spin, deadline).unwrap_err();
    assert!(matches!(stop, GuestStop::Hang { .. }), "{stop}");
}

/// A vCPU that must not run does not, and says so, even before it has registers that make sense.
#[test]
fn a_past_deadline_does_not_run() {
    let Some(host) = machine() else { return };
    let vm = host.create_vm(u64::from(KVM_X86_DEFAULT_VM)).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    assert_eq!(vcpu.run(Instant::now()), Ok(Exit::Interrupted));
}

/// A pinned page can be pinned for as long as its pipe lives; outside of the view there is nothing to pin.
#[test]
fn pages_can_be_pinned() {
    let Some(s) = set_up() else { return };
    let pin = s.view.pin(PAGE_SIZE).unwrap();
    s.write(1, 0, 7);
    drop(pin);
    assert_eq!(s.read(1, 0), 7);
    assert!(s.view.pin(SIZE).is_err());
}

/// The same payload runs in a software-protected VM, and what it writes to a page that is private by then is there when
/// the page is shared again.
#[test]
fn sw_protected_guests_use_private_pages() {
    let Some(host) = machine() else { return };
    let platform = Platform::SwProtected;
    let types = host.check_extension(KVM_CAP_VM_TYPES).unwrap() as u64;
    if types & 1 << platform.vm_type() == 0 {
        eprintln!("SKIP: KVM offers VM types {types:#x}, no software-protected VMs");
        return;
    }
    let probe = host.create_vm(platform.vm_type()).unwrap();
    let flags = probe.check_extension(KVM_CAP_GUEST_MEMFD_FLAGS).unwrap() as u64;
    if flags & GUEST_MEMFD_FLAG_INIT_SHARED == 0 {
        eprintln!("SKIP: KVM has no in-place conversion for software-protected VMs");
        return;
    }
    drop(probe);

    let mut s = set_up_on(&host, platform);
    let (a, b) = (tag(b'A', 6), tag(b'B', 6));
    s.guest.command(fill(a, 0, PAGES), soon()).unwrap();
    let convert = |gmem: &dyn GuestMemfd, attributes| {
        let mut argument = MemoryAttributes2 {
            offset: PAGE_SIZE,
            size: PAGE_SIZE,
            attributes,
            flags: MODE_PRESERVE,
            ..Default::default()
        };
        // SAFETY: the argument is ours; the memory is accessed through raw pointers only.
        unsafe { gmem.set_memory_attributes2(&raw mut argument) }
    };
    convert(&*s.gmem, ATTRIBUTE_PRIVATE).unwrap();
    assert_eq!(s.view.pin(PAGE_SIZE).err(), Some(Errno::EFAULT), "the page is private");
    assert_eq!(s.guest.command(check(a, 0, PAGES), soon()).unwrap().mismatch, None);
    s.guest.command(fill(b, 1, 1), soon()).unwrap();
    convert(&*s.gmem, 0).unwrap();
    assert_eq!(s.read(0, 5), pattern::word(a, 0, 5));
    assert_eq!(s.read(1, 5), pattern::word(b, 1, 5));
    assert_eq!(s.read(2, 5), pattern::word(a, 2, 5));
}

/// The calls of encrypted guests' launches reach KVM, which has no use for them on another VM; and where the hardware is
/// missing the launch says which step it is that fails.
#[test]
fn encrypted_guests_need_hardware() {
    let Some(host) = machine() else { return };
    let vm = host.create_vm(KVM_X86_DEFAULT_VM.into()).unwrap();
    let nothing = std::ptr::null_mut();
    // SAFETY: the command is no memory.
    assert!(unsafe { vm.memory_encrypt_op(nothing) }.is_err_and(|e| e != Errno::EFAULT));
    let vcpu = vm.create_vcpu(0).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { vcpu.memory_encrypt_op(nothing) }, Err(Errno::ENOTTY));
    assert!(host.get_device_attr(77, 0).is_err(), "there is no such group");

    let types = host.check_extension(KVM_CAP_VM_TYPES).unwrap();
    for platform in [Platform::Snp, Platform::Tdx] {
        if types >> platform.vm_type() & 1 == 1 {
            eprintln!("SKIP: KVM offers {platform} VMs");
            continue;
        }
        let Err(error) = Guest::launch(&host, platform, TIMEOUT) else {
            panic!("a launch without {platform} VMs");
        };
        let text = error.to_string();
        assert!(text.contains("KVM_") || text.contains("/dev/sev"), "{text}");
        assert!(missing(&host, platform, None).is_some());
    }
}
