// SPDX-License-Identifier: GPL-2.0-only
//! The SEV-SNP payload.

use gmem_conform::payload::abi::{
    COPY_BUFFER, GHCB, LIST_WORDS, MAILBOX, PRIVATE_WINDOW, TEST_MEMORY, doorbell, operation,
    refusal, status, termination,
};
use gmem_conform::payload::pattern;
use payload_emulation::cpu::Exit;
use payload_emulation::ghcb::{
    BAD_HEADER, BAD_SCRATCH, CHANGE_PAGE, GENERIC_ERROR, IOIO, MALFORMED, PAGE_STATE_CHANGE,
    REGISTER, SEV_INFORMATION,
};
use payload_emulation::guest::{Answer, Guest, Kind, SNP_GUEST, TEST_SIZE, ring};
use payload_emulation::hypervisor::{EINVAL, Event};
use payload_emulation::memory::PAGE;
use payload_emulation::page_tables;

use super::common::*;

pub const CHECKS: &[crate::Check] = &[
    ("snp::commands_on_both_aliases", commands_on_both_aliases),
    ("snp::pages_go_to_and_fro", pages_go_to_and_fro),
    ("snp::requests_of_any_length", requests_of_any_length),
    ("snp::spin_never_answers", spin_never_answers),
    ("snp::wrong_alias_exits", wrong_alias_exits),
    ("snp::host_converts", host_converts),
    ("snp::pvalidate_statuses", pvalidate_statuses),
    ("snp::page_state_change_refused", page_state_change_refused),
    ("snp::page_state_change_in_parts", page_state_change_in_parts),
    ("snp::page_state_change_answered_badly", page_state_change_answered_badly),
    ("snp::page_state_change_by_msr_refused", page_state_change_by_msr_refused),
    ("snp::raw_lists", raw_lists),
    ("snp::raw_lists_refused", raw_lists_refused),
    ("snp::raw_msr", raw_msr),
    ("snp::start_refused", start_refused),
    ("snp::doorbell_refused", doorbell_refused),
    ("snp::exceptions_are_reported", exceptions_are_reported),
    ("snp::second_exception_ends", second_exception_ends),
];

/// KVM_EXIT_SYSTEM_EVENT of a termination request.
fn terminated(code: u64) -> Exit {
    Exit::Terminate(code << 16 | termination::SET << 12 | 0x100)
}

/// Every memory command through the shared and through the private alias.
fn commands_on_both_aliases() {
    let mut guest = Guest::started(&SNP_GUEST);
    use_page(&mut guest, page(3), Some(page(3)));
    to_private(&mut guest, 3, 1);
    use_page(&mut guest, private(3), None);
    finish(&guest);
}

/// A page goes to private and back, by each protocol, and the host never sees what the guest wrote while it was private.
fn pages_go_to_and_fro() {
    let mut guest = Guest::started(&SNP_GUEST);
    for (make_private, make_shared) in [
        (operation::MAKE_PRIVATE, operation::MAKE_SHARED),
        (operation::MAKE_PRIVATE_MSR, operation::MAKE_SHARED_MSR),
    ] {
        assert_eq!(guest.command(operation::FILL, page(5), 2 * PAGE, A, 5), OK);
        assert_eq!(on_pages(&mut guest, make_private, page(5), 2), OK);
        assert_eq!(on_pages(&mut guest, operation::ACCEPT, private(5), 2), OK);
        assert_eq!(guest.command(operation::FILL, private(5), 2 * PAGE, B, 5), OK);
        assert_eq!(guest.command(operation::CHECK, private(5), 2 * PAGE, B, 5), OK);
        assert_eq!(on_pages(&mut guest, operation::RESCIND, private(5), 2), OK);
        assert_eq!(on_pages(&mut guest, make_shared, page(5), 2), OK);
        for word in 0..2 * pattern::WORDS_PER_PAGE {
            let seen = guest.host_read(page(5) + word * 8);
            assert!(pattern::parse(seen).is_none_or(|(letter, ..)| letter != b'B'), "{seen:#x}");
        }
        use_page(&mut guest, page(5), Some(page(5)));
    }
    // By MSR each page is a request, through the GHCB pages in a row are one.
    let (first, second) = (page(5), page(6));
    let expected = [
        (first, 2, true),
        (first, 2, false),
        (first, 1, true),
        (second, 1, true),
        (first, 1, false),
        (second, 1, false),
    ];
    assert_eq!(guest.requests(), expected);
    finish(&guest);
}

