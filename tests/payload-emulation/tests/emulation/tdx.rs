// SPDX-License-Identifier: GPL-2.0-only
//! The TDX payload.

use gmem_conform::payload::abi::{
    IMAGE, MAILBOX, PRIVATE_WINDOW, TEST_MEMORY, doorbell, operation, refusal, termination,
};
use gmem_conform::payload::pattern;
use payload_emulation::cpu::Exit;
use payload_emulation::guest::{Answer, Guest, Kind, TDX_GUEST, TEST_SIZE, image, ring};
use payload_emulation::hypervisor::{EAGAIN, EINVAL, Event};
use payload_emulation::memory::PAGE;
use payload_emulation::page_tables;
use payload_emulation::tdx::{ALREADY_ACCEPTED, OPERAND_BUSY, OPERAND_INVALID, SIZE_MISMATCH};
use payload_emulation::vmcall::{
    ALIGN_ERROR, INVALID_OPERAND, IO, MAP_GPA, REPORT_FATAL_ERROR, RETRY,
};

use super::common::*;

pub const CHECKS: &[crate::Check] = &[
    ("tdx::commands_on_both_aliases", commands_on_both_aliases),
    ("tdx::pages_go_to_and_fro", pages_go_to_and_fro),
    ("tdx::requests_of_any_length", requests_of_any_length),
    ("tdx::spin_never_answers", spin_never_answers),
    ("tdx::wrong_alias_exits", wrong_alias_exits),
    ("tdx::msr_protocol_is_not_there", msr_protocol_is_not_there),
    ("tdx::accept_statuses", accept_statuses),
    ("tdx::map_gpa_refused", map_gpa_refused),
    ("tdx::map_gpa_retried", map_gpa_retried),
    ("tdx::map_gpa_answered_badly", map_gpa_answered_badly),
    ("tdx::raw_map_gpa", raw_map_gpa),
    ("tdx::doorbell_refused", doorbell_refused),
    ("tdx::exceptions_are_reported", exceptions_are_reported),
    ("tdx::unaccepted_page_ends", unaccepted_page_ends),
    ("tdx::second_exception_ends", second_exception_ends),
];

/// The guest with the other width of addresses: the shared bit is another one.
const WIDE: Kind = Kind::Tdx { gpaw: 52, sept_ve_disable: true };

/// 2 MiB, which is as much as KVM does of MapGPA at once.
const CHUNK: u64 = 512;

/// What is at `address`.
fn read(guest: &mut Guest, address: u64) -> u64 {
    match guest.command(operation::READ, address, 8, 0, 0) {
        Answer::Done { status: 0, found, .. } => found,
        other => panic!("{other:x?}"),
    }
}

/// From the reset vector on, every memory command through the shared and through the private alias, with either width of
/// guest physical addresses.
fn commands_on_both_aliases() {
    for kind in [TDX_GUEST, WIDE] {
        let mut guest = Guest::started(&kind);
        use_page(&mut guest, page(3), Some(page(3)));
        to_private(&mut guest, 3, 1);
        use_page(&mut guest, private(3), None);
        finish(&guest);
    }
}

/// A page goes to private, is zero, goes back, and the host never sees what the guest wrote while it was private.
fn pages_go_to_and_fro() {
    for kind in [TDX_GUEST, WIDE] {
        let mut guest = Guest::started(&kind);
        for _ in 0..2 {
            assert_eq!(guest.command(operation::FILL, page(5), 2 * PAGE, A, 5), OK);
            to_private(&mut guest, 5, 2);
            let zero = pattern::ZERO;
            assert_eq!(guest.command(operation::CHECK, private(5), 2 * PAGE, zero, 5), OK);
            assert_eq!(guest.command(operation::FILL, private(5), 2 * PAGE, B, 5), OK);
            assert_eq!(guest.command(operation::CHECK, private(5), 2 * PAGE, B, 5), OK);
            to_shared(&mut guest, 5, 2);
            for word in 0..2 * pattern::WORDS_PER_PAGE {
                let seen = guest.host_read(page(5) + word * 8);
                let letter = pattern::parse(seen).map(|(letter, ..)| letter);
                assert_ne!(letter, Some(b'B'), "{seen:#x}");
            }
            use_page(&mut guest, page(5), Some(page(5)));
        }
        let [there, back] = [(page(5), 2, true), (page(5), 2, false)];
        assert_eq!(guest.requests(), [there, back, there, back]);
        finish(&guest);
    }
}

