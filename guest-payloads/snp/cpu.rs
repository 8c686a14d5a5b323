// SPDX-License-Identifier: GPL-2.0-only
//! What the CPU of an SEV-SNP guest does in its own way.

use core::arch::asm;
use core::convert::Infallible;

use crate::common::abi::{DOORBELL_PORT, operation, refusal, termination};
use crate::common::command_loop::Cpu;
use crate::ghcb;
use crate::guest::exceptions::Exception;
use crate::guest::memory;

/// Size of a page in bytes.
const PAGE: u64 = 4096;

/// The CPU that the payload runs on.
pub struct SnpCpu {
    refused_at: u64,
}

impl SnpCpu {
    /// The one CPU.
    pub fn new() -> SnpCpu {
        SnpCpu { refused_at: 0 }
    }
}

impl Cpu for SnpCpu {
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

    fn accept(&mut self, address: u64) -> Result<u64, Infallible> {
        let status = pvalidate(address, true);
        if status == 0 {
            // Without COHERENCY_SFW_NO (CPUID 0x8000001f) the caches may still hold lines of the page under another key.
            // Reading its first and its last byte evicts them; Linux does so wherever it has to, we do it everywhere.
            memory::read(address);
            memory::read(address + PAGE - 8);
        }
        Ok(status)
    }

    fn rescind(&mut self, address: u64) -> Result<u64, Infallible> {
        Ok(pvalidate(address, false))
    }

    fn page_state_change(
        &mut self,
        gpa: u64,
        length: u64,
        private: bool,
        by_msr: bool,
    ) -> Result<u64, Infallible> {
        let change = if by_msr { ghcb::change_by_msr } else { ghcb::change };
        let (status, done) = change(gpa, length, private);
        self.refused_at = done;
        Ok(status)
    }

    fn raw_request(
        &mut self,
        operation: u64,
        address: u64,
        _: u64,
    ) -> Result<[u64; 2], Infallible> {
        Ok(match operation {
            operation::RAW_LIST => ghcb::change_list(address),
            operation::RAW_MSR => [ghcb::exchange_raw(address), 0],
            _ => [refusal::NOT_THERE, 0],
        })
    }

    fn refused_at(&self) -> u64 {
        self.refused_at
    }
}

/// PVALIDATE of the 4 KiB page that the private alias `address` maps; EAX, and the carry flag in bit 32. The carry flag says
/// that the page was in that state already, which is a mistake somewhere: a hypervisor could have replaced the page.
fn pvalidate(address: u64, validate: bool) -> u64 {
    let status: u64;
    let carry: u8;
    // SAFETY: the page is no memory that Rust owns: the host names pages of the memory under test. The contents change, so
    // memory is not carried across.
    unsafe {
        asm!(
            "pvalidate",
            "setc {carry}",
            carry = out(reg_byte) carry,
            inout("rax") address => status,
            in("ecx") 0,
            in("edx") u32::from(validate),
            options(nostack),
        );
    }
    status & 0xffff_ffff | u64::from(carry) << 32
}

/// Exits to the host with `message`, one of [`crate::common::abi::doorbell`]. Returns when the host runs the vCPU again.
pub fn ring(message: u32) {
    if ghcb::out(DOORBELL_PORT, message).is_err() {
        ghcb::terminate(termination::NO_DOORBELL);
    }
}

/// The CPU has said it all: the error code of #VC is the exit code.
pub fn explain(_: &mut Exception) {}

/// Ends the guest.
pub fn end(exception: &Exception) -> ! {
    ghcb::terminate(termination::EXCEPTION | exception.vector)
}
