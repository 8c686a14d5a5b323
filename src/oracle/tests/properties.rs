// SPDX-License-Identifier: GPL-2.0-only
//! Rules that hold after any history.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError};

use super::*;
use crate::case::{Descriptor, Pointer};

/// Size of the file.
const PAGES: u64 = 12;

/// A step of a history.
#[derive(Clone, Debug)]
enum Op {
    Call(RawConvert),
    Touch(u64),
    Accept(u64),
    Write(u64, u64),
    Learn(u64, u8),
    Punch(Pages),
    Allocate(Pages),
    Pin(u64),
    Unpin(u64),
}

fn pages() -> impl Strategy<Value = Pages> {
    (0..PAGES, 0..PAGES).prop_map(|(a, b)| a.min(b)..a.max(b) + 1)
}

/// Mostly good calls, and some with one thing wrong.
fn a_call() -> impl Strategy<Value = RawConvert> {
    let to = select(vec![Attribute::Shared, Attribute::Private]);
    (pages(), to, select(Mode::ALL.to_vec()), 0..20, any::<u64>()).prop_map(
        |(pages, to, mode, wrong, value)| {
            let mut call = call(pages, to, mode);
            match wrong {
                0 => call.offset = value,
                1 => call.size = value,
                2 => call.attributes = value,
                3 => call.flags = value,
                4 => call.error_offset = value,
                5 => call.reserved[(value % 11) as usize] = value,
                6 => call.pointer = Pointer::Bad,
                7 => call.pointer = Pointer::ReadOnly,
                8 => call.descriptor = Descriptor::Vm,
                9 => call.size = 0,
                _ => {}
            }
            call
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => a_call().prop_map(Op::Call),
        2 => (0..PAGES).prop_map(Op::Touch),
        2 => (0..PAGES).prop_map(Op::Accept),
        3 => (0..PAGES, 1..9u64).prop_map(|(page, tag)| Op::Write(page, tag << 56)),
        2 => (0..PAGES, any::<u8>()).prop_map(|(page, byte)| Op::Learn(page, byte)),
        1 => pages().prop_map(Op::Punch),
        1 => pages().prop_map(Op::Allocate),
        2 => (0..PAGES).prop_map(Op::Pin),
        2 => (0..PAGES).prop_map(Op::Unpin),
    ]
}

/// Everything that a view could tell apart, page by page.
fn seen(oracle: &Oracle) -> Vec<(Attribute, Backing, Content)> {
    let page = |n| (oracle.attribute(n), oracle.backing(n), oracle.content(n));
    (0..PAGES).map(page).collect()
}

/// Judges a call, lets it end in each way that is allowed, and looks at what that did; goes on with the likeliest.
fn check_call(
    oracle: &mut Oracle,
    call: &RawConvert,
    pins: &BTreeMap<u64, u32>,
) -> Result<(), TestCaseError> {
    let allowed = oracle.judge(call);
    prop_assert!(!allowed.is_empty(), "nothing is allowed");
    let before = seen(oracle);
    let first = call.offset / PAGE_SIZE;
    for outcome in &allowed {
        let mut applied = oracle.clone();
        applied.apply(call, outcome.result);
        let after = seen(&applied);
        let Err(errno) = outcome.result else {
            // A good call: its range lies within the file.
            let range = first..first + call.size / PAGE_SIZE;
            prop_assert_eq!(outcome.error_offset, ErrorOffset::Untouched);
            for (number, (page, old)) in (0..).zip(after.iter().zip(&before)) {
                if !range.contains(&number) {
                    prop_assert_eq!(page, old, "page {} is not of the range", number);
                    continue;
                }
                prop_assert_eq!(page.0.bits(), call.attributes, "page {}", number);
                let cleared = old.1 == Backing::Reserved && call.flags == Mode::Zero.bits();
                let backing = if cleared { Backing::Allocated } else { old.1 };
                prop_assert_eq!(page.1, backing, "backing of page {}", number);
                let unwritten = [Content::Zero, Content::Unwritten].contains(&page.2);
                if old.1 != Backing::Allocated && !applied.must_be_accepted(number) {
                    prop_assert!(unwritten, "page {} holds {:?}", number, page.2);
                }
            }
            continue;
        };
        prop_assert_eq!(&after, &before, "{} had an effect", errno);
        if errno == Errno::EAGAIN {
            prop_assert_eq!(call.attributes, Attribute::Private.bits(), "to shared");
            let lowest = pins.keys().find(|page| **page >= first).copied();
            let at = lowest.map(|page| ErrorOffset::At(page * PAGE_SIZE));
            prop_assert_eq!(Some(outcome.error_offset), at);
            prop_assert!(lowest < Some(first + call.size / PAGE_SIZE));
        }
    }
    oracle.apply(call, allowed[0].result);
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 192, failure_persistence: None, ..Config::default() })]

    /// A conversion changes exactly its range, and no backing, but that ZERO touches what was only allocated; a refused
    /// call changes nothing; holes and pages that nobody touched show nobody's data; use refuses conversions to private only, at
    /// the lowest page in use; no page in use is private; every call has an outcome. Of what an encrypted guest has not
    /// accepted, nothing is said but to whom it belongs.
    #[test]
    fn any_history(
        platform in select(Platform::ALL.to_vec()),
        dialect in select(Dialect::ALL.to_vec()),
        private in any::<bool>(),
        ops in vec(op(), 1..40),
    ) {
        let start = match platform.has_private_memory() && private {
            true => Attribute::Private,
            false => Attribute::Shared,
        };
        let mut oracle = fresh(platform, dialect, start, PAGES);
        let mut pins: BTreeMap<u64, u32> = BTreeMap::new();
        for op in ops {
            let before = seen(&oracle);
            let attributes = |seen: &[(Attribute, Backing, Content)]| -> Vec<Attribute> {
                seen.iter().map(|page| page.0).collect()
            };
            match op {
                Op::Call(call) => {
                    check_call(&mut oracle, &call, &pins)?;
                    continue;
                }
                Op::Touch(page) => oracle.touch(page),
                Op::Accept(page) if oracle.must_be_accepted(page) => {
                    oracle.accept(page);
                    prop_assert!(oracle.is_accepted(page) && !oracle.must_be_accepted(page));
                    let zero = oracle.content(page) == Content::Zero;
                    prop_assert!(!zero || platform == Platform::Tdx, "page {}", page);
                }
                Op::Accept(_) => continue,
                Op::Write(page, tag) => oracle.write(page, tag),
                Op::Learn(page, byte) => oracle.learn(page, &[byte; PAGE_SIZE as usize]),
                Op::Punch(range) => {
                    pins.retain(|page, _| !range.contains(page));
                    oracle.punch(range);
                }
                Op::Allocate(range) => oracle.allocate(range),
                // A private page cannot be reached to be used.
                Op::Pin(page) if oracle.attribute(page) == Attribute::Shared => {
                    *pins.entry(page).or_default() += 1;
                    oracle.pin(page);
                }
                Op::Pin(_) => continue,
                Op::Unpin(page) => {
                    if let Some(count) = pins.get_mut(&page) {
                        *count -= 1;
                    }
                    pins.retain(|_, count| *count > 0);
                    oracle.unpin(page);
                }
            }
            // Only conversions change attributes.
            let after = seen(&oracle);
            prop_assert_eq!(attributes(&after), attributes(&before));
            for page in 0..PAGES {
                let pinned = pins.contains_key(&page);
                prop_assert_eq!(oracle.is_pinned(page), pinned, "page {}", page);
                prop_assert!(!pinned || oracle.attribute(page) == Attribute::Shared);
                if oracle.backing(page) != Backing::Allocated && !oracle.must_be_accepted(page) {
                    let content = oracle.content(page);
                    let unwritten = [Content::Zero, Content::Unwritten].contains(&content);
                    prop_assert!(unwritten, "page {} holds {:?}", page, content);
                }
            }
        }
    }
}
