// SPDX-License-Identifier: GPL-2.0-only
//! Which memslots must be refused, and with what.

use super::*;
use crate::case::SlotMap;

/// What is said of a memslot over an 8-page file of which slot 0 has pages 2..4, at page 10 of the test memory.
fn judge(slot: u32, offset: u64, size: u64, at: u64) -> Vec<Errno> {
    let mut oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Shared, 8);
    oracle.map_slot(&SlotMap { slot: 0, pages: 2..4, at: 10 });
    oracle.judge_slot(slot, offset * PAGE_SIZE, size * PAGE_SIZE, at)
}

/// A slot that touches others without overlapping them, and ends with the file, is good.
#[test]
fn good_ones() {
    assert_eq!(judge(1, 0, 2, 8), []);
    assert_eq!(judge(1, 4, 4, 12), []);
    assert_eq!(judge(7, 7, 1, 0), []);
}

/// The file ends somewhere, sums wrap, and pages are whole.
#[test]
fn outside_of_the_file() {
    let einval = [Errno::EINVAL];
    assert_eq!(judge(1, 4, 5, 20), einval);
    assert_eq!(judge(1, 8, 1, 20), einval);
    assert_eq!(judge(1, 5, 0, 20), einval);
    let mut oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Shared, 8);
    oracle.delete_slot(0);
    for (offset, size) in [(0x800, 0x1000), (0, 0x800), (u64::MAX - 0xfff, 0x2000)] {
        assert_eq!(oracle.judge_slot(1, offset, size, 0), einval, "{offset:#x} {size:#x}");
    }
}

/// A part of the file has one slot, and so has an address; a slot with a guest_memfd is never changed.
#[test]
fn overlaps() {
    let both = [Errno::EEXIST, Errno::EINVAL];
    let sorted = |mut errors: Vec<Errno>| {
        errors.sort_by_key(|e| *e != Errno::EEXIST);
        errors
    };
    assert_eq!(sorted(judge(1, 3, 1, 20)), both);
    assert_eq!(sorted(judge(1, 0, 3, 20)), both);
    assert_eq!(judge(1, 4, 2, 11), [Errno::EEXIST]);
    assert_eq!(judge(1, 0, 2, 9), [Errno::EEXIST]);
    assert_eq!(judge(0, 4, 2, 20), [Errno::EINVAL]);
}
