// SPDX-License-Identifier: GPL-2.0-only
//! The vCPU, through the mailbox.

use std::os::fd::AsRawFd;
use std::time::Instant;

use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, Upstream};
use crate::machine::Exit;
use crate::payload::abi::{IMAGE, PAYLOAD_SIZE, TEST_MEMORY, doorbell, operation, status};
use crate::payload::pattern;
use crate::uapi::*;

fn bench() -> (Bench, Guest) {
    let bench = Bench::new(RfcV4, None, 8);
    bench.slot(1, TEST_MEMORY, 0, 8).expect("slot");
    let guest = Guest::new(&*bench.vm);
    (bench, guest)
}

/// What the guest writes the host reads, and the other way round, whatever the page was in between.
#[test]
fn same_memory() {
    let (bench, mut guest) = bench();
    let view = bench.view(0, 8);
    let tag = pattern::tag(b'A', 1);
    bench.convert(1, 3, PRIVATE, 0);
    guest.execute(operation::FILL, 0, 4, tag);
    assert_eq!(peek(&*view, 0), pattern::word(tag, 0, 0));
    assert_eq!(guest.execute(operation::CHECK, 0, 4, tag).status, status::OK);
    bench.convert(0, 4, SHARED, MODE_PRESERVE);
    assert_eq!(peek(&*view, 2), pattern::word(tag, 2, 0));
    poke(&*view, 3, 12);
    let result = guest.execute(operation::CHECK, 0, 4, tag);
    assert_eq!(result.status, status::MISMATCH);
    assert_eq!((result.offset, result.found), (3 * PAGE_SIZE, 12));
    assert_eq!(result.expected, pattern::word(tag, 3, 0));
    assert_eq!(guest.execute(operation::READ, 3, 1, 0).found, 12);
}

/// The guest's first touch of a hole allocates it, cleared.
#[test]
fn first_touch() {
    let (bench, mut guest) = bench();
    let zero = guest.execute(operation::CHECK, 5, 1, pattern::ZERO);
    assert_eq!(zero.status, status::OK);
    assert_eq!(bench.allocated(8), [5]);
    guest.execute(operation::TOUCH, 6, 2, 0);
    assert_eq!(bench.allocated(8), [5, 6, 7]);
}

/// Each access without a memslot is an exit, once; then it reads zero and the command goes on.
#[test]
fn mmio() {
    let (_bench, mut guest) = bench();
    let gpa = TEST_MEMORY + 9 * PAGE_SIZE;
    guest.command(operation::TOUCH, gpa, 2 * PAGE_SIZE, 0, 0);
    for page in 0..2 {
        let expected = Exit::Mmio { gpa: gpa + page * PAGE_SIZE, length: 8, write: false };
        assert_eq!(guest.run(), expected);
    }
    assert_eq!(guest.run(), ring(doorbell::DONE));
    guest.command(operation::READ, gpa, 8, 0, 0);
    assert!(matches!(guest.run(), Exit::Mmio { .. }));
    assert_eq!(guest.run(), ring(doorbell::DONE));
    assert_eq!(guest.result().found, 0);
}

/// A command that never ends is interrupted at the deadline, can go on, and is abandoned by a new start.
#[test]
fn deadline() {
    let (_bench, mut guest) = bench();
    guest.command(operation::SPIN, 0, 0, 0, 0);
    assert_eq!(guest.vcpu.run(Instant::now()), Ok(Exit::Interrupted));
    let regs = guest.vcpu.get_regs().expect("get_regs");
    guest.vcpu.set_regs(&regs).expect("set_regs");
    assert_eq!(guest.vcpu.run(Instant::now()), Ok(Exit::Interrupted));
    guest.start();
    assert_eq!(guest.run(), ring(doorbell::READY));
    guest.execute(operation::WRITE, 1, 1, 3);
}

/// An access that is not mapped is a page fault with all its particulars, after which the payload cannot go on.
#[test]
fn exception() {
    let (_bench, mut guest) = bench();
    guest.command(operation::WRITE, 1 << 46, 8, 1, 0);
    assert_eq!(guest.run(), ring(doorbell::EXCEPTION));
    let result = guest.result();
    let fields = (result.vector, result.error_code, result.rip, result.cr2);
    assert_eq!(fields, (14, 2, IMAGE, 1 << 46));
    assert_eq!(guest.run(), Exit::Hlt);
}

/// A default VM's guest is served from the file as well.
#[test]
fn default_vm() {
    let bench = Bench::with(Upstream, None, KVM_X86_DEFAULT_VM, 4, 3);
    bench.slot(1, TEST_MEMORY, 0, 4).expect("slot");
    let mut guest = Guest::new(&*bench.vm);
    guest.execute(operation::WRITE, 2, 1, 44);
    assert_eq!(peek(&*bench.view(2, 3), 0), 44);
}

/// Once descriptor and mappings of a file are gone there is nothing behind its memslot.
#[test]
fn closed_file() {
    let (Bench { vm, file }, mut guest) = bench();
    drop(file);
    guest.command(operation::READ, TEST_MEMORY + 8, 8, 0, 0);
    let expected = Exit::MemoryFault { flags: 0, gpa: TEST_MEMORY, size: PAGE_SIZE };
    assert_eq!(guest.run(), expected);
    drop(vm);
}

/// A command of many accesses ends with its deadline as well.
#[test]
fn long_command() {
    let (_bench, mut guest) = bench();
    for _ in 0..2 {
        // All of the image's room: more words than are written between two looks at the clock.
        guest.command(operation::FILL, IMAGE, PAYLOAD_SIZE - IMAGE, pattern::ZERO, 0);
        let now = Instant::now();
        assert_eq!(guest.vcpu.run(now), Ok(Exit::Interrupted));
    }
}

/// Where in-place conversion is off, private and shared pages are different memory, by the VM's attributes.
#[test]
fn split_memory() {
    let bench = Bench::with(Dialect::None, None, KVM_X86_SW_PROTECTED_VM, 2, 0);
    let mut memory = vec![0u64; 3 * 512];
    let region = kvm_userspace_memory_region2 {
        slot: 1,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: TEST_MEMORY,
        memory_size: 2 * PAGE_SIZE,
        userspace_addr: (memory.as_mut_ptr().expose_provenance() as u64)
            .next_multiple_of(PAGE_SIZE),
        guest_memfd: bench.file.fd().as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: `memory` outlives the guest, and nobody else looks at it.
    unsafe { bench.vm.set_user_memory_region2(&region) }.expect("slot");
    let mut guest = Guest::new(&*bench.vm);
    guest.execute(operation::WRITE, 1, 1, 5);
    let mut attributes = kvm_memory_attributes {
        address: TEST_MEMORY + PAGE_SIZE,
        size: PAGE_SIZE,
        attributes: ATTRIBUTE_PRIVATE,
        flags: 0,
    };
    assert_eq!(bench.vm.set_memory_attributes(&attributes), Ok(()));
    assert_eq!(guest.execute(operation::READ, 1, 1, 0).found, 0);
    guest.execute(operation::WRITE, 1, 1, 6);
    attributes.attributes = 0;
    assert_eq!(bench.vm.set_memory_attributes(&attributes), Ok(()));
    assert_eq!(guest.execute(operation::READ, 1, 1, 0).found, 5);
    attributes.flags = 1;
    let refused = bench.vm.set_memory_attributes(&attributes);
    assert_eq!(refused, Err(crate::errno::Errno::EINVAL));
}
