// SPDX-License-Identifier: GPL-2.0-only
//! Planted faults make a difference, and liberties make none that anybody was promised.

use std::os::fd::AsRawFd;

use super::super::{Config, Fault, Model};
use super::support::*;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{HostView, Machine, Result};
use crate::payload::abi::{TEST_MEMORY, operation};
use crate::payload::pattern;
use crate::uapi::*;

/// Everything that a caller may rely on, observed in one fixed order.
struct Observer {
    dialect: Dialect,
    fault: Option<Fault>,
    seen: Vec<String>,
}

/// Word `index` of `page` of a view, or `None` where an access is a SIGBUS.
fn look_at(view: &dyn HostView, page: u64, index: u64) -> Option<u64> {
    let mut found = 0u64;
    let (local, remote) = (iovec(&raw mut found), iovec(word(view, page, index)));
    // SAFETY: `found` is ours to write; the view is only read, and by the kernel, which checks it.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    (read == 8).then_some(found)
}

/// The first word of `page`.
fn look(view: &dyn HostView, page: u64) -> Option<u64> {
    look_at(view, page, 0)
}

/// Writes the first and the last word of `page`, if an access is no SIGBUS: some bugs make it one.
fn put(view: &dyn HostView, page: u64, mut value: u64) {
    for index in [0, 511] {
        let (local, remote) = (iovec(&raw mut value), iovec(word(view, page, index)));
        // SAFETY: `value` is ours; the view is only written, and by the kernel, which checks it.
        unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    }
}

fn iovec(base: *mut u64) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: 8 }
}

impl Observer {
    fn bench(&self, flags: u64) -> Bench {
        Bench::with(self.dialect, self.fault, KVM_X86_SW_PROTECTED_VM, 8, flags)
    }

    fn note(&mut self, what: &str, value: impl std::fmt::Debug) {
        self.seen.push(format!("{what}: {value:?}"));
    }

    /// The mode that keeps contents, in this dialect.
    fn keep(&self) -> u64 {
        if self.dialect.has_content_modes() { MODE_PRESERVE } else { 0 }
    }

    /// The call, again while a page may be in flight, and what it did to its argument.
    fn call(&mut self, what: &str, bench: &Bench, arguments: MemoryAttributes2) {
        let mut outcome = bench.call(arguments);
        for _ in 0..3 {
            if outcome.0 == Err(Errno::EAGAIN) {
                outcome = bench.call(arguments);
            }
        }
        self.note(what, (outcome.0, outcome.1.error_offset));
    }

    fn pages(&mut self, what: &str, view: &dyn HostView) {
        let pages = view.length() / PAGE_SIZE;
        let words: Vec<_> = (0..pages).map(|page| look(view, page)).collect();
        self.note(what, words);
    }

    fn fresh_files(&mut self) {
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        self.pages("init shared", &*view);
        let bench = self.bench(1);
        self.pages("init private", &*bench.view(0, 8));
        let hidden = self.bench(0);
        self.call("without mmap", &hidden, range(0, 1, SHARED, 0));
        bench.slot(1, TEST_MEMORY, 0, 8).expect("slot");
        let mut guest = Guest::new(&*bench.vm);
        guest.command(operation::CHECK, TEST_MEMORY, 8, pattern::ZERO, 0);
        let exit = guest.run();
        self.note("guest's first touch", (exit, guest.result().status));
    }

    /// Conversions of a file with contents, whose first and last pages must stay what they are.
    fn conversions(&mut self) {
        let keep = self.keep();
        let bench = self.bench(3);
        let (view, second) = (bench.view(0, 8), bench.view(0, 8));
        (0..8).for_each(|page| put(&*view, page, 20 + page));
        self.call("to private", &bench, range(2, 5, PRIVATE, keep));
        self.pages("first view", &*view);
        self.pages("second view", &*second);
        self.pages("new view", &*bench.view(0, 8));
        self.call("again", &bench, range(2, 5, PRIVATE, keep));
        self.call("mixed", &bench, range(4, 7, PRIVATE, keep));
        self.pages("mixed", &*view);
        self.call("whole file", &bench, range(0, 8, PRIVATE, keep));
        self.call("back", &bench, range(1, 7, SHARED, keep));
        self.pages("after", &*view);
        self.call("page 0", &bench, range(0, 8, SHARED, keep));
        self.call("page 0", &bench, range(0, 1, PRIVATE, keep));
        self.pages("page 0", &*view);
        self.call("last page", &bench, range(6, 8, PRIVATE, keep));
        self.pages("after", &*view);
        self.call("begins private", &bench, range(0, 8, SHARED, keep));
        let last_words = [2, 3].map(|page| look_at(&*view, page, 511));
        self.note("last words", last_words);
        let child = in_child(&*view, 3, true, || bench.convert_again(range(3, 4, PRIVATE, keep)));
        self.note("child", child);
    }

