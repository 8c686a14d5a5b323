// SPDX-License-Identifier: GPL-2.0-only
//! Payloads with bugs do not get through. Some have other bytes in their image; others do what a payload with that bug would
//! have done, right before the CPU or the hypervisor looks at it.

use gmem_conform::payload::abi::{GHCB, IMAGE, MAILBOX, doorbell, operation};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use payload_emulation::cpu::{RAX, RCX, RDX, Registers, World};
use payload_emulation::ghcb::REGISTER;
use payload_emulation::guest::{Answer, Guest, Kind, SNP_GUEST, TDX_GUEST, image, ring};
use payload_emulation::hypervisor::Event;
use payload_emulation::machine::Tamper;
use payload_emulation::memory::PAGE;

use super::common::*;

pub const CHECKS: &[crate::Check] = &[
    ("teeth::no_bug", no_bug),
    ("teeth::snp_images", snp_images),
    ("teeth::snp_msr_protocol", snp_msr_protocol),
    ("teeth::snp_ghcb", snp_ghcb),
    ("teeth::snp_pvalidate", snp_pvalidate),
    ("teeth::snp_not_registered", snp_not_registered),
    ("teeth::snp_not_rescinded", snp_not_rescinded),
    ("teeth::tdx_images", tdx_images),
    ("teeth::tdx_vmcall", tdx_vmcall),
    ("teeth::tdx_module", tdx_module),
];

/// Pages that go to and fro: more than the GHCB has room for.
const PAGES: u64 = 260;

/// What each payload must be able to do; what was wrong if it is not.
fn scenario(kind: &Kind, guest: &mut Guest) -> Result<(), String> {
    let snp = matches!(kind, Kind::Snp { .. });
    let started = guest.machine.run();
    if started != ring(doorbell::READY) {
        return Err(format!("{started:x?} at the start; {:?}", guest.violations()));
    }
    let last = PAGES - 1;
    let size = PAGES * PAGE;
    let mut commands = vec![
        (operation::FILL, page(0), PAGE, A),
        (operation::CHECK, page(0), PAGE, A),
        (operation::MAKE_PRIVATE, page(0), size, 0),
        (operation::ACCEPT, private(0), size, 0),
        (operation::FILL, private(last), PAGE, B),
        (operation::CHECK, private(last), PAGE, B),
        (operation::RESCIND, private(0), size, 0),
        (operation::MAKE_SHARED, page(0), size, 0),
        (operation::FILL, page(last), PAGE, A),
        (operation::CHECK, page(last), PAGE, A),
        (operation::MAKE_PRIVATE, page(0), PAGE, 0),
    ];
    if snp {
        commands.splice(
            10..,
            [
                (operation::MAKE_PRIVATE_MSR, page(0), 2 * PAGE, 0),
                (operation::ACCEPT, private(0), 2 * PAGE, 0),
                (operation::RESCIND, private(0), 2 * PAGE, 0),
                (operation::MAKE_SHARED_MSR, page(0), 2 * PAGE, 0),
                (operation::MAKE_PRIVATE, page(0), PAGE, 0),
            ],
        );
    }
    for (operation, address, length, pattern) in commands {
        let answer = guest.command(operation, address, length, pattern, 0);
        if answer != OK || !guest.violations().is_empty() {
            return Err(format!("{answer:x?} after {operation}; {:?}", guest.violations()));
        }
    }
    // Not accepted yet.
    let answer = guest.command(operation::READ, private(0) + 8, 8, 0, 0);
    let expected = if snp { (29, 0x404) } else { (20, 48) };
    match answer {
        Answer::Exception { vector, error_code, cr2, .. }
            if (vector, error_code) == expected
                && cr2 == private(0) + 8
                && guest.violations().is_empty() =>
        {
            Ok(())
        }
        other => Err(format!("{other:x?} instead of an exception; {:?}", guest.violations())),
    }
}

