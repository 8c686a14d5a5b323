// SPDX-License-Identifier: GPL-2.0-only
//! What conversions do to contents, to holes and to pages in use.

use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, RfcV5, Upstream};
use crate::errno::Errno;
use crate::uapi::*;

const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;

/// PRESERVE keeps the bytes both ways, ZERO clears every folio of the range, also of one that was shared already, and
/// no mode scrambles. Pages outside the range keep theirs.
#[test]
fn modes() {
    for dialect in [RfcV4, RfcV5] {
        let bench = Bench::new(dialect, None, 6);
        let view = bench.view(0, 6);
        (0..6).for_each(|page| poke(&*view, page, 100 + page));
        bench.convert(1, 5, PRIVATE, MODE_PRESERVE);
        bench.convert(1, 5, SHARED, MODE_PRESERVE);
        assert!((0..6).all(|page| peek(&*view, page) == 100 + page));

        bench.convert(3, 4, PRIVATE, MODE_PRESERVE);
        bench.convert(1, 5, SHARED, MODE_ZERO);
        let contents: Vec<u64> = (0..6).map(|page| peek(&*view, page)).collect();
        assert_eq!(contents, [100, 0, 0, 0, 0, 105]);

        poke(&*view, 2, 1);
        bench.convert(2, 3, SHARED, MODE_ZERO);
        assert_eq!(peek(&*view, 2), 0);

        poke(&*view, 2, 1);
        bench.convert(2, 3, SHARED, 0);
        assert_ne!(peek(&*view, 2), 1);
        assert_eq!((peek(&*view, 0), peek(&*view, 5)), (100, 105));
    }
}

/// Without content modes a conversion leaves the contents alone.
#[test]
fn upstream_keeps_contents() {
    let bench = Bench::new(Upstream, None, 2);
    let view = bench.view(0, 2);
    poke(&*view, 1, 5);
    bench.convert(0, 2, PRIVATE, 0);
    bench.convert(0, 2, SHARED, 0);
    assert_eq!(peek(&*view, 1), 5);
}

/// No conversion allocates a hole, and none makes its first touch anything but zero.
#[test]
fn holes_stay_holes() {
    for dialect in Dialect::ALL {
        let bench = Bench::new(dialect, None, 8);
        let view = bench.view(0, 8);
        poke(&*view, 3, 9);
        bench.convert(0, 8, PRIVATE, 0);
        bench.convert(1, 7, SHARED, 0);
        bench.convert(0, 8, SHARED, 0);
        assert_eq!(bench.allocated(8), [3]);
        if dialect.has_content_modes() {
            bench.convert(0, 8, SHARED, MODE_ZERO);
            assert_eq!(bench.allocated(8), [3]);
        }
        assert!((4..8).all(|page| peek(&*view, page) == 0));
    }
}

/// A folio that was only allocated reads zero on first touch, whatever was done to it before.
#[test]
fn allocated_reads_zero() {
    let bench = Bench::new(RfcV4, None, 4);
    let view = bench.view(0, 4);
    assert_eq!(bench.file.fallocate(KEEP, 0, 4 * PAGE_SIZE), Ok(()));
    for private in [PRIVATE, SHARED] {
        bench.convert(0, 4, private, 0);
    }
    assert!((0..4).all(|page| peek(&*view, page) == 0));
}

/// A hole that is punched frees contents and keeps attributes.
#[test]
fn punch() {
    let bench = Bench::new(RfcV5, None, 4);
    let view = bench.view(0, 4);
    poke(&*view, 1, 3);
    poke(&*view, 2, 3);
    bench.convert(1, 2, PRIVATE, MODE_PRESERVE);
    assert_eq!(bench.file.fallocate(PUNCH, PAGE_SIZE, 2 * PAGE_SIZE), Ok(()));
    assert!(bench.allocated(4).is_empty());
    assert!(faults(&*view, 1) && !faults(&*view, 2));
    bench.convert(1, 2, SHARED, MODE_PRESERVE);
    assert_eq!((peek(&*view, 1), peek(&*view, 2)), (0, 0));
}

