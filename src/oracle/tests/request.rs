// SPDX-License-Identifier: GPL-2.0-only
//! What of a guest's request reaches the host, and what cannot be meant.

use super::*;
use crate::case::{PscEntries, PscKind, PscList, Request};
use PscKind::*;

fn judge(request: &Request) -> Petition {
    fresh(Platform::Snp, Dialect::Upstream, Attribute::Shared, 4).judge_guest_request(request)
}

fn list(entries: &[(PscKind, Pages)], change: impl FnOnce(&mut PscList)) -> Petition {
    let entries =
        entries.iter().map(|(kind, pages)| PscEntries { kind: *kind, pages: pages.clone() });
    let mut list = PscList { entries: entries.collect(), ..PscList::default() };
    change(&mut list);
    judge(&Request::List(list))
}

/// An entry asks for pages of its own size.
fn asked(entry: u64, pages: Pages, private: bool) -> Asked {
    let large = pages.end - pages.start == 512;
    Asked { entry, pages, private, page_size: Some(u64::from(large)) }
}

/// Entries come in order, each once; what is done or is no operation leaves nothing behind.
#[test]
fn entries_in_order() {
    let all =
        [(Private, 0..2), (Done, 2..3), (Shared, 5..6), (Smash, 6..7), (Private2m, 512..1024)];
    let petition = list(&all, |_| {});
    let expected = [
        asked(0, 0..1, true),
        asked(1, 1..2, true),
        asked(3, 5..6, false),
        asked(5, 512..1024, true),
    ];
    assert_eq!(petition.asked, expected);
    assert_eq!((petition.refused, petition.may_be_refused), (false, true));
    assert_eq!(petition.entries, Some(0..6));
    let petition = list(&all, |list| (list.current, list.last) = (1, Some(3)));
    assert_eq!(petition.asked, expected[1..3]);
    assert!(!petition.may_be_refused);
    let nothing = list(&all, |list| (list.current, list.last) = (4, Some(3)));
    assert_eq!((nothing.asked, nothing.refused, nothing.may_be_refused), (vec![], false, true));
}

/// A list has to be in the GHCB with all of its entries: 253 of them, or one at 0xfe0.
#[test]
fn room() {
    let refused = |scratch: u64, last: u16| {
        let petition =
            list(&[(Private, 1..2)], |l| (l.scratch, l.last) = (Some(scratch), Some(last)));
        assert_eq!(petition.asked.is_empty(), petition.refused);
        petition.refused
    };
    for (scratch, last, is_refused) in [
        (0x800, 252, false),
        (0x800, 253, true),
        (0xfe0, 0, false),
        (0xfe0, 1, true),
        (0xfe8, 0, true),
        (0xff0, 0, true),
        (0x7f8, 0, true),
        (0x1000, 0, true),
    ] {
        assert_eq!(refused(scratch, last), is_refused, "{scratch:#x} {last}");
    }
}

/// A bad entry ends the list; what stands before it may be done.
#[test]
fn bad_entries() {
    for bad in [(Overdone, 3..4), (Private2m, 1..513), (Shared2m, 1023..1024)] {
        let petition = list(&[(Private, 0..1), bad, (Private, 2..3)], |_| {});
        assert_eq!(petition.asked, [asked(0, 0..1, true)]);
        assert!(petition.refused);
    }
}

/// The MSR protocol has two operations; MapGPA takes whole pages of one half of the address space.
#[test]
fn other_requests() {
    for operation in 0..5 {
        let petition = judge(&Request::Msr { operation, page: 7 });
        assert_eq!(petition.refused, !(1..=2).contains(&operation));
        let reaches = [asked(0, 7..8, operation == 1)];
        assert_eq!(petition.asked, reaches[..usize::from(!petition.refused)]);
    }
    let to = Attribute::Private;
    let good = judge(&Request::MapGpa { offset: 0x3000, size: 0x5000, to });
    // It names no page size.
    let all = Asked { page_size: None, ..asked(0, 3..8, true) };
    assert_eq!((good.asked, good.refused), (vec![all], false));
    for (offset, size) in [
        (0x3000, 0),
        (0x3008, 0x1000),
        (0x3000, 0x1008),
        (0x3000, 0x1000u64.wrapping_neg()),
        (0x3000, 1 << 47),
        (1 << 47, 0x1000),
    ] {
        let bad = judge(&Request::MapGpa { offset, size, to });
        assert_eq!((bad.asked, bad.refused), (vec![], true), "{offset:#x} {size:#x}");
    }
}
