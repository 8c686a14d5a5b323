// SPDX-License-Identifier: GPL-2.0-only
//! The guest's page tables.
//!
//! Of a guest that is not encrypted: virtual addresses are physical addresses, in leaves of 2 MiB, added as memslots come.
//!
//! Of an encrypted one, made before its launch and never changed: the payload's memory at its own address in leaves of
//! 4 KiB, private but for the pages through which it talks to the host; and the memory under test twice, shared at its own
//! address and private [`PRIVATE_WINDOW`] further up. Tables are private whatever their entries say.

use super::memory::PayloadMemory;
use crate::payload::abi::{
    GHCB, MAILBOX, PAGE_TABLES, PAGE_TABLES_END, PAYLOAD_SIZE, PRIVATE_WINDOW, RESET_PAGE,
    TEST_MEMORY,
};
use crate::uapi::PAGE_SIZE;

/// Present, writable.
const TABLE: u64 = 0b11;
/// Present, writable, a large page.
const LEAF: u64 = 1 << 7 | TABLE;
/// How much of the memory under test an encrypted guest can reach, in bytes; more than any case uses.
const TEST_MEMORY_SIZE: u64 = 8 << 30;
/// Size of what a leaf maps, in bytes.
const LEAF_SIZE: u64 = 2 << 20;
/// The address in an entry, as far as [`ADDRESS_END`] needs it.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// End of the lower half of virtual addresses with four levels.
const ADDRESS_END: u64 = 1 << 47;

/// The bits of a leaf's address that tell an encrypted guest's two aliases of a page apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aliases {
    /// Set for the private alias: SNP's C-bit.
    pub(super) private: u64,
    /// Set for the shared alias: TDX's shared bit.
    pub(super) shared: u64,
}

/// Whether an encrypted guest's page at `gpa` is shared from the start and for good.
pub(super) fn is_shared(gpa: u64) -> bool {
    (MAILBOX..GHCB + PAGE_SIZE).contains(&gpa)
}

/// Whether an encrypted guest can reach `gpa..gpa + size`.
pub(super) fn check_encrypted(gpa: u64, size: u64) -> Result<(), NoRoom> {
    let end = gpa.checked_add(size).ok_or(NoRoom)?;
    let good = TEST_MEMORY <= gpa && end <= TEST_MEMORY + TEST_MEMORY_SIZE;
    if good { Ok(()) } else { Err(NoRoom) }
}

/// The tables in a payload's memory, the top one at [`PAGE_TABLES`].
pub(super) struct PageTables {
    /// Address of the first page that is no table yet.
    next: u64,
    /// How much higher the payload's memory lies in guest physical memory than the guest sees it.
    base: u64,
}

