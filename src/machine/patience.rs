// SPDX-License-Identifier: GPL-2.0-only
//! Conversions that nobody judges.

use std::thread;

use super::{GuestMemfd, Result};
use crate::errno::Errno;
use crate::uapi::MemoryAttributes2;

/// Makes a conversion, and makes it again as long as a page is in flight elsewhere, up to `tries` times in all. Returns how
/// often it was refused with EAGAIN before.
pub fn convert_patiently(
    gmem: &dyn GuestMemfd,
    argument: &MemoryAttributes2,
    tries: u32,
) -> Result<u32> {
    for refused in 0..tries {
        // A refusal leaves its offset in the argument, which must not go into the next call.
        let mut argument = *argument;
        // SAFETY: the argument is ours. Callers access pages of a guest_memfd through raw pointers only, as the trait asks.
        match unsafe { gmem.set_memory_attributes2(&mut argument) } {
            Ok(()) => return Ok(refused),
            Err(Errno::EAGAIN) => thread::yield_now(),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EAGAIN)
}
