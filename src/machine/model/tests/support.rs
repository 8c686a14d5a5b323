// SPDX-License-Identifier: GPL-2.0-only
//! What the tests of the model share.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::super::{Config, Fault, Model};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::*;
use crate::payload::abi::{Mailbox, PAYLOAD_SIZE, TEST_MEMORY};
use crate::uapi::*;

/// A deadline that nothing here reaches.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Argument for a conversion of pages `start..end`.
pub fn range(start: u64, end: u64, private: bool, flags: u64) -> MemoryAttributes2 {
    let attributes = if private { ATTRIBUTE_PRIVATE } else { 0 };
    MemoryAttributes2::of_pages(&(start..end), attributes, flags)
}

pub const SHARED: bool = false;
pub const PRIVATE: bool = true;

/// A VM with one guest_memfd.
pub struct Bench {
    pub vm: Box<dyn Vm>,
    pub file: Box<dyn GuestMemfd>,
}

impl Bench {
    /// A software-protected VM with a file of `pages` pages that start shared.
    pub fn new(dialect: Dialect, fault: Option<Fault>, pages: u64) -> Bench {
        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        Bench::with(dialect, fault, KVM_X86_SW_PROTECTED_VM, pages, flags)
    }

    pub fn with(
        dialect: Dialect,
        fault: Option<Fault>,
        vm_type: u32,
        pages: u64,
        flags: u64,
    ) -> Bench {
        let machine = Model::new(Config { dialect, fault });
        let vm = machine.create_vm(vm_type.into()).expect("create_vm");
        let file = vm.create_guest_memfd(pages * PAGE_SIZE, flags).expect("create_guest_memfd");
        Bench { vm, file }
    }

    /// The call with `arguments`; what it returned, and the argument afterwards.
    pub fn call(&self, arguments: MemoryAttributes2) -> (Result<()>, MemoryAttributes2) {
        let mut arguments = arguments;
        // SAFETY: the argument is ours.
        let result = unsafe { self.file.set_memory_attributes2(&raw mut arguments) };
        (result, arguments)
    }

    /// A conversion that must succeed and leave its argument alone.
    pub fn convert(&self, start: u64, end: u64, private: bool, flags: u64) {
        let arguments = range(start, end, private, flags);
        assert_eq!(self.call(arguments), (Ok(()), arguments));
    }

    /// A conversion that must be refused: error and page.
    pub fn refused(&self, start: u64, end: u64, private: bool, flags: u64) -> (Errno, u64) {
        let (result, after) = self.call(range(start, end, private, flags));
        (result.expect_err("not refused"), after.error_offset / PAGE_SIZE)
    }

    pub fn view(&self, start: u64, end: u64) -> Box<dyn HostView> {
        let length = (end - start) * PAGE_SIZE;
        self.file.mmap(start * PAGE_SIZE, length).expect("mmap")
    }

    /// The pages that are in the page cache, found without allocating any.
    pub fn allocated(&self, pages: u64) -> Vec<u64> {
        let fd = self.file.fd().as_raw_fd();
        let data = |page: &u64| {
            let at = (page * PAGE_SIZE) as i64;
            // SAFETY: no memory is involved.
            unsafe { libc::lseek(fd, at, libc::SEEK_DATA) == at }
        };
        (0..pages).filter(data).collect()
    }

    /// Makes a memslot over pages `start..end` of the file, at that distance from the start of the test memory.
    pub fn slot(&self, id: u32, gpa: u64, start: u64, end: u64) -> Result<()> {
        let region = kvm_userspace_memory_region2 {
            slot: id,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: gpa,
            memory_size: (end - start) * PAGE_SIZE,
            guest_memfd: self.file.fd().as_raw_fd() as u32,
            guest_memfd_offset: start * PAGE_SIZE,
            ..Default::default()
        };
        // SAFETY: the slot has no memory of ours.
        unsafe { self.vm.set_user_memory_region2(&region) }
    }
}

pub fn word(view: &dyn HostView, page: u64, index: u64) -> *mut u64 {
    let offset = page * PAGE_SIZE + index * 8;
    assert!(offset + 8 <= view.length());
    view.address().wrapping_add(offset as usize).cast()
}

/// Reads the first word of `page` of a view; it must be shared.
pub fn peek(view: &dyn HostView, page: u64) -> u64 {
    // SAFETY: inside the view.
    unsafe { word(view, page, 0).read_volatile() }
}

/// Writes the first and the last word of `page` of a view; it must be shared.
pub fn poke(view: &dyn HostView, page: u64, value: u64) {
    // SAFETY: inside the view.
    unsafe {
        word(view, page, 0).write_volatile(value);
        word(view, page, 511).write_volatile(value);
    }
}