/// Ranges of one page, of as many as one request has room for, and of more.
fn requests_of_any_length() {
    let mut guest = Guest::started(&SNP_GUEST);
    for pages in [1, 2, 252, 253, 254, 506, 507, TEST_SIZE / PAGE] {
        to_private(&mut guest, 0, pages);
        let last = private(pages - 1);
        assert_eq!(guest.command(operation::WRITE, last, 8, 1, 0), OK);
        assert_eq!(guest.command(operation::TOUCH, private(0), pages * PAGE, 0, 0), OK);
        to_shared(&mut guest, 0, pages);
        let requests = guest.requests();
        let changed: u64 = requests.iter().filter(|r| r.2).map(|r| r.1).sum();
        assert_eq!(changed, pages);
        assert!(requests.iter().all(|r| r.1 <= 253), "{requests:?}");
        assert_eq!(requests.len() as u64, 2 * pages.div_ceil(253));
    }
    finish(&guest);
}

/// The command for the runner's own tests does not answer.
fn spin_never_answers() {
    let mut guest = Guest::started(&SNP_GUEST);
    assert_eq!(guest.command(operation::SPIN, 0, 0, 0, 0), exit(Exit::Hang));
    finish(&guest);
}

/// An access through the wrong alias is the host's to handle, and goes on when it has.
fn wrong_alias_exits() {
    let mut guest = Guest::started(&SNP_GUEST);
    to_private(&mut guest, 0, 1);
    let answer = guest.command(operation::WRITE, page(0) + 8, 8, 9, 0);
    assert_eq!(answer, memory_fault(page(0), false));
    guest.machine.convert(page(0), false);
    assert_eq!(guest.run(), OK);
    assert_eq!(guest.host_read(page(0) + 8), 9);

    // Accepting a page that is shared is such an access, too: PVALIDATE is executed again when it is private.
    let answer = on_pages(&mut guest, operation::ACCEPT, private(1), 1);
    assert_eq!(answer, memory_fault(page(1), true));
    guest.machine.convert(page(1), true);
    assert_eq!(guest.run(), OK);
    finish(&guest);
}

/// The host makes a validated page shared and private again: the guest has to validate it again.
fn host_converts() {
    let mut guest = Guest::started(&SNP_GUEST);
    to_private(&mut guest, 4, 1);
    guest.machine.convert(page(4), false);
    guest.machine.convert(page(4), true);
    assert_eq!(on_pages(&mut guest, operation::ACCEPT, private(4), 1), OK);
    assert_eq!(guest.command(operation::WRITE, private(4), 8, 1, 0), OK);
    finish(&guest);
}

/// Each status of PVALIDATE is reported, with the page that it is about: what the CPU does by itself, then what a test has
/// it do.
fn pvalidate_statuses() {
    const CARRY: u64 = 1 << 32;
    let mut guest = Guest::started(&SNP_GUEST);
    to_private(&mut guest, 10, 4);
    assert_eq!(on_pages(&mut guest, operation::ACCEPT, private(12), 1), refused(0, CARRY));
    assert_eq!(on_pages(&mut guest, operation::RESCIND, private(12), 1), OK);
    let answer = on_pages(&mut guest, operation::RESCIND, private(10), 4);
    assert_eq!(answer, refused(2 * PAGE, CARRY));
    for (skip, status) in [(0, 1), (0, 6), (1, 6), (0, CARRY), (3, CARRY | 6), (2, 1)] {
        for operation in [operation::ACCEPT, operation::RESCIND] {
            guest.machine.convert(page(20), false);
            to_shared_if_private(&guest, 20, 4);
            let answer = on_pages(&mut guest, operation::MAKE_PRIVATE, page(20), 4);
            assert_eq!(answer, OK);
            if operation == operation::RESCIND {
                assert_eq!(on_pages(&mut guest, operation::ACCEPT, private(20), 4), OK);
            }
            guest.inject(Event::Pvalidate, skip, [status, 0]);
            let answer = on_pages(&mut guest, operation, private(20), 4);
            assert_eq!(answer, refused(u64::from(skip) * PAGE, status));
        }
    }
    finish(&guest);
}

