// SPDX-License-Identifier: GPL-2.0-only
//! The instructions that Rust has no words for.

use core::arch::asm;
use core::convert::Infallible;

use crate::common::abi::DOORBELL_PORT;
use crate::common::command_loop::Cpu;

/// The CPU that the payload runs on.
pub struct PlainCpu;

/// Each access is exactly one MOV: once per word, as wide as the word, and known to KVM's instruction emulator, which
/// executes it when nothing backs the address.
impl Cpu for PlainCpu {
    type Stop = Infallible;

    fn read(&mut self, address: u64) -> Result<u64, Infallible> {
        let word;
        // SAFETY: the host names only the mailbox, the copy buffer and memory outside of the image, none of which Rust
        // owns. An address that is not mapped is an exception, which does not return.
        unsafe {
            asm!("mov {}, qword ptr [{}]", out(reg) word, in(reg) address,
                options(nostack, preserves_flags));
        }
        Ok(word)
    }

    fn write(&mut self, address: u64, word: u64) -> Result<(), Infallible> {
        // SAFETY: as in `read`.
        unsafe {
            asm!("mov qword ptr [{}], {}", in(reg) address, in(reg) word,
                options(nostack, preserves_flags));
        }
        Ok(())
    }

    fn relax(&mut self) -> Result<(), Infallible> {
        core::hint::spin_loop();
        Ok(())
    }
}

/// Exits to the host with `message`, one of [`crate::common::abi::doorbell`]. Returns when the host runs the vCPU again.
pub fn ring(message: u32) {
    // SAFETY: no device is at this port; the exit changes nothing here. The host may read and write the mailbox
    // meanwhile, so the compiler must not carry memory across, hence no `nomem`.
    unsafe {
        asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") message,
            options(nostack, preserves_flags));
    }
}
