// SPDX-License-Identifier: GPL-2.0-only
//! What a successful conversion does to the pages of its range, by mode and direction.

use std::rc::Rc;

use super::*;
use crate::clause::ClauseId;
use Attribute::{Private, Shared};

const TAG: u64 = (b'A' as u64) << 56;

/// Six pages: a hole, one that was only allocated, one that was touched, one that was written, one whose contents somebody
/// saw, and a written one beside the range.
fn six(dialect: Dialect, start: Attribute) -> Oracle {
    let mut oracle = fresh(Platform::SwProtected, dialect, start, 6);
    oracle.allocate(1..2);
    oracle.touch(2);
    oracle.write(3, TAG);
    if dialect.has_content_modes() {
        oracle.touch(4);
        convert(&mut oracle, 4..5, start, Mode::Unspecified);
        assert_eq!(oracle.content(4), Content::Unknown);
        oracle.learn(4, &[7; PAGE_SIZE as usize]);
    } else {
        oracle.write(4, TAG);
    }
    oracle.write(5, TAG);
    oracle
}

/// Contents of pages 2 to 4 after a conversion, by mode: unspecified makes them unknown, ZERO zero, PRESERVE keeps them; in
/// both directions and on pages in the wanted state alike. A hole shows nobody's data, and so does a page that was only
/// allocated after a conversion without a mode; otherwise that reads zeros.
#[test]
fn by_mode_and_direction() {
    let seen = Content::Bytes(Rc::new([7; PAGE_SIZE as usize]));
    let pattern = Content::Pattern(TAG);
    for dialect in [Dialect::RfcV4, Dialect::RfcV5] {
        for (start, to) in
            [(Shared, Shared), (Shared, Private), (Private, Shared), (Private, Private)]
        {
            for mode in Mode::ALL {
                if (mode, to) == (Mode::Zero, Private) {
                    continue; // refused, see the tests of judge
                }
                let mut oracle = six(dialect, start);
                convert(&mut oracle, 0..5, to, mode);
                let found: Vec<Content> = (0..6).map(|page| oracle.content(page)).collect();
                let (unknown, zero) = (Content::Unknown, Content::Zero);
                let touched = match mode {
                    Mode::Unspecified => [unknown.clone(), unknown.clone(), unknown],
                    Mode::Zero => [zero.clone(), zero.clone(), zero.clone()],
                    Mode::Preserve => [zero.clone(), pattern.clone(), seen.clone()],
                };
                let reserved = match mode {
                    Mode::Unspecified => Content::Unwritten,
                    Mode::Zero | Mode::Preserve => zero,
                };
                let want =
                    [&[Content::Unwritten, reserved][..], &touched, std::slice::from_ref(&pattern)]
                        .concat();
                assert_eq!(found, want, "{dialect} {start} to {to}, {mode}");
                assert_eq!(oracle.backing(0), Backing::Hole);
                let cleared = mode == Mode::Zero;
                let reserved = if cleared { Backing::Allocated } else { Backing::Reserved };
                assert_eq!(oracle.backing(1), reserved);
                for page in 0..6 {
                    let want = if page < 5 { to } else { start };
                    assert_eq!(oracle.attribute(page), want, "page {page}");
                }
            }
        }
    }
}

/// An allocated page that nobody has touched shows nobody's data after a conversion without a mode, until ZERO has cleared
/// it: then nothing is promised of it after such a conversion, like of any other page.
#[test]
fn zero_is_a_touch() {
    let mut oracle = six(Dialect::RfcV4, Private);
    convert(&mut oracle, 1..2, Shared, Mode::Unspecified);
    convert(&mut oracle, 1..2, Shared, Mode::Preserve);
    convert(&mut oracle, 1..2, Shared, Mode::Unspecified);
    assert_eq!(oracle.content(1), Content::Unwritten);
    convert(&mut oracle, 1..2, Shared, Mode::Zero);
    assert_eq!(oracle.content(1), Content::Zero);
    convert(&mut oracle, 1..2, Shared, Mode::Unspecified);
    assert_eq!(oracle.content(1), Content::Unknown);
}

