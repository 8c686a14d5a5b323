// SPDX-License-Identifier: GPL-2.0-only
//! /dev/kvm.

mod memory;
mod system;
mod vcpu;
mod vm;
mod watchdog;

pub use system::Host;
