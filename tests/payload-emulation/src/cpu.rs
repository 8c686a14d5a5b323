// SPDX-License-Identifier: GPL-2.0-only
//! The parts of a CPU that are not left to the emulator: paging, control registers, segments, exceptions.

use iced_x86::{Code, Instruction, Register};

use crate::hypervisor::Hypervisor;
use crate::memory::Memory;

/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// EFER.LME, EFER.LMA, EFER.NXE.
pub const EFER_LME: u64 = 1 << 8;
pub const EFER_LMA: u64 = 1 << 10;
pub const EFER_NXE: u64 = 1 << 11;

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// An exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    pub vector: u8,
    pub error_code: Option<u64>,
    pub cr2: Option<u64>,
    /// #VE: exit reason, guest linear address, guest physical address.
    pub ve: Option<(u64, u64, u64)>,
}

impl Exception {
    /// #UD.
    pub const UD: Exception = Exception::new(6, None);
    /// #DF.
    pub const DF: Exception = Exception::new(8, Some(0));
    /// #GP(0).
    pub const GP: Exception = Exception::new(13, Some(0));

    /// An exception that is about no address.
    pub const fn new(vector: u8, error_code: Option<u64>) -> Exception {
        Exception { vector, error_code, cr2: None, ve: None }
    }
}

/// Why KVM_RUN returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// KVM_EXIT_IO, a write.
    Io { port: u16, value: u64 },
    /// KVM_EXIT_SYSTEM_EVENT with KVM_SYSTEM_EVENT_SEV_TERM: the GHCB MSR.
    Terminate(u64),
    /// KVM_EXIT_SYSTEM_EVENT with KVM_SYSTEM_EVENT_TDX_FATAL: R12.
    FatalError(u64),
    /// KVM_EXIT_MEMORY_FAULT.
    MemoryFault { gpa: u64, private: bool },
    /// EIO: a TDX guest touched a page that it has not accepted, which ends it.
    NotAccepted { gpa: u64 },
    /// KVM_EXIT_SHUTDOWN.
    Shutdown,
    /// No exit after very many instructions.
    Hang,
    /// The guest did what nothing here knows.
    Broken(String),
}

/// Why an instruction does not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Exception(Exception),
    /// The instruction is executed again afterwards.
    Exit(Exit),
}

/// What an instruction that is not ordinary does besides changing registers.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Next,
    /// Goes on with the next instruction after an exit.
    Exit(Exit),
}

/// General registers, by their number in instructions, RIP and RFLAGS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    pub general: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
}

/// The number of registers in instructions.
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RSI: usize = 6;
pub const R8: usize = 8;

impl Registers {
    /// EDX:EAX.
    pub fn edx_eax(&self) -> u64 {
        self.general[RDX] << 32 | self.general[RAX] & 0xffff_ffff
    }

    /// The value of a register that an address is made of.
    fn get(&self, register: Register) -> Option<u64> {
        match register {
            // Flat segments.
            r if r.is_segment_register() => Some(0),
            r if r.is_gpr64() => Some(self.general[r.number()]),
            r if r.is_gpr32() => Some(self.general[r.number()] & 0xffff_ffff),
            _ => None,
        }
    }

    /// The address of the memory operand that is the operand `operand` of `instruction`.
    pub fn address(&self, instruction: &Instruction, operand: u32) -> Option<u64> {
        instruction.virtual_address(operand, 0, |r, _, _| self.get(r))
    }

    /// The address that `instruction` accesses in the page at `page`.
    pub fn address_in(&self, instruction: &Instruction, page: u64) -> Option<u64> {
        let mut info = iced_x86::InstructionInfoFactory::new();
        let info = info.info(instruction);
        let mut addresses =
            info.used_memory().iter().filter_map(|m| m.virtual_address(0, |r, _, _| self.get(r)));
        addresses.find(|a| a & !0xfff == page)
    }
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    pub base: u64,
    pub limit: u64,
}

/// Registers that only privileged instructions access.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub gdtr: Table,
    pub idtr: Table,
    pub cs: u64,
    pub ss: u64,
    /// CS.L, with EFER.LMA.
    pub long: bool,
}

/// What is outside of the CPU.
#[derive(Default)]
pub struct World {
    pub memory: Memory,
    pub hypervisor: Hypervisor,
}