/// The clause of a page says whether the mode acted on it because it was converted or because it was in the range.
#[test]
fn clauses_of_contents() {
    let rows = [
        (Private, Shared, Mode::Zero, ClauseId::ZeroToShared),
        (Shared, Shared, Mode::Zero, ClauseId::ZeroWholeRange),
        (Private, Shared, Mode::Preserve, ClauseId::PreserveToShared),
        (Shared, Private, Mode::Preserve, ClauseId::PreserveToPrivate),
        (Shared, Shared, Mode::Preserve, ClauseId::PreserveWholeRange),
        (Private, Private, Mode::Preserve, ClauseId::PreserveWholeRange),
        (Shared, Private, Mode::Unspecified, ClauseId::UnspecifiedStable),
    ];
    for (start, to, mode, clause) in rows {
        let mut oracle = six(Dialect::RfcV5, start);
        convert(&mut oracle, 0..5, to, mode);
        assert_eq!(oracle.content_clause(3), clause);
        assert_eq!(oracle.content_clause(0), ClauseId::ConvertHoles);
        let reserved = match mode {
            Mode::Unspecified => ClauseId::ConvertHoles,
            Mode::Zero | Mode::Preserve => ClauseId::AllocateZero,
        };
        assert_eq!(oracle.content_clause(1), reserved);
        assert_eq!(oracle.content_clause(5), ClauseId::MemorySame);
        assert_eq!(oracle.attribute_clause(3), ClauseId::ConvertRange);
        assert_eq!(oracle.attribute_clause(5), ClauseId::FreshAttribute);
    }
}

/// Without modes nothing touches the contents of a VM that has no firmware.
#[test]
fn upstream_keeps_contents() {
    for (start, to) in [(Shared, Shared), (Shared, Private), (Private, Shared), (Private, Private)]
    {
        let mut oracle = six(Dialect::Upstream, start);
        convert(&mut oracle, 0..5, to, Mode::Unspecified);
        assert_eq!(oracle.content(0), Content::Unwritten);
        for page in 1..3 {
            assert_eq!(oracle.content(page), Content::Zero, "page {page}");
        }
        assert_eq!(oracle.content(3), Content::Pattern(TAG));
        assert_eq!(oracle.content_clause(3), ClauseId::UpstreamContentsKept);
    }
}

/// Unknown contents become known when somebody looks, and only then; known ones are not learned anew.
#[test]
fn unknown_contents_are_learned_once() {
    let mut oracle = six(Dialect::RfcV5, Shared);
    convert(&mut oracle, 3..4, Shared, Mode::Unspecified);
    assert_eq!(oracle.content(3).bytes(3), None);
    oracle.learn(3, &[1; PAGE_SIZE as usize]);
    oracle.learn(3, &[2; PAGE_SIZE as usize]);
    assert_eq!(oracle.content(3).bytes(3), Some([1; PAGE_SIZE as usize]));
    oracle.learn(5, &[3; PAGE_SIZE as usize]);
    assert_eq!(oracle.content(5), Content::Pattern(TAG));
}

/// A pattern differs from page to page, from word to word and from tag to tag, so that swapped memory shows.
#[test]
fn patterns_depend_on_the_position() {
    let pattern = Content::Pattern(TAG);
    let page = pattern.bytes(1).expect("known");
    assert_ne!(pattern.bytes(2).expect("known"), page);
    assert_ne!(Content::Pattern(TAG + 1).bytes(1).expect("known"), page);
    let words: std::collections::BTreeSet<&[u8]> = page.chunks(8).collect();
    assert_eq!(words.len(), 512);
    assert_eq!(Content::Zero.bytes(1), Some([0; PAGE_SIZE as usize]));
}

/// A failure names the pattern that was expected by its letter, and tells zeros from what cannot be named.
#[test]
fn contents_have_names() {
    let bytes = Content::Bytes(Rc::new([1; PAGE_SIZE as usize]));
    let names =
        [Content::Zero, Content::Pattern(TAG), bytes, Content::Unknown].map(|c| c.describe());
    assert_eq!(names, ["zeros", "pattern A", "the bytes seen before", "anything"]);
}