/// The errors of fallocate.
#[test]
fn fallocate_errors() {
    let bench = Bench::new(RfcV4, None, 4);
    let rows = [
        (0, 0, PAGE_SIZE, Err(Errno::EOPNOTSUPP)),
        (libc::FALLOC_FL_PUNCH_HOLE, 0, PAGE_SIZE, Err(Errno::EOPNOTSUPP)),
        (KEEP | libc::FALLOC_FL_ZERO_RANGE, 0, PAGE_SIZE, Err(Errno::EOPNOTSUPP)),
        (KEEP, 0, 0, Err(Errno::EINVAL)),
        (KEEP, 1, PAGE_SIZE, Err(Errno::EINVAL)),
        (PUNCH, 0, PAGE_SIZE + 1, Err(Errno::EINVAL)),
        (KEEP, 3 * PAGE_SIZE, 2 * PAGE_SIZE, Err(Errno::EINVAL)),
        (PUNCH, 3 * PAGE_SIZE, 2 * PAGE_SIZE, Ok(())),
        (PUNCH, 1 << 62, 1 << 62, Err(Errno::EFBIG)),
        (PUNCH, 1 << 63, PAGE_SIZE, Err(Errno::EINVAL)),
    ];
    for (mode, offset, length, expected) in rows {
        let result = bench.file.fallocate(mode, offset, length);
        assert_eq!(result, expected, "mode {mode} offset {offset:#x} length {length:#x}");
    }
}

/// A page in use refuses a conversion to private of any range with it, and names itself; nothing has changed; to shared
/// is no problem; when it is free again the conversion succeeds. A page next to the range does not matter.
#[test]
fn pins() {
    for dialect in Dialect::ALL {
        let bench = Bench::new(dialect, None, 8);
        let view = bench.view(0, 8);
        (0..8).for_each(|page| poke(&*view, page, 40 + page));
        let low = view.pin(3 * PAGE_SIZE + 17).expect("pin");
        let high = view.pin(5 * PAGE_SIZE).expect("pin");
        assert_eq!(bench.refused(1, 7, PRIVATE, 0), (Errno::EAGAIN, 3));
        assert_eq!(bench.refused(4, 7, PRIVATE, 0), (Errno::EAGAIN, 5));
        assert!((0..8).all(|page| peek(&*view, page) == 40 + page));
        bench.convert(4, 5, PRIVATE, 0);
        bench.convert(2, 6, SHARED, 0);
        drop(low);
        assert_eq!(bench.refused(1, 7, PRIVATE, 0), (Errno::EAGAIN, 5));
        drop(high);
        bench.convert(1, 7, PRIVATE, 0);
        assert_eq!(view.pin(3 * PAGE_SIZE).err(), Some(Errno::EFAULT));
        assert!(view.pin(7 * PAGE_SIZE).is_ok());
    }
}

/// A pin allocates its page; a punched hole takes the page out of the file, and the new page is nobody's.
#[test]
fn pins_and_holes() {
    let bench = Bench::new(RfcV4, None, 4);
    let view = bench.view(0, 4);
    let pin = view.pin(2 * PAGE_SIZE).expect("pin");
    assert_eq!(bench.allocated(4), [2]);
    assert_eq!(bench.file.fallocate(PUNCH, 2 * PAGE_SIZE, PAGE_SIZE), Ok(()));
    bench.convert(0, 4, PRIVATE, 0);
    drop(pin);
}

/// A sparse file of 5 GiB converts without a look at each page, and offsets keep all their bits; so does one of 1 TiB.
#[test]
fn huge_files() {
    let pages = 5 << 18;
    let bench = Bench::new(Upstream, None, pages);
    let last = pages - 2;
    let view = bench.view(last, pages);
    let pin = view.pin(0).expect("pin");
    let (result, after) = bench.call(range(0, pages, PRIVATE, 0));
    assert_eq!((result, after.error_offset), (Err(Errno::EAGAIN), last * PAGE_SIZE));
    assert!(after.error_offset > 1 << 32);
    drop(pin);
    bench.convert(0, pages, PRIVATE, 0);
    assert!(faults(&*view, 0));

    let pages = 1 << 28;
    let bench = Bench::new(RfcV4, None, pages);
    let view = bench.view(0, pages);
    poke(&*view, pages - 1, 1);
    bench.convert(0, pages, PRIVATE, MODE_PRESERVE);
    bench.convert(1, pages, SHARED, MODE_ZERO);
    assert_eq!(peek(&*view, pages - 1), 0);
    assert!(faults(&*view, 0));
}