/// Ranges of one page, of as many as KVM does at once, and of more.
fn requests_of_any_length() {
    let mut guest = Guest::started(&TDX_GUEST);
    for pages in [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, TEST_SIZE / PAGE] {
        to_private(&mut guest, 0, pages);
        assert_eq!(guest.command(operation::CHECK, private(0), pages * PAGE, 0, 0), OK);
        to_shared(&mut guest, 0, pages);
        let requests = guest.requests();
        let changed: u64 = requests.iter().filter(|r| r.2).map(|r| r.1).sum();
        assert_eq!(changed, pages);
        assert_eq!(requests.len() as u64, 2 * pages.div_ceil(CHUNK));
    }
    finish(&guest);
}

/// The command for the runner's own tests does not answer.
fn spin_never_answers() {
    let mut guest = Guest::started(&TDX_GUEST);
    assert_eq!(guest.command(operation::SPIN, 0, 0, 0, 0), exit(Exit::Hang));
    finish(&guest);
}

/// An access through the wrong alias is the host's to handle, and goes on when it has.
fn wrong_alias_exits() {
    let mut guest = Guest::started(&WIDE);
    to_private(&mut guest, 0, 1);
    let answer = guest.command(operation::WRITE, page(0) + 8, 8, 9, 0);
    assert_eq!(answer, memory_fault(page(0), false));
    guest.machine.convert(page(0), false);
    assert_eq!(guest.run(), OK);
    assert_eq!(guest.host_read(page(0) + 8), 9);
    // The host has made it shared without being asked.
    to_private(&mut guest, 1, 1);
    guest.machine.convert(page(1), false);
    let answer = guest.command(operation::READ, private(1), 8, 0, 0);
    assert_eq!(answer, memory_fault(page(1), true));

    // Accepting a page that is shared is such an access, too.
    let mut guest = Guest::started(&WIDE);
    let answer = on_pages(&mut guest, operation::ACCEPT, private(2), 1);
    assert_eq!(answer, memory_fault(page(2), true));
    guest.machine.convert(page(2), true);
    assert_eq!(guest.run(), OK);
    assert_eq!(read(&mut guest, private(2)), 0);
    finish(&guest);
}

/// Page state changes by the GHCB's MSR protocol are refused, and RESCIND has nothing to do.
fn msr_protocol_is_not_there() {
    let mut guest = Guest::started(&TDX_GUEST);
    for operation in [operation::MAKE_PRIVATE_MSR, operation::MAKE_SHARED_MSR] {
        let answer = on_pages(&mut guest, operation, page(0), 2);
        assert_eq!(answer, refused(0, refusal::NOT_THERE));
    }
    assert_eq!(on_pages(&mut guest, operation::RESCIND, private(0), 2), OK);
    assert_eq!(guest.requests(), []);
    finish(&guest);
}

/// Each status of MEM.PAGE.ACCEPT is reported, with the page that it is about; one that asks for another try gets it.
fn accept_statuses() {
    let mut guest = Guest::started(&TDX_GUEST);
    to_private(&mut guest, 10, 1);
    assert_eq!(guest.command(operation::WRITE, private(10), 8, 7, 0), OK);
    assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(8), 4), OK);
    let answer = on_pages(&mut guest, operation::ACCEPT, private(8), 4);
    assert_eq!(answer, refused(2 * PAGE, ALREADY_ACCEPTED | 1));
    assert_eq!(read(&mut guest, private(10)), 7, "accepting again changes nothing");

    for status in [SIZE_MISMATCH | 1, OPERAND_INVALID | 1, ALREADY_ACCEPTED, 0xc000_0300_0000_0000]
    {
        for skip in [0, 3] {
            let mut guest = Guest::started(&TDX_GUEST);
            assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 4), OK);
            guest.inject(Event::Accept, skip, [status, 0]);
            let answer = on_pages(&mut guest, operation::ACCEPT, private(0), 4);
            assert_eq!(answer, refused(u64::from(skip) * PAGE, status));
            finish(&guest);
        }
    }

    let mut guest = Guest::started(&TDX_GUEST);
    assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 4), OK);
    guest.inject_times(Event::Accept, 1, 100, [OPERAND_BUSY | 1, 0]);
    assert_eq!(on_pages(&mut guest, operation::ACCEPT, private(0), 4), OK);
    to_shared(&mut guest, 0, 4);
    // For so long that something else must be wrong.
    assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 4), OK);
    guest.inject_times(Event::Accept, 2, 4097, [OPERAND_BUSY | 1, 0]);
    let answer = on_pages(&mut guest, operation::ACCEPT, private(0), 4);
    assert_eq!(answer, refused(2 * PAGE, OPERAND_BUSY | 1));
    finish(&guest);
}

