// SPDX-License-Identifier: GPL-2.0-only
//! TDG.VP.VMCALL: what the TDX module checks, and a hypervisor's side of it, after the guest-hypervisor communication
//! interface and KVM.

use crate::cpu::{Done, Exit, Fault, Platform, RAX, RCX, Registers, World};
use crate::hypervisor::{EAGAIN, Event};
use crate::memory::PAGE;
use crate::tdx::{OPERAND_INVALID, Tdx};

/// Functions, R11.
pub const IO: u64 = 30;
pub const MAP_GPA: u64 = 0x1_0001;
pub const REPORT_FATAL_ERROR: u64 = 0x1_0003;

/// R10 afterwards.
pub const SUCCESS: u64 = 0;
pub const RETRY: u64 = 1;
pub const INVALID_OPERAND: u64 = 0x8000_0000_0000_0000;
pub const ALIGN_ERROR: u64 = 0x8000_0000_0000_0002;
const UNSUPPORTED: u64 = 0x8000_0000_0000_0003;

/// KVM exits for each so many bytes of MapGPA.
const CHUNK: u64 = 2 << 20;

/// R10 to R15.
const ARGUMENTS: std::ops::Range<usize> = 10..16;

/// TDG.VP.VMCALL.
pub fn vmcall(tdx: &mut Tdx, world: &mut World, registers: &mut Registers) -> Result<Done, Fault> {
    let mask = registers.general[RCX];
    // General registers and XMM; RAX, RCX and RSP cannot be passed, RBP not with KVM's configuration.
    if mask >> 32 != 0 || mask & (1 << 0 | 1 << 1 | 1 << 4 | 1 << 5) != 0 {
        world.hypervisor.violation(format!("VP.VMCALL with RCX {mask:#x}"));
        registers.general[RAX] = OPERAND_INVALID | 1;
        return Ok(Done::Next);
    }
    if tdx.has_ve() {
        world.hypervisor.violation("VP.VMCALL with #VE information left, another #VE being #DF");
    }
    for i in ARGUMENTS.filter(|i| mask >> i & 1 == 0) {
        world.hypervisor.violation(format!("VP.VMCALL without R{i}"));
    }
    // The hypervisor sees what is passed to it and nothing else.
    let passed = |i: usize| if mask >> i & 1 == 1 { registers.general[i] } else { 0 };
    let arguments = [12, 13, 14, 15].map(passed);
    let (kind, function) = (passed(10), passed(11));
    let mut outputs = [0; 6].map(|_| tdx.junk());
    let mut exit = None;
    let answer = if kind != 0 {
        world.hypervisor.violation(format!("VP.VMCALL with R10 {kind:#x}"));
        [UNSUPPORTED, tdx.junk()]
    } else if let Some(answer) = world.hypervisor.injected(Event::Vmcall(function)) {
        answer
    } else {
        match function {
            IO => match io(arguments) {
                Ok(io) => {
                    exit = Some(io);
                    [SUCCESS, tdx.junk()]
                }
                Err(what) => {
                    world.hypervisor.violation(format!("VP.VMCALL<IO> {what}"));
                    [INVALID_OPERAND, tdx.junk()]
                }
            },
            MAP_GPA => map_gpa(tdx, world, arguments),
            REPORT_FATAL_ERROR => {
                if arguments[0] >> 63 == 1 {
                    world.hypervisor.violation("VP.VMCALL<ReportFatalError> with a page");
                }
                exit = Some(Exit::FatalError(arguments[0]));
                [SUCCESS, tdx.junk()]
            }
            _ => {
                world.hypervisor.violation(format!("VP.VMCALL with R11 {function:#x}"));
                [UNSUPPORTED, tdx.junk()]
            }
        }
    };
    outputs[..2].copy_from_slice(&answer);
    for (i, output) in ARGUMENTS.zip(outputs).filter(|(i, _)| mask >> i & 1 == 1) {
        registers.general[i] = output;
    }
    registers.general[RAX] = 0;
    Ok(exit.map_or(Done::Next, Done::Exit))
}

/// IO: what it exits with, or what is wrong with it.
fn io([size, write, port, value]: [u64; 4]) -> Result<Exit, String> {
    if ![1, 2, 4].contains(&size) {
        return Err(format!("of {size} bytes"));
    }
    if write != 1 {
        return Err(format!("in direction {write}"));
    }
    let port = u16::try_from(port).map_err(|_| format!("at port {port:#x}"))?;
    Ok(Exit::Io { port, value: value & ((1 << (size * 8)) - 1) })
}

/// MapGPA: R10 and R11.
fn map_gpa(tdx: &mut Tdx, world: &mut World, [start, size, ..]: [u64; 4]) -> [u64; 2] {
    let shared = start & tdx.shared_bit();
    let (private, gpa) = (shared == 0, start & !shared);
    if start % PAGE != 0 || size % PAGE != 0 {
        world.hypervisor.violation(format!("MapGPA of {size:#x} bytes at {start:#x}"));
        return [ALIGN_ERROR, tdx.junk()];
    }
    let end = gpa.checked_add(size).filter(|&end| end <= tdx.shared_bit() && size != 0);
    let Some(end) = end.filter(|_| gpa < tdx.shared_bit() && world.memory.has(gpa)) else {
        world.hypervisor.violation(format!("MapGPA of {size:#x} bytes at {start:#x}"));
        return [INVALID_OPERAND, tdx.junk()];
    };
    let stop =
        world.hypervisor.injected(Event::MapGpaStops).map(|[chunks, _]| gpa + chunks * CHUNK);
    let mut at = gpa;
    while at < end {
        if stop == Some(at) {
            return [RETRY, at | shared];
        }
        let next = end.min(at + CHUNK);
        match world.hypervisor.map_gpa_range(at, (next - at) / PAGE, private) {
            0 => {}
            EAGAIN => return [RETRY, at | shared],
            _ => return [INVALID_OPERAND, at | shared],
        }
        for page in (at..next).step_by(PAGE as usize) {
            tdx.convert(world, page, private, true);
        }
        at = next;
    }
    [SUCCESS, tdx.junk()]
}