    /// Content modes, or what there is in their place.
    fn modes(&mut self) {
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        for page in [0, 2, 3, 4] {
            put(&*view, page, 30 + page);
        }
        for (private, flags) in [(PRIVATE, 1), (SHARED, 3), (SHARED, 4), (SHARED, 7)] {
            self.call("refused", &bench, range(2, 4, private, flags));
        }
        self.pages("unchanged", &*bench.view(0, 1));
        self.note("unchanged", [look(&*view, 2), look(&*view, 3)]);
        self.call("zero on shared", &bench, range(2, 4, SHARED, 1));
        self.note("zero", [look(&*view, 2), look(&*view, 3)]);
        put(&*view, 2, 1);
        put(&*view, 3, 1);
        self.call("to private", &bench, range(2, 3, PRIVATE, self.keep()));
        self.call("noop", &bench, range(2, 3, PRIVATE, 1));
        self.call("zero", &bench, range(2, 4, SHARED, 1));
        self.note("zero", [look(&*view, 2), look(&*view, 3)]);
        self.note("last word", look_at(&*view, 3, 511));

        let keep_size = libc::FALLOC_FL_KEEP_SIZE;
        let allocated = bench.file.fallocate(keep_size, 6 * PAGE_SIZE, PAGE_SIZE);
        self.note("allocate", allocated);
        for private in [PRIVATE, SHARED] {
            self.call("unspecified", &bench, range(3, 4, private, 0));
            self.call("unspecified", &bench, range(5, 8, private, 0));
        }
        self.note("neighbour", look(&*view, 4));
        // Of what was never written and converted without a mode, nothing is promised but that it is nobody's.
        self.note("holes", [5, 6, 7].map(|page| look(&*view, page).is_some()));
        bench.slot(1, TEST_MEMORY, 0, 8).expect("slot");
        let mut guest = Guest::new(&*bench.vm);
        let before = look(&*view, 3);
        guest.command(operation::READ, TEST_MEMORY + 3 * PAGE_SIZE, 8, 0, 0);
        let exit = guest.run();
        let found = guest.result().found;
        self.note("stable", (exit, before == Some(found), before == look(&*view, 3)));
        // Longer than a batch of folios, and the page behind the range.
        let bench = Bench::with(self.dialect, self.fault, KVM_X86_SW_PROTECTED_VM, 40, 3);
        let view = bench.view(0, 40);
        (0..40).for_each(|page| put(&*view, page, 5));
        self.call("to private", &bench, range(0, 36, PRIVATE, self.keep()));
        self.call("zero", &bench, range(0, 36, SHARED, 1));
        self.pages("many", &*view);
    }

