// SPDX-License-Identifier: GPL-2.0-only
//! What the CPU of a TDX guest does in its own way.

use core::convert::Infallible;

use crate::common::abi::{DOORBELL_PORT, PRIVATE_WINDOW, operation, refusal, termination};
use crate::common::command_loop::Cpu;
use crate::guest::exceptions::Exception;
use crate::guest::memory;
use crate::tdcall;

/// The vector of #VE.
const VE: u64 = 20;

/// The CPU that the payload runs on.
pub struct TdxCpu {
    shared_bit: u64,
    refused_at: u64,
}

impl TdxCpu {
    /// The one CPU.
    pub fn new() -> TdxCpu {
        TdxCpu { shared_bit: tdcall::shared_bit(), refused_at: 0 }
    }
}

impl Cpu for TdxCpu {
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
        Ok(tdcall::accept(address & !PRIVATE_WINDOW))
    }

    /// A page needs not be given up: the VMM removes it.
    fn rescind(&mut self, _: u64) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn page_state_change(
        &mut self,
        gpa: u64,
        length: u64,
        private: bool,
        by_msr: bool,
    ) -> Result<u64, Infallible> {
        let (status, done) = if by_msr {
            (refusal::NOT_THERE, 0)
        } else {
            tdcall::map_gpa(gpa, length, private, self.shared_bit)
        };
        self.refused_at = done;
        Ok(status)
    }

    fn raw_request(
        &mut self,
        operation: u64,
        address: u64,
        length: u64,
    ) -> Result<[u64; 2], Infallible> {
        Ok(match operation {
            operation::RAW_MAP_GPA => tdcall::map_gpa_raw(address, length),
            _ => [refusal::NOT_THERE, 0],
        })
    }

    fn refused_at(&self) -> u64 {
        self.refused_at
    }
}

/// Exits to the host with `message`, one of [`crate::common::abi::doorbell`]. Returns when the host runs the vCPU again.
pub fn ring(message: u32) {
    if tdcall::out(DOORBELL_PORT, message).is_err() {
        tdcall::report_fatal_error(termination::NO_DOORBELL);
    }
}

/// Asks why there was a #VE, which has neither an error code nor an address in CR2. It also lets the next #VE through
/// instead of a #DF.
pub fn explain(exception: &mut Exception) {
    if exception.vector == VE {
        (exception.error_code, exception.cr2) = tdcall::ve_info();
    }
}

/// Ends the guest.
pub fn end(exception: &Exception) -> ! {
    tdcall::report_fatal_error(termination::EXCEPTION | exception.vector)
}
