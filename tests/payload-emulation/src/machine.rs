// SPDX-License-Identifier: GPL-2.0-only
//! A CPU in its world: the emulator for ordinary instructions, and everything else around it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use gmem_conform::payload::abi::PRIVATE_WINDOW;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use unicorn_engine::{
    Arch, HookType, MemType, Mode, Prot, RegisterX86, TlbEntry, TlbType, Unicorn,
};

use crate::cpu::{self, Access, Control, Done, Exception, Exit, Fault, Platform, Registers, World};
use crate::decode;
use crate::memory::Memory;

/// An address that no instruction is at, nor anything else.
const NOWHERE: u64 = 0x1234_5678_0000_0001;
/// After so many ordinary instructions without an exit it is a hang: more than any command here takes.
const LIMIT: u64 = 20_000_000;
/// The same for instructions that are not ordinary, and exceptions, which take much longer.
const SPECIAL_LIMIT: u32 = 1 << 15;

/// What the hooks of the emulator see.
struct State {
    control: Control,
    platform: Box<dyn Platform>,
    world: World,
    /// The instruction that is executed or has stopped the emulator.
    rip: u64,
    stop: Option<Stop>,
    /// By address and whether in 64-bit mode: what is not ordinary.
    decoded: HashMap<(u64, bool), Option<Instruction>>,
    executed: u64,
}

/// Why the emulator stopped.
enum Stop {
    Special(Instruction),
    /// The page, and what for.
    Fault(Fault, u64, Access),
    Limit,
}

/// Looks at registers and the world right before a special instruction is executed, and may change them.
pub type Tamper = Box<dyn FnMut(&mut World, &mut Registers, &Instruction)>;

/// The engines are dropped before the memory that they have mapped.
pub struct Machine {
    legacy: Unicorn<'static, ()>,
    long: Unicorn<'static, ()>,
    pub registers: Registers,
    /// What a payload with some bug would have done.
    pub tamper: Option<Tamper>,
    state: Rc<RefCell<State>>,
}

/// General registers by their number in instructions, in 64-bit mode.
const GENERAL: [RegisterX86; 16] = [
    RegisterX86::RAX,
    RegisterX86::RCX,
    RegisterX86::RDX,
    RegisterX86::RBX,
    RegisterX86::RSP,
    RegisterX86::RBP,
    RegisterX86::RSI,
    RegisterX86::RDI,
    RegisterX86::R8,
    RegisterX86::R9,
    RegisterX86::R10,
    RegisterX86::R11,
    RegisterX86::R12,
    RegisterX86::R13,
    RegisterX86::R14,
    RegisterX86::R15,
];

/// The same in 32-bit mode.
const GENERAL32: [RegisterX86; 8] = [
    RegisterX86::EAX,
    RegisterX86::ECX,
    RegisterX86::EDX,
    RegisterX86::EBX,
    RegisterX86::ESP,
    RegisterX86::EBP,
    RegisterX86::ESI,
    RegisterX86::EDI,
];

impl Machine {
    /// A CPU with these registers.
    pub fn new(
        platform: Box<dyn Platform>,
        world: World,
        control: Control,
        registers: Registers,
    ) -> Machine {
        let state = Rc::new(RefCell::new(State {
            control,
            platform,
            world,
            rip: 0,
            stop: None,
            decoded: HashMap::new(),
            executed: 0,
        }));
        Machine {
            legacy: engine(Mode::MODE_32, &state),
            long: engine(Mode::MODE_64, &state),
            registers,
            tamper: None,
            state,
        }
    }