/// Without a bug the scenario passes, so that it is the bug that fails it.
fn no_bug() {
    for kind in [SNP_GUEST, TDX_GUEST] {
        let mut guest = Guest::new(&kind);
        scenario(&kind, &mut guest).unwrap();
        finish(&guest);
    }
}

/// The scenario must fail, for a reason in which `expected` occurs.
fn fails(kind: &Kind, mut guest: Guest, bug: &str, expected: &str) {
    let reason = scenario(kind, &mut guest).expect_err(bug);
    assert!(reason.contains(expected), "{bug}: failed, but not for {expected}: {reason}");
    found_bug();
}

/// The image with other bytes instead of the instructions for which `replace` has some; as long, or filled up with NOP.
fn patched(kind: &Kind, mut replace: impl FnMut(&Instruction) -> Option<Vec<u8>>) -> Vec<u8> {
    let original = image(kind);
    let mut image = original.to_vec();
    let (bits, long_mode) = if matches!(kind, Kind::Snp { .. }) { (64, 0) } else { (32, 128) };
    let mut found = 0;
    for (start, end, bits) in [(0, long_mode, bits), (long_mode, original.len(), 64)] {
        let code = &original[start..end];
        for i in &mut Decoder::with_ip(bits, code, IMAGE + start as u64, DecoderOptions::NONE) {
            let Some(bytes) = replace(&i).filter(|_| i.code() != Code::INVALID) else { continue };
            let at = (i.ip() - IMAGE) as usize;
            image[at..at + i.len()].fill(0x90);
            assert!(bytes.len() <= i.len());
            image[at..at + bytes.len()].copy_from_slice(&bytes);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to replace");
    image
}

/// Replaces every instruction with this mnemonic.
fn without(kind: &Kind, mnemonic: Mnemonic, bytes: &[u8]) -> Vec<u8> {
    patched(kind, |i| (i.mnemonic() == mnemonic).then(|| bytes.to_vec()))
}

/// Replaces the constant in `mov REG, from`.
fn constant(kind: &Kind, from: u32, to: u32) -> Vec<u8> {
    patched(kind, |i| {
        let constant = i.mnemonic() == Mnemonic::Mov
            && i.op1_kind() == OpKind::Immediate32
            && i.immediate32() == from;
        constant.then(|| {
            let mut bytes = vec![0xb8 | i.op0_register().number() as u8];
            bytes.extend(to.to_le_bytes());
            bytes
        })
    })
}

/// Other bytes in the SNP image.
fn snp_images() {
    let check = |image: Vec<u8>, bug: &str, expected: &str| {
        fails(&SNP_GUEST, Guest::with_image(&SNP_GUEST, &image), bug, expected);
    };
    let kind = &SNP_GUEST;
    // xor eax, eax; clc
    let image = without(kind, Mnemonic::Pvalidate, &[0x31, 0xc0, 0xf8]);
    check(image, "no PVALIDATE", "vector: 1d, error_code: 404");
    check(without(kind, Mnemonic::Vmgexit, &[]), "no VMGEXIT", "Hang");
    let image = without(kind, Mnemonic::Vmgexit, &[0x0f, 0x01, 0xd9]);
    check(image, "VMMCALL instead of VMGEXIT", "vmmcall at");
    check(constant(kind, 0xc001_0130, 0xc001_0131), "another MSR", "wrmsr at");
    check(without(kind, Mnemonic::Vmgexit, &[0x0f, 0xa2]), "CPUID", "cpuid at");
    check(without(kind, Mnemonic::Vmgexit, &[0xef]), "OUT", "out dx,eax at");
    check(without(kind, Mnemonic::Vmgexit, &[0xf4]), "HLT", "hlt at");
    check(without(kind, Mnemonic::Lidt, &[]), "no IDT", "Shutdown");

    // The two reads behind PVALIDATE: each of them left out.
    for skipped in 0..2 {
        let mut reads_left = 0;
        let image = patched(kind, |i| {
            if i.mnemonic() == Mnemonic::Pvalidate {
                reads_left = 2;
            }
            let reads = i.code() == Code::Mov_r64_rm64 && i.op1_kind() == OpKind::Memory;
            if !reads || reads_left == 0 {
                return None;
            }
            reads_left -= 1;
            (reads_left == skipped).then(Vec::new)
        });
        check(image, "a page's cache lines not evicted", "cache lines were not evicted");
    }
}

/// Something done before each `mnemonic`, if it says it applies.
fn tampered(
    kind: &Kind,
    mnemonic: Mnemonic,
    mut tamper: impl FnMut(&mut World, &mut Registers) + 'static,
) -> Guest {
    let mut guest = Guest::new(kind);
    let tamper: Tamper = Box::new(move |world, registers, instruction| {
        if instruction.mnemonic() == mnemonic {
            tamper(world, registers);
        }
    });
    guest.machine.tamper = Some(tamper);
    guest
}

/// Requests of the MSR protocol that are wrong.
fn snp_msr_protocol() {
    let request = |info: u64, other: fn(u64) -> u64, bug: &str, expected: &str| {
        let guest = tampered(&SNP_GUEST, Mnemonic::Wrmsr, move |_, registers| {
            let request = registers.edx_eax();
            if request & 0xfff == info {
                let other = other(request);
                registers.general[RAX] = other & 0xffff_ffff;
                registers.general[RDX] = other >> 32;
            }
        });
        fails(&SNP_GUEST, guest, bug, expected);
    };
    request(0x002, |_| 0x003, "an unknown request", "GHCB MSR 0x3");
    request(0x012, |_| IMAGE | 0x012, "a private GHCB", "GHCB at 0x100000, which is not shared");
    request(0x012, |_| MAILBOX | 0x012, "another GHCB", "Terminate");
    request(0x000, |_| 0, "a GHCB at 0", "GHCB at 0x0, which is not shared");
    request(0x000, |_| MAILBOX, "not the GHCB that was registered", "is not registered");
    request(0x014, |r| r | 3 << 52, "another operation", "page state change by MSR");
    request(0x014, |r| r ^ 3 << 52, "the opposite operation", "after");
    request(0x014, |r| r | 1 << 60, "reserved bits", "page state change by MSR");
    request(0x014, |r| r - (8 << 20), "a page that is not there", "page state change by MSR");
    request(0x014, |r| r & !0x000f_ffff_ffff_f000 | MAILBOX, "the mailbox", "payload itself uses");
}

/// GHCB events that are wrong: the field, what is in it, in which event.
fn snp_ghcb() {
    const IOIO: u64 = 0x7b;
    const PSC: u64 = 0x8000_0010;
    const BITS: u64 = 0x3f8;
    let event = |code: u64, field: u64, other: fn(u64) -> u64, bug: &str, expected: &str| {
        let guest = tampered(&SNP_GUEST, Mnemonic::Vmgexit, move |world, _| {
            let valid = world.memory.read(GHCB + 0x3f8, false) != 0;
            if valid && world.memory.read(GHCB + 0x390, false) == code {
                let word = world.memory.read(GHCB + field, false);
                world.memory.write(GHCB + field, false, other(word));
            }
        });
        fails(&SNP_GUEST, guest, bug, expected);
    };
    for code in [IOIO, PSC] {
        event(code, BITS, |b| b & !(1 << 50), "exit code not valid", "not marked as valid");
        event(code, BITS, |b| b & !(1 << 51), "SW_EXITINFO1 not valid", "not marked as valid");
        event(code, BITS, |b| b & !(1 << 52), "SW_EXITINFO2 not valid", "not marked as valid");
        event(code, 0xff8, |v| v | 1 << 32, "another usage", "usage is not 0");
        event(code, 0xff8, |_| 0, "no version", "not a version");
        event(code, 0xff8, |_| 1 << 16, "version 1", "not a version");
        event(code, 0xff8, |_| 3 << 16, "version 3", "not a version");
        event(code, 0x3a0, |_| 1, "SW_EXITINFO2", "SW_EXITINFO2 is not 0");
        event(code, 0x390, |_| 0x8000_ffff, "another event", "the event is not known");
    }
    event(IOIO, 0x3f0, |b| b & !(1 << 63), "RAX not valid", "RAX is not marked as valid");
    event(IOIO, 0x398, |i| i | 1, "IN", "not an OUT");
    event(IOIO, 0x398, |i| i | 1 << 2, "a string", "not an OUT");
    event(IOIO, 0x398, |i| i | 1 << 3, "REP", "not an OUT");
    event(IOIO, 0x398, |i| i & !(1 << 6), "no size", "not an OUT");
    event(IOIO, 0x398, |i| i | 1 << 5, "two sizes", "not an OUT");
    event(IOIO, 0x398, |i| i & !(1 << 9), "no address size", "not an OUT");
    event(IOIO, 0x398, |i| i + (1 << 16), "another port", "Io { port: 6d1");
    event(IOIO, 0x398, |i| i | 1 << 40, "a wide port", "more than 16 bits");
    event(IOIO, 0x1f8, |v| v + 1, "another value", "600d0002");
    event(PSC, BITS, |b| b & !(1 << 53), "scratch not valid", "scratch area is not marked");
    event(PSC, 0x3a8, |_| MAILBOX, "scratch elsewhere", "not in the shared buffer");
    event(PSC, 0x398, |_| 1, "SW_EXITINFO1", "SW_EXITINFO1 is not 0");
    event(PSC, 0x800, |h| h | 1 << 32, "reserved bits of the header", "header");
    event(PSC, 0x800, |_| 253 << 16, "too many entries", "header");
    event(PSC, 0x800, |_| 3 << 16 | 4, "no entry", "header");
    event(PSC, 0x808, |e| e & !(3 << 52), "no operation", "entry");
    event(PSC, 0x808, |e| e | 3 << 52, "another operation", "entry");
    event(PSC, 0x808, |e| e ^ 3 << 52, "the opposite operation", "after");
    event(PSC, 0x808, |e| e | 1 << 56, "a large page", "entry");
    event(PSC, 0x808, |e| e | 1, "a page done", "entry");
    event(PSC, 0x808, |e| e & !0x000f_ffff_ffff_f000 | GHCB, "the GHCB", "payload itself uses");
    event(PSC, 0x810, |e| e + PAGE, "a page left out", "after");
}

/// PVALIDATE of something else.
fn snp_pvalidate() {
    let with = |tamper: fn(&mut Registers), bug: &str, expected: &str| {
        let guest = tampered(&SNP_GUEST, Mnemonic::Pvalidate, move |_, r| tamper(r));
        fails(&SNP_GUEST, guest, bug, expected);
    };
    with(|r| r.general[RCX] = 1, "a large page", "found: 6");
    with(|r| r.general[RCX] = 2, "another size", "PVALIDATE with ECX 0x2");
    with(|r| r.general[RDX] = 2, "another operation", "PVALIDATE with ECX 0x0, EDX 0x2");
    with(|r| r.general[RDX] ^= 1, "the opposite operation", "found: 100000000");
    with(|r| r.general[RDX] = 1, "never rescinded", "found: 100000000 } after 9");
    with(|r| r.general[RAX] &= !(1 << 46), "the shared alias", "PVALIDATE of a shared alias");
    with(|r| r.general[RAX] += PAGE, "the next page", "vector: 1d, error_code: 404");
    with(|r| r.general[RAX] = IMAGE, "a page of its own", "PVALIDATE of 0x100000");
}

/// The payload takes its GHCB for registered, but it is not: the doorbell must not work.
fn snp_not_registered() {
    let mut guest = Guest::new(&SNP_GUEST);
    guest.inject(Event::Msr(REGISTER), 0, [GHCB | 0x013, 0]);
    fails(&SNP_GUEST, guest, "the GHCB not registered", "the GHCB is not registered");
}

/// A page is made shared while it is validated, by either protocol.
fn snp_not_rescinded() {
    for operation in [operation::MAKE_SHARED, operation::MAKE_SHARED_MSR] {
        let mut guest = Guest::started(&SNP_GUEST);
        to_private(&mut guest, 0, 1);
        assert_eq!(on_pages(&mut guest, operation, page(0), 1), OK);
        let violations = guest.violations();
        assert!(violations[0].contains("which is validated"), "{violations:?}");
        found_bug();
    }
}

/// Other bytes in the TDX image.
fn tdx_images() {
    let kind = &TDX_GUEST;
    let check = |image: Vec<u8>, bug: &str, expected: &str| {
        fails(kind, Guest::with_image(kind, &image), bug, expected);
    };
    check(without(kind, Mnemonic::Tdcall, &[]), "no TDCALL", "Hang");
    check(without(kind, Mnemonic::Tdcall, &[0xef]), "OUT", "out dx,eax");
    check(without(kind, Mnemonic::Tdcall, &[0x0f, 0x01, 0xc1]), "VMCALL", "vmcall");
    check(without(kind, Mnemonic::Tdcall, &[0x0f, 0xa2]), "CPUID", "cpuid");
    check(without(kind, Mnemonic::Lidt, &[]), "no IDT", "Shutdown");
    check(constant(kind, 0x660, 0x620), "CR4.MCE cleared", "CR4 = 0x620");
    check(constant(kind, 0x660, 0x2660), "CR4.VMXE set", "CR4 = 0x2660");
    check(constant(kind, 0x660, 0x640), "no CR4.PAE", "Shutdown");
    check(constant(kind, 0x8001_0033, 0x8001_0013), "CR0.NE cleared", "CR0 = 0x80010013");
    check(constant(kind, 0x8001_0033, 0xc001_0033), "CR0.CD set", "CR0 = 0xc0010033");
    check(constant(kind, 0x8001_0033, 0x0001_0033), "no paging", "not 64-bit code");
    // lea eax, [ecx + 0x1000] becomes lea eax, [ecx + 0x3000].
    let image = patched(kind, |i| {
        let tables =
            i.memory_base() == iced_x86::Register::ECX && i.memory_displacement32() == 0x1000;
        tables.then(|| vec![0x8d, 0x81, 0x00, 0x30, 0x00, 0x00])
    });
    check(image, "other page tables", "MemoryFault");
    check(constant(kind, 0x10, 0x08), "code in data segments", "Shutdown");
    check(constant(kind, 0x10, 0x18), "a segment that is not there", "Shutdown");
    // mov cr0, eax becomes wrmsr.
    let image =
        patched(kind, |i| (i.op0_register() == iced_x86::Register::CR0).then(|| vec![0x0f, 0x30]));
    check(image, "EFER", "wrmsr");
    let jump = |selector: u8, bug: &str, expected: &str| {
        let image = patched(kind, |i| {
            let target = i.far_branch32().to_le_bytes();
            let [a, b, c, d] = target;
            (i.code() == Code::Jmp_ptr1632).then(|| vec![0xea, a, b, c, d, selector, 0])
        });
        check(image, bug, expected);
    };
    jump(0x10, "a far jump to data", "far jump to 0x10");
    jump(0x18, "a far jump to nowhere", "Shutdown");
}

/// TDCALL for the leaf `leaf`, with something wrong.
fn tdcall(leaf: u64, tamper: impl Fn(&mut [u64; 16]) + 'static, bug: &str, expected: &str) {
    let guest = tampered(&TDX_GUEST, Mnemonic::Tdcall, move |_, registers| {
        if registers.general[RAX] == leaf {
            tamper(&mut registers.general);
        }
    });
    fails(&TDX_GUEST, guest, bug, expected);
}

/// TDG.VP.VMCALL with something wrong.
fn tdx_vmcall() {
    const IO: u64 = 30;
    const MAP_GPA: u64 = 0x1_0001;
    let call =
        |function: u64, register: usize, other: fn(u64) -> u64, bug: &str, expected: &str| {
            let tamper = move |general: &mut [u64; 16]| {
                if general[11] == function {
                    general[register] = other(general[register]);
                }
            };
            tdcall(0, tamper, bug, expected);
        };
    for (bit, register) in (10..16).map(|i| (1u64 << i, i)) {
        let tamper = move |general: &mut [u64; 16]| general[RCX] &= !bit;
        tdcall(0, tamper, "a register not passed", &format!("without R{register}"));
    }
    for bit in [0, 1, 4, 5, 32] {
        let tamper = move |general: &mut [u64; 16]| general[RCX] |= 1 << bit;
        tdcall(0, tamper, "a register too many", "VP.VMCALL with RCX");
    }
    call(IO, 10, |_| 1, "a hypercall of KVM", "VP.VMCALL with R10");
    call(IO, 11, |_| 31, "another function", "VP.VMCALL with R11 0x1f");
    call(IO, 12, |_| 8, "8 bytes", "VP.VMCALL<IO> of 8 bytes");
    call(IO, 12, |_| 2, "2 bytes", "Io { port: 6d0, value: 1 }");
    call(IO, 13, |_| 0, "a read", "VP.VMCALL<IO> in direction 0");
    call(IO, 13, |_| 2, "neither read nor write", "VP.VMCALL<IO> in direction 2");
    call(IO, 14, |p| p + 1, "another port", "Io { port: 6d1");
    call(IO, 14, |p| p | 1 << 16, "a wide port", "VP.VMCALL<IO> at port 0x106d0");
    call(MAP_GPA, 12, |a| a ^ 1 << 47, "the opposite operation", "after");
    call(MAP_GPA, 12, |a| a | 1 << 46, "another bit as the shared one", "MapGPA of");
    call(MAP_GPA, 12, |a| a | 8, "not at a page", "MapGPA of");
    call(MAP_GPA, 12, |a| a & 1 << 47 | MAILBOX, "the mailbox", "payload itself uses");
    call(MAP_GPA, 13, |s| s - 8, "not whole pages", "MapGPA of");
    call(MAP_GPA, 13, |_| 0, "nothing", "MapGPA of 0x0 bytes");
    call(MAP_GPA, 13, |_| 1 << 47, "beyond the end", "MapGPA of");
    call(MAP_GPA, 13, |s| (s - PAGE).max(PAGE), "the last page left out", "after");
}

/// Leaves of the module with something wrong.
fn tdx_module() {
    const VP_INFO: u64 = 1;
    const VEINFO_GET: u64 = 3;
    const ACCEPT: u64 = 6;
    tdcall(VP_INFO, |g| g[RAX] = 99, "an unknown leaf", "TDCALL with RAX 0x63");
    tdcall(VP_INFO, |g| g[RAX] = 1 << 16 | 1, "another version", "TDCALL with RAX 0x10001");
    tdcall(ACCEPT, |g| g[RCX] |= 1, "a large page", "c0000b0b");
    tdcall(ACCEPT, |g| g[RCX] |= 2, "another level", "MEM.PAGE.ACCEPT with RCX");
    tdcall(ACCEPT, |g| g[RCX] |= 8, "reserved bits", "MEM.PAGE.ACCEPT with RCX");
    tdcall(ACCEPT, |g| g[RCX] |= 1 << 47, "the shared alias", "MEM.PAGE.ACCEPT with RCX");
    tdcall(ACCEPT, |g| g[RCX] |= 1 << 46, "the linear address", "MemoryFault");
    tdcall(ACCEPT, |g| g[RCX] = IMAGE, "a page of its own", "b0a00000001");
    tdcall(ACCEPT, |g| g[RAX] = VP_INFO, "nothing accepted", "vector: 14, error_code: 30");
    tdcall(VEINFO_GET, |g| g[RAX] = VP_INFO, "#VE not asked for", "#VE information left");
}