/// The host makes pages shared again, if they are private.
fn to_shared_if_private(guest: &Guest, first: u64, pages: u64) {
    for i in first..first + pages {
        guest.machine.convert(page(i), false);
    }
}

/// Userspace refuses a page state change through the GHCB: the first pages, or those behind the first buffer, or in the
/// middle of one.
fn page_state_change_refused() {
    for operation in [operation::MAKE_PRIVATE, operation::MAKE_SHARED] {
        for (skip, pages, offset) in [(0, 1, 0), (0, 10, 0), (1, 300, 253), (2, 600, 506)] {
            let mut guest = Guest::started(&SNP_GUEST);
            guest.inject(Event::MapGpaRange, skip, [EINVAL, 0]);
            let answer = on_pages(&mut guest, operation, page(0), pages);
            assert_eq!(answer, refused(offset * PAGE, GENERIC_ERROR));
            // It goes on with the next command as if nothing had been.
            assert_eq!(on_pages(&mut guest, operation, page(0), pages), OK);
            finish(&guest);
        }
        let mut guest = Guest::started(&SNP_GUEST);
        guest.inject(Event::PscStops, 0, [7, 0]);
        guest.inject(Event::MapGpaRange, 1, [EINVAL, 0]);
        let answer = on_pages(&mut guest, operation, page(0), 20);
        assert_eq!(answer, refused(7 * PAGE, GENERIC_ERROR));
        finish(&guest);
    }
    // What the hypervisor says of the request itself.
    for answer in [[0, 1 << 32 | 1], [0, 1 << 32 | 2], [2, 4], [2, 5], [2, 1]] {
        let mut guest = Guest::started(&SNP_GUEST);
        guest.inject(Event::Ghcb(PAGE_STATE_CHANGE), 0, answer);
        let found = on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 3);
        assert_eq!(found, refused(0, answer[1]));
        finish(&guest);
    }
}

/// The hypervisor does a part, without an error: the guest asks for the rest. It may also have done nothing for a while.
fn page_state_change_in_parts() {
    let mut guest = Guest::started(&SNP_GUEST);
    guest.inject(Event::PscStops, 0, [1, 0]);
    guest.inject(Event::PscStops, 0, [100, 0]);
    guest.inject_times(Event::PscStops, 0, 15, [0, 0]);
    guest.inject(Event::PscStops, 0, [152, 0]);
    guest.inject_times(Event::PscStops, 0, 15, [0, 0]);
    guest.inject(Event::PscStops, 0, [40, 0]);
    to_private(&mut guest, 0, 300);
    let sizes: Vec<_> = guest.requests().iter().map(|r| r.1).collect();
    assert_eq!(sizes, [1, 100, 152, 40, 7]);
    finish(&guest);
}

