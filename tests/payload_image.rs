// SPDX-License-Identifier: GPL-2.0-only
//! What the payloads' images may contain.

use std::collections::BTreeSet;

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};

#[path = "../guest-payloads/elf.rs"]
mod elf;

use gmem_conform::payload::abi::{IMAGE, PAGE_TABLES, PAYLOAD_SIZE, RESET_PAGE, RESET_VECTOR};
use gmem_conform::payload::{SNP, TDX_IMAGE, TDX_RESET};

static PLAIN_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.elf"));
static PLAIN_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.bin"));
static SNP_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snp.elf"));
static TDX_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tdx.elf"));

/// The only MSR that an SNP guest may access without further thought: `MSR_AMD64_SEV_ES_GHCB`.
const GHCB_MSR: u64 = 0xc001_0130;
/// Where the TDX payload's 64-bit code begins; 32-bit code and its GDT are in front.
const TDX_LONG_MODE: u64 = IMAGE + 128;

/// What a payload runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Platform {
    Plain,
    Snp,
    Tdx,
}

use Platform::{Plain, Snp, Tdx};

/// Each payload: what for, as linked, as embedded, where its 64-bit code begins.
const PAYLOADS: [(Platform, &[u8], &[u8], u64); 3] = [
    (Plain, PLAIN_ELF, PLAIN_IMAGE, IMAGE),
    (Snp, SNP_ELF, SNP, IMAGE),
    (Tdx, TDX_ELF, TDX_IMAGE, TDX_LONG_MODE),
];

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

/// Why `instruction` must not be in a payload for `platform`. Allowlists, so that they need not know each extension by name:
/// there is no SSE, AVX or x87, whose state no payload sets up; no VMCALL, VMMCALL or CPUID, on which some back ends spin
/// or which are exceptions in encrypted guests; nothing else that is #VC in an SNP guest or #VE in a TDX guest, such as
/// port I/O, HLT, INVD, WBINVD, RDTSC, RDPMC, MONITOR, MWAIT, XSETBV, writes of control registers, debug registers.
fn objection(instruction: &Instruction, platform: Platform) -> Option<String> {
    let mnemonic = instruction.mnemonic();
    if instruction.code() == Code::INVALID {
        return Some("cannot be decoded".to_string());
    }
    let special = match platform {
        Plain => mnemonic == Mnemonic::Out,
        // RDMSR and WRMSR of which MSR: see foreign_msrs().
        Snp => matches!(
            instruction.code(),
            Code::Wrmsr | Code::Rdmsr | Code::Vmgexit | Code::Pvalidateq
        ),
        Tdx => mnemonic == Mnemonic::Tdcall,
    };
    // The long NOP is the assembler's padding.
    if special || mnemonic == Mnemonic::Nop {
        return None;
    }
    // KVM lets no guest's read of CR2 exit, nor an encrypted one's of CR3, which tells the vCPUs of an SNP guest apart.
    let reads_register = instruction.code() == Code::Mov_r64_cr
        && match instruction.op1_register() {
            Register::CR2 => true,
            Register::CR3 => platform == Snp,
            _ => false,
        };
    let tables = matches!(mnemonic, Mnemonic::Lgdt | Mnemonic::Lidt);
    if instruction.is_privileged() && !reads_register && !tables {
        return Some("is privileged".to_string());
    }
    // Privileged on some platforms only, or a way out of what the loop above the payload expects.
    if matches!(
        mnemonic,
        Mnemonic::Cpuid | Mnemonic::Iretq | Mnemonic::Iretd | Mnemonic::Int | Mnemonic::Int1
    ) {
        return Some("is not for payloads".to_string());
    }
    let foreign = instruction.cpuid_features().iter().find(|f| !ALLOWED.contains(f));
    foreign.map(|f| format!("needs {f:?}"))
}

/// Every objection to the 64-bit code `bytes`, which runs at `address`.
fn objections(bytes: &[u8], address: u64, platform: Platform) -> Vec<String> {
    let instructions: Vec<_> =
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).iter().collect();
    let each = instructions
        .iter()
        .filter_map(|i| objection(i, platform).map(|why| format!("{:#x}: {i} {why}", i.ip())));
    each.chain(foreign_msrs(&instructions)).collect()
}

