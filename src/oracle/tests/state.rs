// SPDX-License-Identifier: GPL-2.0-only
//! Backing, uses, memslots, and what the views see.

use super::*;
use crate::case::{SlotMap, View};
use crate::clause::ClauseId;
use Attribute::{Private, Shared};

const TAG: u64 = (b'A' as u64) << 56;

fn protected(start: Attribute) -> Oracle {
    fresh(Platform::SwProtected, Dialect::RfcV5, start, 4)
}

/// Host and child see shared pages only, the guest every page that a memslot maps.
#[test]
fn sights() {
    for start in [Shared, Private] {
        let mut oracle = protected(start);
        oracle.write(1, TAG);
        for (page, content) in [(0, Content::Zero), (1, Content::Pattern(TAG))] {
            let host = match start {
                Shared => Sight::Content(content.clone()),
                Private => Sight::Fault,
            };
            assert_eq!(oracle.sight(View::Host, page), host);
            assert_eq!(oracle.sight(View::Host2, page), host);
            assert_eq!(oracle.sight(View::Child, page), host);
            assert_eq!(oracle.sight(View::Guest, page), Sight::Content(content));
        }
        oracle.delete_slot(0);
        assert_eq!(oracle.sight(View::Guest, 1), Sight::Mmio);
    }
}

/// Nobody sees a file that cannot be mapped, but the guest its private pages.
#[test]
fn sights_without_mmap() {
    for (start, guest) in [(Shared, Sight::Absent), (Private, Sight::Content(Content::Zero))] {
        let mut oracle = protected(start);
        assert!(oracle.is_mappable());
        oracle.mappable = false;
        assert!(!oracle.is_mappable());
        for view in [View::Host, View::Host2, View::Child] {
            assert_eq!(oracle.sight(view, 0), Sight::Absent);
        }
        assert_eq!(oracle.sight(View::Guest, 0), guest);
        oracle.delete_slot(0);
        assert_eq!(oracle.sight(View::Guest, 0), Sight::Mmio);
    }
}

/// A page is found through the memslots by its place in the file; where several map it, the lowest counts.
#[test]
fn memslots() {
    let mut oracle = protected(Shared);
    assert_eq!(oracle.slot_of(3), Some((0, 3)));
    oracle.map_slot(&SlotMap { slot: 2, pages: 2..4, at: 100 });
    assert_eq!(oracle.slot_of(3), Some((0, 3)));
    oracle.delete_slot(0);
    assert_eq!(oracle.slot_of(3), Some((2, 101)));
    assert_eq!(oracle.slot_of(1), None);
    oracle.map_slot(&SlotMap { slot: 1, pages: 3..4, at: 7 });
    assert_eq!(oracle.slot_of(3), Some((1, 7)));
    assert_eq!(oracle.slots().map(|s| s.slot).collect::<Vec<_>>(), [1, 2]);
}

/// Memslots come and go; attributes and contents stay.
#[test]
fn memslots_own_nothing() {
    let mut oracle = protected(Shared);
    oracle.write(1, TAG);
    convert(&mut oracle, 1..2, Private, Mode::Preserve);
    oracle.delete_slot(0);
    assert_eq!(oracle.map(0..4), "sPss");
    oracle.map_slot(&SlotMap { slot: 0, pages: 0..4, at: 0 });
    assert_eq!(oracle.sight(View::Guest, 1), Sight::Content(Content::Pattern(TAG)));
}

/// A punched page is a hole that reads zeros and keeps its attribute, whatever it held.
#[test]
fn punch() {
    let mut oracle = protected(Private);
    oracle.write(1, TAG);
    oracle.write(2, TAG);
    convert(&mut oracle, 2..3, Shared, Mode::Unspecified);
    assert_eq!(oracle.map(0..4), "pPSp");
    oracle.punch(0..4);
    assert_eq!(oracle.map(0..4), "ppsp");
    for page in 1..3 {
        assert_eq!(oracle.content(page), Content::Zero);
        assert_eq!(oracle.content_clause(page), ClauseId::PunchZero);
    }
    assert_eq!(oracle.content_clause(3), ClauseId::PunchZero);
    convert(&mut oracle, 2..4, Private, Mode::Preserve);
    assert_eq!(oracle.content(3), Content::Unwritten);
    assert_eq!(oracle.content_clause(3), ClauseId::ConvertHoles);
    oracle.learn(3, &[0; PAGE_SIZE as usize]);
    assert_eq!(oracle.content(3), Content::Zero);
    oracle.touch(1);
    assert_eq!(oracle.content_clause(1), ClauseId::PunchZero);
    oracle.write(1, TAG);
    assert_eq!(oracle.content_clause(1), ClauseId::MemorySame);
}

/// Allocation gives memory to holes only; it reads zeros until somebody writes.
#[test]
fn allocate() {
    let mut oracle = protected(Shared);
    oracle.write(1, TAG);
    oracle.allocate(0..3);
    assert_eq!(oracle.map(0..4), "SSSs");
    assert_eq!(oracle.content(1), Content::Pattern(TAG));
    assert_eq!((oracle.backing(0), oracle.content(0)), (Backing::Reserved, Content::Zero));
    oracle.touch(0);
    assert_eq!((oracle.backing(0), oracle.content(0)), (Backing::Allocated, Content::Zero));
    convert(&mut oracle, 0..4, Shared, Mode::Unspecified);
    let contents = [0, 1, 2, 3].map(|page| oracle.content(page));
    let unknown = Content::Unknown;
    assert_eq!(contents, [unknown.clone(), unknown, Content::Unwritten, Content::Unwritten]);
    oracle.punch(2..3);
    oracle.allocate(2..3);
    assert_eq!(oracle.content_clause(2), ClauseId::AllocateZero);
}

/// A page is in use until every use of it has ended.
#[test]
fn pinned_twice() {
    let mut oracle = protected(Shared);
    let private = call(0..4, Private, Mode::Preserve);
    oracle.pin(2);
    oracle.pin(2);
    assert_eq!(oracle.backing(2), Backing::Allocated);
    oracle.unpin(2);
    assert!(oracle.is_pinned(2));
    assert_eq!(results(&oracle, &private), [Err(Errno::EAGAIN)]);
    oracle.apply(&private, Err(Errno::EAGAIN));
    oracle.unpin(2);
    assert!(!oracle.is_pinned(2));
    let allowed = oracle.judge(&private);
    assert_eq!((allowed[0].result, allowed[0].clause), (Ok(()), ClauseId::InUseRetry));
}

/// Whoever uses the old memory of a punched page does not use the page; the end of that use changes nothing.
#[test]
fn punched_while_pinned() {
    let mut oracle = protected(Shared);
    oracle.pin(2);
    oracle.punch(2..3);
    assert!(!oracle.is_pinned(2));
    let private = call(0..4, Private, Mode::Unspecified);
    assert_eq!(results(&oracle, &private), [Ok(())]);
    oracle.unpin(2);
    assert_eq!(oracle.backing(2), Backing::Hole);
    oracle.pin(2);
    assert_eq!(results(&oracle, &private), [Err(Errno::EAGAIN)]);
}
