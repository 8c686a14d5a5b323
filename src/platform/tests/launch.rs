// SPDX-License-Identifier: GPL-2.0-only
//! Launched guests: they answer, they have the memory that they were promised, their requests reach the host.

use std::os::fd::AsRawFd;

use super::support::*;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView};
use crate::payload::abi::{IMAGE, PRIVATE_WINDOW, TEST_MEMORY, refusal};
use crate::payload::pattern;
use crate::platform::{Answer, Guest, GuestCommand, GuestStop, LaunchError, Platform, Refusal};
use crate::uapi::*;

/// A guest with `pages` pages of shared memory under test.
struct Bench {
    guest: Guest,
    view: Box<dyn HostView>,
    gmem: Box<dyn GuestMemfd>,
}

impl Bench {
    fn new(platform: Platform, dialect: Dialect, pages: u64) -> Bench {
        let mut guest = launch(&model(dialect), platform).expect("a launch");
        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let size = pages * PAGE_SIZE;
        let gmem = guest.vm().create_guest_memfd(size, flags).expect("a guest_memfd");
        let view = gmem.mmap(0, size).expect("a mapping");
        let region = kvm_userspace_memory_region2 {
            slot: 1,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: TEST_MEMORY,
            memory_size: size,
            userspace_addr: view.address() as u64,
            guest_memfd: gmem.fd().as_raw_fd() as u32,
            ..Default::default()
        };
        // SAFETY: the guest is dropped before the view, whose memory is accessed through raw pointers only.
        unsafe { guest.vm().set_user_memory_region2(&region) }.expect("a memslot");
        guest.map(TEST_MEMORY, size).expect("it is mapped");
        Bench { guest, view, gmem }
    }

    fn convert(&self, page: u64, pages: u64, attributes: u64, flags: u64) -> Result<(), Errno> {
        let mut argument = MemoryAttributes2 {
            offset: page * PAGE_SIZE,
            size: pages * PAGE_SIZE,
            attributes,
            flags,
            ..Default::default()
        };
        // SAFETY: the argument is ours.
        unsafe { self.gmem.set_memory_attributes2(&raw mut argument) }
    }

    fn command(&mut self, command: GuestCommand) -> Answer {
        self.guest.command(command, soon()).unwrap_or_else(|stop| panic!("{command:?}: {stop}"))
    }

    fn read(&mut self, address: u64) -> u64 {
        self.command(GuestCommand::Read { address }).found
    }

    fn refusal(&mut self, command: GuestCommand) -> Option<Refusal> {
        self.command(command).refusal
    }

    /// A request of the guest, of which each part is converted and confirmed.
    fn request(&mut self, command: GuestCommand) -> (u32, Answer) {
        let mut result = self.guest.command(command, soon());
        for exits in 0.. {
            match result {
                Ok(answer) => return (exits, answer),
                Err(GuestStop::MapGpa { gpa, pages, private, .. }) => {
                    let attributes = if private { ATTRIBUTE_PRIVATE } else { 0 };
                    let page = (gpa - TEST_MEMORY) / PAGE_SIZE;
                    self.convert(page, pages, attributes, 0).expect("a conversion");
                    result = self.guest.resume(soon());
                }
                Err(stop) => panic!("{command:?}: {stop}"),
            }
        }
        unreachable!("the loop above ends with a return")
    }

    fn host(&self, page: u64) -> u64 {
        self.host_page(page)[0]
    }

    fn host_page(&self, page: u64) -> [u64; 512] {
        let first = self.view.address().wrapping_add((page * PAGE_SIZE) as usize).cast::<u64>();
        // SAFETY: inside the view, in a page that is shared.
        std::array::from_fn(|index| unsafe { first.wrapping_add(index).read_volatile() })
    }
}

const SHARED: u64 = TEST_MEMORY;
const PRIVATE: u64 = PRIVATE_WINDOW + TEST_MEMORY;

fn page(address: u64, page: u64) -> u64 {
    address + page * PAGE_SIZE
}

fn accept(first: u64, pages: u64) -> GuestCommand {
    GuestCommand::Accept { address: page(PRIVATE, first), length: pages * PAGE_SIZE }
}

/// In every revision both platforms launch, the guest finds its image exactly as it is, and answers.
#[test]
fn guests_answer() {
    for dialect in Dialect::ALL {
        for platform in ENCRYPTED {
            let mut bench = Bench::new(platform, dialect, 4);
            for (offset, bytes) in (0..).step_by(8).zip(image(platform).chunks_exact(8)) {
                let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                assert_eq!(bench.read(IMAGE + offset), word, "{platform} {dialect} {offset:#x}");
            }
            bench.command(GuestCommand::Write { address: SHARED, word: 7 });
            assert_eq!(bench.host(0), 7);
            assert!(!bench.guest.can_reset());
            assert_eq!(bench.guest.reset(soon()), Err(LaunchError::CannotReset));
        }
    }
}