/// Answers that are none by the rules of the protocol.
fn page_state_change_answered_badly() {
    let bad = |answered: u64| {
        let mut guest = Guest::started(&SNP_GUEST);
        guest.inject(Event::PscStops, 0, [4, 0]);
        guest.inject(Event::PscHeader, 1, [answered, 0]);
        let answer = on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 10);
        assert_eq!(answer, refused(4 * PAGE, refusal::BAD_ANSWER), "header {answered:#x}");
        finish(&guest);
    };
    // Backwards; behind the last entry; another last entry; reserved bits.
    for header in [9 << 16 | 3, 9 << 16 | 11, 8 << 16 | 5, 10 << 16 | 5, 1 << 32 | 9 << 16 | 5] {
        bad(header);
    }
    // An error without a reason.
    let mut guest = Guest::started(&SNP_GUEST);
    guest.inject(Event::Ghcb(PAGE_STATE_CHANGE), 0, [2, 0]);
    let answer = on_pages(&mut guest, operation::MAKE_SHARED, page(0), 1);
    assert_eq!(answer, refused(0, refusal::BAD_ANSWER));
    // Nothing, forever.
    guest.inject_times(Event::PscStops, 0, 16, [0, 0]);
    let answer = on_pages(&mut guest, operation::MAKE_SHARED, page(0), 1);
    assert_eq!(answer, refused(0, refusal::BAD_ANSWER));
    finish(&guest);
}

/// The same by the MSR protocol.
fn page_state_change_by_msr_refused() {
    for operation in [operation::MAKE_PRIVATE_MSR, operation::MAKE_SHARED_MSR] {
        for skip in [0, 1, 5] {
            let mut guest = Guest::started(&SNP_GUEST);
            let offset = u64::from(skip) * PAGE;
            guest.inject(Event::MapGpaRange, skip, [EINVAL, 0]);
            let answer = on_pages(&mut guest, operation, page(0), 6);
            assert_eq!(answer, refused(offset, 1 << 31), "KVM's error is bit 63 of the MSR");
            for (response, found) in [
                (5 << 32 | 0x015, 5),
                (0x014, refusal::BAD_ANSWER),
                (0x013, refusal::BAD_ANSWER),
                (0, refusal::BAD_ANSWER),
            ] {
                guest.inject(Event::Msr(CHANGE_PAGE), skip, [response, 0]);
                let answer = on_pages(&mut guest, operation, page(0), 6);
                assert_eq!(answer, refused(offset, found), "response {response:#x}");
            }
            assert_eq!(on_pages(&mut guest, operation, page(0), 6), OK);
            finish(&guest);
        }
    }
}

/// Puts a list at `scratch` in the shared buffer, `offset` bytes of it, and has the guest ask for it with the scratch area
/// at `scratch`.
fn raw_list(guest: &mut Guest, offset: u64, scratch: u64, list: &[u64]) -> Answer {
    for word in 0..LIST_WORDS {
        guest.host_write(COPY_BUFFER + word * 8, 0);
    }
    for (at, word) in (COPY_BUFFER + offset..).step_by(8).zip(list) {
        guest.host_write(at, *word);
    }
    guest.command(operation::RAW_LIST, scratch, 0, 0, 0)
}

/// What a raw request answers.
fn answered(found: u64, expected: u64) -> Answer {
    Answer::Done { status: status::OK, offset: 0, expected, found }
}

/// A list goes to the hypervisor as it is, wherever it begins in the shared buffer, and comes back as that leaves it.
fn raw_lists() {
    const PRIVATE: u64 = 1 << 52;
    const SHARED: u64 = 2 << 52;
    const DONE: u64 = 1;
    for offset in [0, 0x100, 0x7d0] {
        let mut guest = Guest::started(&SNP_GUEST);
        let entries = [page(1) | PRIVATE, page(4) | SHARED, page(5) | SHARED];
        // The first entry counts as done.
        for current in [0, 1] {
            let count = if offset == 0x7d0 { 2 } else { 3 };
            let header = (count - 1) << 16 | current;
            let list = [&[header], &entries[..count as usize]].concat();
            let scratch = GHCB + 0x800 + offset;
            assert_eq!(raw_list(&mut guest, offset, scratch, &list), answered(0, 0));
            let left = [0, 1].map(|word| guest.host_read(COPY_BUFFER + offset + word * 8));
            let first = entries[0] | if current == 0 { DONE } else { 0 };
            assert_eq!(left, [(count - 1) << 16 | count, first]);
            let all = [(page(1), 1, true), (page(4), count - 1, false)];
            assert_eq!(guest.requests(), all[current as usize..]);
        }
        finish(&guest);
    }
}

