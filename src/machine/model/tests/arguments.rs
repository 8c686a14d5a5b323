// SPDX-License-Identifier: GPL-2.0-only
//! The errors of the call and the order of its checks.

use std::ptr;

use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, RfcV5, Upstream};
use crate::errno::Errno;
use crate::uapi::*;

/// What the call must do, for each dialect: rfc-v4, rfc-v5, upstream.
type Row = (&'static str, fn(&mut MemoryAttributes2), [Option<Errno>; 3]);

const BAD: [Option<Errno>; 3] = [Some(Errno::EINVAL); 3];
const GOOD: [Option<Errno>; 3] = [None; 3];
/// A conversion with a content mode that a software-protected VM does not offer.
const NO_MODE: [Option<Errno>; 3] =
    [Some(Errno::EOPNOTSUPP), Some(Errno::EOPNOTSUPP), Some(Errno::EINVAL)];
/// Good where there are content modes.
const MODES_ONLY: [Option<Errno>; 3] = [None, None, Some(Errno::EINVAL)];

/// Each row changes a good argument, pages 2..4 of 8 to private. Several errors at once show the order of the checks.
const ROWS: &[Row] = &[
    ("good", |_| (), GOOD),
    ("to-shared", |a| a.attributes = 0, GOOD),
    ("unknown-flag", |a| a.flags = 4, BAD),
    ("highest-flag", |a| a.flags = 1 << 63, BAD),
    ("both-modes", |a| a.flags = 3, BAD),
    ("zero-to-private", |a| a.flags = MODE_ZERO, NO_MODE),
    ("zero-to-shared", |a| (a.flags, a.attributes) = (MODE_ZERO, 0), MODES_ONLY),
    ("preserve", |a| a.flags = MODE_PRESERVE, MODES_ONLY),
    ("error-offset", |a| a.error_offset = 1, [Some(Errno::EINVAL), None, None]),
    ("reserved-first", |a| a.reserved[0] = 1, BAD),
    ("reserved-last", |a| a.reserved[10] = 1 << 63, BAD),
    ("attribute-read", |a| a.attributes |= 1, BAD),
    ("attribute-unknown", |a| a.attributes = 1 << 63, BAD),
    ("size-zero", |a| a.size = 0, BAD),
    ("wrap", |a| a.size = u64::MAX - PAGE_SIZE + 1, BAD),
    ("offset-unaligned", |a| a.offset += 1, BAD),
    ("size-unaligned", |a| a.size += 8, BAD),
    ("to-the-end", |a| a.size = 6 * PAGE_SIZE, GOOD),
    ("past-the-end", |a| a.size = 7 * PAGE_SIZE, BAD),
    ("at-the-end", |a| a.offset = 8 * PAGE_SIZE, BAD),
    ("mode-and-bad-range", |a| (a.flags, a.size) = (MODE_ZERO, 0), BAD),
    ("mode-and-reserved", |a| (a.flags, a.reserved[3]) = (MODE_ZERO, 1), BAD),
];

fn index(dialect: Dialect) -> usize {
    Dialect::ALL.iter().position(|d| *d == dialect).expect("listed")
}

/// Every row of the table of errors, alone, on a fresh file: the error, and what becomes of the argument. EINVAL leaves
/// it as it was, EOPNOTSUPP writes the start of the range into error_offset, success writes nothing.
#[test]
fn rows() {
    for dialect in Dialect::ALL {
        for (name, change, expected) in ROWS {
            let bench = Bench::new(dialect, None, 8);
            let mut arguments = range(2, 4, PRIVATE, 0);
            change(&mut arguments);
            let (result, after) = bench.call(arguments);
            let expected = expected[index(dialect)];
            assert_eq!(result.err(), expected, "{dialect} {name}");
            if expected == Some(Errno::EOPNOTSUPP) {
                arguments.error_offset = arguments.offset;
            }
            assert_eq!(after, arguments, "{dialect} {name}");
            // A refused conversion has converted nothing.
            if expected.is_some() {
                let view = bench.view(0, 8);
                poke(&*view, 2, 7);
                assert_eq!(peek(&*view, 2), 7);
            }
        }
    }
}

/// An unsupported mode is refused also when there is nothing to convert.
#[test]
fn mode_is_checked_before_the_shortcut() {
    for dialect in [RfcV4, RfcV5] {
        let bench = Bench::new(dialect, None, 4);
        bench.convert(1, 3, PRIVATE, 0);
        let refused = bench.refused(1, 3, PRIVATE, MODE_ZERO);
        assert_eq!(refused, (Errno::EOPNOTSUPP, 1));
    }
}

/// An argument that cannot be read, or cannot be written where the call has to, is EFAULT and not a crash. Success needs
/// no writable argument.
#[test]
fn pointers() {
    let bench = Bench::new(RfcV4, None, 4);
    // SAFETY: a fresh mapping of two pages, the second of which nobody may touch.
    let pages = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages = libc::mmap(ptr::null_mut(), 8192, protection, flags, -1, 0);
        assert_ne!(pages, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(pages.byte_add(4096), 4096, libc::PROT_NONE), 0);
        pages.cast::<u8>()
    };
    let call = |argument: *mut MemoryAttributes2| {
        // SAFETY: bytes that are mapped there are ours; the call checks whether they are.
        unsafe { bench.file.set_memory_attributes2(argument) }
    };
    assert_eq!(call(ptr::null_mut()), Err(Errno::EFAULT));
    assert_eq!(call(ptr::without_provenance_mut(1 << 63)), Err(Errno::EFAULT));
    assert_eq!(call(pages.wrapping_add(4096).cast()), Err(Errno::EFAULT));
    // The last 8 bytes are missing.
    assert_eq!(call(pages.wrapping_add(4096 - 120).cast()), Err(Errno::EFAULT));

    let argument = pages.cast::<MemoryAttributes2>();
    let read_only = |value| {
        // SAFETY: the first page is ours and mapped.
        unsafe {
            argument.write(value);
            assert_eq!(libc::mprotect(pages.cast(), 4096, libc::PROT_READ), 0);
            let result = bench.file.set_memory_attributes2(argument);
            libc::mprotect(pages.cast(), 4096, libc::PROT_READ | libc::PROT_WRITE);
            result
        }
    };
    assert_eq!(read_only(range(0, 1, PRIVATE, MODE_ZERO)), Err(Errno::EFAULT));
    assert_eq!(read_only(range(0, 1, PRIVATE, 4)), Err(Errno::EINVAL));
    assert_eq!(read_only(range(0, 1, PRIVATE, 0)), Ok(()));
    // SAFETY: mapped above, and nothing refers to it any more.
    unsafe { libc::munmap(pages.cast(), 8192) };
}

