// SPDX-License-Identifier: GPL-2.0-only
//! The vCPU of an encrypted guest: page tables, aliases, validation and acceptance, and requests to the hypervisor.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::{kvm_regs, kvm_sregs};

use super::core::{Core, Result, VcpuStop, memory_fault, page_fault};
use super::encryption::Access;
use super::inode::Inode;
use super::memslot::Target;
use super::snp;
use super::vm_type::Hardware;
use crate::errno::Errno;
use crate::machine::Exit;
use crate::payload::abi::{IMAGE, RESET_VECTOR, refusal};
use crate::uapi::{KVM_HC_MAP_GPA_RANGE, MAP_GPA_RANGE_ENCRYPTED, PAGE_SIZE};

/// The address in an entry of a page table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// An entry is present.
const PRESENT: u64 = 1;
/// An entry of the third level maps 2 MiB.
const LARGE: u64 = 1 << 7;

/// #VC, and its error codes for a page that is not validated and for a device's address.
const VC: u64 = 29;
const VC_NOT_VALIDATED: u64 = 0x404;
const VC_MMIO: u64 = 0x400;
/// #VE, and the exit reason that TDG.VP.VEINFO.GET gives for memory.
const VE: u64 = 20;
const VE_EPT_VIOLATION: u64 = 48;

/// PVALIDATE: the address is not good.
const FAIL_INPUT: u64 = 1;
/// PVALIDATE: the page was in the wanted state already.
const NO_CHANGE: u64 = 1 << 32;
/// TDG.MEM.PAGE.ACCEPT: the page has been accepted.
const ALREADY_ACCEPTED: u64 = 0x0b0a << 32;
/// TDG.MEM.PAGE.ACCEPT: the address, operand 1, is not good.
const OPERAND_INVALID: u64 = 0xc000_0100_0000_0001;

/// SW_EXITINFO2 for a page state change that the host refuses.
pub(super) const PSC_GENERIC: u64 = 0x100 << 32;
/// The same in the MSR protocol.
pub(super) const PSC_MSR_ERROR: u64 = 1 << 31;
/// Entries that fit into the GHCB, of a page each.
const PSC_ENTRIES: u64 = 253;
/// R10: an operand is bad; the range is not aligned; there is no such function.
pub(super) const VMCALL_INVALID: u64 = 1 << 63;
pub(super) const VMCALL_ALIGN: u64 = 1 << 63 | 2;
pub(super) const VMCALL_UNSUPPORTED: u64 = 1 << 63 | 3;
/// What KVM makes of MapGPA at once.
pub(super) const MAP_GPA_CHUNK: u64 = 2 << 20;

