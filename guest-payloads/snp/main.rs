// SPDX-License-Identifier: GPL-2.0-only
//! The payload of SEV-SNP guests.
//!
//! Entered at its first byte in 64-bit mode, CPL 0, with the page tables that the host made. The image, the page tables and
//! the VMSA are all that the host launches; the pages that both sides access are shared from the start. Everything that
//! would raise #VC is done without: no CPUID, no port I/O, no MSR but the GHCB's.

#![no_std]
#![no_main]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "the rest is for the host")]
mod common;
mod cpu;
mod ghcb;
#[path = "../guest/mod.rs"]
mod guest;

use common::abi::doorbell;
use common::command_loop;
use cpu::SnpCpu;
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
    ghcb::set_up();
    let mut cpu = SnpCpu::new();
    cpu::ring(doorbell::READY);
    loop {
        let Ok(()) = command_loop::execute(&mut cpu);
        cpu::ring(doorbell::DONE);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: vector 6, which the host is told of like of any other exception. It does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