/// Each RDMSR and WRMSR that ECX has not been loaded with [`GHCB_MSR`] for, in the straight line of code right before it.
fn foreign_msrs(instructions: &[Instruction]) -> Vec<String> {
    let targets: BTreeSet<u64> = instructions
        .iter()
        .filter(|i| i.op_count() > 0 && i.op0_kind() == OpKind::NearBranch64)
        .map(|i| i.near_branch64())
        .collect();
    let mut info = InstructionInfoFactory::new();
    let mut found = Vec::new();
    let mut ecx = None;
    for i in instructions {
        if targets.contains(&i.ip()) {
            ecx = None;
        }
        if matches!(i.mnemonic(), Mnemonic::Rdmsr | Mnemonic::Wrmsr) && ecx != Some(GHCB_MSR) {
            found.push(format!("{:#x}: {i} of an MSR that is not known to be the GHCB's", i.ip()));
        }
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
        };
        // VMGEXIT comes back to the next instruction, and no hypervisor can change an encrypted register.
        if i.code() == Code::Mov_r32_imm32 && i.op0_register() == Register::ECX {
            ecx = Some(i.immediate(1));
        } else if (i.flow_control() != FlowControl::Next && i.code() != Code::Vmgexit)
            || info
                .info(i)
                .used_registers()
                .iter()
                .any(|r| r.register().full_register() == Register::RCX && writes(r.access()))
        {
            ecx = None;
        }
    }
    found
}

/// The one segment of code in `file`.
fn code(file: &[u8]) -> elf::Segment<'_> {
    let (entry, segments) = elf::parse(file).unwrap();
    assert_eq!(entry, IMAGE);
    let mut code = segments.into_iter().filter(|s| s.flags & elf::EXECUTABLE != 0);
    let segment = code.next().unwrap();
    assert!(code.next().is_none(), "one segment of code");
    assert!(segment.bytes.len() > 500, "32 exception stubs and a command loop");
    segment
}

/// Payload code is plain integer code: it runs before anybody has set up other state, in encrypted guests, where many
/// instructions are exceptions, and on KVM back ends that stumble over unusual instructions.
#[test]
fn code_is_plain() {
    for (platform, file, _, start) in PAYLOADS {
        let code = code(file);
        let bytes = &code.bytes[(start - code.address) as usize..];
        assert_eq!(objections(bytes, start, platform), Vec::<String>::new(), "{platform:?}");
    }
}

/// Each payload has what makes it that platform's payload, so that the check of the code is not one of something else.
#[test]
fn code_talks_to_its_host() {
    for (platform, file, _, start) in PAYLOADS {
        let code = code(file);
        let bytes = &code.bytes[(start - code.address) as usize..];
        let found: BTreeSet<_> = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE)
            .iter()
            .map(|i| i.mnemonic())
            .filter(|m| {
                use Mnemonic::{Out, Pvalidate, Rdmsr, Tdcall, Vmgexit, Wrmsr};
                [Out, Pvalidate, Rdmsr, Tdcall, Vmgexit, Wrmsr].contains(m)
            })
            .map(|m| format!("{m:?}"))
            .collect();
        let expected: &[&str] = match platform {
            Plain => &["Out"],
            Snp => &["Pvalidate", "Rdmsr", "Vmgexit", "Wrmsr"],
            Tdx => &["Tdcall"],
        };
        assert!(found.iter().eq(expected), "{platform:?}: {found:?}");
    }
}

/// The TDX payload switches to 64-bit mode with no more than it takes: GDT, CR4, CR3, CR0, far jump. Above all it writes no
/// MSR: the module lets nobody write EFER.
#[test]
fn tdx_starts_without_msrs() {
    let code = code(TDX_ELF);
    let start: Vec<_> = Decoder::with_ip(32, code.bytes, IMAGE, DecoderOptions::NONE)
        .iter()
        .take(8)
        .map(|i| i.to_string())
        .collect();
    let [lgdt, _, cr4, table, cr3, _, cr0, jump] = &start[..] else { unreachable!() };
    assert!(lgdt.starts_with("lgdt "), "{lgdt}");
    assert_eq!([cr4, cr3, cr0], ["mov cr4,eax", "mov cr3,eax", "mov cr0,eax"]);
    assert_eq!(*table, format!("lea eax,[ecx+{PAGE_TABLES:X}h]"));
    assert_eq!(*jump, format!("jmp far ptr 8:{TDX_LONG_MODE:08X}h"));
}

