// SPDX-License-Identifier: GPL-2.0-only
//! The CPU of a TDX guest: the secure EPT, TDCALL as the TDX module answers it, what raises #VE.

use std::collections::BTreeSet;

use iced_x86::{Code, Instruction, Register};

use crate::cpu::{
    Access, Control, Done, Exception, Exit, Fault, Platform, R8, RAX, RCX, RDX, Registers, World,
};
use crate::hypervisor::Event;
use crate::memory::PAGE;
use crate::vmcall;

/// #VE, and its reason for an access to a page that is not there.
const VE: u8 = 20;
const EPT_VIOLATION: u64 = 48;

/// Statuses of TDCALL, without the operand in bits 31:0.
pub const OPERAND_INVALID: u64 = 0xc000_0100_0000_0000;
const NO_VE_INFO: u64 = 0xc000_0704_0000_0000;
pub const ALREADY_ACCEPTED: u64 = 0x0000_0b0a_0000_0000;
pub const SIZE_MISMATCH: u64 = 0xc000_0b0b_0000_0000;
pub const OPERAND_BUSY: u64 = 0x8000_0200_0000_0000;
/// The operands that they name.
const OPERAND_RAX: u64 = 0;
const OPERAND_RCX: u64 = 1;

/// The attribute SEPT_VE_DISABLE.
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// The guest's CPU.
pub struct Tdx {
    /// The width of guest physical addresses, 48 or 52.
    pub gpaw: u64,
    /// Whether an access to a page that is not accepted ends the guest instead of raising #VE.
    pub sept_ve_disable: bool,
    /// Private pages that have been added or accepted.
    mapped: BTreeSet<u64>,
    /// What VP.VEINFO.GET has for the guest.
    ve: Option<(u64, u64, u64)>,
    /// Makes what a register holds afterwards, where nothing says what.
    junk: u64,
}

impl Tdx {
    /// A CPU whose launched pages are `launched`.
    pub fn new(gpaw: u64, sept_ve_disable: bool, launched: impl Iterator<Item = u64>) -> Tdx {
        Tdx { gpaw, sept_ve_disable, mapped: launched.collect(), ve: None, junk: 0 }
    }

    /// The bit of a guest physical address that says it is shared.
    pub fn shared_bit(&self) -> u64 {
        1 << (self.gpaw - 1)
    }

    /// Whether the guest has not asked yet what its last #VE was.
    pub fn has_ve(&self) -> bool {
        self.ve.is_some()
    }

    /// Something that nobody should look at.
    pub fn junk(&mut self) -> u64 {
        self.junk += 1;
        0x6a6b_6c6d_0000_0000 | self.junk
    }

    fn tdcall(&mut self, world: &mut World, registers: &mut Registers) -> Result<Done, Fault> {
        let leaf = registers.general[RAX];
        match leaf {
            0 => return vmcall::vmcall(self, world, registers),
            1 => {
                let attributes = if self.sept_ve_disable { SEPT_VE_DISABLE } else { 0 };
                let outputs = [0, self.gpaw, attributes, 1 << 32 | 1, 0];
                self.module(registers, outputs);
            }
            3 => {
                let outputs = match self.ve.take() {
                    Some((reason, address, gpa)) => [0, reason, 0, address, gpa],
                    None => [NO_VE_INFO, 0, 0, 0, 0],
                };
                if outputs[0] != 0 {
                    world.hypervisor.violation("VP.VEINFO.GET without a #VE");
                }
                self.module(registers, outputs);
            }
            6 => {
                let status = self.accept(world, registers.general[RCX])?;
                let junk = [0; 4].map(|_| self.junk());
                self.module(registers, [status, junk[0], junk[1], junk[2], junk[3]]);
            }
            _ => {
                world.hypervisor.violation(format!("TDCALL with RAX {leaf:#x}"));
                registers.general[RAX] = OPERAND_INVALID | OPERAND_RAX;
            }
        }
        Ok(Done::Next)
    }