    fn arguments(&mut self) {
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        put(&*view, 2, 3);
        let changes: [fn(&mut MemoryAttributes2); 12] = [
            |a| a.flags = 1 << 40,
            |a| a.attributes |= 1 << 40,
            |a| a.error_offset = 8,
            |a| a.reserved[0] = 1,
            |a| a.reserved[10] = 1,
            |a| a.attributes |= 1,
            |a| a.size = 0,
            |a| a.size = u64::MAX - PAGE_SIZE + 1,
            |a| a.offset += 8,
            |a| a.size += 8,
            |a| a.offset = 8 * PAGE_SIZE,
            |a| a.size = 9 * PAGE_SIZE,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut arguments = range(2, 4, PRIVATE, self.keep());
            change(&mut arguments);
            self.call(&format!("argument {index}"), &bench, arguments);
        }
        self.call("flags", &bench, range(6, 7, PRIVATE, 4));
        self.pages("after bad arguments", &*view);
        // SAFETY: nothing is mapped at address 0.
        let null = unsafe { bench.file.set_memory_attributes2(std::ptr::null_mut()) };
        self.note("null", null);
        let mut arguments = range(0, 1, SHARED, 0);
        // SAFETY: the argument is ours.
        let on_vm = unsafe { bench.vm.set_memory_attributes2(&raw mut arguments) };
        self.note("on the vm", on_vm);
        self.note("read-only argument", self.read_only());

        let default = Bench::with(self.dialect, self.fault, KVM_X86_DEFAULT_VM, 8, 3);
        for (private, flags) in [(PRIVATE, 0), (SHARED, 0), (SHARED, 1), (SHARED, 2)] {
            self.call("default", &default, range(2, 4, private, flags));
        }
    }

