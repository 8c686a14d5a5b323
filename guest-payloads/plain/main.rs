// SPDX-License-Identifier: GPL-2.0-only
//! The payload of the platforms whose guests are not encrypted: `default` and `sw-protected`.
//!
//! Entered at its first byte in 64-bit mode, CPL 0, with the page tables that the host made. One copy of the image can
//! be entered again and again: everything that it needs is set up from the start each time.

#![no_std]
#![no_main]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "the rest is for the host")]
mod common;
mod cpu;
#[path = "../guest/mod.rs"]
mod guest;

use common::abi::doorbell;
use common::command_loop;
use cpu::PlainCpu;
use guest::exceptions;

core::arch::global_asm!(
    r#"
    .section .text.entry, "ax"
    .global entry
entry:
    lea rsp, [rip + stack_top]
    xor ebp, ebp
    call {main}
    ud2
    "#,
    main = sym main,
);

extern "sysv64" fn main() -> ! {
    exceptions::set_up();
    cpu::ring(doorbell::READY);
    loop {
        let Ok(()) = command_loop::execute(&mut PlainCpu);
        cpu::ring(doorbell::DONE);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: vector 6, which the host is told of like of any other exception. It does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