    /// What the module leaves in RAX, RCX, RDX, R8 and R9; R10 and R11 may hold anything.
    fn module(&mut self, registers: &mut Registers, outputs: [u64; 5]) {
        for (register, value) in [RAX, RCX, RDX, R8, R8 + 1].into_iter().zip(outputs) {
            registers.general[register] = value;
        }
        registers.general[10] = self.junk();
        registers.general[11] = self.junk();
    }

    /// MEM.PAGE.ACCEPT: RAX.
    fn accept(&mut self, world: &mut World, rcx: u64) -> Result<u64, Fault> {
        let (page, level) = (rcx & !(PAGE - 1), rcx & 7);
        // Levels 0 and 1, reserved bits, the shared bit and all above it.
        if level > 1 || rcx & 0xff8 != 0 || page >= self.shared_bit() {
            world.hypervisor.violation(format!("MEM.PAGE.ACCEPT with RCX {rcx:#x}"));
            return Ok(OPERAND_INVALID | OPERAND_RCX);
        }
        if !world.hypervisor.is_private(page) || !world.memory.has(page) {
            return Err(Fault::Exit(Exit::MemoryFault { gpa: page, private: true }));
        }
        if let Some([status, _]) = world.hypervisor.injected(Event::Accept) {
            return Ok(status);
        }
        // KVM maps all pages as 4 KiB, as pending ones if the guest has not touched them yet.
        if level == 1 {
            return Ok(SIZE_MISMATCH | OPERAND_RCX);
        }
        if !self.mapped.insert(page) {
            return Ok(ALREADY_ACCEPTED | OPERAND_RCX);
        }
        for at in (page..page + PAGE).step_by(8) {
            world.memory.write(at, true, 0);
        }
        Ok(0)
    }
}

impl Platform for Tdx {
    fn alias(&self, leaf: u64) -> (u64, bool) {
        (leaf & !self.shared_bit(), leaf & self.shared_bit() == 0)
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
        if world.memory.has(page) && (!private || self.mapped.contains(&page)) {
            return Ok(());
        }
        if private && self.sept_ve_disable {
            return Err(Fault::Exit(Exit::NotAccepted { gpa: page }));
        }
        let ve = Some((EPT_VIOLATION, address, gpa));
        Err(Fault::Exception(Exception { ve, ..Exception::new(VE, None) }))
    }

    fn fetches_private(&self) -> bool {
        false
    }

    fn deliver(&mut self, exception: Exception) -> Exception {
        match exception.ve {
            Some(_) if self.ve.is_some() => Exception::DF,
            Some(ve) => {
                self.ve = Some(ve);
                exception
            }
            None => exception,
        }
    }

    fn convert(&mut self, world: &mut World, gpa: u64, private: bool, _: bool) {
        if private == world.hypervisor.is_private(gpa) {
            return;
        }
        if private {
            world.hypervisor.private.insert(gpa);
            world.memory.scramble_to_private(gpa);
        } else {
            world.hypervisor.private.remove(&gpa);
            world.memory.scramble_to_shared(gpa);
            self.mapped.remove(&gpa);
        }
    }

    fn control_allowed(&self, register: Register, value: u64) -> bool {
        let (ones, zeros): (u64, u64) = match register {
            // PE and NE; CD and NW.
            Register::CR0 => (1 | 1 << 5, 1 << 30 | 1 << 29),
            // MCE; VMXE and SMXE.
            Register::CR4 => (1 << 6, 1 << 13 | 1 << 14),
            _ => (0, 0xfff),
        };
        value & ones == ones && value & zeros == 0
    }

    fn execute(
        &mut self,
        world: &mut World,
        control: &Control,
        registers: &mut Registers,
        instruction: &Instruction,
    ) -> Result<Option<Done>, Fault> {
        match instruction.code() {
            Code::Tdcall if control.long => self.tdcall(world, registers).map(Some),
            Code::Tdcall => Err(Fault::Exception(Exception::GP)),
            _ => Ok(None),
        }
    }
}
