// SPDX-License-Identifier: GPL-2.0-only
//! Runs the payloads of encrypted guests, byte for byte as they are embedded, on an emulated CPU.
//!
//! No ordinary machine executes their instructions. Here the unicorn engine executes what is ordinary in them; what is not
//! is done after the rules of the architectures, by code that knows nothing of the payloads:
//!
//! * [`cpu`]: paging with two aliases for each page, segments, control registers, exceptions.
//! * [`snp`]: the RMP, PVALIDATE, #VC; [`ghcb`]: a hypervisor's side of the GHCB protocol.
//! * [`tdx`]: the secure EPT, TDCALL, #VE; [`vmcall`]: a hypervisor's side of TDG.VP.VMCALL.
//! * [`hypervisor`]: what both have in common: conversions, errors that a test asks for.
//! * [`guest`]: what a test does with it all.
//!
//! Whatever a payload does that it must not do is recorded as a violation, besides being answered like the architecture
//! answers it. A test passes only without violations.

pub mod cpu;
pub mod decode;
pub mod ghcb;
pub mod guest;
pub mod hypervisor;
pub mod machine;
pub mod memory;
pub mod page_tables;
pub mod snp;
pub mod tdx;
pub mod vmcall;