/// The page of the reset vector is a jump to the image.
#[test]
fn reset_vector_jumps_to_the_image() {
    let vector = &TDX_RESET[(RESET_VECTOR - RESET_PAGE) as usize..];
    let jump = Decoder::with_ip(32, vector, RESET_VECTOR, DecoderOptions::NONE).decode();
    assert_eq!(jump.code(), Code::Jmp_rel32_32);
    assert_eq!(jump.near_branch_target(), IMAGE);
}

/// The image has everything that the linker placed, zeros included, at the place that it is loaded at.
#[test]
fn image_is_complete() {
    for (platform, file, image, _) in PAYLOADS {
        let (_, segments) = elf::parse(file).unwrap();
        let end = segments.iter().map(|s| s.address + s.size).max().unwrap();
        assert_eq!(image.len() as u64, end - IMAGE, "{platform:?}");
        assert!(end <= PAYLOAD_SIZE);
        for segment in segments {
            let start = (segment.address - IMAGE) as usize;
            let loaded = &image[start..start + segment.size as usize];
            let (bytes, zeros) = loaded.split_at(segment.bytes.len());
            assert_eq!(bytes, segment.bytes, "{platform:?}");
            assert!(zeros.iter().all(|&b| b == 0), "{platform:?}");
        }
    }
}

/// The image is linked for one address and nothing relocates it: there are no relocation sections.
#[test]
fn image_has_no_relocations() {
    for (platform, file, ..) in PAYLOADS {
        assert_eq!(relocations(file), Vec::<String>::new(), "{platform:?}");
    }
}

/// The sections of `file` that somebody would have to apply.
fn relocations(file: &[u8]) -> Vec<String> {
    // SHT_RELA, SHT_REL and SHT_DYNAMIC in the section headers.
    let field = |offset: usize, size: usize| {
        let bytes = &file[offset..offset + size];
        bytes.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b))
    };
    let (table, size, count) = (field(40, 8), field(58, 2), field(60, 2));
    assert!(count > 3, "section headers were not stripped");
    (0..count)
        .filter(|i| [4, 6, 9].contains(&field(table + i * size + 4, 4)))
        .filter(|i| field(table + i * size + 32, 8) != 0)
        .map(|i| format!("section {i}"))
        .collect()
}

/// The check for relocations is able to find one: a section of type SHT_RELA that is not empty.
#[test]
fn relocations_are_found() {
    let mut file = SNP_ELF.to_vec();
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    // Section 1: type and size.
    let section = table + 64;
    file[section + 4] = 4;
    assert_eq!(relocations(&file), ["section 1"]);
}

const EVERYWHERE: &[Platform] = &[Plain, Snp, Tdx];