/// Userspace or the hypervisor refuses MapGPA: at the start or behind the first chunks.
fn map_gpa_refused() {
    for operation in [operation::MAKE_PRIVATE, operation::MAKE_SHARED] {
        for (skip, pages) in [(0, 1), (0, 600), (1, 600), (2, 1100)] {
            let mut guest = Guest::started(&WIDE);
            guest.inject(Event::MapGpaRange, skip, [EINVAL, 0]);
            let offset = u64::from(skip) * CHUNK * PAGE;
            let answer = on_pages(&mut guest, operation, page(0), pages);
            assert_eq!(answer, refused(offset, INVALID_OPERAND));
            assert_eq!(on_pages(&mut guest, operation, page(0), pages), OK);
            finish(&guest);
        }
        // Statuses about the request as a whole, which say nothing about where.
        for status in [INVALID_OPERAND, ALIGN_ERROR, 0x8000_0000_0000_0003, 0x8000_0000_0000_0001] {
            let mut guest = Guest::started(&TDX_GUEST);
            guest.inject(Event::Vmcall(MAP_GPA), 0, [status, 0]);
            let answer = on_pages(&mut guest, operation, page(7), 3);
            assert_eq!(answer, refused(0, status));
            finish(&guest);
        }
    }
}

/// R10 and R11 after a MapGPA that the guest passes on.
fn map_gpa(guest: &mut Guest, gpa: u64, size: u64) -> (u64, u64) {
    match guest.command(operation::RAW_MAP_GPA, gpa, size, 0, 0) {
        Answer::Done { status: 0, offset: 0, expected, found } => (found, expected),
        other => panic!("{other:x?}"),
    }
}

/// One MapGPA goes to the hypervisor as it is, with the shared bit or without, and what it answers comes back.
fn raw_map_gpa() {
    for (kind, shared_bit) in [(TDX_GUEST, 1 << 47), (WIDE, 1 << 51)] {
        let mut guest = Guest::started(&kind);
        for (alias, private) in [(0, true), (shared_bit, false)] {
            assert_eq!(map_gpa(&mut guest, page(3) | alias, 2 * PAGE).0, 0);
            assert_eq!(guest.requests(), [(page(3), 2, private)]);
            guest.inject(Event::MapGpaRange, 1, [EAGAIN, 0]);
            let answer = map_gpa(&mut guest, page(5) | alias, 600 * PAGE);
            assert_eq!(answer, (RETRY, page(5 + CHUNK) | alias));
            let rest = (page(5 + CHUNK), 600 - CHUNK, private);
            assert_eq!(guest.requests(), [(page(5), CHUNK, private), rest]);
        }
        for (gpa, size, status) in [
            (page(3), 0, INVALID_OPERAND),
            (page(3) + 8, PAGE, ALIGN_ERROR),
            (page(3), PAGE + 8, ALIGN_ERROR),
            (page(3), PAGE.wrapping_neg(), INVALID_OPERAND),
        ] {
            assert_eq!(map_gpa(&mut guest, gpa, size).0, status, "{gpa:#x} {size:#x}");
            let found = guest.machine.world(|w| std::mem::take(&mut w.hypervisor.violations));
            assert_eq!((found.len(), guest.requests().len()), (1, 0), "{found:?}");
        }
        // There are no such requests on this platform.
        for operation in [operation::RAW_LIST, operation::RAW_MSR] {
            let answer = guest.command(operation, page(0), 0, 0, 0);
            let not_there =
                Answer::Done { status: 0, offset: 0, expected: 0, found: refusal::NOT_THERE };
            assert_eq!(answer, not_there);
        }
        finish(&guest);
    }
}

/// The hypervisor or userspace asks to be asked again: because an interrupt is pending, or because a page is in use.
fn map_gpa_retried() {
    for (kind, operation) in [(TDX_GUEST, operation::MAKE_PRIVATE), (WIDE, operation::MAKE_PRIVATE)]
        .into_iter()
        .chain([(TDX_GUEST, operation::MAKE_SHARED), (WIDE, operation::MAKE_SHARED)])
    {
        let private = operation == operation::MAKE_PRIVATE;
        let mut guest = Guest::started(&kind);
        guest.inject(Event::MapGpaStops, 0, [1, 0]);
        guest.inject_times(Event::MapGpaStops, 0, 15, [0, 0]);
        guest.inject(Event::MapGpaRange, 2, [EAGAIN, 0]);
        assert_eq!(on_pages(&mut guest, operation, page(0), 1200), OK);
        let rest = 1200 - 2 * CHUNK;
        let expected = [
            (page(0), CHUNK, private),
            (page(CHUNK), CHUNK, private),
            (page(2 * CHUNK), rest, private),
            (page(2 * CHUNK), rest, private),
        ];
        assert_eq!(guest.requests(), expected);
        finish(&guest);
    }
    // A page that stays in use.
    let mut guest = Guest::started(&TDX_GUEST);
    guest.inject_times(Event::MapGpaRange, 1, 17, [EAGAIN, 0]);
    let answer = on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 600);
    assert_eq!(answer, refused(CHUNK * PAGE, RETRY));
    finish(&guest);
}

