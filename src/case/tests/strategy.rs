// SPDX-License-Identifier: GPL-2.0-only
//! Arbitrary cases: every statement and every clause of a header, with valid values.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::case::*;
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;

/// A comment as the parser keeps it: one line without the space around it, and no licence.
fn comment() -> impl Strategy<Value = String> {
    "[ -~äé→]{0,24}"
        .prop_map(|text| text.trim().to_string())
        .prop_filter("a licence is no comment", |text| !text.starts_with("SPDX"))
}

fn pages(size: u64) -> impl Strategy<Value = Pages> {
    (0..size, 0..size).prop_map(|(a, b)| a.min(b)..a.max(b) + 1)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    select(vec![Attribute::Shared, Attribute::Private])
}

fn requirement() -> impl Strategy<Value = Requirement> {
    prop_oneof![
        subsequence(Platform::ALL.to_vec(), 1..=Platform::ALL.len())
            .prop_map(Requirement::Platform),
        subsequence(Dialect::ALL.to_vec(), 1..=Dialect::ALL.len()).prop_map(Requirement::Dialect),
        select(vec![Mode::Zero, Mode::Preserve]).prop_map(Requirement::Mode),
        select(&Capability::ALL[..]).prop_map(Requirement::CapabilityNumber),
        Just(Requirement::LaunchInPlace),
        Just(Requirement::PreFault),
    ]
}

fn access(size: u64) -> impl Strategy<Value = Action> {
    let view = select(&View::ALL[..]);
    (view, pages(size), b'A'..=b'X', 0..8).prop_map(|(view, pages, letter, kind)| {
        let look = match kind {
            0 => {
                return Action::Write { view, pages, letter };
            }
            1 => return Action::Read { view, pages },
            2 => Look::Pattern(letter),
            3 => Look::Zero,
            4 if view == View::Guest => Look::Mmio,
            6 if view == View::Guest => Look::MemoryFault,
            4 => Look::Fault,
            5 => Look::Unwritten,
            _ => Look::Any,
        };
        Action::Expect { view, pages, look }
    })
}

fn raw() -> impl Strategy<Value = RawConvert> {
    let word = || prop_oneof![Just(0), Just(8), Just(0x1000), any::<u64>()];
    let reserved = proptest::array::uniform11(prop_oneof![8 => Just(0), 1 => any::<u64>()]);
    let pointer = select(vec![Pointer::Good, Pointer::Bad, Pointer::ReadOnly]);
    let descriptor = select(vec![Descriptor::GuestMemfd, Descriptor::Vm]);
    let words = (word(), word(), word(), word(), word());
    (words, reserved, pointer, descriptor).prop_map(|(words, reserved, pointer, descriptor)| {
        let (offset, size, attributes, flags, error_offset) = words;
        RawConvert { offset, size, attributes, flags, error_offset, reserved, pointer, descriptor }
    })
}

fn request(size: u64) -> impl Strategy<Value = GuestRequest> {
    let entries = (select(PscKind::ALL.to_vec()), pages(size.min(64)))
        .prop_map(|(kind, pages)| PscEntries { kind, pages });
    let header = (any::<u16>(), option::of(any::<u16>()), option::of(any::<u64>()));
    let list = (vec(entries, 0..4), header).prop_map(|(entries, (current, last, scratch))| {
        Request::List(PscList { entries, current, last, scratch })
    });
    let what =
        prop_oneof![
            list,
            (any::<u64>(), any::<u64>())
                .prop_map(|(operation, page)| Request::Msr { operation, page }),
            (any::<u64>(), any::<u64>(), attribute())
                .prop_map(|(offset, size, to)| Request::MapGpa { offset, size, to })
        ];
    let answers = vec(option::of(select(vec![Errno::EINVAL, Errno::EAGAIN])), 0..3);
    (what, answers).prop_map(|(what, answers)| GuestRequest { what, answers })
}

fn raw_launch() -> impl Strategy<Value = RawLaunch> {
    let length = prop_oneof![
        any::<u64>().prop_map(LaunchLength::Pages),
        any::<u64>().prop_map(LaunchLength::Bytes)
    ];
    let source = prop_oneof![
        (b'A'..=b'X').prop_map(LaunchSource::Pattern),
        select(vec![LaunchSource::InPlace, LaunchSource::Unaligned])
    ];
    let mapped = option::of(any::<u64>());
    (any::<u64>(), length, source, mapped, any::<u8>(), any::<u32>()).prop_map(
        |(offset, length, source, mapped, page_type, flags)| RawLaunch {
            offset,
            length,
            source,
            mapped,
            page_type,
            flags,
        },
    )
}

