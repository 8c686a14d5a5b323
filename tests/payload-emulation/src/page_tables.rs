// SPDX-License-Identifier: GPL-2.0-only
//! The page tables that a host makes for a payload, as the payloads' ABI has them.

use gmem_conform::payload::abi::{
    COPY_BUFFER, GHCB, MAILBOX, PAGE_TABLES, PAGE_TABLES_END, PRIVATE_WINDOW, TEST_MEMORY,
};

use crate::memory::{Memory, PAGE};

const TABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const LARGE_SIZE: u64 = 2 << 20;
/// How much of the memory under test is mapped.
const MAPPED: u64 = 8 << 30;

/// What a leaf has for private and for shared memory: the C-bit, or the shared bit.
#[derive(Clone, Copy)]
pub struct AliasBits {
    pub private: u64,
    pub shared: u64,
}

/// Writes page tables to private memory, and says where they end.
pub fn build(memory: &mut Memory, bits: AliasBits) -> u64 {
    let mut next = PAGE_TABLES + PAGE;
    for gpa in (0..LARGE_SIZE).step_by(PAGE as usize) {
        let shared = [MAILBOX, COPY_BUFFER, GHCB].contains(&gpa);
        let bit = if shared { bits.shared } else { bits.private };
        map(memory, &mut next, gpa, gpa | bit | TABLE, 12);
    }
    for gpa in (TEST_MEMORY..TEST_MEMORY + MAPPED).step_by(LARGE_SIZE as usize) {
        let leaf = gpa | LARGE | TABLE;
        map(memory, &mut next, gpa, leaf | bits.shared, 21);
        map(memory, &mut next, gpa + PRIVATE_WINDOW, leaf | bits.private, 21);
    }
    next
}

fn map(memory: &mut Memory, next: &mut u64, address: u64, leaf: u64, leaf_shift: u32) {
    let mut table = PAGE_TABLES;
    for shift in [39, 30, 21, 12] {
        let entry = entry(table, address, shift);
        if shift == leaf_shift {
            memory.write(entry, true, leaf);
            return;
        }
        if memory.read(entry, true) == 0 {
            assert!(*next < PAGE_TABLES_END, "the room for page tables is too small");
            memory.write(entry, true, *next | TABLE);
            *next += PAGE;
        }
        table = memory.read(entry, true) & !0xfff;
    }
}

fn entry(table: u64, address: u64, shift: u32) -> u64 {
    table + (address >> shift & 0x1ff) * 8
}

/// Takes the 4 KiB page at `address` out of the tables.
pub fn unmap(memory: &mut Memory, address: u64) {
    let mut table = PAGE_TABLES;
    for shift in [39, 30, 21] {
        table = memory.read(entry(table, address, shift), true) & !0xfff;
    }
    memory.write(entry(table, address, 12), true, 0);
}
