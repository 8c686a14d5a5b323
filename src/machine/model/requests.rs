// SPDX-License-Identifier: GPL-2.0-only
//! An encrypted guest's requests as they are: `snp_begin_psc()`, `snp_begin_psc_msr()`, `tdx_map_gpa()`.
//!
//! A command that leaves the guest is executed anew from its start, so what the guest finds is written at the end only.

use std::sync::atomic::Ordering;

use super::core::{Core, Result};
use super::encrypted_core::{
    MAP_GPA_CHUNK, PSC_GENERIC, PSC_MSR_ERROR, VMCALL_ALIGN, VMCALL_INVALID, VMCALL_UNSUPPORTED,
    map_gpa_range,
};
use super::vm_type::Hardware;
use crate::errno::Errno;
use crate::payload::abi::{COPY_BUFFER, GHCB, LIST_WORDS, operation, refusal};
use crate::payload::command_loop::Cpu;
use crate::uapi::{MAP_GPA_RANGE_PAGE_SZ_2M, PAGE_SIZE};

/// Offset of the shared buffer in the GHCB.
const BUFFER: u64 = 0x800;
/// Entries that fit into all of it.
const MAX_ENTRIES: u64 = LIST_WORDS - 1;
/// SW_EXITINFO1 of an event that is malformed, and SW_EXITINFO2 for its scratch area.
const MALFORMED: u64 = 2;
const BAD_SCRATCH: u64 = 3;
/// SW_EXITINFO2: the header is bad; an entry is.
const BAD_HEADER: u64 = 1 << 32 | 1;
const BAD_ENTRY: u64 = 1 << 32 | 2;
/// The MSR protocol's response to a page state change.
const PAGE_CHANGED: u64 = 0x015;
/// Pages of 2 MiB.
const LARGE_PAGE: u64 = 512;
/// MapGPA: not all of it is done.
const VMCALL_RETRY: u64 = 1;

/// An entry of a list.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn done(self) -> u64 {
        self.0 & 0xfff
    }
    fn gfn(self) -> u64 {
        self.0 >> 12 & 0xff_ffff_ffff
    }
    fn operation(self) -> u64 {
        self.0 >> 52 & 0xf
    }
    fn pages(self) -> u64 {
        if self.0 >> 56 & 1 == 1 { LARGE_PAGE } else { 1 }
    }
}

