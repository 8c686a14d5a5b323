// SPDX-License-Identifier: GPL-2.0-only
//! The memory that a payload lives in.

use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};

use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView, Vm};
use crate::payload::abi::{PAYLOAD_SIZE, RESET_PAGE};
use crate::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_MEM_GUEST_MEMFD, PAGE_SIZE,
    kvm_userspace_memory_region2,
};

/// [`PAYLOAD_SIZE`] bytes, seen by the guest at guest physical address 0. The guest may write to it whenever it runs, so
/// there are no references into it, only volatile accesses of whole words.
pub(super) struct PayloadMemory {
    backing: Backing,
    /// How much higher it lies in guest physical memory than the guest sees it: not at all, but for further vCPUs.
    base: u64,
}

// SAFETY: the mapping is this value's own, and every access to it is a volatile one of whole words, from whatever thread.
unsafe impl Send for PayloadMemory {}

enum Backing {
    /// Anonymous memory, which no conversion can reach.
    Anonymous(NonNull<u8>),
    /// A guest_memfd, for guests whose private memory cannot be anything else; behind the payload's memory lies the page at
    /// [`RESET_PAGE`].
    GuestMemfd { view: Box<dyn HostView>, gmem: Box<dyn GuestMemfd> },
}

impl PayloadMemory {
    /// New anonymous memory, all zeros. Fails as mmap(2) does.
    pub(super) fn new() -> Result<PayloadMemory, Errno> {
        // SAFETY: a new mapping, where the kernel likes, takes nothing away from anybody.
        let base = unsafe {
            libc::mmap(
                null_mut(),
                PAYLOAD_SIZE as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // The kernel maps nothing at 0 unless it is asked to.
        let base = NonNull::new(base.cast()).ok_or(Errno::EFAULT)?;
        Ok(PayloadMemory { backing: Backing::Anonymous(base), base: 0 })
    }

    /// A new guest_memfd of `vm` with its mapping, all zeros and shared. What becomes private is out of reach for
    /// [`PayloadMemory::read`] and [`PayloadMemory::write`]: an access is a SIGBUS.
    /// It lies `base` higher in guest physical memory than the guest sees it.
    pub(super) fn in_guest_memfd(
        vm: &dyn Vm,
        base: u64,
    ) -> Result<PayloadMemory, (&'static str, Errno)> {
        let size = PAYLOAD_SIZE + PAGE_SIZE;
        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let gmem = vm
            .create_guest_memfd(size, flags)
            .map_err(|e| ("create the payload's memory with KVM_CREATE_GUEST_MEMFD", e))?;
        let view = gmem.mmap(0, size).map_err(|e| ("map the payload's memory with mmap", e))?;
        Ok(PayloadMemory { backing: Backing::GuestMemfd { view, gmem }, base })
    }

    /// The guest_memfd, if it is in one.
    pub(super) fn guest_memfd(&self) -> Option<&dyn GuestMemfd> {
        match &self.backing {
            Backing::Anonymous(_) => None,
            Backing::GuestMemfd { gmem, .. } => Some(&**gmem),
        }
    }

    /// The argument that puts `size` bytes of this memory into memslot `slot` at `gpa`, which is 0 or [`RESET_PAGE`].
    pub(super) fn region(&self, slot: u32, gpa: u64, size: u64) -> kvm_userspace_memory_region2 {
        let offset = offset(gpa);
        let mut region = kvm_userspace_memory_region2 {
            slot,
            guest_phys_addr: self.place(gpa),
            memory_size: size,
            userspace_addr: self.start() as u64 + offset,
            ..Default::default()
        };
        if let Some(gmem) = self.guest_memfd() {
            region.flags = KVM_MEM_GUEST_MEMFD;
            region.guest_memfd = gmem.fd().as_raw_fd() as u32;
            region.guest_memfd_offset = offset;
        }
        region
    }

    /// Guest physical address of what the guest sees at `gpa`. The page at [`RESET_PAGE`] is the first vCPU's, and at its place.
    pub(super) fn place(&self, gpa: u64) -> u64 {
        if gpa == RESET_PAGE { gpa } else { gpa + self.base }
    }

    /// How much higher it lies in guest physical memory than the guest sees it.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Reads the word at guest physical address `gpa`.
    ///
    /// # Panics
    ///
    /// If it is not a word of this memory: the caller got the address from [`crate::payload::abi`].
    pub(super) fn read(&self, gpa: u64) -> u64 {
        // SAFETY: `word` checked the address; volatile, because the guest may have written there.
        unsafe { self.word(gpa).read_volatile() }
    }

    /// Writes the word at guest physical address `gpa`.
    ///
    /// # Panics
    ///
    /// As [`PayloadMemory::read`].
    pub(super) fn write(&mut self, gpa: u64, word: u64) {
        // SAFETY: `word` checked the address; volatile, because the guest will read it.
        unsafe { self.word(gpa).write_volatile(word) }
    }

    /// Copies `image` to guest physical address `gpa`; zeros fill up the last word.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub(super) fn load(&mut self, gpa: u64, image: &[u8]) {
        for (i, chunk) in image.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write(gpa + i as u64 * 8, u64::from_le_bytes(word));
        }
    }

    fn start(&self) -> *mut u8 {
        match &self.backing {
            Backing::Anonymous(base) => base.as_ptr(),
            Backing::GuestMemfd { view, .. } => view.address(),
        }
    }

    fn word(&self, gpa: u64) -> *mut u64 {
        let size = match &self.backing {
            Backing::Anonymous(_) => PAYLOAD_SIZE,
            Backing::GuestMemfd { view, .. } => view.length(),
        };
        let offset = offset(gpa);
        assert!(
            gpa.is_multiple_of(8) && offset < size,
            "{gpa:#x} is no word of the payload's memory"
        );
        // SAFETY: inside the mapping, which the assertion above makes sure of.
        unsafe { self.start().add(offset as usize).cast() }
    }
}

/// Where guest physical address `gpa` lies in the memory.
pub(super) fn offset(gpa: u64) -> u64 {
    match gpa.checked_sub(RESET_PAGE).filter(|offset| *offset < PAGE_SIZE) {
        Some(offset) => PAYLOAD_SIZE + offset,
        // Addresses just behind the payload's memory are not the reset page's.
        None if gpa >= PAYLOAD_SIZE => u64::MAX,
        None => gpa,
    }
}

impl Drop for PayloadMemory {
    fn drop(&mut self) {
        if let Backing::Anonymous(base) = &self.backing {
            // SAFETY: the mapping is this value's own. `Guest` drops the vCPU and the VM first, so no guest runs on it.
            unsafe { libc::munmap(base.as_ptr().cast(), PAYLOAD_SIZE as usize) };
        }
    }
}
