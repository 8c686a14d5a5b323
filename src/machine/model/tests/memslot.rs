// SPDX-License-Identifier: GPL-2.0-only
//! Memslots on guest_memfds.

use std::os::fd::AsRawFd;

use super::support::*;
use crate::dialect::Dialect::RfcV4;
use crate::errno::Errno;
use crate::payload::abi::{TEST_MEMORY, operation};
use crate::uapi::*;

fn delete(bench: &Bench, slot: u32) -> Result<(), Errno> {
    let region = kvm_userspace_memory_region2 { slot, ..Default::default() };
    // SAFETY: nothing is mapped by a deletion.
    unsafe { bench.vm.set_user_memory_region2(&region) }
}

/// Two slots on one file, in the opposite order of its pages: the guest reaches the file's pages, and conversions name
/// them by file offset.
#[test]
fn two_slots() {
    let bench = Bench::new(RfcV4, None, 8);
    bench.slot(1, TEST_MEMORY, 4, 8).expect("slot 1");
    bench.slot(2, TEST_MEMORY + 4 * PAGE_SIZE, 0, 4).expect("slot 2");
    let mut guest = Guest::new(&*bench.vm);
    let view = bench.view(0, 8);
    for page in 0..8 {
        guest.execute(operation::WRITE, page, 1, 50 + page);
    }
    let seen: Vec<u64> = (0..8).map(|page| peek(&*view, page)).collect();
    assert_eq!(seen, [54, 55, 56, 57, 50, 51, 52, 53]);
    bench.convert(5, 6, PRIVATE, MODE_PRESERVE);
    assert!(faults(&*view, 5) && !faults(&*view, 1));
    assert_eq!(guest.execute(operation::READ, 1, 1, 0).found, 51);
}

/// A memslot that is deleted and made anew finds contents and attributes as they were.
#[test]
fn recreated() {
    let bench = Bench::new(RfcV4, None, 4);
    bench.slot(1, TEST_MEMORY, 0, 4).expect("slot");
    let mut guest = Guest::new(&*bench.vm);
    guest.execute(operation::WRITE, 2, 1, 7);
    bench.convert(2, 3, PRIVATE, MODE_PRESERVE);
    assert_eq!(delete(&bench, 1), Ok(()));
    assert_eq!(delete(&bench, 1), Err(Errno::EINVAL));
    bench.slot(3, TEST_MEMORY, 0, 4).expect("slot");
    assert_eq!(guest.execute(operation::READ, 2, 1, 0).found, 7);
    assert!(faults(&*bench.view(0, 4), 2));
}

/// The errors of binding a file to a memslot.
#[test]
fn errors() {
    let bench = Bench::new(RfcV4, None, 4);
    bench.slot(1, TEST_MEMORY, 0, 2).expect("slot");
    let free = TEST_MEMORY + 64 * PAGE_SIZE;
    assert_eq!(bench.slot(2, free, 1, 3), Err(Errno::EEXIST));
    assert_eq!(bench.slot(2, TEST_MEMORY, 2, 4), Err(Errno::EEXIST));
    assert_eq!(bench.slot(2, free, 3, 5), Err(Errno::EINVAL));
    assert_eq!(bench.slot(2, free + 1, 2, 4), Err(Errno::EINVAL));
    // Neither the same again, nor moved, nor with another part of the file.
    assert_eq!(bench.slot(1, TEST_MEMORY, 0, 2), Err(Errno::EINVAL));
    assert_eq!(bench.slot(1, free, 0, 2), Err(Errno::EINVAL));
    assert_eq!(bench.slot(1, TEST_MEMORY, 2, 4), Err(Errno::EINVAL));

    let region = |change: fn(&mut kvm_userspace_memory_region2)| {
        let mut region = kvm_userspace_memory_region2 {
            slot: 2,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: free,
            memory_size: PAGE_SIZE,
            guest_memfd: bench.file.fd().as_raw_fd() as u32,
            guest_memfd_offset: 3 * PAGE_SIZE,
            ..Default::default()
        };
        change(&mut region);
        // SAFETY: the slot has no memory of ours.
        unsafe { bench.vm.set_user_memory_region2(&region) }
    };
    assert_eq!(region(|r| r.guest_memfd_offset = 1), Err(Errno::EINVAL));
    assert_eq!(region(|r| r.guest_memfd_offset = u64::MAX - 4095), Err(Errno::EINVAL));
    assert_eq!(region(|r| r.guest_memfd = u32::MAX), Err(Errno::EBADF));
    assert_eq!(region(|r| r.guest_memfd = 0), Err(Errno::EINVAL));
    assert_eq!(region(|r| r.flags |= 1), Err(Errno::EINVAL));
    assert_eq!(region(|r| r.slot = 32764), Err(Errno::EINVAL));
    assert_eq!(region(|_| ()), Ok(()));
}

/// A file belongs to the VM that made it.
#[test]
fn foreign_file() {
    let (mine, foreign) = (Bench::new(RfcV4, None, 2), Bench::new(RfcV4, None, 2));
    let swapped = Bench { vm: mine.vm, file: foreign.file };
    assert_eq!(swapped.slot(1, TEST_MEMORY, 0, 2), Err(Errno::EINVAL));
}