    /// A refusal that has to be written back and cannot: a page in use, with a read-only argument.
    fn read_only(&self) -> Result<()> {
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        let pin = view.pin(5 * PAGE_SIZE);
        let private = range(5, 6, PRIVATE, self.keep());
        // SAFETY: a mapping of its own, which only the call refers to.
        let result = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            page.cast::<MemoryAttributes2>().write(private);
            assert_eq!(libc::mprotect(page, 4096, libc::PROT_READ), 0);
            let result = bench.file.set_memory_attributes2(page.cast());
            libc::munmap(page, 4096);
            result
        };
        drop(pin);
        result
    }

    fn pages_in_use(&mut self) {
        let keep = self.keep();
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        (0..8).for_each(|page| put(&*view, page, 60 + page));
        let pins = [3, 5].map(|page| view.pin(page * PAGE_SIZE));
        self.note("pinned", pins.iter().map(|p| p.is_ok()).collect::<Vec<_>>());
        self.call("in use", &bench, range(2, 7, PRIVATE, 0));
        self.pages("unchanged", &*view);
        self.call("just before", &bench, range(2, 3, PRIVATE, keep));
        self.call("to shared", &bench, range(2, 6, SHARED, keep));
        self.call("just behind", &bench, range(4, 5, PRIVATE, keep));
        let twice = [6, 6].map(|page| view.pin(page * PAGE_SIZE));
        self.call("in use twice", &bench, range(6, 7, PRIVATE, 0));
        self.pages("unchanged", &*view);
        drop((pins, twice));
        self.call("free again", &bench, range(2, 7, PRIVATE, keep));
        self.pages("converted", &*view);

        let (dialect, fault) = (self.dialect, self.fault);
        let bench = Bench::with(dialect, fault, KVM_X86_SW_PROTECTED_VM, 600, 3);
        let view = bench.view(0, 600);
        let pin = view.pin(40 * PAGE_SIZE);
        self.call("behind a batch", &bench, range(0, 60, PRIVATE, keep));
        drop(pin);
        self.call("across 2 MiB", &bench, range(510, 514, PRIVATE, keep));
        self.note("across 2 MiB", [509, 510, 513, 514].map(|page| look(&*view, page)));

        let pages = (1 << 20) + 4;
        let bench = Bench::with(dialect, fault, KVM_X86_SW_PROTECTED_VM, pages, 3);
        let view = bench.view(pages - 2, pages);
        let _pin = view.pin(0);
        self.call("beyond 4 GiB", &bench, range(pages - 3, pages, PRIVATE, 0));
        self.call("beyond 4 GiB", &bench, range(pages - 4, pages - 3, PRIVATE, 0));
        self.call("more than 4 GiB", &bench, range(2, pages - 2, PRIVATE, 0));
        let start = bench.view(0, 8);
        self.pages("start of the file", &*start);
    }

    fn holes(&mut self) {
        let keep = self.keep();
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        (0..8).for_each(|page| put(&*view, page, 70 + page));
        self.call("to private", &bench, range(3, 5, PRIVATE, keep));
        let punch = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        let punched = bench.file.fallocate(punch, 2 * PAGE_SIZE, 4 * PAGE_SIZE);
        self.note("punch", punched);
        self.pages("punched", &*view);
        self.call("to shared", &bench, range(3, 5, SHARED, keep));
        self.pages("punched", &*view);

        let bench = self.bench(3);
        let view = bench.view(0, 8);
        bench.slot(1, TEST_MEMORY, 0, 8).expect("slot");
        let mut guest = Guest::new(&*bench.vm);
        put(&*view, 1, 80);
        put(&*view, 2, 80);
        self.note("punch", bench.file.fallocate(punch, PAGE_SIZE, PAGE_SIZE));
        guest.command(operation::READ, TEST_MEMORY + PAGE_SIZE, 8, 0, 0);
        let exit = guest.run();
        self.note("guest sees", (exit, guest.result().found));
        self.call("holes", &bench, range(4, 6, PRIVATE, keep));
        self.pages("holes", &*view);
        let allocate = libc::FALLOC_FL_KEEP_SIZE;
        self.note("allocate", bench.file.fallocate(allocate, PAGE_SIZE, 5 * PAGE_SIZE));
        self.pages("allocated", &*view);
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        self.note("allocate", bench.file.fallocate(allocate, PAGE_SIZE, PAGE_SIZE));
        self.pages("only allocated", &*view);
    }

    fn memslots(&mut self) {
        let keep = self.keep();
        let bench = self.bench(3);
        let view = bench.view(0, 8);
        self.note("past the end", bench.slot(3, 1 << 33, 6, 9));
        bench.slot(1, TEST_MEMORY, 3, 6).expect("slot");
        let mut guest = Guest::new(&*bench.vm);
        let write = |guest: &mut Guest, page, value| {
            guest.command(operation::WRITE, TEST_MEMORY + page * PAGE_SIZE, 8, value, 0);
            guest.run()
        };
        let exit = write(&mut guest, 1, 9);
        self.note("guest writes", exit);
        self.pages("seen", &*view);
        self.call("by file offset", &bench, range(1, 2, PRIVATE, keep));
        self.call("to private", &bench, range(4, 5, PRIVATE, keep));
        self.pages("converted", &*view);
        let exit = write(&mut guest, 1, 10);
        self.note("guest writes", exit);
        self.note("a part twice", bench.slot(4, 1 << 33, 4, 5));
        let region = kvm_userspace_memory_region2 { slot: 1, ..Default::default() };
        // SAFETY: nothing is mapped by a deletion.
        let deleted = unsafe { bench.vm.set_user_memory_region2(&region) };
        self.note("deleted", deleted);
        let exit = write(&mut guest, 2, 11);
        self.note("guest writes where no slot is", exit);
        self.note("recreated", bench.slot(1, TEST_MEMORY, 3, 6));
        self.pages("kept", &*view);
        self.call("to shared", &bench, range(4, 5, SHARED, keep));
        self.pages("seen", &*view);
        let exit = write(&mut guest, 1, 12);
        self.note("guest writes", exit);
        self.pages("seen", &*view);

        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let other = bench.vm.create_guest_memfd(8 * PAGE_SIZE, flags).expect("create_guest_memfd");
        let beside = other.mmap(0, 8 * PAGE_SIZE).expect("mmap");
        self.call("beside another", &bench, range(2, 4, PRIVATE, keep));
        self.pages("another file", &*beside);
        put(&*beside, 3, 31);
        self.call("beside another", &bench, range(2, 4, SHARED, MODE_ZERO));
        self.pages("another file", &*beside);
    }

    fn descriptor(&mut self) {
        let bench = self.bench(3);
        let create = |size, flags| bench.vm.create_guest_memfd(size, flags).map(drop);
        self.note("create", [create(PAGE_SIZE, 3), create(PAGE_SIZE, 1 << 7), create(0, 0)]);
        self.note("private mmap", bench.file.mmap_private(0, PAGE_SIZE));
        self.note("truncate", (bench.file.truncate(0), bench.file.size()));
        let keep_size = libc::FALLOC_FL_KEEP_SIZE;
        let allocated = bench.file.fallocate(keep_size, 2 * PAGE_SIZE, 3 * PAGE_SIZE);
        let cached = |page| bench.file.cached_pages(page * PAGE_SIZE, PAGE_SIZE);
        self.note("cached", (allocated, [1, 2, 3, 4, 5].map(cached)));
        let beyond = bench.file.fallocate(keep_size, 7 * PAGE_SIZE, 2 * PAGE_SIZE);
        self.note("allocate beyond the end", beyond);
        let region = kvm_userspace_memory_region2 {
            slot: 5,
            flags: KVM_MEM_GUEST_MEMFD | kvm_bindings::KVM_MEM_READONLY,
            guest_phys_addr: 1 << 33,
            memory_size: PAGE_SIZE,
            guest_memfd: bench.file.fd().as_raw_fd() as u32,
            guest_memfd_offset: 7 * PAGE_SIZE,
            ..Default::default()
        };
        // SAFETY: the slot has no memory of ours.
        self.note("read-only", unsafe { bench.vm.set_user_memory_region2(&region) });
        let other = self.bench(3);
        let region = kvm_userspace_memory_region2 { flags: KVM_MEM_GUEST_MEMFD, ..region };
        // SAFETY: as above.
        self.note("another VM's", unsafe { other.vm.set_user_memory_region2(&region) });
        bench.slot(1, TEST_MEMORY, 0, 7).expect("slot");
        let vcpu = bench.vm.create_vcpu(7).expect("vcpu");
        let faulted = vcpu.pre_fault_memory(TEST_MEMORY, 2 * PAGE_SIZE);
        let cached = [0, 1].map(|page| bench.file.cached_pages(page * PAGE_SIZE, PAGE_SIZE));
        self.note("pre-fault", (faulted, cached));
        let Bench { vm, file } = bench;
        let mut guest = Guest::new(&*vm);
        drop(file);
        guest.command(operation::READ, TEST_MEMORY + PAGE_SIZE, 8, 0, 0);
        let exit = guest.run();
        self.note("closed", exit);
    }

    fn capabilities(&mut self) {
        let machine = Model::new(Config { dialect: self.dialect, fault: self.fault });
        for vm_type in [KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM] {
            let vm = machine.create_vm(vm_type.into()).expect("create_vm");
            let answers = [249, 250, 252].map(|number| vm.check_extension(number));
            self.note("capabilities", answers);
        }
    }
}