/// What a forked child makes of the first word of `page`: its low bits, or `None` for a SIGBUS. `wait` is called in the
/// parent between the fork and the access, which the child puts off until then.
pub fn in_child(view: &dyn HostView, page: u64, sync: bool, wait: impl FnOnce()) -> Option<i32> {
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    // SAFETY: the child calls nothing but read, mmap and _exit.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            // SAFETY: plain system calls and a read inside the view, which may be a SIGBUS and is to be.
            unsafe {
                let mut byte = 0u8;
                libc::close(writer.as_raw_fd());
                libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                if sync {
                    view.sync_in_child(page * PAGE_SIZE, PAGE_SIZE);
                }
                libc::_exit((peek(view, page) & 0x7f) as i32)
            }
        }
        ForkResult::Parent { child } => {
            wait();
            // A byte, not the end of the pipe: a child of a test that runs beside this one may hold the other end as well.
            nix::unistd::write(&writer, &[0]).expect("write");
            match waitpid(child, None).expect("waitpid") {
                WaitStatus::Exited(_, status) => Some(status),
                WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGBUS, _) => None,
                other => panic!("the child ended with {other:?}"),
            }
        }
    }
}

/// Whether the host's access to `page` of a view is a SIGBUS.
pub fn faults(view: &dyn HostView, page: u64) -> bool {
    in_child(view, page, false, || ()).is_none()
}

/// A guest with the payload's memslot, which must outlive the vCPU.
pub struct Guest {
    memory: Vec<u64>,
    pub vcpu: Box<dyn Vcpu>,
    sequence: u64,
}

impl Guest {
    pub fn new(vm: &dyn Vm) -> Guest {
        let pages = (PAYLOAD_SIZE / PAGE_SIZE) as usize;
        let mut memory = vec![0u64; (pages + 1) * 512];
        let address = memory.as_mut_ptr().expose_provenance() as u64;
        let region = kvm_userspace_memory_region2 {
            slot: 9,
            memory_size: PAYLOAD_SIZE,
            userspace_addr: address.next_multiple_of(PAGE_SIZE),
            ..Default::default()
        };
        // SAFETY: the guest keeps `memory`, and reaches it through raw pointers.
        unsafe { vm.set_user_memory_region2(&region) }.expect("the payload's slot");
        let vcpu = vm.create_vcpu(0).expect("create_vcpu");
        let mut guest = Guest { memory, vcpu, sequence: 0 };
        guest.start();
        assert_eq!(guest.run(), ring(crate::payload::abi::doorbell::READY));
        guest
    }

    /// Puts the vCPU at the image's entry.
    pub fn start(&mut self) {
        let mut regs = self.vcpu.get_regs().expect("get_regs");
        regs.rip = crate::payload::abi::IMAGE;
        self.vcpu.set_regs(&regs).expect("set_regs");
    }

    pub fn run(&mut self) -> Exit {
        self.vcpu.run(soon()).expect("run")
    }

    fn mailbox(&mut self) -> *mut Mailbox {
        let base = self.memory.as_mut_ptr().cast::<u8>();
        let aligned = base.wrapping_add(base.align_offset(PAGE_SIZE as usize));
        aligned.wrapping_add(crate::payload::abi::MAILBOX as usize).cast()
    }

    /// Puts a command into the mailbox: operation, address, length, pattern, first page.
    pub fn command(&mut self, operation: u64, address: u64, length: u64, pattern: u64, page: u64) {
        self.sequence += 1;
        let mailbox = Mailbox {
            sequence: self.sequence,
            operation,
            address,
            length,
            pattern,
            first_page: page,
            ..Default::default()
        };
        // SAFETY: the mailbox lies in the guest's memory, which no vCPU runs on now.
        unsafe { self.mailbox().write_volatile(mailbox) }
    }

    pub fn result(&mut self) -> Mailbox {
        // SAFETY: as above.
        unsafe { self.mailbox().read_volatile() }
    }

    /// Executes a command that must complete.
    pub fn execute(&mut self, operation: u64, page: u64, pages: u64, pattern: u64) -> Mailbox {
        let address = TEST_MEMORY + page * PAGE_SIZE;
        self.command(operation, address, pages * PAGE_SIZE, pattern, page);
        assert_eq!(self.run(), ring(crate::payload::abi::doorbell::DONE));
        let result = self.result();
        assert_eq!(result.answer, !result.sequence);
        result
    }
}

pub fn ring(data: u32) -> Exit {
    Exit::IoOut { port: crate::payload::abi::DOORBELL_PORT, data }
}