    /// Lets the test do something with the world.
    pub fn world<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.state.borrow_mut().world)
    }

    /// Converts the page at `gpa` without being asked by the guest.
    pub fn convert(&self, gpa: u64, private: bool) {
        let mut state = self.state.borrow_mut();
        let State { platform, world, .. } = &mut *state;
        platform.convert(world, gpa, private, false);
    }

    /// How many instructions have been executed.
    pub fn executed(&self) -> u64 {
        self.state.borrow().executed
    }

    /// KVM_RUN.
    pub fn run(&mut self) -> Exit {
        let limit = self.state.borrow().executed + LIMIT;
        for _ in 0..SPECIAL_LIMIT {
            if let Some(exit) = self.step(limit) {
                return exit;
            }
        }
        Exit::Hang
    }

    /// Executes up to and including the next instruction that is not ordinary, or exception.
    fn step(&mut self, limit: u64) -> Option<Exit> {
        let error = self.run_ordinary(limit);
        let mut state = self.state.borrow_mut();
        let State { control, platform, world, stop, .. } = &mut *state;
        let platform = platform.as_mut();
        let fault = match stop.take() {
            Some(Stop::Limit) => return Some(Exit::Hang),
            None => return Some(Exit::Broken(format!("the emulator stopped: {error:?}"))),
            Some(Stop::Fault(fault, page, access)) => {
                exact(fault, platform, world, control, &self.registers, page, access)
            }
            Some(Stop::Special(instruction)) => {
                if let Some(tamper) = &mut self.tamper {
                    tamper(world, &mut self.registers, &instruction);
                }
                let before = self.registers;
                self.registers.rip = instruction.next_ip();
                let registers = &mut self.registers;
                let done = cpu::execute(platform, world, control, registers, &instruction)
                    .and_then(|done| match done {
                        Some(done) => Ok(Some(done)),
                        None => platform.execute(world, control, registers, &instruction),
                    });
                match done {
                    Ok(Some(Done::Next)) => return None,
                    Ok(Some(Done::Exit(exit))) => return Some(exit),
                    Ok(None) => {
                        let what = format!("{instruction} at {:#x}", instruction.ip());
                        return Some(Exit::Broken(what));
                    }
                    Err(fault) => {
                        self.registers = before;
                        fault
                    }
                }
            }
        };
        let mut exception = match fault {
            Fault::Exit(exit) => return Some(exit),
            Fault::Exception(exception) => platform.deliver(exception),
        };
        // An exception on the way to an exception is #DF, one on the way to that a triple fault.
        for _ in 0..2 {
            match cpu::deliver(platform, world, control, &mut self.registers, exception) {
                Ok(()) => return None,
                Err(Fault::Exit(exit)) => return Some(exit),
                Err(Fault::Exception(_)) if exception == Exception::DF => break,
                Err(Fault::Exception(_)) => exception = Exception::DF,
            }
        }
        Some(Exit::Shutdown)
    }

    /// Executes ordinary instructions until something stops the emulator, which leaves it in `State::stop`.
    fn run_ordinary(&mut self, limit: u64) -> Result<(), unicorn_engine::uc_error> {
        let long = {
            let mut state = self.state.borrow_mut();
            state.stop = (state.executed >= limit).then_some(Stop::Limit);
            state.control.long
        };
        let (engine, names): (_, &[RegisterX86]) =
            if long { (&mut self.long, &GENERAL) } else { (&mut self.legacy, &GENERAL32) };
        for (&name, &value) in names.iter().zip(&self.registers.general) {
            engine.reg_write(name, value)?;
        }
        engine.reg_write(RegisterX86::EFLAGS, self.registers.rflags)?;
        // The world may have changed since it ran last.
        engine.ctl_flush_tlb()?;
        let limited = {
            let state = self.state.borrow();
            (limit - state.executed.min(limit)) as usize
        };
        let result = engine.emu_start(self.registers.rip, NOWHERE, 0, limited);
        for (&name, value) in names.iter().zip(&mut self.registers.general) {
            *value = engine.reg_read(name)?;
        }
        self.registers.rflags = engine.reg_read(RegisterX86::EFLAGS)?;
        let pc = engine.pc_read()?;
        let mut state = self.state.borrow_mut();
        self.registers.rip = match state.stop {
            Some(Stop::Fault(_, _, Access::Fetch)) | None => pc,
            _ => state.rip,
        };
        if state.stop.is_none() && state.executed >= limit {
            state.stop = Some(Stop::Limit);
        }
        result
    }
}

/// The emulator is told of pages only. What it is about is an address in that page.
fn exact(
    fault: Fault,
    platform: &mut dyn Platform,
    world: &mut World,
    control: &Control,
    registers: &Registers,
    page: u64,
    access: Access,
) -> Fault {
    if access == Access::Fetch {
        return fault;
    }
    let Ok(instruction) = fetch(platform, world, control, registers.rip) else { return fault };
    let Some(address) = registers.address_in(&instruction, page) else { return fault };
    match cpu::translate(platform, world, control, address, access) {
        Err(exact) => exact,
        Ok(_) => fault,
    }
}