/// What is wrong with a list the guest passes on, and what the hypervisor says of that.
fn raw_lists_refused() {
    let header = |current: u64, last: u64| last << 16 | current;
    for (offset, scratch, header, expected) in [
        (0, GHCB + 0x800, header(0, 253), answered(0, BAD_HEADER)),
        (0, GHCB + 0x800, header(3, 2), answered(0, BAD_HEADER)),
        (0x7e0, GHCB + 0xfe0, header(0, 1), answered(0, BAD_HEADER)),
        (0, GHCB + 0x7f8, header(0, 0), answered(MALFORMED, BAD_SCRATCH)),
        (0, GHCB + 0xff0, header(0, 0), answered(MALFORMED, BAD_SCRATCH)),
        (0, COPY_BUFFER, header(0, 0), answered(MALFORMED, BAD_SCRATCH)),
    ] {
        let mut guest = Guest::started(&SNP_GUEST);
        assert_eq!(raw_list(&mut guest, offset, scratch, &[header]), expected, "{scratch:#x}");
        let violations = guest.machine.world(|w| std::mem::take(&mut w.hypervisor.violations));
        assert_eq!((violations.len(), guest.requests().len()), (1, 0), "{violations:?}");
        finish(&guest);
    }
    let mut guest = Guest::started(&SNP_GUEST);
    guest.inject(Event::MapGpaRange, 0, [EINVAL, 0]);
    let answer = raw_list(&mut guest, 0, GHCB + 0x800, &[0, page(1) | 1 << 52]);
    assert_eq!(answer, answered(0, GENERIC_ERROR));
    finish(&guest);
}

/// One request of the MSR protocol, good or bad, and its response.
fn raw_msr() {
    let mut guest = Guest::started(&SNP_GUEST);
    for (operation, response, violations) in [(1, 0x015, 0), (2, 0x015, 0), (3, 1 << 63 | 0x015, 1)]
    {
        let request = operation << 52 | page(2) | CHANGE_PAGE;
        let answer = guest.command(operation::RAW_MSR, request, 0, 0, 0);
        assert_eq!(answer, answered(response, 0));
        let found = guest.machine.world(|w| std::mem::take(&mut w.hypervisor.violations));
        assert_eq!(found.len(), violations, "{found:?}");
    }
    assert_eq!(guest.requests(), [(page(2), 1, true), (page(2), 1, false)]);
    // There is no such request on this platform.
    let answer = guest.command(operation::RAW_MAP_GPA, page(2), PAGE, 0, 0);
    assert_eq!(answer, answered(refusal::NOT_THERE, 0));
    finish(&guest);
}

/// A hypervisor that does not speak the protocol, or refuses the GHCB: the guest says so and ends, however often it is run
/// again.
fn start_refused() {
    let ends = |guest: &mut Guest, code: u64| {
        for _ in 0..3 {
            assert_eq!(guest.machine.run(), terminated(code));
        }
        finish(guest);
    };
    for versions in [(1, 1), (3, 3)] {
        ends(&mut Guest::new(&Kind::Snp { versions }), termination::NO_VERSION);
    }
    let mut guest = Guest::new(&SNP_GUEST);
    // A request that is not known leaves the MSR as it is.
    guest.inject(Event::Msr(SEV_INFORMATION), 0, [SEV_INFORMATION, 0]);
    ends(&mut guest, termination::NO_VERSION);
    for response in [!0xfff | 0x013, 0x0000_1000 | 0x013, GHCB | REGISTER, GHCB | 0x015] {
        let mut guest = Guest::new(&SNP_GUEST);
        guest.inject(Event::Msr(REGISTER), 0, [response, 0]);
        ends(&mut guest, termination::NOT_REGISTERED);
    }
    for versions in [(1, 2), (2, 2), (1, 3), (2, 4)] {
        finish(&Guest::started(&Kind::Snp { versions }));
    }
}