fn action(size: u64) -> impl Strategy<Value = Action> {
    let convert = (pages(size), attribute(), select(Mode::ALL.to_vec()))
        .prop_map(|(pages, to, mode)| Action::Convert { pages, to, mode });
    let touch = (select(Toucher::ALL.to_vec()), pages(size))
        .prop_map(|(who, pages)| Action::Touch { who, pages });
    let slot = (0..8u32, pages(size), 0..=1u64 << 30)
        .prop_map(|(slot, pages, at)| Action::SlotMap(SlotMap { slot, pages, at }));
    let raw_slot = (any::<u32>(), any::<u64>(), any::<u64>(), 0..=1u64 << 30);
    let files = select(vec![SlotFile::GuestMemfd, SlotFile::Other, SlotFile::Closed]);
    let raw_slot = (raw_slot, any::<u32>(), files, any::<bool>()).prop_map(
        |((slot, offset, size, at), flags, file, first_version)| {
            Action::SlotRaw(RawSlot { slot, offset, size, at, flags, file, first_version })
        },
    );
    let file_call = prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(mode, offset, length)| FileCall::Fallocate { mode, offset, length }),
        any::<u64>().prop_map(|size| FileCall::Truncate { size }),
        (any::<bool>(), any::<u64>(), any::<u64>())
            .prop_map(|(private, offset, length)| FileCall::Map { private, offset, length }),
        (any::<u64>(), any::<u64>()).prop_map(|(size, flags)| FileCall::Create { size, flags }),
    ];
    prop_oneof![
        4 => access(size),
        2 => convert,
        1 => touch,
        2 => raw().prop_map(Action::Raw),
        1 => pages(size).prop_map(Action::Accept),
        1 => pages(size).prop_map(Action::Rescind),
        1 => (pages(size), attribute(), any::<bool>())
            .prop_map(|(pages, to, by_msr)| Action::GuestConvert { pages, to, by_msr }),
        1 => (pages(size), option::of(b'A'..=b'X'))
            .prop_map(|(pages, from)| Action::Launch { pages, from }),
        1 => raw_launch().prop_map(Action::LaunchRaw),
        1 => request(size).prop_map(Action::Request),
        1 => select(OtherVmCall::ALL.to_vec()).prop_map(Action::OtherVm),
        1 => Just(Action::Finalize),
        1 => (0..size, any::<bool>())
            .prop_map(|(page, by_write)| Action::WrongAlias { page, by_write }),
        1 => (0..size, attribute()).prop_map(|(page, to)| Action::ConvertByAccess { page, to }),
        1 => pages(size).prop_map(Action::Punch),
        1 => pages(size).prop_map(Action::PreFault),
        1 => pages(size).prop_map(Action::Allocate),
        1 => pages(size).prop_map(Action::Pin),
        1 => pages(size).prop_map(Action::Unpin),
        1 => slot,
        1 => raw_slot,
        1 => file_call.prop_map(Action::FileCall),
        1 => (pages(size), any::<bool>())
            .prop_map(|(pages, allocated)| Action::FileExpect { pages, allocated }),
        1 => Just(Action::FileReplace),
        1 => attribute().prop_map(Action::Bystander),
        1 => (pages(size), attribute())
            .prop_map(|(pages, to)| Action::BystanderConvert { pages, to }),
        1 => (0..8u32).prop_map(Action::SlotDelete),
        1 => select(vec![Action::Remap, Action::ChildFork, Action::ChildExit]),
        1 => select(Capability::ALL.to_vec()).prop_map(Action::Capability),
        1 => select(Misbehaviour::ALL.to_vec()).prop_map(Action::Misbehave),
    ]
}

fn returns() -> impl Strategy<Value = Returns> {
    let errnos = [Errno::EINVAL, Errno::EAGAIN, Errno::EOPNOTSUPP, Errno::EFAULT];
    let one = option::of(select(errnos.to_vec()));
    (vec(one, 1..4), option::of(any::<u64>()))
        .prop_map(|(any_of, error_page)| Returns { any_of, error_page })
}

fn step(size: u64) -> impl Strategy<Value = Step> {
    let comments = (vec(comment(), 0..3), option::weighted(0.3, comment()));
    (comments, action(size), option::weighted(0.3, returns())).prop_map(
        |((above, comment), action, expect)| Step { above, action, expect, comment, line: 0 },
    )
}

/// A step that a guest_memfd which cannot be mapped allows.
fn step_without_mapping(size: u64) -> impl Strategy<Value = Step> {
    step(size).prop_filter("needs a mapping", |step| match &step.action {
        Action::Write { view, .. } | Action::Read { view, .. } | Action::Expect { view, .. } => {
            !view.is_mapping()
        }
        Action::Pin(_) | Action::Unpin(_) | Action::Remap => false,
        Action::ChildFork | Action::ChildExit => false,
        _ => true,
    })
}

/// Words with one space between them.
fn fixes() -> impl Strategy<Value = Vec<String>> {
    vec("[!-\"$-~]{1,12}( [!-\"$-~]{1,12}){0,4}", 0..3)
}

/// Any case that the language can say, of any size up to the largest.
pub fn case() -> impl Strategy<Value = Case> {
    let name = "[a-z0-9_-]{1,8}\\.[a-z0-9_-]{1,8}(\\.[a-z0-9_-]{1,8})?";
    let size = prop_oneof![1..32u64, Just(1 << 30)];
    size.prop_flat_map(move |pages| {
        let head = (vec(comment(), 0..3), name, vec(select(ClauseId::ALL), 1..4), fixes());
        let rest = (attribute(), vec(requirement(), 0..4), any::<(bool, bool, bool, bool, bool)>());
        let steps = prop_oneof![
            4 => (Just(false), vec(step(pages), 1..8)),
            1 => (Just(true), vec(step_without_mapping(pages), 1..8)),
        ];
        (head, rest, steps).prop_map(
            move |(
                (about, name, clauses, fixes),
                (start, needs, (audit_end, file_reused, vm_fresh, no_slots, userspace_elsewhere)),
                (no_mmap, steps),
            )| Case {
                about,
                name,
                clauses,
                fixes,
                pages,
                start,
                no_mmap,
                needs,
                audit_end,
                file_reused,
                vm_fresh,
                no_slots,
                userspace_elsewhere,
                steps,
            },
        )
    })
}