/// A private page is the guest's once it has accepted it: zeros on TDX, noise on SNP. What it writes there the host never
/// sees, whatever is converted how.
#[test]
fn private_memory_is_the_guests() {
    for dialect in Dialect::ALL {
        for platform in ENCRYPTED {
            let mut bench = Bench::new(platform, dialect, 4);
            let tag = pattern::tag(b'A', 1);
            assert_eq!(bench.convert(0, 4, ATTRIBUTE_PRIVATE, 0), Ok(()));
            assert_eq!(bench.refusal(accept(0, 2)), None);
            let fresh = bench.read(PRIVATE);
            assert_eq!(fresh == 0, platform == Platform::Tdx, "{platform}");
            let (address, length) = (PRIVATE, 2 * PAGE_SIZE);
            bench.command(GuestCommand::Fill { address, length, tag, first_page: 0 });
            let check = GuestCommand::Check { address, length, tag, first_page: 0 };
            assert_eq!(bench.command(check).mismatch, None);

            assert_eq!(bench.convert(0, 4, 0, 0), Ok(()));
            for page in 0..2 {
                let seen = bench.host_page(page);
                assert!(seen.iter().any(|word| *word != 0), "nothing has cleared it");
                for index in 0..pattern::WORDS_PER_PAGE {
                    let word = pattern::word(tag, page, index);
                    assert!(!seen.contains(&word), "{platform}: the host sees {word:#x}");
                }
            }
            // Never the guest's, so never encrypted.
            assert_eq!((bench.host(2), bench.host(3)), (0, 0));
            let shared = bench.host(0);
            assert_eq!(bench.read(SHARED), shared, "both see the same page");
        }
    }
}

/// The content modes of encrypted guests that run: ZERO to shared where there are modes, nothing else.
#[test]
fn content_modes() {
    let refused = Err(Errno::EOPNOTSUPP);
    for platform in ENCRYPTED {
        for dialect in [Dialect::RfcV4, Dialect::RfcV5] {
            let mut bench = Bench::new(platform, dialect, 3);
            assert_eq!(bench.convert(0, 2, ATTRIBUTE_PRIVATE, MODE_PRESERVE), refused);
            assert_eq!(bench.convert(0, 2, ATTRIBUTE_PRIVATE, MODE_ZERO), refused);
            assert_eq!(bench.convert(0, 2, ATTRIBUTE_PRIVATE, 0), Ok(()));
            bench.refusal(accept(0, 2));
            bench.command(GuestCommand::Write { address: PRIVATE, word: 5 });
            assert_eq!(bench.convert(0, 2, 0, MODE_PRESERVE), refused);
            assert_eq!(bench.convert(0, 3, 0, MODE_ZERO), Ok(()));
            assert_eq!(bench.host(0), 0);
        }
    }
}

/// Before the launch is finished RFC v5 preserves what becomes private, and only RFC v5.
#[test]
fn early_content_modes() {
    for platform in ENCRYPTED {
        for dialect in Dialect::ALL {
            let machine = model(dialect);
            let vm = crate::machine::Machine::create_vm(&machine, platform.vm_type()).unwrap();
            let gmem = vm.create_guest_memfd(PAGE_SIZE, 3).unwrap();
            let mut argument = MemoryAttributes2 {
                size: PAGE_SIZE,
                attributes: ATTRIBUTE_PRIVATE,
                flags: MODE_PRESERVE,
                ..Default::default()
            };
            // SAFETY: the argument is ours.
            let result = unsafe { gmem.set_memory_attributes2(&raw mut argument) };
            let expected = match dialect {
                Dialect::RfcV5 => Ok(()),
                Dialect::RfcV4 => Err(Errno::EOPNOTSUPP),
                _ => Err(Errno::EINVAL),
            };
            assert_eq!(result, expected, "{platform} {dialect}");
            let modes = match dialect {
                Dialect::RfcV5 => MODE_ZERO | MODE_PRESERVE,
                Dialect::RfcV4 => MODE_ZERO,
                _ => 0,
            };
            assert_eq!(vm.check_extension(250), Ok(modes as i32), "{platform} {dialect}");
        }
    }
}