/// Where in-place conversion is off, and on a VM's descriptor in any case, the call does not exist.
#[test]
fn other_descriptors() {
    let flags = GUEST_MEMFD_FLAG_MMAP;
    let bench = Bench::with(Dialect::None, None, KVM_X86_SW_PROTECTED_VM, 4, flags);
    assert_eq!(bench.call(range(0, 1, SHARED, 0)).0, Err(Errno::ENOTTY));
    for dialect in Dialect::ALL {
        let bench = Bench::new(dialect, None, 4);
        let mut arguments = range(0, 1, PRIVATE, 0);
        // SAFETY: the argument is ours.
        let result = unsafe { bench.vm.set_memory_attributes2(&raw mut arguments) };
        assert_eq!(result, Err(Errno::ENOTTY));
        let per_vm = kvm_memory_attributes::default();
        assert_eq!(bench.vm.set_memory_attributes(&per_vm), Err(Errno::ENOTTY));
    }
}

/// A VM without private memory: never private, no content mode; upstream refuses the call as such.
#[test]
fn default_vm() {
    let row = |dialect, private, flags| {
        let all = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let bench = Bench::with(dialect, None, KVM_X86_DEFAULT_VM, 4, all);
        bench.call(range(0, 1, private, flags)).0
    };
    for dialect in Dialect::ALL {
        assert_eq!(row(dialect, PRIVATE, 0), Err(Errno::EINVAL));
    }
    for dialect in [RfcV4, RfcV5] {
        assert_eq!(row(dialect, SHARED, 0), Ok(()));
        assert_eq!(row(dialect, SHARED, MODE_ZERO), Err(Errno::EOPNOTSUPP));
        assert_eq!(row(dialect, SHARED, MODE_PRESERVE), Err(Errno::EOPNOTSUPP));
    }
    assert_eq!(row(Upstream, SHARED, 0), Err(Errno::EINVAL));
}