impl Core<'_> {
    /// One request, as the payload's raw operations have it.
    pub(super) fn request_raw(
        &mut self,
        operation: u64,
        address: u64,
        length: u64,
    ) -> Result<[u64; 2]> {
        match (self.vm.vm_type.hardware, operation) {
            (Hardware::Snp, operation::RAW_LIST) => self.request_list(address),
            (Hardware::Snp, operation::RAW_MSR) => Ok([self.request_by_msr(address)?, 0]),
            (Hardware::Tdx, operation::RAW_MAP_GPA) => self.map_gpa(address, length),
            _ => Ok([refusal::NOT_THERE, 0]),
        }
    }

    /// `setup_vmgexit_scratch()`, and the list that is there.
    fn request_list(&mut self, scratch: u64) -> Result<[u64; 2]> {
        let offset = scratch.wrapping_sub(GHCB);
        let outside = !(BUFFER..=BUFFER + 8 * MAX_ENTRIES).contains(&offset);
        if self.vm.hook_scratch_refused(outside) {
            return Ok([MALFORMED, BAD_SCRATCH]);
        }
        let first = if outside { 0 } else { (offset - BUFFER) / 8 };
        let mut list = Vec::new();
        for word in first..LIST_WORDS {
            list.push(self.read(COPY_BUFFER + word * 8)?);
        }
        let info_2 = self.change_list(&mut list)?;
        for (word, value) in (first..).zip(list) {
            self.write(COPY_BUFFER + word * 8, value)?;
        }
        Ok([0, info_2])
    }

    /// `snp_begin_psc()` of header and entries: SW_EXITINFO2.
    fn change_list(&mut self, list: &mut [u64]) -> Result<u64> {
        let (current, last) = (list[0] & 0xffff, list[0] >> 16 & 0xffff);
        let room = self.vm.hook_list_room(list.len() as u64 - 1, MAX_ENTRIES);
        if self.vm.hook_list_end_refused(last >= room) {
            return Ok(BAD_HEADER);
        }
        let mut current = self.vm.hook_list_start(current);
        // Behind the buffer there are zeros.
        let at =
            |list: &[u64], entry: u64| Entry(list.get(entry as usize + 1).copied().unwrap_or(0));
        while current <= last {
            let start = at(list, current);
            let unaligned = !start.gfn().is_multiple_of(start.pages());
            if start.done() > start.pages() || self.vm.hook_entry_refused(unaligned) {
                return Ok(BAD_ENTRY);
            }
            let left = start.pages() - start.done();
            if left == 0 || !(1..=2).contains(&start.operation()) {
                current += 1;
                list[0] = last << 16 | current;
                continue;
            }
            let (mut entries, mut pages) = (1, left);
            while current + entries <= last {
                let next = at(list, current + entries);
                let adjoin = self.vm.hook_entries_adjoin(next.gfn() == start.gfn() + pages);
                let agree = self.vm.hook_entries_agree(next.operation() == start.operation());
                if !adjoin || !agree || next.done() != 0 || next.pages() != start.pages() {
                    break;
                }
                entries += 1;
                pages += next.pages();
            }
            let gpa = (start.gfn() + start.done()) * PAGE_SIZE;
            // What has been done in part goes on in small pages.
            let large = start.pages() == LARGE_PAGE && start.done() == 0;
            let page_size = if large { MAP_GPA_RANGE_PAGE_SZ_2M } else { 0 };
            let page_size = self.vm.hook_request_page_size(page_size);
            if self.ask(gpa, pages, start.operation() == 1, page_size)? != 0 {
                let done = self.vm.hook_refused_entries_done(entries);
                if done > 0 {
                    list[0] = last << 16 | (current + done);
                }
                return Ok(PSC_GENERIC);
            }
            current = self.vm.hook_next_entry(current + entries, last);
            list[0] = last << 16 | current;
        }
        Ok(0)
    }

    /// `snp_begin_psc_msr()`: the response.
    fn request_by_msr(&mut self, request: u64) -> Result<u64> {
        let (operation, gpa) = (request >> 52, request & 0x000f_ffff_ffff_f000);
        let known = self.vm.hook_msr_operation((1..=2).contains(&operation));
        if known && self.ask(gpa, 1, operation == 1, self.vm.hook_request_page_size(0))? == 0 {
            return Ok(PAGE_CHANGED);
        }
        Ok(PSC_MSR_ERROR << 32 | PAGE_CHANGED)
    }

    /// `tdx_map_gpa()`: R10 and R11.
    fn map_gpa(&mut self, gpa: u64, size: u64) -> Result<[u64; 2]> {
        let shared_bit = self.alias_bit();
        let alias = gpa & shared_bit;
        let last = gpa.wrapping_add(size).wrapping_sub(1);
        let bad = match size {
            0 => self.vm.hook_map_gpa_empty(true),
            _ if last < gpa => self.vm.hook_map_gpa_wraps(true),
            _ => {
                let crosses = last & shared_bit != alias || last >= shared_bit << 1;
                self.vm.hook_map_gpa_crosses(crosses)
            }
        };
        if bad {
            return Ok([VMCALL_INVALID, 0]);
        }
        let aligned = (gpa | size).is_multiple_of(PAGE_SIZE);
        if self.vm.hook_map_gpa_unaligned(!aligned) {
            return Ok([VMCALL_ALIGN, 0]);
        }
        let mut done = 0;
        while done < size {
            let at = gpa + done;
            let some = MAP_GPA_CHUNK.min(size - done);
            let pages = some.div_ceil(PAGE_SIZE);
            let page_size = self.vm.hook_request_page_size(0);
            match self.ask(at & !shared_bit & !(PAGE_SIZE - 1), pages, alias == 0, page_size)? {
                0 => done += some,
                answer if answer == Errno::EAGAIN.0 as u64 => {
                    let from = self.vm.hook_retry_from(gpa, at);
                    return Ok([VMCALL_RETRY, from]);
                }
                _ => return Ok([VMCALL_INVALID, at]),
            }
        }
        Ok([0, 0])
    }

    /// Asks the host to convert pages: what it answers. Where it cannot be asked that is an error.
    fn ask(&mut self, gpa: u64, pages: u64, private: bool, page_size: u64) -> Result<u64> {
        if !self.vm.hypercall_exits.load(Ordering::Relaxed) {
            return Ok(VMCALL_UNSUPPORTED);
        }
        self.once(|_| Err(map_gpa_range(gpa, pages * PAGE_SIZE, private, page_size)))
    }
}