/// What SEV-SNP and TDX do each in their own way.
pub trait Platform {
    /// The guest physical address in a leaf of the page tables, and whether it is the private alias.
    fn alias(&self, leaf: u64) -> (u64, bool);
    /// Whether an access to `gpa`, by the linear address `address`, is possible. Asking changes nothing.
    fn access(
        &mut self,
        world: &mut World,
        gpa: u64,
        private: bool,
        access: Access,
        address: u64,
    ) -> Result<(), Fault>;
    /// Fetches are of private memory whatever the page tables say.
    fn fetches_private(&self) -> bool;
    /// An exception is about to be delivered: which, instead.
    fn deliver(&mut self, exception: Exception) -> Exception {
        exception
    }
    /// The guest has read at `gpa` through the private alias.
    fn has_read(&mut self, gpa: u64) {
        let _ = gpa;
    }
    /// Makes the page at `gpa` private or shared, if it is not already; because the guest has asked for it, or not.
    fn convert(&mut self, world: &mut World, gpa: u64, private: bool, asked: bool);
    /// Whether CR0 or CR4 may have this value.
    fn control_allowed(&self, register: Register, value: u64) -> bool;
    /// Executes what is special to the platform; `None` if that is nothing.
    fn execute(
        &mut self,
        world: &mut World,
        control: &Control,
        registers: &mut Registers,
        instruction: &Instruction,
    ) -> Result<Option<Done>, Fault>;
}

/// The guest physical address that `address` is mapped to, and through which alias.
pub fn walk<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &Control,
    address: u64,
    access: Access,
) -> Result<(u64, bool), Fault> {
    if control.cr0 & CR0_PG == 0 {
        return Ok((address, true));
    }
    if (address as i64) << 16 >> 16 != address as i64 {
        return Err(Fault::Exception(Exception::GP));
    }
    let fault = |present: bool, reserved: bool| {
        let write = u64::from(access == Access::Write) << 1;
        let fetch = u64::from(access == Access::Fetch) << 4;
        let code = u64::from(present) | write | u64::from(reserved) << 3 | fetch;
        Fault::Exception(Exception { cr2: Some(address), ..Exception::new(14, Some(code)) })
    };
    let mut table = control.cr3 & !0xfff;
    for shift in [39, 30, 21, 12] {
        let at = table + (address >> shift & 0x1ff) * 8;
        // The CPU reads page tables as private memory, and the payloads' have nothing but an address in upper levels.
        platform.access(world, at, true, Access::Read, address)?;
        let entry = world.memory.read(at, true);
        if entry & 1 == 0 {
            return Err(fault(false, false));
        }
        let no_execute = entry >> 63 == 1;
        if no_execute && control.efer & EFER_NXE == 0 {
            return Err(fault(true, true));
        }
        if access == Access::Write && entry & 2 == 0 || access == Access::Fetch && no_execute {
            return Err(fault(true, false));
        }
        let bits = entry & 0x000f_ffff_ffff_f000;
        if shift == 12 || shift == 21 && entry & 1 << 7 != 0 {
            let inside = (1 << shift) - 1;
            let (gpa, private) = platform.alias(bits);
            if gpa & inside != 0 {
                return Err(fault(true, true));
            }
            let private = private || access == Access::Fetch && platform.fetches_private();
            return Ok((gpa | address & inside, private));
        }
        table = bits;
    }
    unreachable!("the last level is a leaf")
}

/// The same, and the access is allowed.
pub fn translate<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &Control,
    address: u64,
    access: Access,
) -> Result<(u64, bool), Fault> {
    let (gpa, private) = walk(platform, world, control, address, access)?;
    platform.access(world, gpa, private, access, address)?;
    Ok((gpa, private))
}

/// Reads `size` bytes, at most 8, at any address.
pub fn load<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &Control,
    address: u64,
    size: u64,
) -> Result<u64, Fault> {
    let mut value = 0;
    for i in 0..size {
        let (gpa, private) = translate(platform, world, control, address + i, Access::Read)?;
        value |= u64::from(world.memory.byte(gpa, private)) << (i * 8);
    }
    Ok(value)
}

/// The descriptor that `selector` names in the GDT.
fn descriptor<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &Control,
    selector: u64,
) -> Result<u64, Fault> {
    if selector & !3 == 0 || selector | 7 > control.gdtr.limit || selector & 7 != 0 {
        return Err(Fault::Exception(Exception::GP));
    }
    load(platform, world, control, control.gdtr.base + selector, 8)
}

/// Whether `descriptor` is of a present 64-bit code segment of privilege 0.
fn is_long_code(descriptor: u64) -> bool {
    // Present, DPL 0, code or data, code; L and not D.
    descriptor >> 40 & 0xf8 == 0x98 && descriptor >> 53 & 3 == 1
}

/// Whether `descriptor` is of a present and writable data segment of privilege 0.
fn is_data(descriptor: u64) -> bool {
    descriptor >> 40 & 0xfa == 0x92
}

