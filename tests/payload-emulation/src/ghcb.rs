// SPDX-License-Identifier: GPL-2.0-only
//! A hypervisor's side of the GHCB protocol, version 2, with every check that KVM or the specification has.

use crate::cpu::{Done, Exit, Fault, Platform, World};
use crate::hypervisor::Event;
use crate::memory::PAGE;
use crate::snp::Snp;

// Offsets in the page.
const RAX: u64 = 0x1f8;
const EXIT_CODE: u64 = 0x390;
const EXIT_INFO_1: u64 = 0x398;
const EXIT_INFO_2: u64 = 0x3a0;
const SCRATCH: u64 = 0x3a8;
const VALID_BITMAP: u64 = 0x3f0;
const BUFFER: u64 = 0x800;
const BUFFER_END: u64 = 0xff0;
const VERSION_AND_USAGE: u64 = 0xff8;

/// Exit codes.
pub const IOIO: u64 = 0x7b;
pub const PAGE_STATE_CHANGE: u64 = 0x8000_0010;

/// SW_EXITINFO1 and, for a malformed request, SW_EXITINFO2.
pub const MALFORMED: u64 = 2;
const NOT_REGISTERED: u64 = 1;
const BAD_USAGE: u64 = 2;
pub const BAD_SCRATCH: u64 = 3;
const MISSING_INPUT: u64 = 4;
const BAD_INPUT: u64 = 5;
const BAD_EVENT: u64 = 6;

/// SW_EXITINFO2 of a page state change.
pub const BAD_HEADER: u64 = 1 << 32 | 1;
const BAD_ENTRY: u64 = 1 << 32 | 2;
pub const GENERIC_ERROR: u64 = 0x100 << 32;
/// Bytes of a list's header and of an entry.
const HEADER: u64 = 8;
const ENTRY: u64 = 8;

/// Bits 11:0 of the MSR.
pub const SEV_INFORMATION: u64 = 0x002;
pub const REGISTER: u64 = 0x012;
pub const CHANGE_PAGE: u64 = 0x014;

/// VMGEXIT.
pub fn vmgexit(snp: &mut Snp, world: &mut World) -> Result<Done, Fault> {
    if snp.msr & 0xfff == 0 { page(snp, world) } else { msr(snp, world) }
}

/// The MSR protocol.
fn msr(snp: &mut Snp, world: &mut World) -> Result<Done, Fault> {
    let request = snp.msr;
    let value = request & !0xfff;
    if let Some([response, _]) = world.hypervisor.injected(Event::Msr(request & 0xfff)) {
        snp.msr = response;
        return Ok(Done::Next);
    }
    match request & 0xfff {
        SEV_INFORMATION => {
            let (least, most) = snp.versions;
            let c_bit = u64::from(snp.c_bit.trailing_zeros());
            snp.msr = most << 48 | least << 32 | c_bit << 24 | 1;
        }
        REGISTER => {
            if value == 0 || !world.memory.has(value) || world.hypervisor.is_private(value) {
                world.hypervisor.violation(format!("GHCB at {value:#x}, which is not shared"));
                snp.msr = !0xfff | 0x013;
            } else {
                snp.registered = Some(value);
                snp.msr = value | 0x013;
            }
        }
        CHANGE_PAGE => {
            let gpa = value & 0x000f_ffff_ffff_f000;
            let operation = value >> 52;
            if !(1..=2).contains(&operation) || !world.memory.has(gpa) {
                world.hypervisor.violation(format!("page state change by MSR: {request:#x}"));
                snp.msr = 1 << 63 | 0x015;
            } else if world.hypervisor.map_gpa_range(gpa, 1, operation == 1) == 0 {
                snp.convert(world, gpa, operation == 1, true);
                snp.msr = 0x015;
            } else {
                snp.msr = 1 << 63 | 0x015;
            }
        }
        0x080 => snp.msr = 1 << 12 | 0x081,
        0x100 => return Ok(Done::Exit(Exit::Terminate(request))),
        _ => world.hypervisor.violation(format!("GHCB MSR {request:#x}")),
    }
    Ok(Done::Next)
}