/// A retry from where it was not asked for.
fn map_gpa_answered_badly() {
    let end = page(600);
    let shared = 1 << 47;
    for from in [0, page(0), page(9) + 8, end, end + PAGE, u64::MAX, shared | end] {
        let mut guest = Guest::started(&TDX_GUEST);
        guest.inject(Event::MapGpaStops, 0, [1, 0]);
        guest.inject(Event::Vmcall(MAP_GPA), 1, [RETRY, from]);
        let answer = on_pages(&mut guest, operation::MAKE_SHARED, page(0), 600);
        assert_eq!(answer, refused(CHUNK * PAGE, refusal::BAD_ANSWER), "from {from:#x}");
        finish(&guest);
    }
}

/// The doorbell cannot be rung: the guest ends, however often it is run again, even if that is not known to the hypervisor
/// at first.
fn doorbell_refused() {
    for status in [INVALID_OPERAND, 0x8000_0000_0000_0003, RETRY] {
        for skip in [0, 1] {
            let mut guest = Guest::new(&TDX_GUEST);
            guest.inject(Event::Vmcall(IO), skip, [status, 0]);
            guest.inject(Event::Vmcall(REPORT_FATAL_ERROR), 0, [INVALID_OPERAND, 0]);
            let ended = Exit::FatalError(termination::NO_DOORBELL);
            if skip == 1 {
                assert_eq!(guest.machine.run(), ring(doorbell::READY));
                let answer = guest.command(operation::TOUCH, page(0), PAGE, 0, 0);
                assert_eq!(answer, exit(ended.clone()));
            }
            for _ in 0..2 {
                assert_eq!(guest.machine.run(), ended);
            }
            finish(&guest);
        }
    }
}

/// Each exception that a command can lead to is reported, and ends the guest. #VE is reported with its reason and address,
/// which only the module knows.
fn exceptions_are_reported() {
    let unmapped = PRIVATE_WINDOW + (64 << 30);
    let no_memslot = TEST_MEMORY + TEST_SIZE;
    for (operation, address, expected) in [
        // Private, but not accepted.
        (operation::READ, private(0) + 0x28, (20, 48, Some(private(0) + 0x28))),
        (operation::WRITE, private(0), (20, 48, Some(private(0)))),
        // MMIO.
        (operation::WRITE, no_memslot + 8, (20, 48, Some(no_memslot + 8))),
        // Not mapped.
        (operation::READ, unmapped + 8, (14, 0, Some(unmapped + 8))),
        (operation::WRITE, unmapped + 0x10, (14, 2, Some(unmapped + 0x10))),
        // Not canonical.
        (operation::READ, 1 << 47, (13, 0, None)),
        (operation::WRITE, 1 << 63, (13, 0, None)),
    ] {
        let mut guest = Guest::started(&TDX_GUEST);
        assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 1), OK);
        let answer = guest.command(operation, address, 8, 0, 0);
        let Answer::Exception { vector, error_code, rip, cr2 } = answer else {
            panic!("{answer:x?} after operation {operation} at {address:#x}");
        };
        assert_eq!((vector, error_code), (expected.0, expected.1), "at {address:#x}");
        assert!(expected.2.is_none_or(|a| a == cr2), "{cr2:#x}");
        assert!((IMAGE..IMAGE + image(&TDX_GUEST).len() as u64).contains(&rip), "{rip:#x}");
        for _ in 0..2 {
            let ended = Exit::FatalError(termination::EXCEPTION | vector);
            assert_eq!(guest.machine.run(), ended);
        }
        finish(&guest);
    }
}

/// With SEPT_VE_DISABLE an access to a page that is not accepted is not the guest's to report.
fn unaccepted_page_ends() {
    let mut guest = Guest::started(&WIDE);
    assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 1), OK);
    let answer = guest.command(operation::READ, private(0), 8, 0, 0);
    assert_eq!(answer, exit(Exit::NotAccepted { gpa: page(0) }));
    finish(&guest);
}

/// An exception whose report fails ends the guest at once: no mailbox to write to, or no doorbell to ring.
fn second_exception_ends() {
    let mut guest = Guest::started(&TDX_GUEST);
    guest.machine.world(|w| page_tables::unmap(&mut w.memory, MAILBOX));
    let answer = guest.command(operation::TOUCH, page(0), PAGE, 0, 0);
    assert_eq!(answer, exit(Exit::FatalError(termination::EXCEPTION | 14)));
    finish(&guest);

    let mut guest = Guest::started(&TDX_GUEST);
    guest.inject(Event::Vmcall(IO), 0, [INVALID_OPERAND, 0]);
    let answer = guest.command(operation::READ, 1 << 47, 8, 0, 0);
    assert_eq!(answer, exit(Exit::FatalError(termination::NO_DOORBELL)));
    finish(&guest);
}
