// SPDX-License-Identifier: GPL-2.0-only
//! The CPU of an SEV-SNP guest: the RMP, PVALIDATE, what raises #VC.

use std::collections::{BTreeMap, BTreeSet};

use gmem_conform::payload::abi::TEST_MEMORY;
use iced_x86::{Code, Instruction, Mnemonic, Register};

use crate::cpu::{
    Access, Control, Done, Exception, Exit, Fault, Platform, RAX, RCX, RDX, Registers, World, walk,
};
use crate::ghcb;
use crate::hypervisor::Event;
use crate::memory::PAGE;

/// `MSR_AMD64_SEV_ES_GHCB`.
const GHCB_MSR: u64 = 0xc001_0130;
/// #VC, and its error code for an access to a page that is not validated, and to one that is MMIO.
const VC: u8 = 29;
const PAGE_NOT_VALIDATED: u64 = 0x404;
const NESTED_PAGE_FAULT: u64 = 0x400;
/// PVALIDATE's EAX.
const FAIL_INPUT: u64 = 1;
const FAIL_SIZEMISMATCH: u64 = 6;

/// RFLAGS.CF.
const CARRY: u64 = 1;

/// The guest's CPU.
pub struct Snp {
    /// The bit of the guest physical address in a leaf that says it is private.
    pub c_bit: u64,
    /// The versions of the GHCB protocol that the hypervisor speaks.
    pub versions: (u64, u64),
    /// The GHCB that has been registered.
    pub registered: Option<u64>,
    /// The GHCB's MSR.
    pub msr: u64,
    /// Pages whose RMP entry is validated.
    validated: BTreeSet<u64>,
    /// Pages that have just been validated, and whether their first and last word have been read since. Until then the
    /// caches of a CPU without COHERENCY_SFW_NO may hold lines of the page that another key was used for.
    unread: BTreeMap<u64, [bool; 2]>,
}

impl Snp {
    /// A CPU whose launched pages are `launched`, on a hypervisor that speaks `versions`.
    pub fn new(c_bit: u64, versions: (u64, u64), launched: impl Iterator<Item = u64>) -> Snp {
        Snp {
            c_bit,
            versions,
            registered: None,
            msr: 0,
            validated: launched.collect(),
            unread: BTreeMap::new(),
        }
    }

    fn pvalidate(
        &mut self,
        world: &mut World,
        control: &Control,
        registers: &mut Registers,
    ) -> Result<(), Fault> {
        let [address, large, validate] = [RAX, RCX, RDX].map(|r| registers.general[r]);
        let (large, validate) = (large & 0xffff_ffff, validate & 0xffff_ffff);
        if large > 1 || validate > 1 {
            world.hypervisor.violation(format!("PVALIDATE with ECX {large:#x}, EDX {validate:#x}"));
        }
        let mut carry = false;
        let status = if large == 1 && address % (2 << 20) != 0 {
            FAIL_INPUT
        } else {
            let (gpa, private) = walk(self, world, control, address, Access::Read)?;
            let page = gpa & !(PAGE - 1);
            if !private {
                world.hypervisor.violation(format!("PVALIDATE of a shared alias, {address:#x}"));
            }
            if page < TEST_MEMORY {
                world.hypervisor.violation(format!("PVALIDATE of {page:#x}"));
            }
            if !world.hypervisor.is_private(page) {
                return Err(Fault::Exit(Exit::MemoryFault { gpa: page, private: true }));
            }
            if let Some([answer, _]) = world.hypervisor.injected(Event::Pvalidate) {
                carry = answer >> 32 & 1 == 1;
                answer & 0xffff_ffff
            } else if large == 1 {
                // All entries of this RMP are for 4 KiB.
                FAIL_SIZEMISMATCH
            } else {
                carry = self.validated.contains(&page) == (validate == 1);
                if validate == 0 {
                    self.validated.remove(&page);
                } else if self.validated.insert(page) {
                    self.unread.insert(page, [false; 2]);
                }
                0
            }
        };
        registers.general[RAX] = status;
        registers.rflags = registers.rflags & !CARRY | u64::from(carry);
        Ok(())
    }
}

