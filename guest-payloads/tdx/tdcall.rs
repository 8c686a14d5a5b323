// SPDX-License-Identifier: GPL-2.0-only
//! TDCALL: what the TDX module does for the guest, and through it the VMM. Names and numbers are those of the module's ABI
//! and of the guest-hypervisor communication interface (GHCI).

use core::arch::asm;

use crate::common::abi::refusal;

/// Size of a page in bytes.
const PAGE: u64 = 4096;

// Leaves: RAX.
const VP_VMCALL: u64 = 0;
const VP_INFO: u64 = 1;
const VP_VEINFO_GET: u64 = 3;
const MEM_PAGE_ACCEPT: u64 = 6;

/// VP_VMCALL: the registers that the VMM sees and sets: R10 to R15.
const EXPOSED: u64 = 0xfc00;

// VP_VMCALL: functions of the standard set, R11.
const IO: u64 = 30;
const MAP_GPA: u64 = 0x1_0001;
const REPORT_FATAL_ERROR: u64 = 0x1_0003;

/// VP_VMCALL: the VMM has not done it all, and wants to be asked again for the rest. R10.
const RETRY: u64 = 1;
/// How often in a row the VMM may come back without having done anything. Arbitrary; Linux's guests give up after three.
const MAX_IDLE: u32 = 16;

/// RAX, as far as it tells one status from another.
const STATUS: u64 = 0xffff_ffff_0000_0000;
/// Another CPU or the VMM uses the same thing; it is to be tried again.
const OPERAND_BUSY: u64 = 0x8000_0200_0000_0000;
/// How often it is tried again. Arbitrary: many times longer than the module holds a lock.
const MAX_BUSY: u32 = 1 << 12;

/// TDG.VP.VMCALL of the function `r11`: R10, which is the VMM's status, and R11. The module's own status would be about the
/// registers alone, which are right.
fn vmcall(r11: u64, [r12, r13, r14, r15]: [u64; 4]) -> (u64, u64) {
    let (status, result): (u64, u64);
    // SAFETY: the module changes the registers that it is told to expose, and RAX. The host may read and write the mailbox
    // meanwhile, so the compiler must not carry memory across, hence no `nomem`.
    unsafe {
        asm!(
            "tdcall",
            inout("rax") VP_VMCALL => _,
            inout("rcx") EXPOSED => _,
            inout("r10") 0u64 => status,
            inout("r11") r11 => result,
            inout("r12") r12 => _,
            inout("r13") r13 => _,
            inout("r14") r14 => _,
            inout("r15") r15 => _,
            options(nostack),
        );
    }
    (status, result)
}

/// A leaf that the module executes by itself: RAX, RCX and R8. All that an input of `rcx` does not name is output.
fn module(leaf: u64, rcx: u64) -> (u64, u64, u64) {
    let (status, first, third);
    // SAFETY: no leaf used here changes memory that Rust owns, and all that may hold output is clobbered. A page's contents
    // change with its acceptance, so memory is not carried across.
    unsafe {
        asm!(
            "tdcall",
            inout("rax") leaf => status,
            inout("rcx") rcx => first,
            out("rdx") _,
            out("r8") third,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            options(nostack),
        );
    }
    (status, first, third)
}

/// The bit of a guest physical address that says it is shared.
pub fn shared_bit() -> u64 {
    let (_, rcx, _) = module(VP_INFO, 0);
    1 << ((rcx & 0x3f) - 1)
}

/// The exit reason and the linear address of the last #VE.
pub fn ve_info() -> (u64, u64) {
    let (_, reason, address) = module(VP_VEINFO_GET, 0);
    (reason & 0xffff_ffff, address)
}

/// Accepts the 4 KiB page at `gpa`, which is zero afterwards: 0 or why not.
pub fn accept(gpa: u64) -> u64 {
    let mut busy = 0;
    loop {
        let (status, _, _) = module(MEM_PAGE_ACCEPT, gpa);
        if status & STATUS != OPERAND_BUSY || busy == MAX_BUSY {
            return status;
        }
        busy += 1;
        core::hint::spin_loop();
    }
}

/// The VMM did not do what it was asked for.
pub struct Refused;

/// OUT of 32 bits.
pub fn out(port: u16, value: u32) -> Result<(), Refused> {
    let (size, write) = (4, 1);
    let (status, _) = vmcall(IO, [size, write, u64::from(port), u64::from(value)]);
    if status == 0 { Ok(()) } else { Err(Refused) }
}

/// Asks for `length` bytes at `gpa` to be mapped as private or shared memory: 0 or why not, and how many bytes were.
pub fn map_gpa(gpa: u64, length: u64, private: bool, shared_bit: u64) -> (u64, u64) {
    let alias = if private { 0 } else { shared_bit };
    let mut done = 0;
    let mut idle = 0;
    while done < length {
        let (status, failed) = vmcall(MAP_GPA, [gpa + done | alias, length - done, 0, 0]);
        if status == 0 {
            break;
        }
        // Where the VMM stopped, which must be in the range that it was asked for. It is not said what it is with an error
        // that is about the request as a whole, so that only a retry must have it.
        let stopped = (failed & !shared_bit).wrapping_sub(gpa);
        let there = (done..length).contains(&stopped) && stopped % PAGE == 0;
        if status != RETRY {
            return (status, if there { stopped } else { done });
        }
        if !there {
            return (refusal::BAD_ANSWER, done);
        }
        idle = if stopped == done { idle + 1 } else { 0 };
        done = stopped;
        if idle == MAX_IDLE {
            return (status, done);
        }
    }
    (0, length)
}

/// MapGPA as it is: R10 and R11.
pub fn map_gpa_raw(r12: u64, r13: u64) -> [u64; 2] {
    let (status, failed) = vmcall(MAP_GPA, [r12, r13, 0, 0]);
    [status, failed]
}

/// Ends the guest, for the reason `code`, one of [`crate::common::abi::termination`]. The VMM may come back nevertheless.
pub fn report_fatal_error(code: u64) -> ! {
    loop {
        vmcall(REPORT_FATAL_ERROR, [code, 0, 0, 0]);
    }
}
