// SPDX-License-Identifier: GPL-2.0-only
//! Guest memory: what lies behind the two aliases of each page.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Size of a page in bytes.
pub const PAGE: u64 = 4096;
/// Added to a guest physical address: where the emulator finds the private contents.
const PRIVATE: u64 = 1 << 50;

/// Zeroed bytes that the emulator accesses as well, hence no reference to them ever exists.
struct Bytes {
    start: NonNull<u8>,
    layout: Layout,
}

impl Bytes {
    fn new(size: u64) -> Bytes {
        let layout = Layout::from_size_align(size as usize, PAGE as usize).expect("a few MiB");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        Bytes { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout. The engines are dropped before the memory: see `Machine`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A memslot.
struct Slot {
    gpa: u64,
    size: u64,
    shared: Bytes,
    private: Bytes,
}

/// All memslots.
#[derive(Default)]
pub struct Memory(Vec<Slot>);

impl Memory {
    /// Adds a memslot of zeros. All of them must be there before [`Memory::regions`] is called.
    pub fn add(&mut self, gpa: u64, size: u64) {
        self.0.push(Slot { gpa, size, shared: Bytes::new(size), private: Bytes::new(size) });
    }

    /// What the emulator has to map: host physical address, size, where it is.
    pub fn regions(&self) -> impl Iterator<Item = (u64, u64, *mut u8)> {
        self.0.iter().flat_map(|s| {
            [
                (s.gpa, s.size, s.shared.start.as_ptr()),
                (s.gpa | PRIVATE, s.size, s.private.start.as_ptr()),
            ]
        })
    }

    /// The host physical address of an alias of `gpa`.
    pub fn host(gpa: u64, private: bool) -> u64 {
        if private { gpa | PRIVATE } else { gpa }
    }

    /// Whether a memslot has `gpa`.
    pub fn has(&self, gpa: u64) -> bool {
        self.0.iter().any(|s| (s.gpa..s.gpa + s.size).contains(&gpa))
    }

    /// Where the word at `gpa`, a multiple of 8, is.
    fn word(&self, gpa: u64, private: bool) -> *mut u64 {
        assert_eq!(gpa % 8, 0);
        let slot = self.0.iter().find(|s| (s.gpa..s.gpa + s.size).contains(&gpa));
        let slot = slot.unwrap_or_else(|| panic!("no memslot has {gpa:#x}"));
        let bytes = if private { &slot.private } else { &slot.shared };
        // SAFETY: inside the allocation, as just found.
        unsafe { bytes.start.as_ptr().add((gpa - slot.gpa) as usize).cast() }
    }

    /// Reads the word at `gpa`, a multiple of 8 in some memslot.
    pub fn read(&self, gpa: u64, private: bool) -> u64 {
        // SAFETY: `word` is in an allocation, and nothing runs in the emulator now: it runs on this thread.
        unsafe { self.word(gpa, private).read() }
    }

    /// Writes the word at `gpa`, a multiple of 8 in some memslot.
    pub fn write(&mut self, gpa: u64, private: bool, word: u64) {
        // SAFETY: as in `read`.
        unsafe { self.word(gpa, private).write(word) }
    }

    /// Reads the byte at `gpa` in some memslot.
    pub fn byte(&self, gpa: u64, private: bool) -> u8 {
        (self.read(gpa & !7, private) >> (gpa % 8 * 8)) as u8
    }

    /// Writes `bytes` to `gpa`, a multiple of 8.
    pub fn load(&mut self, gpa: u64, private: bool, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write(gpa + i as u64 * 8, private, u64::from_le_bytes(word));
        }
    }

    /// The page at `gpa` becomes shared: what the guest wrote is seen through another key.
    pub fn scramble_to_shared(&mut self, gpa: u64) {
        for at in (gpa..gpa + PAGE).step_by(8) {
            let word = self.read(at, true);
            self.write(at, false, encrypt(at, word));
        }
    }

    /// The page at `gpa` becomes private: what is there is seen through another key.
    pub fn scramble_to_private(&mut self, gpa: u64) {
        for at in (gpa..gpa + PAGE).step_by(8) {
            let word = self.read(at, false);
            self.write(at, true, decrypt(at, word));
        }
    }
}

/// What memory holds of a private word. A permutation of all words, another one at each address.
fn encrypt(address: u64, word: u64) -> u64 {
    word.rotate_left(23) ^ key(address)
}

/// The inverse of [`encrypt`].
fn decrypt(address: u64, word: u64) -> u64 {
    (word ^ key(address)).rotate_right(23)
}

/// Splitmix64 of the address.
fn key(address: u64) -> u64 {
    let mut z = address.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that goes to and fro comes back as it was, and looks different in between.
    #[test]
    fn scrambling_is_a_permutation() {
        let mut memory = Memory::default();
        memory.add(0x1000, PAGE);
        memory.write(0x1008, true, 42);
        memory.scramble_to_shared(0x1000);
        assert_ne!(memory.read(0x1008, false), 42);
        assert_ne!(memory.read(0x1000, false), memory.read(0x1010, false));
        memory.write(0x1008, true, 0);
        memory.scramble_to_private(0x1000);
        assert_eq!(memory.read(0x1008, true), 42);
    }
}
