// SPDX-License-Identifier: GPL-2.0-only
//! Which instructions the emulator may execute by itself.

use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, OpKind, Register};

/// The instruction sets whose unprivileged instructions do the same everywhere.
const ORDINARY: [CpuidFeature; 8] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::PAUSE,
];

/// Whether `instruction` does nothing but compute, load, store and branch.
pub fn is_ordinary(instruction: &Instruction) -> bool {
    let far = matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
    let segment = instruction.mnemonic() == Mnemonic::Mov
        && (0..2).any(|i| {
            instruction.op_kind(i) == OpKind::Register && is_system(instruction.op_register(i))
        });
    let special = matches!(
        instruction.mnemonic(),
        Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::Into
            | Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Ud0
            | Mnemonic::Ud1
            | Mnemonic::Ud2
            | Mnemonic::Cpuid
            | Mnemonic::Lgdt
            | Mnemonic::Lidt
            | Mnemonic::Retf
            | Mnemonic::Pushf
            | Mnemonic::Popf
            | Mnemonic::Popfq
    );
    instruction.code() != Code::INVALID
        && !far
        && !segment
        && !special
        && !instruction.is_privileged()
        && instruction.cpuid_features().iter().all(|f| ORDINARY.contains(f))
}

fn is_system(register: Register) -> bool {
    register.is_segment_register() || register.is_cr() || register.is_dr() || register.is_tr()
}
