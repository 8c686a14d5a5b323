// SPDX-License-Identifier: GPL-2.0-only
//! What the checks have in common.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::offset_of;

use gmem_conform::payload::abi::{
    COPY_BUFFER, MAILBOX, Mailbox, PRIVATE_WINDOW, TEST_MEMORY, operation, status,
};
use gmem_conform::payload::pattern;
use payload_emulation::cpu::Exit;
use payload_emulation::guest::{Answer, Guest};
use payload_emulation::memory::PAGE;

/// A page of the memory under test.
pub const fn page(index: u64) -> u64 {
    TEST_MEMORY + index * PAGE
}

/// Its private alias.
pub const fn private(index: u64) -> u64 {
    PRIVATE_WINDOW + page(index)
}

/// A pattern.
pub const A: u64 = pattern::tag(b'A', 1);
/// Another one.
pub const B: u64 = pattern::tag(b'B', 2);

/// The answer to a command that went well.
pub const OK: Answer = Answer::Done { status: status::OK, offset: 0, expected: 0, found: 0 };

/// The answer to a command that was refused at the byte `offset`.
pub const fn refused(offset: u64, found: u64) -> Answer {
    Answer::Done { status: status::REFUSED, offset, expected: 0, found }
}

/// An exit.
pub const fn exit(exit: Exit) -> Answer {
    Answer::Exit(exit)
}

/// KVM_EXIT_MEMORY_FAULT.
pub const fn memory_fault(gpa: u64, private: bool) -> Answer {
    exit(Exit::MemoryFault { gpa, private })
}

/// Gives a command that takes a range only, `pages` at `address`.
pub fn on_pages(guest: &mut Guest, operation: u64, address: u64, pages: u64) -> Answer {
    guest.command(operation, address, pages * PAGE, 0, 0)
}

/// Makes `pages` from `first` on private and usable, by the guest's own request.
pub fn to_private(guest: &mut Guest, first: u64, pages: u64) {
    assert_eq!(on_pages(guest, operation::MAKE_PRIVATE, page(first), pages), OK);
    assert_eq!(on_pages(guest, operation::ACCEPT, private(first), pages), OK);
}

/// Gives `pages` from `first` on up and makes them shared, by the guest's own request.
pub fn to_shared(guest: &mut Guest, first: u64, pages: u64) {
    assert_eq!(on_pages(guest, operation::RESCIND, private(first), pages), OK);
    assert_eq!(on_pages(guest, operation::MAKE_SHARED, page(first), pages), OK);
}

/// All that the command loop has for memory, at the page that is mapped at `address`; `by_host` reads a word of that page
/// as the host does, if the host can.
pub fn use_page(guest: &mut Guest, address: u64, by_host: Option<u64>) {
    assert_eq!(guest.command(operation::FILL, address, PAGE, A, 7), OK);
    assert_eq!(guest.command(operation::CHECK, address, PAGE, A, 7), OK);
    let word = pattern::word(A, 7, 511);
    let read = Answer::Done { status: status::OK, offset: 0, expected: 0, found: word };
    assert_eq!(guest.command(operation::READ, address + PAGE - 8, 8, 0, 0), read);
    assert_eq!(guest.command(operation::WRITE, address + 0x10, 8, 42, 0), OK);
    let expected = pattern::word(A, 7, 2);
    let mismatch = Answer::Done { status: status::MISMATCH, offset: 0x10, expected, found: 42 };
    assert_eq!(guest.command(operation::CHECK, address, PAGE, A, 7), mismatch);
    // Two ranges, the first of them without the difference.
    for (at, word) in [address, 0x10, A, 7, address, PAGE, A, 7].into_iter().enumerate() {
        guest.host_write(COPY_BUFFER + at as u64 * 8, word);
    }
    assert_eq!(guest.command(operation::CHECK_LIST, 0, 1, 0, 0), OK);
    assert_eq!(guest.command(operation::CHECK_LIST, 0, 2, 0, 0), mismatch);
    assert_eq!(guest.host_read(MAILBOX + offset_of!(Mailbox, range) as u64), 1);
    assert_eq!(guest.command(operation::TOUCH, address, PAGE, 0, 0), OK);
    assert_eq!(guest.command(operation::COPY_OUT, address, PAGE, 0, 0), OK);
    let copied = [0x10, PAGE - 8].map(|offset| guest.host_read(COPY_BUFFER + offset));
    assert_eq!(copied, [42, word]);
    if let Some(gpa) = by_host {
        assert_eq!([guest.host_read(gpa + 0x10), guest.host_read(gpa + PAGE - 8)], [42, word]);
        guest.host_write(gpa + 8, 43);
        let read = Answer::Done { status: status::OK, offset: 0, expected: 0, found: 43 };
        assert_eq!(guest.command(operation::READ, address + 8, 8, 0, 0), read);
    }
    let unknown =
        Answer::Done { status: status::UNKNOWN_OPERATION, offset: 0, expected: 0, found: 0 };
    assert_eq!(guest.command(99, address, PAGE, 0, 0), unknown);
}

/// What has been counted over all checks.
#[derive(Default)]
struct Totals {
    guests: u64,
    instructions: u64,
    commands: BTreeMap<u64, u64>,
    outcomes: BTreeMap<String, u64>,
    errors: u64,
    injected: BTreeMap<String, u64>,
    bugs: u64,
}

thread_local! {
    static TOTALS: RefCell<Totals> = RefCell::default();
}

/// The end of a guest that must not have broken a rule, nor have missed an error that was meant for it.
pub fn finish(guest: &Guest) {
    assert_eq!(guest.violations(), Vec::<String>::new());
    let (left, injected) =
        guest.machine.world(|w| (w.hypervisor.injections.len(), w.hypervisor.injected.clone()));
    assert_eq!(left, 0, "errors that have not happened");
    TOTALS.with_borrow_mut(|totals| {
        totals.guests += 1;
        totals.errors += guest.errors;
        totals.instructions += guest.machine.executed();
        for (&operation, &n) in &guest.commands {
            *totals.commands.entry(operation).or_default() += n;
        }
        for (outcome, &n) in &guest.outcomes {
            *totals.outcomes.entry(outcome.clone()).or_default() += n;
        }
        for (event, &n) in &injected {
            *totals.injected.entry(format!("{event:x?}")).or_default() += n;
        }
    });
}

/// The end of a guest with a bug, which has been found.
pub fn found_bug() {
    TOTALS.with_borrow_mut(|totals| totals.bugs += 1);
}

/// Prints all counts.
pub fn print_totals() {
    TOTALS.with_borrow(|t| {
        let list = |map: &BTreeMap<String, u64>| {
            map.iter().map(|(k, n)| format!("{k}: {n}")).collect::<Vec<_>>().join(", ")
        };
        let sum = |map: &BTreeMap<String, u64>| map.values().sum::<u64>();
        let operations: Vec<_> = t.commands.iter().map(|(k, n)| format!("{k}: {n}")).collect();
        println!("operations: {}", operations.join(", "));
        println!("outcomes: {}", list(&t.outcomes));
        println!("wrong answers: {}", list(&t.injected));
        println!(
            "{} guests, {} instructions, {} commands with {} kinds of outcomes, {} errors injected ({} wrong answers), {} bugs found",
            t.guests,
            t.instructions,
            t.commands.values().sum::<u64>(),
            t.outcomes.len(),
            t.errors,
            sum(&t.injected),
            t.bugs
        );
    });
}
