// SPDX-License-Identifier: GPL-2.0-only
//! The instructions that Rust has no words for.

use core::arch::asm;
use core::convert::Infallible;

use crate::common::abi::{DOORBELL_PORT, doorbell};
use crate::common::command_loop::Cpu;
use crate::guest::exceptions::Exception;
use crate::guest::memory;

/// The CPU that the payload runs on.
pub struct PlainCpu;

impl Cpu for PlainCpu {
    type Stop = Infallible;

    fn read(&mut self, address: u64) -> Result<u64, Infallible> {
        Ok(memory::read(address))
    }

    fn write(&mut self, address: u64, word: u64) -> Result<(), Infallible> {
        memory::write(address, word);
        Ok(())
    }

    fn relax(&mut self) -> Result<(), Infallible> {
        core::hint::spin_loop();
        Ok(())
    }
}

/// Exits to the host with `message`, one of [`doorbell`]. Returns when the host runs the vCPU again.
pub fn ring(message: u32) {
    // SAFETY: no device is at this port; the exit changes nothing here. The host may read and write the mailbox
    // meanwhile, so the compiler must not carry memory across, hence no `nomem`.
    unsafe {
        asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") message,
            options(nostack, preserves_flags));
    }
}

/// Nothing is known about an exception that the CPU has not said.
pub fn explain(_: &mut Exception) {}

/// Tells the host about an exception again whenever it runs the vCPU.
pub fn end(_: &Exception) -> ! {
    loop {
        ring(doorbell::EXCEPTION);
    }
}