/// Delivers `exception`.
pub fn deliver<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &mut Control,
    registers: &mut Registers,
    exception: Exception,
) -> Result<(), Fault> {
    if let Some(cr2) = exception.cr2 {
        control.cr2 = cr2;
    }
    let gate = u64::from(exception.vector) * 16;
    if !control.long || gate + 15 > control.idtr.limit {
        return Err(Fault::Exception(Exception::GP));
    }
    let low = load(platform, world, control, control.idtr.base + gate, 8)?;
    let high = load(platform, world, control, control.idtr.base + gate + 8, 8)?;
    // Present, DPL 0, interrupt gate, no stack of its own.
    if low >> 40 & 0xff != 0x8e || low >> 32 & 7 != 0 {
        return Err(Fault::Exception(Exception::GP));
    }
    let selector = low >> 16 & 0xffff;
    if !is_long_code(descriptor(platform, world, control, selector)?) {
        return Err(Fault::Exception(Exception::GP));
    }
    let mut rsp = registers.general[RSP] & !15;
    let rip = low & 0xffff | low >> 48 << 16 | high << 32;
    let frame = [control.ss, registers.general[RSP], registers.rflags, control.cs, registers.rip];
    for word in frame.into_iter().chain(exception.error_code) {
        rsp = rsp.wrapping_sub(8);
        let (gpa, private) = translate(platform, world, control, rsp, Access::Write)?;
        world.memory.write(gpa, private, word);
    }
    registers.general[RSP] = rsp;
    registers.rip = rip;
    // TF, IF, NT, RF, VM.
    registers.rflags &= !(1 << 8 | 1 << 9 | 1 << 14 | 1 << 16 | 1 << 17);
    control.cs = selector;
    Ok(())
}

/// Executes what is not ordinary and the same everywhere; `None` if `instruction` is something else.
pub fn execute<P: Platform + ?Sized>(
    platform: &mut P,
    world: &mut World,
    control: &mut Control,
    registers: &mut Registers,
    instruction: &Instruction,
) -> Result<Option<Done>, Fault> {
    let general = |register: Register| register.number();
    match instruction.code() {
        Code::Lgdt_m1632_16 | Code::Lgdt_m1632 | Code::Lgdt_m1664 | Code::Lidt_m1664 => {
            let address = registers.address(instruction, 0);
            let address = address.ok_or(Fault::Exception(Exception::GP))?;
            let size = if control.long { 8 } else { 4 };
            let limit = load(platform, world, control, address, 2)?;
            let base = load(platform, world, control, address + 2, size)?;
            let table = Table { base, limit };
            if instruction.code() == Code::Lidt_m1664 {
                control.idtr = table;
            } else {
                control.gdtr = table;
            }
        }
        Code::Mov_r64_cr if instruction.op1_register() == Register::CR2 => {
            registers.general[general(instruction.op0_register())] = control.cr2;
        }
        Code::Mov_r64_cr if instruction.op1_register() == Register::CR3 => {
            registers.general[general(instruction.op0_register())] = control.cr3;
        }
        Code::Mov_cr_r32 => {
            let value = registers.general[general(instruction.op1_register())] & 0xffff_ffff;
            let register = instruction.op0_register();
            if !platform.control_allowed(register, value) {
                world.hypervisor.violation(format!("{register:?} = {value:#x}"));
                return Err(Fault::Exception(Exception::GP));
            }
            match register {
                Register::CR0 => set_cr0(control, value)?,
                Register::CR3 => control.cr3 = value,
                Register::CR4 => control.cr4 = value,
                _ => return Ok(None),
            }
        }
        Code::Jmp_ptr1632 => {
            let selector = u64::from(instruction.far_branch_selector());
            let segment = descriptor(platform, world, control, selector)?;
            if control.efer & EFER_LMA == 0 || !is_long_code(segment) {
                let what = format!("far jump to {selector:#x}, which is not 64-bit code");
                return Ok(Some(Done::Exit(Exit::Broken(what))));
            }
            control.cs = selector;
            control.long = true;
            registers.rip = u64::from(instruction.far_branch32());
        }
        Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r64m16
            if instruction.op0_register() != Register::CS =>
        {
            let selector = registers.general[general(instruction.op1_register())] & 0xffff;
            if !is_data(descriptor(platform, world, control, selector)?) {
                return Err(Fault::Exception(Exception::GP));
            }
            if instruction.op0_register() == Register::SS {
                control.ss = selector;
            }
        }
        Code::Ud2 => return Err(Fault::Exception(Exception::UD)),
        _ => return Ok(None),
    }
    Ok(Some(Done::Next))
}

fn set_cr0(control: &mut Control, value: u64) -> Result<(), Fault> {
    let paging = value & CR0_PG != 0;
    if paging && control.efer & EFER_LME != 0 {
        if control.cr4 & CR4_PAE == 0 {
            return Err(Fault::Exception(Exception::GP));
        }
        control.efer |= EFER_LMA;
    }
    control.cr0 = value;
    Ok(())
}
