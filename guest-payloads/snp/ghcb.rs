// SPDX-License-Identifier: GPL-2.0-only
//! The guest-hypervisor communication block: its MSR protocol, and events through its page. Names and numbers are those of
//! the GHCB specification, version 2.

use core::arch::asm;

use crate::common::abi::{COPY_BUFFER, GHCB, LIST_WORDS, PAGE_TABLES, refusal, termination};
use crate::guest::memory::{read, write};

/// Size of a page in bytes.
const PAGE: u64 = 4096;
/// The version of the protocol that this is.
const VERSION: u64 = 2;

// The MSR protocol: what is asked for, or answered, is in bits 11:0.
const INFO: u64 = 0xfff;
const SEV_INFORMATION: u64 = 0x001;
const GET_SEV_INFORMATION: u64 = 0x002;
const REGISTER: u64 = 0x012;
const REGISTERED: u64 = 0x013;
const CHANGE_PAGE: u64 = 0x014;
const PAGE_CHANGED: u64 = 0x015;
const TERMINATE: u64 = 0x100;

// Offsets in the page.
const RAX: u64 = 0x1f8;
const EXIT_CODE: u64 = 0x390;
const EXIT_INFO_1: u64 = 0x398;
const EXIT_INFO_2: u64 = 0x3a0;
const SCRATCH: u64 = 0x3a8;
const VALID_BITMAP: u64 = 0x3f0;
const SHARED_BUFFER: u64 = 0x800;
/// The protocol's version in bits 31:16, the use of the page (0) in bits 63:32.
const VERSION_AND_USAGE: u64 = 0xff8;

// Exit codes.
const IOIO: u64 = 0x7b;
const PAGE_STATE_CHANGE: u64 = 0x8000_0010;

/// SW_EXITINFO1 of an OUT of 32 bits, with 64-bit addresses.
const IOIO_OUT_32: u64 = 1 << 9 | 1 << 6;

/// Page state change, in both protocols: the operation, in bits 55:52.
const MAKE_PRIVATE: u64 = 1 << 52;
const MAKE_SHARED: u64 = 2 << 52;
/// Entries that the shared buffer has room for, behind its header.
const MAX_ENTRIES: u64 = 253;
/// How often in a row the hypervisor may come back without having done anything. Arbitrary.
const MAX_IDLE: u32 = 16;

