// SPDX-License-Identifier: GPL-2.0-only
//! Access to memory that Rust knows nothing of.
//!
//! Each access is exactly one MOV: once per word, as wide as the word, and known to KVM's instruction emulator, which
//! executes it when nothing backs the address.

use core::arch::asm;

/// Reads the word at the guest virtual address `address`, a multiple of 8.
pub fn read(address: u64) -> u64 {
    let word;
    // SAFETY: the host and the payload name only the pages that they share and memory outside of the image, none of which
    // Rust owns. An address that is not mapped is an exception, which does not return.
    unsafe {
        asm!("mov {}, qword ptr [{}]", out(reg) word, in(reg) address,
            options(nostack, preserves_flags));
    }
    word
}

/// Writes the word at the guest virtual address `address`, a multiple of 8.
pub fn write(address: u64, word: u64) {
    // SAFETY: as in `read`.
    unsafe {
        asm!("mov qword ptr [{}], {}", in(reg) address, in(reg) word,
            options(nostack, preserves_flags));
    }
}
