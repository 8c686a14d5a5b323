// SPDX-License-Identifier: GPL-2.0-only
//! What the payloads' images may contain.

use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic};

#[path = "../guest-payloads/elf.rs"]
mod elf;

use gmem_conform::payload::abi::{IMAGE, PAYLOAD_SIZE};

static PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.elf"));
static PLAIN_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.bin"));

/// The instruction sets that every 64-bit CPU and every back end of KVM executes as they are. PAUSE is a NOP where it is
/// not known.
const ALLOWED: [CpuidFeature; 8] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::PAUSE,
];

/// Why `instruction` must not be in a payload. An allowlist, so that it need not know each extension by name: there is no
/// SSE, AVX or x87, whose state no payload sets up; no VMCALL, VMMCALL or CPUID, on which some back ends spin or which
/// are exceptions in encrypted guests.
fn objection(instruction: &Instruction) -> Option<String> {
    if instruction.code() == Code::INVALID {
        return Some("cannot be decoded".to_string());
    }
    if matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::Cpuid) {
        return Some("is not for payloads".to_string());
    }
    // The long NOP is the assembler's padding.
    let nop = instruction.mnemonic() == Mnemonic::Nop;
    let foreign = instruction.cpuid_features().iter().find(|f| !ALLOWED.contains(f));
    foreign.filter(|_| !nop).map(|f| format!("needs {f:?}"))
}

/// Every objection to the code `bytes`, which runs at `address`.
fn objections(bytes: &[u8], address: u64) -> Vec<String> {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE)
        .iter()
        .filter_map(|i| objection(&i).map(|why| format!("{:#x}: {i} {why}", i.ip())))
        .collect()
}

/// Payload code is plain integer code: it runs before anybody has set up other state, in encrypted guests and on KVM back
/// ends that stumble over unusual instructions.
#[test]
fn code_is_plain() {
    let (entry, segments) = elf::parse(PLAIN).unwrap();
    assert_eq!(entry, IMAGE);
    let code: Vec<_> = segments.iter().filter(|s| s.flags & elf::EXECUTABLE != 0).collect();
    assert_eq!(code.len(), 1, "one segment of code");
    let [code] = code[..] else { unreachable!() };
    assert!(code.bytes.len() > 500, "32 exception stubs and a command loop");
    assert_eq!(objections(code.bytes, code.address), Vec::<String>::new());
}

/// The image has everything that the linker placed, zeros included, at the place that it is loaded at.
#[test]
fn image_is_complete() {
    let (_, segments) = elf::parse(PLAIN).unwrap();
    let end = segments.iter().map(|s| s.address + s.size).max().unwrap();
    assert_eq!(PLAIN_IMAGE.len() as u64, end - IMAGE);
    assert!(end <= PAYLOAD_SIZE);
    for segment in segments {
        let start = (segment.address - IMAGE) as usize;
        let loaded = &PLAIN_IMAGE[start..start + segment.size as usize];
        let (bytes, zeros) = loaded.split_at(segment.bytes.len());
        assert_eq!(bytes, segment.bytes);
        assert!(zeros.iter().all(|&b| b == 0));
    }
}

/// The image is linked for one address and nothing relocates it: there are no relocation sections.
#[test]
fn image_has_no_relocations() {
    // SHT_RELA, SHT_REL and SHT_DYNAMIC in the section headers.
    let field = |offset: usize, size: usize| {
        let bytes = &PLAIN[offset..offset + size];
        bytes.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b))
    };
    let (table, size, count) = (field(40, 8), field(58, 2), field(60, 2));
    assert!(count > 3, "section headers were not stripped");
    for i in 0..count {
        let kind = field(table + i * size + 4, 4);
        if [4, 6, 9].contains(&kind) {
            let length = field(table + i * size + 32, 8);
            assert_eq!(length, 0, "section {i} of type {kind}");
        }
    }
}

/// The check above is able to object.
#[test]
fn foreign_instructions_are_found() {
    for (bytes, what) in [
        (&[0x0f, 0x10, 0x07][..], "movups xmm0, [rdi]"),
        (&[0x66, 0x0f, 0xef, 0xc0], "pxor xmm0, xmm0"),
        (&[0xc5, 0xf8, 0x57, 0xc0], "vxorps xmm0, xmm0, xmm0"),
        (&[0xd9, 0xe8], "fld1"),
        (&[0x0f, 0x77], "emms"),
        (&[0x0f, 0x01, 0xc1], "vmcall"),
        (&[0x0f, 0x01, 0xd9], "vmmcall"),
        (&[0x0f, 0xa2], "cpuid"),
        (&[0xf4], "hlt"),
        (&[0x06], "push es, which 64-bit mode does not have"),
        (&[0x48, 0x8b], "half of an instruction"),
    ] {
        assert_eq!(objections(bytes, IMAGE).len(), 1, "{what}");
    }
    for (bytes, what) in [
        (&[0xf3, 0x90][..], "pause"),
        (&[0xef], "out dx, eax"),
        (&[0x0f, 0x20, 0xd0], "mov rax, cr2"),
        (&[0x0f, 0x1f, 0x80, 0, 0, 0, 0], "nop dword ptr [rax]"),
    ] {
        assert_eq!(objections(bytes, IMAGE), Vec::<String>::new(), "{what}");
    }
}