/// One exchange of the MSR protocol, or an event that the GHCB's page describes if `request` is its address.
fn exchange(request: u64) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: VMGEXIT changes what the hypervisor may change anyway: the GHCB's page, and memory that Rust does not own.
    // The host may read and write the mailbox meanwhile, so the compiler must not carry memory across, hence no `nomem`.
    unsafe {
        asm!(
            "mov ecx, 0xc0010130",
            "wrmsr",
            // VMGEXIT.
            "rep vmmcall",
            "rdmsr",
            inout("eax") request as u32 => low,
            inout("edx") (request >> 32) as u32 => high,
            out("ecx") _,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Guest physical address of the GHCB: as far behind its virtual address as the page tables are.
fn place() -> u64 {
    let tables: u64;
    // SAFETY: reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) tables, options(nomem, nostack, preserves_flags)) };
    GHCB + (tables - PAGE_TABLES)
}

/// Agrees on the version, and registers the page, without which the hypervisor accepts no event.
pub fn set_up() {
    let information = exchange(GET_SEV_INFORMATION);
    let (least, most) = (information >> 32 & 0xffff, information >> 48);
    if information & INFO != SEV_INFORMATION || least > VERSION || most < VERSION {
        terminate(termination::NO_VERSION);
    }
    if exchange(place() | REGISTER) != place() | REGISTERED {
        terminate(termination::NOT_REGISTERED);
    }
    // Whatever the host has left there.
    for word in 0..PAGE / 8 {
        write(GHCB + word * 8, 0);
    }
}

/// Ends the guest, for the reason `code`, one of [`termination`].
pub fn terminate(code: u64) -> ! {
    loop {
        exchange(code << 16 | termination::SET << 12 | TERMINATE);
    }
}

/// Has the hypervisor handle the event `code` with `info_1`; `field` is RAX or SCRATCH with its value. SW_EXITINFO1 and
/// SW_EXITINFO2 afterwards.
fn event(code: u64, info_1: u64, (field, value): (u64, u64)) -> (u64, u64) {
    // One bit for each word of the page, of those that are filled in here. The hypervisor clears them.
    let mut valid = 0u128;
    for (offset, word) in
        [(EXIT_CODE, code), (EXIT_INFO_1, info_1), (EXIT_INFO_2, 0), (field, value)]
    {
        write(GHCB + offset, word);
        valid |= 1 << (offset / 8);
    }
    write(GHCB + VALID_BITMAP, valid as u64);
    write(GHCB + VALID_BITMAP + 8, (valid >> 64) as u64);
    write(GHCB + VERSION_AND_USAGE, VERSION << 16);
    exchange(place());
    (read(GHCB + EXIT_INFO_1), read(GHCB + EXIT_INFO_2))
}

/// The hypervisor did not do what it was asked for.
pub struct Refused;

/// OUT of 32 bits.
pub fn out(port: u16, value: u32) -> Result<(), Refused> {
    let info_1 = u64::from(port) << 16 | IOIO_OUT_32;
    let (result, _) = event(IOIO, info_1, (RAX, u64::from(value)));
    if result & 0xffff_ffff == 0 { Ok(()) } else { Err(Refused) }
}

/// Page state change through the GHCB: 0 or why not, and how many bytes were changed.
pub fn change(gpa: u64, length: u64, private: bool) -> (u64, u64) {
    let operation = if private { MAKE_PRIVATE } else { MAKE_SHARED };
    let mut done = 0;
    while done < length {
        let entries = (length - done).div_ceil(PAGE).min(MAX_ENTRIES);
        for entry in 0..entries {
            let page = gpa + done + entry * PAGE;
            write(GHCB + SHARED_BUFFER + 8 + entry * 8, operation | page);
        }
        let (status, changed) = change_entries(entries);
        done += changed * PAGE;
        if status != 0 {
            return (status, done);
        }
    }
    (0, done)
}

/// Page state change of the first `entries` of the shared buffer: 0 or why not, and how many were changed.
fn change_entries(entries: u64) -> (u64, u64) {
    // The header: the current entry in bits 15:0, the last one in bits 31:16.
    let last = entries - 1;
    write(GHCB + SHARED_BUFFER, last << 16);
    let mut current = 0;
    let mut idle = 0;
    while current <= last {
        let (info_1, info_2) = event(PAGE_STATE_CHANGE, 0, (SCRATCH, place() + SHARED_BUFFER));
        let header = read(GHCB + SHARED_BUFFER);
        let now = header & 0xffff;
        if header >> 16 != last || now < current || now > entries {
            return (refusal::BAD_ANSWER, current);
        }
        idle = if now == current { idle + 1 } else { 0 };
        current = now;
        if info_2 != 0 {
            return (info_2, current);
        }
        if info_1 & 0xffff_ffff != 0 || idle == MAX_IDLE {
            return (refusal::BAD_ANSWER, current);
        }
    }
    (0, entries)
}

/// One page state change of the list that the host has left in the copy buffer, with the scratch area where it says:
/// SW_EXITINFO1 and SW_EXITINFO2. The buffer is copied back, so that the host sees what became of it.
pub fn change_list(scratch: u64) -> [u64; 2] {
    for word in 0..LIST_WORDS {
        write(GHCB + SHARED_BUFFER + word * 8, read(COPY_BUFFER + word * 8));
    }
    let (info_1, info_2) = event(PAGE_STATE_CHANGE, 0, (SCRATCH, scratch));
    for word in 0..LIST_WORDS {
        write(COPY_BUFFER + word * 8, read(GHCB + SHARED_BUFFER + word * 8));
    }
    [info_1, info_2]
}

/// One exchange of the MSR protocol as it is.
pub fn exchange_raw(request: u64) -> u64 {
    exchange(request)
}

/// Page state change by the MSR protocol, page by page: 0 or why not, and how many bytes were changed.
pub fn change_by_msr(gpa: u64, length: u64, private: bool) -> (u64, u64) {
    let operation = if private { MAKE_PRIVATE } else { MAKE_SHARED };
    let mut done = 0;
    while done < length {
        let response = exchange(operation | (gpa + done) | CHANGE_PAGE);
        if response & INFO != PAGE_CHANGED {
            return (refusal::BAD_ANSWER, done);
        }
        if response >> 32 != 0 {
            return (response >> 32, done);
        }
        done += PAGE;
    }
    (0, done)
}
