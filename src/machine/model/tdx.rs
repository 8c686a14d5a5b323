// SPDX-License-Identifier: GPL-2.0-only
//! The launch of a TD: `vt_mem_enc_ioctl()` on VM and vCPU, and the TDX module behind it.

use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut as pointer;

use kvm_bindings::kvm_cpuid_entry2;

use super::system::supported_cpuid;
use super::user::{copy_from_user, copy_to_user};
use super::vm::VmState;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::PAGE_SIZE;
use crate::uapi::tdx::*;

/// The extended features that a TD may have: x87, SSE, AVX.
const XFAM: u64 = 0b111;
/// The address width that puts the shared bit at 47, and the one that puts it at 51.
const WIDTHS: [u32; 2] = [48, 52];
/// Leaf 7: features that a TD must not be given although they can be configured: HLE and RTM in EBX, WAITPKG in ECX.
const FORBIDDEN_EBX: u32 = 1 << 4 | 1 << 11;
const FORBIDDEN_ECX: u32 = 1 << 5;
/// Leaf 1: x2APIC, in ECX.
pub(super) const X2APIC: u32 = 1 << 21;

/// How far a launch has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// A TDX VM that is no TD yet.
    #[default]
    Created,
    /// After INIT_VM.
    Initialized(Td),
    /// After FINALIZE_VM.
    Finalized(Td),
}

/// What a TD was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Td {
    /// The bit of a guest physical address that says that the access is to shared memory.
    pub(super) shared_bit: u64,
    /// Whether the guest gets no #VE for pages that it has not accepted.
    pub(super) sept_ve_disable: bool,
}

impl Stage {
    /// The TD, once there is one.
    pub(super) fn td(self) -> Option<Td> {
        match self {
            Stage::Created => None,
            Stage::Initialized(td) | Stage::Finalized(td) => Some(td),
        }
    }
}

/// The CPUID bits that a TD can be given or not: leaf by leaf, what there is to choose. The flags are 0 also where a leaf
/// has subleaves, as KVM_TDX_CAPABILITIES has them.
fn configurable() -> Vec<kvm_cpuid_entry2> {
    let leaf = |function, eax, ebx, ecx| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        ..Default::default()
    };
    vec![
        leaf(1, 0x0fff_3fff, 0x00ff_0000, 0),
        leaf(7, 0, FORBIDDEN_EBX, FORBIDDEN_ECX),
        leaf(0x8000_0008, 0x00ff_0000, 0, 0),
    ]
}

/// Why a command failed: its error, and what goes into `kvm_tdx_cmd::hw_error`.
struct Failed(Errno, SeamcallStatus);

impl From<Errno> for Failed {
    /// The kernel refused; the module was not asked.
    fn from(errno: Errno) -> Failed {
        Failed(errno, SeamcallStatus::SUCCESS)
    }
}

type CommandResult = std::result::Result<(), Failed>;

/// Reads a command, lets `execute` execute it, and writes it back.
///
/// # Safety
///
/// As [`crate::machine::Vm::memory_encrypt_op`].
unsafe fn command(
    argument: *mut c_void,
    execute: impl FnOnce(&TdxCommand) -> CommandResult,
) -> Result<()> {
    let argument = argument.cast::<TdxCommand>();
    // SAFETY: the caller's promise is the one that is asked for.
    let mut command = unsafe { copy_from_user(argument) }?;
    if command.hw_error != 0 {
        return Err(Errno::EINVAL);
    }
    let result = match execute(&command) {
        Ok(()) => Ok(()),
        Err(Failed(errno, status)) => {
            command.hw_error = status.0;
            Err(errno)
        }
    };
    // SAFETY: as above.
    unsafe { copy_to_user(argument, command) }?;
    result
}