/// Decodes the instruction at `rip`.
fn fetch(
    platform: &mut dyn Platform,
    world: &mut World,
    control: &Control,
    rip: u64,
) -> Result<Instruction, Fault> {
    let mut bytes = Vec::new();
    for i in 0..15 {
        let at = cpu::translate(platform, world, control, rip + i, Access::Fetch);
        match at {
            Ok((gpa, private)) => bytes.push(world.memory.byte(gpa, private)),
            Err(fault) if i == 0 => return Err(fault),
            Err(_) => break,
        }
    }
    let bitness = if control.long { 64 } else { 32 };
    Ok(Decoder::with_ip(bitness, &bytes, rip, DecoderOptions::NONE).decode())
}

/// An emulator that stops at everything that is not ordinary.
fn engine(mode: Mode, state: &Rc<RefCell<State>>) -> Unicorn<'static, ()> {
    let mut engine = Unicorn::new(Arch::X86, mode).expect("the library has x86");
    engine.ctl_set_tlb_type(TlbType::VIRTUAL).expect("the library has it");
    for (address, size, start) in state.borrow().world.memory.regions() {
        // SAFETY: `Machine` drops the engines before the memory, which nothing refers to but through raw pointers, and not
        // while an engine runs.
        unsafe { engine.mem_map_ptr(address, size, Prot::ALL, start.cast()) }
            .expect("the regions are disjoint");
    }
    let shared = Rc::clone(state);
    let hook = move |engine: &mut Unicorn<()>, rip: u64, _: u32| {
        let mut state = shared.borrow_mut();
        state.rip = rip;
        state.executed += 1;
        if let Some(instruction) = state.special(rip) {
            state.stop = Some(Stop::Special(instruction));
            // It can only fail without an emulator.
            let _ = engine.emu_stop();
        }
    };
    engine.add_code_hook(1, 0, hook).expect("the hook is valid");
    let shared = Rc::clone(state);
    let hook = move |_: &mut Unicorn<()>, page: u64, kind: MemType| {
        let (access, perms) = match kind {
            MemType::WRITE => (Access::Write, Prot::READ | Prot::WRITE),
            MemType::FETCH => (Access::Fetch, Prot::EXEC),
            _ => (Access::Read, Prot::READ),
        };
        // The emulator looks at where it is to stop, too.
        if page == NOWHERE & !0xfff {
            return None;
        }
        let mut state = shared.borrow_mut();
        let State { control, platform, world, stop, .. } = &mut *state;
        match cpu::translate(platform.as_mut(), world, control, page, access) {
            Ok((gpa, private)) => Some(TlbEntry { paddr: Memory::host(gpa, private), perms }),
            Err(fault) => {
                *stop = Some(Stop::Fault(fault, page, access));
                None
            }
        }
    };
    engine.add_tlb_hook(1, 0, hook).expect("the hook is valid");
    let shared = Rc::clone(state);
    let hook = move |_: &mut Unicorn<()>, _: MemType, address: u64, _: usize, _: i64| {
        // Whether this is a virtual or a host physical address, the private alias is the one far up.
        if address >= PRIVATE_WINDOW {
            shared.borrow_mut().platform.has_read(address & (PRIVATE_WINDOW - 1));
        }
        true
    };
    engine.add_mem_hook(HookType::MEM_READ, 1, 0, hook).expect("the hook is valid");
    engine
}

impl State {
    /// The instruction at `rip`, if it is not ordinary.
    fn special(&mut self, rip: u64) -> Option<Instruction> {
        let key = (rip, self.control.long);
        if let Some(known) = self.decoded.get(&key) {
            return *known;
        }
        let State { control, platform, world, decoded, .. } = self;
        // The emulator has fetched it already.
        let instruction = fetch(platform.as_mut(), world, control, rip).ok()?;
        let special = (!decode::is_ordinary(&instruction)).then_some(instruction);
        decoded.insert(key, special);
        special
    }
}