/// The checks above are able to object, platform by platform.
#[test]
fn foreign_instructions_are_found() {
    for (bytes, allowed, what) in [
        (&[0x0f, 0x10, 0x07][..], &[][..], "movups xmm0, [rdi]"),
        (&[0x66, 0x0f, 0xef, 0xc0], &[], "pxor xmm0, xmm0"),
        (&[0xc5, 0xf8, 0x57, 0xc0], &[], "vxorps xmm0, xmm0, xmm0"),
        (&[0xd9, 0xe8], &[], "fld1"),
        (&[0x0f, 0x77], &[], "emms"),
        (&[0x0f, 0x01, 0xc1], &[], "vmcall"),
        (&[0x0f, 0x01, 0xd9], &[], "vmmcall"),
        (&[0x0f, 0xa2], &[], "cpuid"),
        (&[0xf4], &[], "hlt"),
        (&[0x06], &[], "push es, which 64-bit mode does not have"),
        (&[0x48, 0x8b], &[], "half of an instruction"),
        (&[0xec], &[], "in al, dx"),
        (&[0x6f], &[], "outsd"),
        (&[0xef], &[Plain], "out dx, eax"),
        (&[0x0f, 0x31], &[], "rdtsc"),
        (&[0x0f, 0x01, 0xf9], &[], "rdtscp"),
        (&[0x0f, 0x33], &[], "rdpmc"),
        (&[0x0f, 0x08], &[], "invd"),
        (&[0x0f, 0x09], &[], "wbinvd"),
        (&[0x0f, 0x01, 0xc8], &[], "monitor"),
        (&[0x0f, 0x01, 0xc9], &[], "mwait"),
        (&[0x0f, 0x01, 0xd1], &[], "xsetbv"),
        (&[0x0f, 0x22, 0xc0], &[], "mov cr0, rax"),
        (&[0x0f, 0x22, 0xd8], &[], "mov cr3, rax"),
        (&[0x0f, 0x22, 0xe0], &[], "mov cr4, rax"),
        (&[0x44, 0x0f, 0x22, 0xc0], &[], "mov cr8, rax"),
        (&[0x0f, 0x23, 0xf8], &[], "mov dr7, rax"),
        (&[0x0f, 0x06], &[], "clts"),
        (&[0xfb], &[], "sti"),
        (&[0xcd, 0x80], &[], "int 0x80"),
        (&[0x48, 0xcf], &[], "iretq"),
        (&[0x0f, 0x05], &[], "syscall"),
        (&[0x0f, 0x01, 0x38], &[], "invlpg [rax]"),
        (&[0xf3, 0x0f, 0x01, 0xfe], &[], "rmpadjust"),
        (&[0x66, 0x0f, 0x01, 0xcf], &[], "seamcall"),
        (&[0xf2, 0x0f, 0x01, 0xff], &[Snp], "pvalidate"),
        (&[0xf3, 0x0f, 0x01, 0xd9], &[Snp], "vmgexit"),
        (&[0x66, 0x0f, 0x01, 0xcc], &[Tdx], "tdcall"),
        (&[0xf3, 0x90], EVERYWHERE, "pause"),
        (&[0x0f, 0x20, 0xd0], EVERYWHERE, "mov rax, cr2"),
        (&[0x0f, 0x20, 0xd8], &[Snp], "mov rax, cr3"),
        (&[0x0f, 0x20, 0xc0], &[], "mov rax, cr0"),
        (&[0x0f, 0x01, 0x10], EVERYWHERE, "lgdt [rax]"),
        (&[0x0f, 0x1f, 0x80, 0, 0, 0, 0], EVERYWHERE, "nop dword ptr [rax]"),
        (&[0x0f, 0x0b], EVERYWHERE, "ud2"),
    ] {
        for &platform in EVERYWHERE {
            let found = objections(bytes, IMAGE, platform);
            let expected = usize::from(!allowed.contains(&platform));
            assert_eq!(found.len(), expected, "{what} for {platform:?}: {found:?}");
        }
    }
}

/// An access to an MSR is allowed only where it is certain that it is the GHCB's.
#[test]
fn foreign_msrs_are_found() {
    // mov ecx, 0xc0010130
    const GHCB: [u8; 5] = [0xb9, 0x30, 0x01, 0x01, 0xc0];
    let check = |code: &[&[u8]]| objections(&code.concat(), IMAGE, Snp).len();
    assert_eq!(check(&[&GHCB, &[0x0f, 0x30]]), 0, "wrmsr");
    assert_eq!(check(&[&GHCB, &[0xb8, 1, 0, 0, 0], &[0x0f, 0x32]]), 0, "mov eax, 1; rdmsr");
    assert_eq!(check(&[&[0x0f, 0x30]]), 1, "wrmsr of anything");
    // mov ecx, 0xc0000080: EFER
    assert_eq!(check(&[&[0xb9, 0x80, 0, 0, 0xc0], &[0x0f, 0x30]]), 1, "wrmsr of EFER");
    assert_eq!(check(&[&GHCB, &[0xff, 0xc1], &[0x0f, 0x30]]), 1, "inc ecx; wrmsr");
    assert_eq!(check(&[&GHCB, &[0xb1, 0x31], &[0x0f, 0x32]]), 1, "mov cl, 0x31; rdmsr");
    assert_eq!(check(&[&GHCB, &[0xff, 0xd0], &[0x0f, 0x30]]), 1, "call rax; wrmsr");
    assert_eq!(check(&[&[0xeb, 0x05], &GHCB, &[0x0f, 0x30]]), 1, "jmp to the wrmsr");
}