impl VmState {
    /// `tdx_vm_ioctl()`.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    pub(super) unsafe fn tdx_command(&self, argument: *mut c_void) -> Result<()> {
        let execute = |command: &TdxCommand| match command.id {
            // SAFETY: the caller's promise is the one that is asked for; so for the others.
            KVM_TDX_CAPABILITIES => Ok(unsafe { tdx_capabilities(command, self.attributes()) }?),
            // SAFETY: as above.
            KVM_TDX_INIT_VM => unsafe { self.tdx_init_vm(command) },
            KVM_TDX_FINALIZE_VM => Ok(self.tdx_finalize(command)?),
            _ => Err(Errno::EINVAL.into()),
        };
        // SAFETY: as above.
        unsafe { self::command(argument, execute) }
    }

    /// `tdx_td_init()`.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    unsafe fn tdx_init_vm(&self, command: &TdxCommand) -> CommandResult {
        let mut stage = self.tdx.lock();
        if *stage != Stage::Created || command.flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        // SAFETY: the caller's promise is the one that is asked for.
        let init: TdxInitVm = unsafe { copy_from_user(pointer(command.data as usize)) }?;
        if init.cpuid.nent as usize > CPUID_ENTRIES {
            return Err(Errno::E2BIG.into());
        }
        if init.reserved != [0; 12] || init.cpuid.padding != 0 {
            return Err(Errno::EINVAL.into());
        }
        if self.vcpu_count() != 0 {
            return Err(Errno::EBUSY.into());
        }
        if init.attributes & !self.attributes() != 0 || init.xfam & !XFAM != 0 {
            return Err(Errno::EINVAL.into());
        }
        let width = check_cpuid(init.cpuid.entries())?;
        *stage = Stage::Initialized(Td {
            shared_bit: 1 << (width - 1),
            sept_ve_disable: init.attributes & ATTRIBUTE_SEPT_VE_DISABLE != 0,
        });
        Ok(())
    }

    /// What a TD may be given.
    fn attributes(&self) -> u64 {
        self.hook_td_attributes(ATTRIBUTE_SEPT_VE_DISABLE)
    }

    /// `tdx_td_finalize()`.
    fn tdx_finalize(&self, command: &TdxCommand) -> Result<()> {
        let mut stage = self.tdx.lock();
        let td = match *stage {
            Stage::Initialized(td) => td,
            Stage::Finalized(td) if self.hook_finished_again() => td,
            Stage::Created | Stage::Finalized(_) => return Err(Errno::EINVAL),
        };
        if command.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if self.hook_busy() {
            return Err(Errno::EBUSY);
        }
        *stage = Stage::Finalized(td);
        self.protection.set_launched();
        Ok(())
    }

    /// `tdx_vcpu_ioctl()`: for a vCPU with this CPUID; `initialized` says whether INIT_VCPU has been done, `rcx` what it has
    /// put there.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    pub(super) unsafe fn tdx_vcpu_command(
        &self,
        argument: *mut c_void,
        cpuid: &[kvm_cpuid_entry2],
        initialized: &mut bool,
        rcx: &mut u64,
    ) -> Result<()> {
        match *self.tdx.lock() {
            Stage::Initialized(_) => {}
            Stage::Finalized(_) if self.hook_launch_goes_on() => {}
            Stage::Created | Stage::Finalized(_) => return Err(Errno::EINVAL),
        }
        let execute = |command: &TdxCommand| match command.id {
            KVM_TDX_INIT_VCPU => {
                let x2apic = cpuid.iter().any(|leaf| leaf.function == 1 && leaf.ecx & X2APIC != 0);
                if command.flags != 0 || *initialized || !x2apic {
                    return Err(Errno::EINVAL.into());
                }
                (*initialized, *rcx) = (true, command.data);
                Ok(())
            }
            KVM_TDX_INIT_MEM_REGION if !*initialized => Err(Errno::EINVAL.into()),
            // SAFETY: the caller's promise is the one that is asked for; so for the other.
            KVM_TDX_INIT_MEM_REGION => unsafe { self.tdx_init_mem_region(command) },
            // SAFETY: as above.
            KVM_TDX_GET_CPUID => Ok(unsafe { get_cpuid(command) }?),
            _ => Err(Errno::EINVAL.into()),
        };
        // SAFETY: as above.
        unsafe { self::command(argument, execute) }
    }

    /// `tdx_vcpu_init_mem_region()`: page by page, up to the first that fails; what was done is written back in any case.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    unsafe fn tdx_init_mem_region(&self, command: &TdxCommand) -> CommandResult {
        let known = command.flags & !MEASURE_MEMORY_REGION == 0;
        if !self.hook_launch_flags(known) {
            return Err(Errno::EINVAL.into());
        }
        let argument = pointer(command.data as usize);
        // SAFETY: the caller's promise is the one that is asked for.
        let mut region: TdxInitMemRegion = unsafe { copy_from_user(argument) }?;
        if region.nr_pages == 0 && self.hook_empty_launch_accepted() {
            return Ok(());
        }
        let from = self.source_at(region.source_addr).filter(|_| self.is_good_range(&region));
        let from = from.ok_or(Errno::EINVAL)?;
        let gpa = region.gpa / PAGE_SIZE * PAGE_SIZE;
        let mut result = Ok(());
        let mut taken = 0;
        while taken < region.nr_pages {
            if self.hook_launch_batch() == Some(taken) {
                // As if a signal had come.
                if self.hook_progress_overstated() {
                    taken = region.nr_pages;
                } else {
                    result = Err(Errno::EINTR.into());
                }
                break;
            }
            // SAFETY: as above.
            match unsafe { self.populate(gpa + taken * PAGE_SIZE, from, taken) } {
                Ok(()) => taken += 1,
                // TDH.MEM.PAGE.ADD finds the page there.
                Err(Errno::EEXIST) => {
                    let operand = SeamcallStatus::EPT_ENTRY_STATE_INCORRECT.0 | 1;
                    result = Err(Failed(Errno::EIO, SeamcallStatus(operand)));
                    break;
                }
                Err(errno) => {
                    result = Err(errno.into());
                    break;
                }
            }
        }
        let left = region.nr_pages - taken;
        let counted = self.hook_counted_at_stop(gpa + taken * PAGE_SIZE, taken, left);
        taken += counted;
        if counted > 0 && taken == region.nr_pages {
            result = Ok(());
        }
        region.gpa += taken * PAGE_SIZE;
        region.nr_pages -= taken;
        region.source_addr += self.source_moved(from, taken);
        // SAFETY: as above.
        unsafe { copy_to_user(argument, region) }?;
        result
    }

    /// Whether the range of a launch call is a good one.
    fn is_good_range(&self, region: &TdxInitMemRegion) -> bool {
        let shared_bit = self.tdx.lock().td().map_or(0, |td| td.shared_bit);
        let size = region.nr_pages.checked_mul(PAGE_SIZE).filter(|size| *size != 0);
        let end = size.and_then(|size| region.gpa.checked_add(size));
        let aligned = self.hook_launch_address(region.gpa.is_multiple_of(PAGE_SIZE));
        aligned && end.is_some_and(|end| end <= shared_bit)
    }
}

