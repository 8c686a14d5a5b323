// SPDX-License-Identifier: GPL-2.0-only
//! Which memslots must be refused, and with what.

use super::*;
use crate::case::{FileCall, RawSlot, SlotFile, SlotMap, View};
use crate::clause::ClauseId;
use crate::uapi::KVM_MEM_GUEST_MEMFD;

/// What `KVM_CAP_NR_MEMSLOTS` says here.
const SLOTS: u32 = 32764;

/// A memslot with a guest_memfd, in bytes of it.
fn raw(slot: u32, offset: u64, size: u64, at: u64) -> RawSlot {
    RawSlot { offset, size, ..RawSlot::of(&SlotMap { slot, pages: 0..1, at }) }
}

/// What is said of a memslot over an 8-page file of which slot 0 has pages 2..4, at page 10 of the test memory.
fn judge(slot: u32, offset: u64, size: u64, at: u64) -> Vec<Errno> {
    let mut oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Shared, 8);
    oracle.map_slot(&SlotMap { slot: 0, pages: 2..4, at: 10 });
    oracle.judge_slot(&raw(slot, offset * PAGE_SIZE, size * PAGE_SIZE, at), SLOTS).errors
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
        assert_eq!(
            oracle.judge_slot(&raw(1, offset, size, 0), SLOTS).errors,
            einval,
            "{offset:#x} {size:#x}"
        );
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

/// Flags, the first version of the call and what is no guest_memfd are refused where the rest is good; so is the number
/// that is one too large.
#[test]
fn odd_arguments() {
    let mut oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Shared, 8);
    oracle.delete_slot(0);
    let good = raw(SLOTS - 1, 0, PAGE_SIZE, 0);
    assert_eq!(oracle.judge_slot(&good, SLOTS).errors, []);
    for (odd, errno, clause) in [
        (RawSlot { flags: 0, ..good.clone() }, Errno::EINVAL, ClauseId::MemslotFlags),
        (
            RawSlot { flags: KVM_MEM_GUEST_MEMFD | 2, ..good.clone() },
            Errno::EINVAL,
            ClauseId::MemslotFlags,
        ),
        (RawSlot { first_version: true, ..good.clone() }, Errno::EINVAL, ClauseId::MemslotFlags),
        (RawSlot { slot: SLOTS, ..good.clone() }, Errno::EINVAL, ClauseId::MemslotRefused),
        (
            RawSlot { file: SlotFile::Other, ..good.clone() },
            Errno::EINVAL,
            ClauseId::MemslotRefused,
        ),
        (
            RawSlot { file: SlotFile::Closed, ..good.clone() },
            Errno::EBADF,
            ClauseId::MemslotRefused,
        ),
    ] {
        let rule = oracle.judge_slot(&odd, SLOTS);
        assert_eq!((rule.errors.as_slice(), rule.clause), (&[errno][..], clause), "{odd:?}");
    }
}

/// A memslot whose file was closed binds nothing of the new one, and its addresses are taken as before.
#[test]
fn orphans() {
    let mut oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Private, 8);
    oracle.write(1, 1 << 56);
    oracle.replace_file(Attribute::Private);
    assert_eq!(oracle.sight(View::Guest, 1), Sight::MemoryFault);
    assert_eq!(oracle.content(1), Content::Zero);
    assert_eq!(oracle.judge_slot(&raw(1, 0, 0x8000, 8), SLOTS).errors, []);
    assert_eq!(oracle.judge_slot(&raw(1, 0, 0x8000, 7), SLOTS).errors, [Errno::EEXIST]);
    oracle.delete_slot(0);
    oracle.map_slot(&SlotMap { slot: 0, pages: 0..8, at: 0 });
    assert_eq!(oracle.sight(View::Guest, 1), Sight::Content(Content::Zero));
}

/// The table of fallocate(2), mmap(2) and KVM_CREATE_GUEST_MEMFD for a file of 4 pages, written down a second time.
#[test]
fn calls_on_the_file() {
    let oracle = fresh(Platform::SwProtected, Dialect::RfcV4, Attribute::Shared, 4);
    let fallocate = |mode, offset, length| FileCall::Fallocate { mode, offset, length };
    let map = |private, offset, length| FileCall::Map { private, offset, length };
    let create = |size, flags| FileCall::Create { size, flags };
    let (einval, eopnotsupp) = (Errno::EINVAL, Errno::EOPNOTSUPP);
    for (call, errors) in [
        (fallocate(1, 0, 0x4000), vec![]),
        (fallocate(1, 0x3000, 0x1000), vec![]),
        (fallocate(1, 0x3000, 0x2000), vec![einval]),
        (fallocate(1, 0x4000, 0x1000), vec![einval]),
        (fallocate(3, 0x3000, 0x9000), vec![]),
        (fallocate(3, 0x1000, 0), vec![einval]),
        (fallocate(3, 0x10, 0x1000), vec![einval]),
        (fallocate(0, 0, 0x1000), vec![eopnotsupp]),
        (fallocate(2, 0, 0x1000), vec![eopnotsupp]),
        (fallocate(0x11, 0, 0x1000), vec![eopnotsupp]),
        (fallocate(1, 1 << 63, 0x1000), vec![einval, Errno::EFBIG]),
        (FileCall::Truncate { size: 0x4000 }, vec![einval]),
        (map(false, 0, 0x8000), vec![]),
        (map(true, 0, 0x1000), vec![einval]),
        (map(false, 0, 0), vec![einval]),
        (create(0x1000, 3), vec![]),
        (create(0x1000, 4), vec![einval]),
        (create(0, 0), vec![einval]),
        (create(0x1001, 0), vec![einval]),
        (create(1 << 63, 0), vec![einval]),
    ] {
        assert_eq!(oracle.judge_file_call(&call, 3).errors, errors, "{call}");
    }
}