impl Platform for Snp {
    fn alias(&self, leaf: u64) -> (u64, bool) {
        (leaf & !self.c_bit, leaf & self.c_bit != 0)
    }

    fn access(
        &mut self,
        world: &mut World,
        gpa: u64,
        private: bool,
        _: Access,
        address: u64,
    ) -> Result<(), Fault> {
        let page = gpa & !(PAGE - 1);
        if private != world.hypervisor.is_private(page) {
            return Err(Fault::Exit(Exit::MemoryFault { gpa: page, private }));
        }
        let error = if !world.memory.has(page) {
            NESTED_PAGE_FAULT
        } else if private && !self.validated.contains(&page) {
            PAGE_NOT_VALIDATED
        } else {
            return Ok(());
        };
        let cr2 = Some(address);
        Err(Fault::Exception(Exception { cr2, ..Exception::new(VC, Some(error)) }))
    }

    fn fetches_private(&self) -> bool {
        true
    }

    fn has_read(&mut self, gpa: u64) {
        if let Some(read) = self.unread.get_mut(&(gpa & !(PAGE - 1))) {
            read[0] |= gpa.is_multiple_of(PAGE);
            read[1] |= gpa % PAGE == PAGE - 8 || gpa % PAGE == PAGE - 1;
        }
    }

    fn convert(&mut self, world: &mut World, gpa: u64, private: bool, asked: bool) {
        if private == world.hypervisor.is_private(gpa) {
            return;
        }
        let validated = self.validated.remove(&gpa);
        if private {
            world.hypervisor.private.insert(gpa);
            world.memory.scramble_to_private(gpa);
        } else {
            if validated && asked {
                let what = format!("page state change to shared of {gpa:#x}, which is validated");
                world.hypervisor.violation(what);
            }
            world.hypervisor.private.remove(&gpa);
            world.memory.scramble_to_shared(gpa);
        }
    }

    /// Writes of control registers are exits, which KVM may refuse.
    fn control_allowed(&self, _: Register, _: u64) -> bool {
        false
    }

    fn execute(
        &mut self,
        world: &mut World,
        control: &Control,
        registers: &mut Registers,
        instruction: &Instruction,
    ) -> Result<Option<Done>, Fault> {
        for (page, read) in std::mem::take(&mut self.unread) {
            if read != [true; 2] {
                let what = format!("{page:#x} was validated, but its cache lines were not evicted");
                world.hypervisor.violation(what);
            }
        }
        let msr = registers.general[RCX] & 0xffff_ffff;
        match instruction.code() {
            Code::Pvalidateq => self.pvalidate(world, control, registers)?,
            Code::Vmgexit => return ghcb::vmgexit(self, world).map(Some),
            Code::Wrmsr if msr == GHCB_MSR => self.msr = registers.edx_eax(),
            Code::Rdmsr if msr == GHCB_MSR => {
                registers.general[RAX] = self.msr & 0xffff_ffff;
                registers.general[RDX] = self.msr >> 32;
            }
            _ => {
                let Some(exit_code) = exit_code(instruction.mnemonic()) else { return Ok(None) };
                world.hypervisor.violation(format!("{instruction} at {:#x}", instruction.ip()));
                return Err(Fault::Exception(Exception::new(VC, Some(exit_code))));
            }
        }
        Ok(Some(Done::Next))
    }
}

/// The error code of #VC for instructions that raise it.
fn exit_code(mnemonic: Mnemonic) -> Option<u64> {
    Some(match mnemonic {
        Mnemonic::Rdtsc => 0x6e,
        Mnemonic::Rdpmc => 0x6f,
        Mnemonic::Cpuid => 0x72,
        Mnemonic::Invd => 0x76,
        Mnemonic::Hlt => 0x78,
        Mnemonic::In | Mnemonic::Out => 0x7b,
        Mnemonic::Rdmsr | Mnemonic::Wrmsr => 0x7c,
        Mnemonic::Vmmcall => 0x81,
        Mnemonic::Rdtscp => 0x87,
        Mnemonic::Wbinvd => 0x89,
        _ => return None,
    })
}