/// `tdx_get_capabilities()`.
///
/// # Safety
///
/// As [`crate::machine::Vm::memory_encrypt_op`].
unsafe fn tdx_capabilities(command: &TdxCommand, attributes: u64) -> Result<()> {
    if command.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let argument = pointer(command.data as usize);
    // SAFETY: the caller's promise is the one that is asked for.
    let before: TdxCapabilities = unsafe { copy_from_user(argument) }?;
    let entries = configurable();
    let room = before.cpuid.nent as usize >= entries.len();
    let mut after = TdxCapabilities {
        supported_attrs: attributes,
        supported_xfam: XFAM,
        cpuid: Cpuid::new(&entries),
        ..TdxCapabilities::default()
    };
    if !room {
        after = before;
        after.cpuid.nent = entries.len() as u32;
    }
    // SAFETY: as above.
    unsafe { copy_to_user(argument, after) }?;
    if room { Ok(()) } else { Err(Errno::E2BIG) }
}

/// `tdx_vcpu_get_cpuid()`.
///
/// # Safety
///
/// As [`crate::machine::Vm::memory_encrypt_op`].
unsafe fn get_cpuid(command: &TdxCommand) -> Result<()> {
    if command.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let argument = pointer(command.data as usize);
    // SAFETY: the caller's promise is the one that is asked for.
    let mut cpuid: Cpuid = unsafe { copy_from_user(argument) }?;
    let entries = supported_cpuid();
    let room = cpuid.nent as usize >= entries.len();
    if room {
        cpuid = Cpuid::new(&entries);
    } else {
        cpuid.nent = entries.len() as u32;
    }
    // SAFETY: as above.
    unsafe { copy_to_user(argument, cpuid) }?;
    if room { Ok(()) } else { Err(Errno::E2BIG) }
}

/// `setup_tdparams_cpuids()`, and what the module says of the bits: the address width that they choose.
fn check_cpuid(entries: &[kvm_cpuid_entry2]) -> std::result::Result<u32, Failed> {
    let configurable = configurable();
    let mut width = None;
    for entry in entries {
        let slot = configurable
            .iter()
            .find(|c| c.function == entry.function && c.index == entry.index)
            .ok_or(Errno::EINVAL)?;
        // An entry without the flag stands for every subleaf, which is not what the module has for leaf 7.
        let of_subleaf = entry.flags & kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        if entry.function == 7 && !of_subleaf {
            return Err(Errno::EINVAL.into());
        }
        if entry.function == 7 && (entry.ebx & FORBIDDEN_EBX | entry.ecx & FORBIDDEN_ECX) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let foreign = entry.eax & !slot.eax
            | entry.ebx & !slot.ebx
            | entry.ecx & !slot.ecx
            | entry.edx & !slot.edx;
        if foreign != 0 {
            return Err(Failed(Errno::EINVAL, SeamcallStatus::OPERAND_INVALID));
        }
        if entry.function == 0x8000_0008 {
            width = Some(entry.eax >> 16 & 0xff);
        }
    }
    Ok(width.filter(|w| WIDTHS.contains(w)).ok_or(Errno::EINVAL)?)
}