impl Bench {
    /// The call, once more if a page may be in flight; whatever it returns.
    fn convert_again(&self, arguments: MemoryAttributes2) {
        if self.call(arguments).0 == Err(Errno::EAGAIN) {
            let _ = self.call(arguments);
        }
    }
}

fn observe(dialect: Dialect, fault: Option<Fault>) -> Vec<String> {
    let mut observer = Observer { dialect, fault, seen: Vec::new() };
    observer.fresh_files();
    observer.conversions();
    observer.modes();
    observer.arguments();
    observer.pages_in_use();
    observer.holes();
    observer.memslots();
    observer.descriptor();
    observer.capabilities();
    observer.seen
}

/// Every bug shows in every dialect that it is listed for, and no liberty shows in what anybody was promised: otherwise
/// the suite's sensitivity would be measured with bugs that are none. Bugs that only encrypted guests see are left to
/// tests/teeth.rs, where each is found on each of its platforms: an observer of those would be the suite once more.
#[test]
fn bugs_show_and_liberties_do_not() {
    let mut wrong = Vec::new();
    for dialect in Dialect::ALL {
        let correct = observe(dialect, None);
        assert_eq!(correct, observe(dialect, None), "{dialect}");
        for fault in Fault::ALL.iter().chain(Fault::BENIGN).copied() {
            let elsewhere = !fault.vm_types().contains(&KVM_X86_SW_PROTECTED_VM);
            if elsewhere || !fault.dialects().contains(&dialect) {
                continue;
            }
            let seen = observe(dialect, Some(fault));
            if fault.is_benign() == (seen != correct) {
                let differs = seen.iter().zip(&correct).find(|(a, b)| a != b);
                wrong.push((dialect, fault, differs.map(|(a, b)| (a.clone(), b.clone()))));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
