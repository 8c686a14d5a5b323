// SPDX-License-Identifier: GPL-2.0-only
//! Exceptions: none is survived, each is reported to the host.

use core::arch::{asm, global_asm};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::memory;
use crate::common::abi::{MAILBOX, Mailbox, doorbell};
use crate::cpu;

/// Vectors that the architecture reserves for exceptions.
const VECTORS: usize = 32;
/// Bytes between two stubs below.
const STUB_SIZE: u64 = 16;
/// Selector of the code segment in [`GDT`].
const CODE_SELECTOR: u64 = 8;

/// Null, 64-bit code, data; the descriptors that are in the segment registers already, which an exception reloads CS from.
static GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Filled at run time: the two halves of a gate split the address of its stub, which no linker can.
static mut IDT: [[u64; 2]; VECTORS] = [[0; 2]; VECTORS];

/// Whether an exception is being reported.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// What there is to say about an exception; the fields are those of [`Mailbox`].
pub struct Exception {
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cr2: u64,
}

// One stub for each vector. Afterwards the stack is the same for all: vector, error code, RIP.
global_asm!(
    r#"
    .section .text.stubs, "ax"
    .balign 16
exception_stubs:
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .balign 16
    # The vectors with an error code: 8, 10 to 14, 17, 21, 29, 30.
    .if ((0x60227d00 >> \vector) & 1) == 0
    push 0
    .endif
    push \vector
    jmp 1f
    .endr
1:
    mov rdi, rsp
    and rsp, -16
    call {report}
    ud2
    "#,
    report = sym report,
);

unsafe extern "C" {
    /// The first stub.
    static exception_stubs: u8;
}

/// The operand of LGDT and LIDT.
#[repr(C, packed)]
struct TableRegister {
    limit: u16,
    base: u64,
}

/// Loads the GDT and the IDT.
pub fn set_up() {
    REPORTING.store(false, Relaxed);
    let first_stub = &raw const exception_stubs as u64;
    let idt = (&raw mut IDT).cast::<[u64; 2]>();
    for vector in 0..VECTORS {
        let stub = first_stub + vector as u64 * STUB_SIZE;
        // SAFETY: `vector` is inside the table, and nothing else uses it: there is one vCPU, and exceptions before the
        // LIDT below end in a triple fault. Volatile, so that it stays two stores instead of one of SSE.
        unsafe { idt.add(vector).write_volatile(gate(stub)) };
    }
    let gdtr =
        TableRegister { limit: size_of::<[u64; 3]>() as u16 - 1, base: &raw const GDT as u64 };
    let idtr =
        TableRegister { limit: size_of::<[[u64; 2]; VECTORS]>() as u16 - 1, base: idt as u64 };
    // SAFETY: both tables are static. The segment registers already hold what the GDT says, so they need no reload.
    unsafe {
        asm!("lgdt [{}]", "lidt [{}]", in(reg) &gdtr, in(reg) &idtr,
            options(nostack, preserves_flags));
    }
}

/// A present 64-bit interrupt gate of privilege 0 to `address`.
fn gate(address: u64) -> [u64; 2] {
    let attributes = 0x8e00 << 32;
    [
        address & 0xffff | CODE_SELECTOR << 16 | attributes | (address >> 16 & 0xffff) << 48,
        address >> 32,
    ]
}

/// Tells the host about the exception whose vector, error code and RIP are at `frame`.
extern "sysv64" fn report(frame: *const [u64; 3]) -> ! {
    // SAFETY: the stub above passes the address of the three words that it and the CPU pushed.
    let [vector, error_code, rip] = unsafe { frame.read_volatile() };
    let cr2: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    let mut exception = Exception { vector, error_code, rip, cr2 };
    // An exception on the way from here to the doorbell must not try the same again.
    if !REPORTING.load(Relaxed) {
        REPORTING.store(true, Relaxed);
        cpu::explain(&mut exception);
        for (offset, word) in [
            (offset_of!(Mailbox, vector), exception.vector),
            (offset_of!(Mailbox, error_code), exception.error_code),
            (offset_of!(Mailbox, rip), exception.rip),
            (offset_of!(Mailbox, cr2), exception.cr2),
        ] {
            memory::write(MAILBOX + offset as u64, word);
        }
        cpu::ring(doorbell::EXCEPTION);
    }
    cpu::end(&exception)
}