/// An access through the wrong alias is an exit that says what the access wanted, and which page; once it is converted
/// the guest goes on.
#[test]
fn wrong_alias() {
    for platform in ENCRYPTED {
        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        let fault = |flags| GuestStop::MemoryFault { flags, gpa: page(TEST_MEMORY, 1), size: 4096 };
        let read = |address| GuestCommand::Read { address: page(address, 1) + 8 };
        assert_eq!(bench.guest.command(read(PRIVATE), soon()), Err(fault(8)));
        assert_eq!(bench.guest.resume(soon()), Err(fault(8)), "nobody has converted it");
        let accepting = GuestCommand::Accept { address: page(PRIVATE, 1), length: PAGE_SIZE };
        assert!(bench.guest.command(accepting, soon()).is_err(), "it is inside the other command");

        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        assert_eq!(bench.guest.command(accepting, soon()), Err(fault(8)));
        assert_eq!(bench.convert(1, 1, ATTRIBUTE_PRIVATE, 0), Ok(()));
        assert_eq!(bench.guest.resume(soon()).expect("it goes on").refusal, None);
        // An SNP guest's reads through the shared alias are not checked.
        if platform == Platform::Snp {
            assert!(bench.guest.command(read(SHARED), soon()).is_ok());
        } else {
            let mut bench = Bench::new(platform, Dialect::Upstream, 2);
            assert_eq!(bench.convert(1, 1, ATTRIBUTE_PRIVATE, 0), Ok(()));
            assert_eq!(bench.guest.command(read(SHARED), soon()), Err(fault(0)));
        }
        let write = GuestCommand::Write { address: page(SHARED, 1) + 8, word: 1 };
        assert_eq!(bench.guest.command(write, soon()), Err(fault(0)));
        assert_eq!(bench.convert(1, 1, 0, 0), Ok(()));
        bench.guest.resume(soon()).expect("it goes on");
    }
}

/// An access to a page that was not accepted: an exception that the SNP guest reports, the end of the TD. Afterwards
/// nothing goes on.
#[test]
fn access_before_acceptance() {
    let not_accepted = |platform| {
        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        assert_eq!(bench.convert(0, 2, ATTRIBUTE_PRIVATE, 0), Ok(()));
        let stop = bench.guest.command(GuestCommand::Read { address: PRIVATE }, soon());
        (bench, stop)
    };
    let (mut bench, stop) = not_accepted(Platform::Snp);
    let Err(GuestStop::Exception { vector, error_code, .. }) = stop else { panic!("{stop:?}") };
    assert_eq!((vector, error_code), (29, 0x404));
    let end = bench.guest.resume(soon()).expect_err("the payload ends");
    assert_eq!(end.to_string(), "the guest ended itself, reason set 0xd, code 0x9d");
    assert!(bench.guest.resume(soon()).is_err(), "there is nothing left to resume");

    let (bench, stop) = not_accepted(Platform::Tdx);
    assert_eq!(stop, Err(GuestStop::Dead));
    let create = bench.guest.vm().create_guest_memfd(PAGE_SIZE, 0);
    assert_eq!(create.err(), Some(Errno::EIO), "the VM is dead for every call");
}

/// What acceptance answers: nothing new the second time, after a rescission all over again, and after a conversion to
/// shared and back.
#[test]
fn acceptance() {
    for platform in ENCRYPTED {
        let mut bench = Bench::new(platform, Dialect::Upstream, 4);
        assert_eq!(bench.convert(0, 4, ATTRIBUTE_PRIVATE, 0), Ok(()));
        assert_eq!(bench.refusal(accept(1, 1)), None);
        let again = match platform {
            Platform::Snp => 1 << 32,
            _ => 0x0b0a << 32,
        };
        let refused = |offset, status| Some(Refusal { offset, status });
        assert_eq!(bench.refusal(accept(0, 4)), refused(PAGE_SIZE, again));
        let rescind = GuestCommand::Rescind { address: PRIVATE, length: 2 * PAGE_SIZE };
        assert_eq!(bench.refusal(rescind), None);
        let after = bench.refusal(accept(0, 2));
        assert_eq!(after.is_none(), platform == Platform::Snp, "a TD has nothing to rescind");
        assert_eq!(bench.convert(0, 4, 0, 0), Ok(()));
        assert_eq!(bench.convert(0, 4, ATTRIBUTE_PRIVATE, 0), Ok(()));
        assert_eq!(bench.refusal(accept(0, 4)), None);
        let shared_alias = GuestCommand::Accept { address: SHARED, length: PAGE_SIZE };
        let bad = match platform {
            Platform::Snp => 1,
            _ => 0xc000_0100_0000_0001,
        };
        assert_eq!(bench.refusal(shared_alias), refused(0, bad));
    }
}