/// An event described in the page.
fn page(snp: &mut Snp, world: &mut World) -> Result<Done, Fault> {
    let ghcb = snp.msr;
    if ghcb == 0 || !world.memory.has(ghcb) || world.hypervisor.is_private(ghcb) {
        // KVM runs the guest again without having done anything.
        world.hypervisor.violation(format!("GHCB at {ghcb:#x}, which is not shared"));
        return Ok(Done::Next);
    }
    let field = |world: &World, offset: u64| world.memory.read(ghcb + offset, false);
    let code = field(world, EXIT_CODE);
    if let Some([info_1, info_2]) = world.hypervisor.injected(Event::Ghcb(code)) {
        return answer(world, ghcb, (info_1, info_2), None);
    }
    let malformed = |world: &mut World, reason: u64, what: &str| {
        world.hypervisor.violation(format!("GHCB event {code:#x}: {what}"));
        answer(world, ghcb, (MALFORMED, reason), None)
    };
    if snp.registered != Some(ghcb) {
        return malformed(world, NOT_REGISTERED, "the GHCB is not registered");
    }
    let version_and_usage = field(world, VERSION_AND_USAGE);
    if version_and_usage >> 32 != 0 {
        return malformed(world, BAD_USAGE, "usage is not 0");
    }
    let version = version_and_usage >> 16 & 0xffff;
    if version < 2 || !(snp.versions.0..=snp.versions.1).contains(&version) {
        return malformed(world, BAD_INPUT, "not a version that was agreed on");
    }
    let bitmap = [field(world, VALID_BITMAP), field(world, VALID_BITMAP + 8)];
    let valid = |offset: u64| bitmap[(offset / 512) as usize] >> (offset / 8 % 64) & 1 == 1;
    if ![EXIT_CODE, EXIT_INFO_1, EXIT_INFO_2].into_iter().all(valid) {
        return malformed(world, MISSING_INPUT, "exit code or information is not marked as valid");
    }
    let [info_1, info_2] = [EXIT_INFO_1, EXIT_INFO_2].map(|o| field(world, o));
    if info_2 != 0 {
        return malformed(world, BAD_INPUT, "SW_EXITINFO2 is not 0");
    }
    match code {
        IOIO => {
            // Bit 9: 64-bit addresses. Bits 4 to 6: the size in bytes. Bits 0, 2 and 3: IN, string, REP.
            let bits = match info_1 & 0xffff {
                0x210 => 8,
                0x220 => 16,
                0x240 => 32,
                _ => return malformed(world, BAD_INPUT, "not an OUT"),
            };
            if info_1 >> 32 != 0 {
                return malformed(world, BAD_INPUT, "the port has more than 16 bits");
            }
            if !valid(RAX) {
                return malformed(world, MISSING_INPUT, "RAX is not marked as valid");
            }
            let value = field(world, RAX) & ((1 << bits) - 1);
            let port = (info_1 >> 16) as u16;
            answer(world, ghcb, (0, 0), Some(Exit::Io { port, value }))
        }
        PAGE_STATE_CHANGE => {
            if info_1 != 0 {
                return malformed(world, BAD_INPUT, "SW_EXITINFO1 is not 0");
            }
            if !valid(SCRATCH) {
                return malformed(world, MISSING_INPUT, "the scratch area is not marked as valid");
            }
            // In the shared buffer, with room for the header.
            let scratch = field(world, SCRATCH);
            if !(BUFFER..BUFFER_END - HEADER + 1).contains(&scratch.wrapping_sub(ghcb)) {
                return malformed(
                    world,
                    BAD_SCRATCH,
                    "the scratch area is not in the shared buffer",
                );
            }
            let room = (ghcb + BUFFER_END - scratch - HEADER) / ENTRY;
            let info_2 = page_state_change(snp, world, scratch, room);
            answer(world, ghcb, (0, info_2), None)
        }
        _ => malformed(world, BAD_EVENT, "the event is not known"),
    }
}

/// What the guest finds. The hypervisor clears the bitmap when it reads it.
fn answer(
    world: &mut World,
    ghcb: u64,
    (info_1, info_2): (u64, u64),
    exit: Option<Exit>,
) -> Result<Done, Fault> {
    for (offset, word) in
        [(EXIT_INFO_1, info_1), (EXIT_INFO_2, info_2), (VALID_BITMAP, 0), (VALID_BITMAP + 8, 0)]
    {
        world.memory.write(ghcb + offset, false, word);
    }
    Ok(exit.map_or(Done::Next, Done::Exit))
}

/// Page state change of the list at `buffer`, which has room for so many entries: SW_EXITINFO2.
fn page_state_change(snp: &mut Snp, world: &mut World, buffer: u64, room: u64) -> u64 {
    if let Some([header, _]) = world.hypervisor.injected(Event::PscHeader) {
        world.memory.write(buffer, false, header);
        return 0;
    }
    let header = world.memory.read(buffer, false);
    let (mut current, end) = (header & 0xffff, header >> 16 & 0xffff);
    if header >> 32 != 0 || end >= room || current > end {
        world.hypervisor.violation(format!("page state change: header {header:#x}"));
        return BAD_HEADER;
    }
    let stop = world.hypervisor.injected(Event::PscStops).map(|[entries, _]| current + entries);
    let last = stop.map_or(end + 1, |stop| stop.min(end + 1));
    while current < last {
        let first = world.memory.read(buffer + 8 + current * 8, false);
        let (gpa, operation) = (first & 0x000f_ffff_ffff_f000, first >> 52);
        // Only 4 KiB pages, none of them changed in part: bits 56 and 11:0.
        if !(1..=2).contains(&operation) || first & 0xfff != 0 || !world.memory.has(gpa) {
            world.hypervisor.violation(format!("page state change: entry {first:#x}"));
            return BAD_ENTRY;
        }
        // As many as go on where this one ends.
        let mut pages = 1;
        while current + pages < last
            && world.memory.read(buffer + 8 + (current + pages) * 8, false) == first + pages * PAGE
        {
            pages += 1;
        }
        if world.hypervisor.map_gpa_range(gpa, pages, operation == 1) != 0 {
            return GENERIC_ERROR;
        }
        for page in 0..pages {
            snp.convert(world, gpa + page * PAGE, operation == 1, true);
            let entry = (first + page * PAGE) | 1;
            world.memory.write(buffer + 8 + (current + page) * 8, false, entry);
        }
        current += pages;
        world.memory.write(buffer, false, end << 16 | current);
    }
    0
}