/// The doorbell cannot be rung: the guest ends.
fn doorbell_refused() {
    for answer in [[1, 0x8000_000d], [2, 1], [2, 4]] {
        for skip in [0, 1] {
            let mut guest = Guest::new(&SNP_GUEST);
            guest.inject(Event::Ghcb(IOIO), skip, answer);
            if skip == 1 {
                assert_eq!(guest.machine.run(), ring(doorbell::READY));
                let answer = guest.command(operation::TOUCH, page(0), PAGE, 0, 0);
                assert_eq!(answer, exit(terminated(termination::NO_DOORBELL)));
            }
            assert_eq!(guest.machine.run(), terminated(termination::NO_DOORBELL));
            finish(&guest);
        }
    }
}

/// Each exception that a command can lead to is reported with its vector, its error code and its address, and ends the
/// guest.
fn exceptions_are_reported() {
    let unmapped = PRIVATE_WINDOW + (64 << 30);
    let no_memslot = TEST_MEMORY + TEST_SIZE;
    for (operation, address, expected) in [
        // Private, but not validated.
        (operation::READ, private(0), (29, 0x404, Some(private(0)))),
        (operation::WRITE, private(0) + 0x18, (29, 0x404, Some(private(0) + 0x18))),
        // MMIO.
        (operation::READ, no_memslot + 8, (29, 0x400, Some(no_memslot + 8))),
        // Not mapped.
        (operation::READ, unmapped + 8, (14, 0, Some(unmapped + 8))),
        (operation::WRITE, unmapped + 0x10, (14, 2, Some(unmapped + 0x10))),
        (operation::ACCEPT, unmapped, (14, 0, Some(unmapped))),
        // Not canonical.
        (operation::READ, 1 << 47, (13, 0, None)),
        (operation::WRITE, 1 << 63, (13, 0, None)),
    ] {
        let mut guest = Guest::started(&SNP_GUEST);
        assert_eq!(on_pages(&mut guest, operation::MAKE_PRIVATE, page(0), 1), OK);
        let answer = guest.command(operation, address, 8, 0, 0);
        let Answer::Exception { vector, error_code, rip, cr2 } = answer else {
            panic!("{answer:x?} after operation {operation} at {address:#x}");
        };
        assert_eq!((vector, error_code), (expected.0, expected.1), "at {address:#x}");
        assert!(expected.2.is_none_or(|a| a == cr2), "{cr2:#x}");
        let image = payload_emulation::guest::image(&SNP_GUEST).len() as u64;
        let start = gmem_conform::payload::abi::IMAGE;
        assert!((start..start + image).contains(&rip), "{rip:#x}");
        for _ in 0..2 {
            assert_eq!(guest.machine.run(), terminated(termination::EXCEPTION | vector));
        }
        finish(&guest);
    }
}

/// An exception whose report fails ends the guest at once: no mailbox to write to, or no doorbell to ring.
fn second_exception_ends() {
    let mut guest = Guest::started(&SNP_GUEST);
    guest.machine.world(|w| page_tables::unmap(&mut w.memory, MAILBOX));
    let answer = guest.command(operation::TOUCH, page(0), PAGE, 0, 0);
    assert_eq!(answer, exit(terminated(termination::EXCEPTION | 14)));
    finish(&guest);

    let mut guest = Guest::started(&SNP_GUEST);
    guest.inject(Event::Ghcb(IOIO), 0, [2, 2]);
    let answer = guest.command(operation::READ, 1 << 47, 8, 0, 0);
    assert_eq!(answer, exit(terminated(termination::NO_DOORBELL)));
    finish(&guest);

    // An exception that has nothing to do with the mailbox.
    let mut guest = Guest::started(&SNP_GUEST);
    guest.machine.world(|w| page_tables::unmap(&mut w.memory, COPY_BUFFER));
    let answer = guest.command(operation::COPY_OUT, page(0), PAGE, 0, 0);
    let Answer::Exception { vector: 14, error_code: 2, cr2: COPY_BUFFER, .. } = answer else {
        panic!("{answer:x?}");
    };
    finish(&guest);
}