/// A guest's requests reach the host in the platform's portions, and what the host answers reaches the guest.
#[test]
fn requests() {
    const PAGES: u64 = 1200;
    let state = |pages: u64, private, by_msr| GuestCommand::PageState {
        gpa: TEST_MEMORY,
        length: pages * PAGE_SIZE,
        private,
        by_msr,
    };
    let mut snp = Bench::new(Platform::Snp, Dialect::Upstream, PAGES);
    // 253 entries fit into a GHCB.
    assert_eq!(snp.request(state(PAGES, true, false)).0, 5);
    assert_eq!(snp.refusal(accept(0, PAGES)), None);
    let rescind = GuestCommand::Rescind { address: PRIVATE, length: 3 * PAGE_SIZE };
    assert_eq!(snp.refusal(rescind), None);
    assert_eq!(snp.request(state(3, false, true)).0, 3, "the MSR protocol goes page by page");
    snp.command(GuestCommand::Write { address: SHARED, word: 3 });
    assert_eq!(snp.host(0), 3);

    let mut tdx = Bench::new(Platform::Tdx, Dialect::Upstream, PAGES);
    assert_eq!(tdx.request(state(PAGES, true, false)).0, 3, "KVM passes on 2 MiB at a time");
    assert_eq!(tdx.refusal(accept(0, PAGES)), None);
    let no_msr = tdx.refusal(state(1, false, true)).map(|r| r.status);
    assert_eq!(no_msr, Some(refusal::NOT_THERE));

    for (platform, status) in [(Platform::Snp, 0x100 << 32), (Platform::Tdx, 1 << 63)] {
        let mut bench = Bench::new(platform, Dialect::Upstream, PAGES);
        let stop = bench.guest.command(state(1, true, false), soon());
        let request = GuestStop::MapGpa { gpa: TEST_MEMORY, pages: 1, private: true, page_size: 0 };
        assert_eq!(stop, Err(request.clone()));
        bench.guest.set_hypercall_result(Errno::EINVAL.0 as u64);
        let answer = bench.guest.resume(soon()).expect("the guest goes on");
        assert_eq!(answer.refusal, Some(Refusal { offset: 0, status }));

        bench.guest.command(state(1, true, false), soon()).expect_err("a request");
        bench.guest.set_hypercall_result(Errno::EAGAIN.0 as u64);
        let answer = bench.guest.resume(soon());
        match platform {
            Platform::Tdx => assert_eq!(answer, Err(request), "a TD tries again"),
            _ => assert!(answer.is_ok_and(|a| a.refusal.is_some())),
        }

        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        bench.guest.command(state(1, true, false), soon()).expect_err("a request");
        bench.guest.set_hypercall_result(Errno::ENOMEM.0 as u64);
        let not_for_guests = GuestStop::Failed("KVM_RUN", Errno::EINVAL);
        assert_eq!(bench.guest.resume(soon()), Err(not_for_guests));
    }
}

/// What no memslot backs: private memory is asked for, shared memory is a device's, which is an exception.
#[test]
fn no_memslot() {
    for platform in ENCRYPTED {
        let beyond = 9 * PAGE_SIZE;
        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        let private = bench.guest.command(GuestCommand::Read { address: PRIVATE + beyond }, soon());
        let gpa = TEST_MEMORY + beyond;
        assert_eq!(private, Err(GuestStop::MemoryFault { flags: 8, gpa, size: PAGE_SIZE }));
        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        let shared = bench.guest.command(GuestCommand::Read { address: SHARED + beyond }, soon());
        let vector = if platform == Platform::Snp { 29 } else { 20 };
        assert!(matches!(shared, Err(GuestStop::Exception { vector: v, .. }) if v == vector));
        let end = bench.guest.resume(soon());
        assert!(matches!(end, Err(GuestStop::Terminated { .. })), "{end:?}");
    }
}

/// A hole in private memory is a new page, which nobody has accepted.
#[test]
fn punched_pages_are_new() {
    for platform in ENCRYPTED {
        let mut bench = Bench::new(platform, Dialect::Upstream, 2);
        assert_eq!(bench.convert(0, 2, ATTRIBUTE_PRIVATE, 0), Ok(()));
        assert_eq!(bench.refusal(accept(0, 2)), None);
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(bench.gmem.fallocate(punch, 0, PAGE_SIZE), Ok(()));
        assert_eq!(bench.refusal(accept(0, 1)), None);
    }
}