/// Capabilities on the system and on VMs, per dialect.
#[test]
fn capabilities() {
    use crate::machine::Machine;
    use crate::machine::model::{Config, Model};
    // capability, dialect, system, default VM, software-protected VM
    let rows = [
        (KVM_CAP_VM_TYPES, Dialect::None, 0x33, 0x33, 0x33),
        (KVM_CAP_GUEST_MEMFD, RfcV4, 1, 1, 1),
        (KVM_CAP_GUEST_MEMFD_FLAGS, Dialect::None, 3, 3, 1),
        (KVM_CAP_GUEST_MEMFD_FLAGS, RfcV5, 3, 3, 3),
        (KVM_CAP_MEMORY_ATTRIBUTES, Dialect::None, 8, 0, 8),
        (KVM_CAP_MEMORY_ATTRIBUTES, Upstream, 0, 0, 0),
        (249, Dialect::None, 0, 0, 0),
        (249, RfcV4, 8, 0, 8),
        (249, Upstream, 0, 0, 0),
        (250, RfcV5, 3, 0, 3),
        (250, Upstream, 0, 0, 0),
        (252, RfcV5, 0, 0, 0),
        (252, Upstream, 8, 0, 8),
    ];
    for (capability, dialect, system, default, protected) in rows {
        let machine = Model::new(Config { dialect, fault: None });
        let on_vm = |t: u32| {
            let vm = machine.create_vm(t.into()).expect("create_vm");
            vm.check_extension(capability)
        };
        let row = (capability, dialect);
        assert_eq!(machine.check_extension(capability), Ok(system), "{row:?}");
        assert_eq!(on_vm(KVM_X86_DEFAULT_VM), Ok(default), "{row:?}");
        assert_eq!(on_vm(KVM_X86_SW_PROTECTED_VM), Ok(protected), "{row:?}");
    }
    let machine = Model::new(Config { dialect: RfcV4, fault: None });
    assert_eq!(machine.create_vm(2).err(), Some(Errno::EINVAL));
}

/// What a guest_memfd may be created with.
#[test]
fn creation() {
    let on = Bench::new(RfcV4, None, 1);
    let off = Bench::with(Dialect::None, None, KVM_X86_SW_PROTECTED_VM, 1, 0);
    let rows = [
        (&on, PAGE_SIZE, 0, None),
        (&on, 1 << 40, 3, None),
        (&on, 0, 0, Some(Errno::EINVAL)),
        (&on, PAGE_SIZE + 1, 0, Some(Errno::EINVAL)),
        (&on, 1 << 63, 0, Some(Errno::EINVAL)),
        (&on, PAGE_SIZE, 4, Some(Errno::EINVAL)),
        (&on, PAGE_SIZE, 2, None),
        (&off, PAGE_SIZE, 1, None),
        (&off, PAGE_SIZE, 2, Some(Errno::EINVAL)),
    ];
    for (bench, size, flags, expected) in rows {
        let result = bench.vm.create_guest_memfd(size, flags);
        assert_eq!(result.err(), expected, "size {size:#x} flags {flags}");
    }
}
