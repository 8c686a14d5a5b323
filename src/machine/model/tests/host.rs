// SPDX-License-Identifier: GPL-2.0-only
//! The host's view, in this process and in forked children.

use super::support::*;
use crate::dialect::Dialect::{self, RfcV4, Upstream};
use crate::errno::Errno;
use crate::uapi::*;

/// Exactly the private pages are SIGBUS, in every mapping, and shared pages are the same memory in all.
#[test]
fn private_pages_fault() {
    for dialect in Dialect::ALL {
        let bench = Bench::new(dialect, None, 5);
        let (whole, part) = (bench.view(0, 5), bench.view(2, 4));
        bench.convert(1, 3, PRIVATE, 0);
        let late = bench.view(0, 5);
        let pattern = |view: &dyn crate::machine::HostView, n| {
            (0..n).map(|page| faults(view, page)).collect::<Vec<_>>()
        };
        assert_eq!(pattern(&*whole, 5), [false, true, true, false, false]);
        assert_eq!(pattern(&*late, 5), [false, true, true, false, false]);
        assert_eq!(pattern(&*part, 2), [true, false]);
        bench.convert(2, 3, SHARED, 0);
        poke(&*part, 0, 77);
        assert_eq!((peek(&*whole, 2), peek(&*late, 2)), (77, 77));
    }
}

/// Without INIT_SHARED every page starts private.
#[test]
fn starts_private() {
    let flags = GUEST_MEMFD_FLAG_MMAP;
    let bench = Bench::with(RfcV4, None, KVM_X86_SW_PROTECTED_VM, 3, flags);
    let view = bench.view(0, 3);
    assert!((0..3).all(|page| faults(&*view, page)));
    bench.convert(1, 2, SHARED, 0);
    assert_eq!(peek(&*view, 1), 0);
    assert!(faults(&*view, 0) && faults(&*view, 2));
}

/// Past the end of the file is a SIGBUS, too.
#[test]
fn past_the_end() {
    let bench = Bench::new(RfcV4, None, 2);
    let view = bench.view(0, 4);
    bench.convert(0, 2, PRIVATE, 0);
    bench.convert(0, 2, SHARED, 0);
    assert!(!faults(&*view, 1) && faults(&*view, 2));
    assert_eq!(view.pin(2 * PAGE_SIZE).err(), Some(Errno::EFAULT));
}

/// The errors of mmap.
#[test]
fn mmap_errors() {
    let bench = Bench::new(RfcV4, None, 2);
    assert_eq!(bench.file.mmap(0, 0).err(), Some(Errno::EINVAL));
    assert_eq!(bench.file.mmap(1, PAGE_SIZE).err(), Some(Errno::EINVAL));
    let hidden = Bench::with(RfcV4, None, KVM_X86_SW_PROTECTED_VM, 2, 0);
    assert_eq!(hidden.file.mmap(0, PAGE_SIZE).err(), Some(Errno::ENODEV));
    // Which does not keep it from being converted.
    hidden.convert(0, 1, SHARED, 0);
}

/// A child forked before a conversion sees what the conversion made of the page, as long as its parent's mapping lasts.
#[test]
fn forked_children() {
    let bench = Bench::new(RfcV4, None, 4);
    let view = bench.view(0, 4);
    poke(&*view, 2, 5);
    let zapped = in_child(&*view, 2, true, || bench.convert(1, 3, PRIVATE, MODE_PRESERVE));
    assert_eq!(zapped, None);
    let shared = in_child(&*view, 2, true, || {
        bench.convert(2, 3, SHARED, MODE_PRESERVE);
        poke(&*view, 2, 6);
    });
    assert_eq!(shared, Some(6));
    assert_eq!(in_child(&*view, 1, true, || ()), None);
}

/// A view outlives its file's descriptor, and the attributes with it.
#[test]
fn views_keep_the_file() {
    let bench = Bench::new(RfcV4, None, 2);
    let view = bench.view(0, 2);
    bench.convert(0, 1, PRIVATE, 0);
    drop(bench);
    poke(&*view, 1, 3);
    assert!(faults(&*view, 0));
    assert_eq!(peek(&*view, 1), 3);
}

/// Threads that convert and threads that touch do not disturb each other: a page that stays shared stays readable.
#[test]
fn threads() {
    use crate::machine::HostView;
    use crate::machine::model::{Config, encryption::Protection, inode::Inode, vm_type};
    use std::sync::Arc;
    let config = Config { dialect: Upstream, fault: None };
    let vm_type = vm_type::find(KVM_X86_SW_PROTECTED_VM.into()).expect("a type");
    let protection = Arc::new(Protection::new());
    let inode = Inode::new(64 * PAGE_SIZE, 3, config, vm_type, protection).expect("a file");
    let inode = Arc::new(inode);
    let view = inode.mmap(0, 64 * PAGE_SIZE).expect("mmap");
    let address = view.address().expose_provenance();
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let inode = &inode;
            scope.spawn(move || {
                for step in 0..200 {
                    let page = 2 * (step % 16) + thread;
                    for private in [PRIVATE, SHARED] {
                        let mut arguments = range(page, page + 1, private, 0);
                        // SAFETY: the argument is ours.
                        let result = unsafe { inode.set_memory_attributes2(&raw mut arguments) };
                        assert_eq!(result, Ok(()));
                    }
                }
            });
        }
        scope.spawn(move || {
            for step in 0..2000usize {
                let at = address + (32 + step % 32) * 4096;
                let word: *mut usize = std::ptr::with_exposed_provenance_mut(at);
                // SAFETY: inside the view, which outlives the scope, in pages that nobody converts.
                let read = unsafe {
                    word.write_volatile(step);
                    word.read_volatile()
                };
                assert_eq!(read, step);
            }
        });
    });
}