/// The address cannot be mapped: there is no room for its table, or it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl PageTables {
    /// Page tables that map nothing, in memory that is still zero.
    pub(super) fn new() -> PageTables {
        PageTables::at(0)
    }

    /// The same, in memory that lies `base` higher in guest physical memory than the guest sees it.
    pub(super) fn at(base: u64) -> PageTables {
        PageTables { next: PAGE_TABLES + PAGE_SIZE, base }
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
            let entry = self.large_entry(memory, address)?;
            // Left alone otherwise: the CPU keeps its accessed and dirty bits there.
            if memory.read(entry) == 0 {
                memory.write(entry, address | LEAF);
            }
            address += LEAF_SIZE;
        }
        Ok(())
    }

    /// Maps everything that an encrypted guest will ever reach.
    pub(super) fn map_encrypted(
        &mut self,
        memory: &mut PayloadMemory,
        aliases: Aliases,
    ) -> Result<(), NoRoom> {
        for gpa in (0..PAYLOAD_SIZE).step_by(PAGE_SIZE as usize).chain([RESET_PAGE]) {
            let alias = if is_shared(gpa) { aliases.shared } else { aliases.private };
            let directory = self.large_entry(memory, gpa)?;
            let table = self.table(memory, directory)?;
            let at = if gpa == RESET_PAGE { gpa } else { gpa + self.base };
            memory.write(table + index(gpa, 12), at | alias | TABLE);
        }
        for offset in (0..TEST_MEMORY_SIZE).step_by(LEAF_SIZE as usize) {
            let gpa = TEST_MEMORY + offset;
            for (address, alias) in [(gpa, aliases.shared), (PRIVATE_WINDOW + gpa, aliases.private)]
            {
                let entry = self.large_entry(memory, address)?;
                memory.write(entry, gpa | alias | LEAF);
            }
        }
        Ok(())
    }

    /// End of the pages that are tables; they start at [`PAGE_TABLES`].
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// Where the entry is that can map the 2 MiB at `address`.
    fn large_entry(&mut self, memory: &mut PayloadMemory, address: u64) -> Result<u64, NoRoom> {
        let directories = self.table(memory, PAGE_TABLES + index(address, 39))?;
        let directory = self.table(memory, directories + index(address, 30))?;
        Ok(directory + index(address, 21))
    }

    /// The table that the entry at `entry` points to, made if there is none.
    fn table(&mut self, memory: &mut PayloadMemory, entry: u64) -> Result<u64, NoRoom> {
        let value = memory.read(entry);
        if value != 0 {
            return Ok((value & ADDRESS) - self.base);
        }
        if self.next >= PAGE_TABLES_END {
            return Err(NoRoom);
        }
        let table = self.next;
        self.next += PAGE_SIZE;
        memory.write(entry, (table + self.base) | TABLE);
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
    use crate::dialect::Dialect;
    use crate::machine::Machine;
    use crate::machine::model::{Config, Model};
    use crate::payload::abi::{COPY_BUFFER, IMAGE};
    use crate::uapi::KVM_X86_SNP_VM;

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

    /// An encrypted guest finds each page where the payload expects it, behind the right alias, and nothing else.
    #[test]
    fn encrypted_guests_have_two_aliases() {
        let snp = Aliases { private: 1 << 51, shared: 0 };
        let tdx = Aliases { private: 0, shared: 1 << 47 };
        for aliases in [snp, tdx] {
            let model = Model::new(Config { dialect: Dialect::Upstream, fault: None });
            let vm = model.create_vm(u64::from(KVM_X86_SNP_VM)).unwrap();
            let mut memory = PayloadMemory::in_guest_memfd(&*vm, 0).unwrap();
            let mut tables = PageTables::new();
            tables.map_encrypted(&mut memory, aliases).unwrap();
            assert!(tables.end() <= PAGE_TABLES_END);
            let leaf = |address| leaf(&memory, address);
            for gpa in [0, PAGE_TABLES, IMAGE, PAYLOAD_SIZE - PAGE_SIZE, RESET_PAGE] {
                assert_eq!(leaf(gpa), Some(gpa | aliases.private | TABLE));
            }
            for gpa in [MAILBOX, COPY_BUFFER, GHCB] {
                assert_eq!(leaf(gpa), Some(gpa | aliases.shared | TABLE));
            }
            for gpa in [TEST_MEMORY, TEST_MEMORY + TEST_MEMORY_SIZE - LEAF_SIZE] {
                assert_eq!(leaf(gpa), Some(gpa | aliases.shared | LEAF));
                assert_eq!(leaf(PRIVATE_WINDOW + gpa), Some(gpa | aliases.private | LEAF));
            }
            let unmapped = [PAYLOAD_SIZE, RESET_PAGE - PAGE_SIZE, TEST_MEMORY + TEST_MEMORY_SIZE];
            assert!(unmapped.into_iter().all(|address| leaf(address).is_none()));
            assert_eq!(leaf(PRIVATE_WINDOW), None);
        }
        assert_eq!(check_encrypted(TEST_MEMORY, TEST_MEMORY_SIZE), Ok(()));
        assert_eq!(check_encrypted(TEST_MEMORY, TEST_MEMORY_SIZE + 1), Err(NoRoom));
        assert_eq!(check_encrypted(0, PAGE_SIZE), Err(NoRoom));
        assert_eq!(check_encrypted(TEST_MEMORY, u64::MAX), Err(NoRoom));
    }

    /// The entry that maps `address`, if one does.
    fn leaf(memory: &PayloadMemory, address: u64) -> Option<u64> {
        let mut table = PAGE_TABLES;
        for shift in [39, 30, 21, 12] {
            let entry = memory.read(table + index(address, shift));
            if entry & TABLE != TABLE {
                return None;
            }
            if shift == 12 || entry & LEAF == LEAF {
                return Some(entry);
            }
            table = entry & ADDRESS;
        }
        None
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
