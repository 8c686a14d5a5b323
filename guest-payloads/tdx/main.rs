// SPDX-License-Identifier: GPL-2.0-only
//! The payload of TDX guests.
//!
//! Entered at its first byte by the jump at the reset vector, in 32-bit mode without paging. The image, the page tables and
//! the page of the reset vector are all that the host adds; the pages that both sides access are shared from the start.
//! Everything that would raise #VE is done without: no CPUID, no port I/O, no MSR.

#![no_std]
#![no_main]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "the rest is for the host")]
mod common;
mod cpu;
#[path = "../guest/mod.rs"]
mod guest;
mod tdcall;

use common::abi::{PAGE_TABLES, doorbell};
use common::command_loop;
use cpu::TdxCpu;
use guest::exceptions;

// CR4: PAE, MCE, OSFXSR, OSXMMEXCPT. The module insists on MCE. The last two so that an instruction of SSE in a payload would
// not fault.
const CR4: u32 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;
// CR0: protected mode, coprocessor present and monitored, native FPU errors, write protection, paging. The module insists on
// the first and on native FPU errors.
const CR0: u32 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;

// The module has already set EFER.LME and lets nobody write EFER, so paging is long mode. The 64-bit code begins 128 bytes
// behind the entry: that is how tests/payload_image.rs knows where.
core::arch::global_asm!(
    r#"
    .section .text.entry, "ax"
    .code32
    .global entry
entry:
    lgdt [gdt_register]
    mov eax, {cr4}
    mov cr4, eax
    # ECX is what KVM_TDX_INIT_VCPU says: how far behind those of the first vCPU the page tables lie.
    lea eax, [ecx + {page_tables}]
    mov cr3, eax
    mov eax, {cr0}
    mov cr0, eax
    # A far jump to 0x08:long_mode, which the assembler cannot spell in this syntax.
    .byte 0xea
    .long long_mode
    .short 0x08

    .balign 8
    # Null, 64-bit code, data: the selectors of the GDT that replaces it.
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_register:
    .short gdt_register - gdt - 1
    .long gdt

    .code64
    .org entry + 128, 0xcc
long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    lea rsp, [rip + stack_top]
    xor ebp, ebp
    call {main}
    ud2
    "#,
    cr0 = const CR0,
    cr4 = const CR4,
    page_tables = const PAGE_TABLES,
    main = sym main,
);

extern "sysv64" fn main() -> ! {
    exceptions::set_up();
    let mut cpu = TdxCpu::new();
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
