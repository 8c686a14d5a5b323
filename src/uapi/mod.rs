// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's headers say and kvm-bindings does not: the numbers and structures of in-place conversion and of
//! encrypted guests.
//!
//! Mechanism only: nothing here knows a case or a platform. Every size, offset and ioctl number is asserted at compile
//! time against the value that the C header gives, which stands in the comment beside it.

mod conversion;
mod ioctl;
pub mod sev;
pub mod tdx;

pub use conversion::*;
pub use ioctl::*;