impl Core<'_> {
    /// Whether the registers that LAUNCH_FINISH has encrypted are the image's entry, in 64-bit mode with paging.
    pub(super) fn enter_snp(&mut self, regs: &kvm_regs, sregs: &kvm_sregs) -> Result<bool> {
        const PE_PG: u64 = 1 | 1 << 31;
        const PAE: u64 = 1 << 5;
        const LME_LMA: u64 = 1 << 8 | 1 << 10;
        let long_mode = sregs.cr0 & PE_PG == PE_PG
            && sregs.cr4 & PAE != 0
            && sregs.efer & LME_LMA == LME_LMA
            && sregs.cs.l == 1
            && sregs.cs.db == 0;
        let interrupts = regs.rflags & 1 << 9 != 0;
        if !long_mode || interrupts || regs.rip != IMAGE {
            return Ok(false);
        }
        self.encrypted_access(IMAGE, None).map(|_| true)
    }

    /// Whether there is code where a TD starts; it then does what the reset page of the payload does.
    pub(super) fn enter_tdx(&mut self) -> Result<bool> {
        let there = self.physical_access(RESET_VECTOR, RESET_VECTOR, true, None)? != 0;
        self.encrypted_access(IMAGE, None).map(|_| there)
    }

    /// The bit of a page table entry that selects the alias: the C-bit on SNP, the shared bit on TDX.
    pub(super) fn alias_bit(&self) -> u64 {
        match self.vm.vm_type.hardware {
            Hardware::None => 0,
            Hardware::Snp => 1 << snp::C_BIT,
            Hardware::Tdx => self.vm.tdx.lock().td().map_or(0, |td| td.shared_bit),
        }
    }

    /// Guest physical address of a virtual one, and whether it is the private alias. Tables are private memory always.
    fn walk(&mut self, address: u64, write: bool) -> Result<(u64, bool)> {
        if let Some((page, private)) = self.memo.translations.get(&(address / PAGE_SIZE)) {
            return Ok((page * PAGE_SIZE + address % PAGE_SIZE, *private));
        }
        let alias = self.alias_bit();
        let mut table = self.cr3 & ADDRESS;
        for shift in [39, 30, 21, 12] {
            let slot = table + (address >> shift & 0x1ff) * 8;
            let entry = match self.physical_access(slot, slot, true, None) {
                // There is no handler whose code could be found.
                Err(VcpuStop::Exception { .. }) => return Err(VcpuStop::Exit(Exit::Shutdown)),
                other => other?,
            };
            if entry & PRESENT == 0 {
                return Err(page_fault(address, write));
            }
            table = entry & ADDRESS & !alias;
            let leaf = shift == 12 || shift == 21 && entry & LARGE != 0;
            if !leaf {
                continue;
            }
            let private = match self.vm.vm_type.hardware {
                Hardware::Snp => entry & alias != 0,
                _ => entry & alias == 0,
            };
            let within = (1 << shift) - 1;
            let gpa = table & !within | address & within;
            self.memo.translations.insert(address / PAGE_SIZE, (gpa / PAGE_SIZE, private));
            return Ok((gpa, private));
        }
        Err(page_fault(address, write))
    }

    /// One access by virtual address: reads the word, or writes `word` and returns it.
    pub(super) fn encrypted_access(&mut self, address: u64, word: Option<u64>) -> Result<u64> {
        let (gpa, private) = self.walk(address, word.is_some())?;
        self.physical_access(address, gpa, private, word)
    }

    /// One access by physical address; `address` is the virtual one.
    fn physical_access(
        &mut self,
        address: u64,
        gpa: u64,
        private: bool,
        word: Option<u64>,
    ) -> Result<u64> {
        let target = match self.vm.translate(gpa, word.is_some()) {
            // The same memory.
            Target::GmemByUser(inode, page, _) => Target::Gmem(inode, page, gpa % PAGE_SIZE),
            other => other,
        };
        match target {
            Target::Gmem(inode, page, offset) => {
                let reads_checked = self.vm.vm_type.hardware != Hardware::Snp;
                match inode.guest_access(page, offset, private, word, reads_checked) {
                    Ok(Access::Done(word)) => Ok(word),
                    Ok(Access::NotUsable) => Err(self.not_usable(address)),
                    Ok(Access::Mismatch) | Err(_) => Err(self.mismatch(gpa, private)),
                }
            }
            Target::User(pointer) if !private => match word {
                Some(word) => {
                    // SAFETY: inside the memslot's memory and aligned, since both are; who made the memslot keeps that
                    // memory mapped and reaches it through raw pointers only.
                    unsafe { pointer.write_volatile(word) };
                    Ok(word)
                }
                // SAFETY: as above.
                None => Ok(unsafe { pointer.read_volatile() }),
            },
            // What no memslot backs is shared, and a device's.
            Target::Mmio if !private => Err(match self.vm.vm_type.hardware {
                Hardware::Tdx => {
                    VcpuStop::Exception { vector: VE, error_code: VE_EPT_VIOLATION, address }
                }
                _ => VcpuStop::Exception { vector: VC, error_code: VC_MMIO, address: 0 },
            }),
            Target::User(_) | Target::GmemByUser(..) | Target::Mmio | Target::Fault(_) => {
                Err(memory_fault(gpa, private))
            }
        }
    }

    /// The exit for an access through the wrong alias.
    fn mismatch(&self, gpa: u64, private: bool) -> VcpuStop {
        let mut stop = memory_fault(gpa, private);
        let VcpuStop::Exit(Exit::MemoryFault { flags, gpa: at, size }) = &mut stop else {
            return stop;
        };
        // On SNP it is the private alias that has a bit set, on TDX the shared one.
        let has_bit = private == (self.vm.vm_type.hardware == Hardware::Snp);
        let told = (*flags, *at, *size);
        (*flags, *at, *size) = self.vm.hook_alias_fault(gpa, told, has_bit, self.alias_bit());
        stop
    }

    /// What becomes of an access to a private page that the guest has not validated or accepted.
    fn not_usable(&self, address: u64) -> VcpuStop {
        if self.vm.vm_type.hardware == Hardware::Snp {
            return VcpuStop::Exception { vector: VC, error_code: VC_NOT_VALIDATED, address: 0 };
        }
        if self.vm.tdx.lock().td().is_some_and(|td| td.sept_ve_disable) {
            self.vm.kill();
            return VcpuStop::Exit(Exit::Dead);
        }
        VcpuStop::Exception { vector: VE, error_code: VE_EPT_VIOLATION, address }
    }

    /// PVALIDATE or TDG.MEM.PAGE.ACCEPT of the page at a virtual address.
    pub(super) fn validate(&mut self, address: u64, validate: bool) -> Result<u64> {
        match self.vm.vm_type.hardware {
            Hardware::None => Ok(refusal::NOT_THERE),
            Hardware::Snp => self.once(|core| core.pvalidate(address, validate)),
            Hardware::Tdx if validate => self.once(|core| core.accept_page(address)),
            // There is nothing to give up.
            Hardware::Tdx => Ok(0),
        }
    }

    fn pvalidate(&mut self, address: u64, validate: bool) -> Result<u64> {
        let (gpa, private) = self.walk(address, false)?;
        if !private || !address.is_multiple_of(PAGE_SIZE) {
            return Ok(FAIL_INPUT);
        }
        let (inode, page) = self.private_page(gpa)?;
        match inode.validate(page, validate) {
            Some(true) => Ok(0),
            Some(false) => Ok(NO_CHANGE),
            None => Err(memory_fault(gpa, true)),
        }
    }

    fn accept_page(&mut self, address: u64) -> Result<u64> {
        let (gpa, private) = self.walk(address, false)?;
        if !private || !address.is_multiple_of(PAGE_SIZE) {
            return Ok(OPERAND_INVALID);
        }
        let (inode, page) = self.private_page(gpa)?;
        match inode.accept(page) {
            Some(true) => Ok(0),
            Some(false) => Ok(ALREADY_ACCEPTED),
            None => Err(memory_fault(gpa, true)),
        }
    }

    /// The page of a guest_memfd at `gpa`, which an instruction needs private.
    fn private_page(&self, gpa: u64) -> Result<(Arc<Inode>, u64)> {
        match self.vm.translate(gpa, true) {
            Target::Gmem(inode, page, _) => Ok((inode, page)),
            Target::User(_) | Target::GmemByUser(..) | Target::Mmio | Target::Fault(_) => {
                Err(memory_fault(gpa, true))
            }
        }
    }

    /// A page state change through the GHCB or its MSR, or MapGPA.
    pub(super) fn request_page_state(
        &mut self,
        gpa: u64,
        length: u64,
        private: bool,
        by_msr: bool,
    ) -> Result<u64> {
        let (chunk, refused) = match self.vm.vm_type.hardware {
            Hardware::None => return Ok(refusal::NOT_THERE),
            Hardware::Tdx if by_msr => return Ok(refusal::NOT_THERE),
            Hardware::Snp if by_msr && self.vm.hook_msr_request_dropped() => return Ok(0),
            Hardware::Snp if by_msr => (PAGE_SIZE, PSC_MSR_ERROR),
            Hardware::Snp => (PSC_ENTRIES * PAGE_SIZE, PSC_GENERIC),
            Hardware::Tdx => (MAP_GPA_CHUNK, VMCALL_INVALID),
        };
        let tdx = self.vm.vm_type.hardware == Hardware::Tdx;
        if tdx && !(gpa | length).is_multiple_of(PAGE_SIZE) {
            return Ok(VMCALL_ALIGN);
        }
        let mut done = 0;
        while done < length {
            self.refused_at = done;
            if !self.vm.hypercall_exits.load(Ordering::Relaxed) {
                return Ok(if tdx { VMCALL_UNSUPPORTED } else { refused });
            }
            let size = self.vm.hook_request_size(chunk.min(length - done));
            let (at, asked, to_private) =
                self.vm.hook_request(gpa, (gpa + done, size, private), self.alias_bit());
            let page_size = self.vm.hook_request_page_size(0);
            let result = self.once(|_| Err(map_gpa_range(at, asked, to_private, page_size)))?;
            let again = tdx && self.vm.hook_request_retried(result == Errno::EAGAIN.0 as u64);
            if self.vm.hook_request_granted(result == 0) {
                done += size;
            } else if !again {
                return Ok(refused);
            }
            // A TD is told to try again where it got to, and does.
        }
        Ok(0)
    }
}

/// The exit by which the guest's request reaches the host.
pub(super) fn map_gpa_range(gpa: u64, size: u64, private: bool, page_size: u64) -> VcpuStop {
    let attributes = if private { MAP_GPA_RANGE_ENCRYPTED } else { 0 } | page_size;
    VcpuStop::Exit(Exit::Hypercall {
        number: KVM_HC_MAP_GPA_RANGE,
        args: [gpa, size.div_ceil(PAGE_SIZE), attributes, 0, 0, 0],
    })
}
