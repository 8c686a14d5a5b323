// SPDX-License-Identifier: GPL-2.0-only
//! The memory that a payload lives in.

use std::ptr::{NonNull, null_mut};

use crate::errno::Errno;
use crate::payload::abi::PAYLOAD_SIZE;

/// [`PAYLOAD_SIZE`] bytes of anonymous memory, seen by the guest at guest physical address 0. The guest may write to it
/// whenever it runs, so there are no references into it, only volatile accesses of whole words.
pub(super) struct PayloadMemory {
    base: NonNull<u8>,
}

impl PayloadMemory {
    /// New memory, all zeros. Fails as mmap(2) does.
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
        Ok(PayloadMemory { base })
    }

    /// Address of the first byte in this process.
    pub(super) fn address(&self) -> u64 {
        self.base.as_ptr() as u64
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

    fn word(&self, gpa: u64) -> *mut u64 {
        assert!(
            gpa.is_multiple_of(8) && gpa < PAYLOAD_SIZE,
            "{gpa:#x} is no word of the payload's memory"
        );
        // SAFETY: inside the mapping, which the assertion above makes sure of.
        unsafe { self.base.as_ptr().add(gpa as usize).cast() }
    }
}

impl Drop for PayloadMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own. `Guest` drops the vCPU and the VM first, so no guest runs on it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), PAYLOAD_SIZE as usize) };
    }
}
