// SPDX-License-Identifier: GPL-2.0-only
//! The guest's page tables: virtual addresses are physical addresses, in leaves of 2 MiB.

use super::memory::PayloadMemory;
use crate::payload::abi::{PAGE_TABLES, PAGE_TABLES_END};
use crate::uapi::PAGE_SIZE;

/// Present, writable.
const TABLE: u64 = 0b11;
/// Present, writable, a large page.
const LEAF: u64 = 1 << 7 | TABLE;
/// Size of what a leaf maps, in bytes.
const LEAF_SIZE: u64 = 2 << 20;
/// The address in an entry, as far as [`ADDRESS_END`] needs it.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// End of the lower half of virtual addresses with four levels.
const ADDRESS_END: u64 = 1 << 47;

/// The tables in a payload's memory, the top one at [`PAGE_TABLES`].
pub(super) struct PageTables {
    /// Address of the first page that is no table yet.
    next: u64,
}

/// The address cannot be mapped: there is no room for its table, or it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl PageTables {
    /// Page tables that map nothing, in memory that is still zero.
    pub(super) fn new() -> PageTables {
        PageTables { next: PAGE_TABLES + PAGE_SIZE }
    }

    /// Maps `gpa..gpa + size`, extended to multiples of 2 MiB; a no-op where it is mapped already.
    pub(super) fn map(
        &mut self,
        memory: &mut PayloadMemory,
        gpa: u64,
        size: u64,
    ) -> Result<(), NoRoom> {
        let end = gpa.checked_add(size).filter(|&end| end <= ADDRESS_END);
        let end = end.ok_or(NoRoom)?;
        let mut address = gpa / LEAF_SIZE * LEAF_SIZE;
        while address < end {
            let directories = self.table(memory, PAGE_TABLES + index(address, 39))?;
            let directory = self.table(memory, directories + index(address, 30))?;
            let entry = directory + index(address, 21);
            // Left alone otherwise: the CPU keeps its accessed and dirty bits there.
            if memory.read(entry) == 0 {
                memory.write(entry, address | LEAF);
            }
            address += LEAF_SIZE;
        }
        Ok(())
    }

    /// The table that the entry at `entry` points to, made if there is none.
    fn table(&mut self, memory: &mut PayloadMemory, entry: u64) -> Result<u64, NoRoom> {
        let value = memory.read(entry);
        if value != 0 {
            return Ok(value & ADDRESS);
        }
        if self.next >= PAGE_TABLES_END {
            return Err(NoRoom);
        }
        let table = self.next;
        self.next += PAGE_SIZE;
        memory.write(entry, table | TABLE);
        Ok(table)
    }
}

/// Byte offset of the entry for `address` in the table whose entries map `1 << shift` bytes each.
fn index(address: u64, shift: u32) -> u64 {
    (address >> shift & 0x1ff) * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::abi::TEST_MEMORY;

    /// What the CPU would find for `address`.
    fn walk(memory: &PayloadMemory, address: u64) -> Option<u64> {
        let mut table = PAGE_TABLES;
        for shift in [39, 30] {
            let entry = memory.read(table + index(address, shift));
            if entry & TABLE != TABLE {
                return None;
            }
            table = entry & ADDRESS;
        }
        let entry = memory.read(table + index(address, 21));
        (entry & LEAF == LEAF).then_some((entry & ADDRESS) + address % LEAF_SIZE)
    }

    /// Every address of a mapped range is mapped to itself, and the 2 MiB beside it are not mapped.
    #[test]
    fn ranges_are_mapped_to_themselves() {
        let mut memory = PayloadMemory::new().unwrap();
        let mut tables = PageTables::new();
        let gpa = TEST_MEMORY + LEAF_SIZE - 4096;
        tables.map(&mut memory, gpa, 8192).unwrap();
        for address in [TEST_MEMORY, gpa, gpa + 4096, TEST_MEMORY + 2 * LEAF_SIZE - 8] {
            assert_eq!(walk(&memory, address), Some(address));
        }
        for address in [0, TEST_MEMORY - 8, TEST_MEMORY + 2 * LEAF_SIZE] {
            assert_eq!(walk(&memory, address), None);
        }
        // Again, and across a gigabyte: the tables that exist are kept.
        tables.map(&mut memory, gpa, 1 << 30).unwrap();
        assert_eq!(walk(&memory, gpa), Some(gpa));
        assert_eq!(walk(&memory, gpa + (1 << 30) - 8), Some(gpa + (1 << 30) - 8));
    }

    /// What does not fit is an error, not a table outside of its room.
    #[test]
    fn the_room_is_limited() {
        let mut memory = PayloadMemory::new().unwrap();
        let mut tables = PageTables::new();
        assert_eq!(tables.map(&mut memory, 0, 1 << 40), Err(NoRoom));
        assert_eq!(tables.next, PAGE_TABLES_END);
        assert_eq!(tables.map(&mut memory, ADDRESS_END, 1), Err(NoRoom));
        assert_eq!(tables.map(&mut memory, u64::MAX, 1), Err(NoRoom));
    }
}
