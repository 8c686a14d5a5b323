// SPDX-License-Identifier: GPL-2.0-only
//! The launch of an SEV-SNP guest: `sev_mem_enc_ioctl()` and the firmware behind it.

use std::ffi::c_void;
use std::os::fd::RawFd;
use std::ptr::with_exposed_provenance_mut as pointer;

use super::launch::Contents;
use super::user::{Argument, copy_from_user, copy_to_user};
use super::vm::VmState;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::PAGE_SIZE;
use crate::uapi::sev::*;

/// What INIT2 takes as VMSA features: SNP guests can have debug registers swapped, as on Zen 4.
pub(super) const VMSA_FEATURES: u64 = 1 << 5;
/// The policy bits that KVM lets through: ABI version, SMT, the reserved one, debugging, a single socket.
pub(super) const POLICY_BITS: u64 = 0xffff | POLICY_SMT | POLICY_RESERVED | 1 << 19 | 1 << 20;
/// Position of the C-bit.
pub(super) const C_BIT: u32 = 51;

/// How far a launch has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// An SNP VM that is no guest yet.
    #[default]
    Created,
    /// After INIT2.
    Initialized,
    /// After LAUNCH_START: the firmware has a context.
    Started,
    /// After LAUNCH_FINISH.
    Finished,
}

/// Why a command failed: its error, and what goes into `kvm_sev_cmd::error`.
struct Failed(Errno, FirmwareStatus);

impl From<Errno> for Failed {
    /// The kernel refused; the firmware was not asked.
    fn from(errno: Errno) -> Failed {
        Failed(errno, FirmwareStatus::SUCCESS)
    }
}

/// The firmware refused.
fn firmware(status: FirmwareStatus) -> Failed {
    Failed(Errno::EIO, status)
}

/// Reads the structure that a command's data is the address of.
///
/// # Safety
///
/// As [`copy_from_user`].
unsafe fn data<T: Argument>(command: &kvm_sev_cmd) -> Result<T> {
    // SAFETY: the caller's promise is the one that is asked for.
    unsafe { copy_from_user(pointer(command.data as usize)) }
}

impl VmState {
    /// `KVM_MEMORY_ENCRYPT_OP` on an SNP VM.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    pub(super) unsafe fn sev_command(&self, argument: *mut c_void) -> Result<()> {
        if argument.is_null() {
            return Ok(());
        }
        let argument = argument.cast::<kvm_sev_cmd>();
        // SAFETY: the caller's promise is the one that is asked for.
        let mut command = unsafe { copy_from_user(argument) }?;
        let mut stage = self.snp.lock();
        // SNP guests have commands of their own.
        if *stage != Stage::Created && command.id < KVM_SEV_SNP_LAUNCH_START {
            return Err(Errno::EPERM);
        }
        let result = match command.id {
            KVM_SEV_INIT2 => {
                // SAFETY: as above; so for the others.
                let init = unsafe { data(&command) };
                init.and_then(|init| self.sev_init2(&mut stage, &init)).map_err(Failed::from)
            }
            KVM_SEV_SNP_LAUNCH_START => {
                // SAFETY: as above.
                let start = unsafe { data(&command) };
                start.map_err(Failed::from).and_then(|s| self.snp_start(&mut stage, &command, &s))
            }
            // SAFETY: as above.
            KVM_SEV_SNP_LAUNCH_UPDATE => unsafe { self.snp_update(*stage, &command) },
            KVM_SEV_SNP_LAUNCH_FINISH => {
                // SAFETY: as above.
                let finish = unsafe { data(&command) };
                finish.map_err(Failed::from).and_then(|f| self.snp_finish(&mut stage, &command, &f))
            }
            _ => Err(Errno::EINVAL.into()),
        };
        let (result, status) = match result {
            Ok(()) => (Ok(()), FirmwareStatus::SUCCESS),
            Err(Failed(errno, status)) => (Err(errno), status),
        };
        command.error = status.0;
        // SAFETY: as above.
        unsafe { copy_to_user(argument, command) }?;
        result
    }

    /// `sev_guest_init2()`.
    fn sev_init2(&self, stage: &mut Stage, init: &kvm_sev_init) -> Result<()> {
        let good = self.vcpu_count() == 0
            && init.flags == 0
            && init.vmsa_features & !VMSA_FEATURES == 0
            // 0 stands for the one that SNP guests speak.
            && matches!(init.ghcb_version, 0 | 2);
        if !good {
            return Err(Errno::EINVAL);
        }
        *stage = Stage::Initialized;
        Ok(())
    }

    /// `snp_launch_start()`.
    fn snp_start(
        &self,
        stage: &mut Stage,
        command: &kvm_sev_cmd,
        start: &kvm_sev_snp_launch_start,
    ) -> std::result::Result<(), Failed> {
        match *stage {
            Stage::Created => return Err(Errno::ENOTTY.into()),
            Stage::Initialized => {}
            Stage::Started | Stage::Finished => return Err(Errno::EINVAL.into()),
        }
        let good = start.flags == 0
            && start.policy & !POLICY_BITS == 0
            && start.policy & POLICY_RESERVED != 0;
        if !good {
            return Err(Errno::EINVAL.into());
        }
        self.check_sev_fd(command)?;
        // The model's cores have two threads each.
        if start.policy & POLICY_SMT == 0 {
            return Err(firmware(FirmwareStatus::POLICY_FAILURE));
        }
        *stage = Stage::Started;
        Ok(())
    }

    /// `snp_launch_update()`: page by page, up to the first that fails or the end of the memslot. What was done is written
    /// back, and the call fails only if that is nothing.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::Vm::memory_encrypt_op`].
    unsafe fn snp_update(
        &self,
        stage: Stage,
        command: &kvm_sev_cmd,
    ) -> std::result::Result<(), Failed> {
        let stage = match stage {
            Stage::Created | Stage::Initialized => return Err(Errno::EINVAL.into()),
            Stage::Finished if self.hook_launch_goes_on() => Stage::Started,
            Stage::Started | Stage::Finished => stage,
        };
        let argument = pointer(command.data as usize);
        // SAFETY: the caller's promise is the one that is asked for.
        let mut update: kvm_sev_snp_launch_update = unsafe { copy_from_user(argument) }?;
        let from = match update.type_ {
            PAGE_TYPE_ZERO => Some(Contents::Zeros),
            _ => self.source_at(update.uaddr),
        };
        let from = from.filter(|_| self.is_good_update(&update)).ok_or(Errno::EINVAL)?;
        let gpa = update.gfn_start.wrapping_mul(PAGE_SIZE);
        let asked = update.len / PAGE_SIZE;
        let pages = match self.gmem_page(gpa) {
            Some((_, _, in_slot)) => asked.min(in_slot),
            None if self.hook_nowhere_refused() => return Err(Errno::EINVAL.into()),
            None => 0,
        };
        self.check_sev_fd(command)?;

        let mut taken = 0;
        while taken < pages {
            if self.hook_launch_batch() == Some(taken) {
                if self.hook_progress_overstated() {
                    taken = pages;
                }
                break;
            }
            let populated = match stage {
                // The firmware refuses, and the kernel takes the page back from the guest.
                Stage::Finished => Err(firmware(FirmwareStatus::INVALID_GUEST_STATE)),
                _ if update.type_ == PAGE_TYPE_CPUID && !self.is_cpuid_table(from.at(taken)) => {
                    Err(firmware(FirmwareStatus::INVALID_PARAM))
                }
                // SAFETY: as above.
                _ => unsafe { self.populate(gpa + taken * PAGE_SIZE, from, taken) }
                    .map_err(|_| firmware(FirmwareStatus::SUCCESS)),
            };
            match populated {
                Ok(()) => taken += 1,
                Err(failed) if taken == 0 => return Err(failed),
                Err(_) => break,
            }
        }
        taken += self.hook_counted_at_stop(gpa + taken * PAGE_SIZE, taken, asked - taken);
        update.gfn_start += taken;
        update.len -= taken * PAGE_SIZE;
        update.uaddr += self.source_moved(from, taken);
        // SAFETY: as above.
        Ok(unsafe { copy_to_user(argument, update) }?)
    }

    /// Whether type, flags and length of a launch call are good ones.
    fn is_good_update(&self, update: &kvm_sev_snp_launch_update) -> bool {
        let known = matches!(
            update.type_,
            PAGE_TYPE_NORMAL
                | PAGE_TYPE_ZERO
                | PAGE_TYPE_UNMEASURED
                | PAGE_TYPE_SECRETS
                | PAGE_TYPE_CPUID
        );
        let whole = update.len.is_multiple_of(PAGE_SIZE);
        self.hook_launch_type(known)
            && self.hook_launch_flags(update.flags == 0)
            && self.hook_launch_length(whole)
            && (update.len != 0 || self.hook_empty_launch_accepted())
    }

    /// `snp_launch_finish()`.
    fn snp_finish(
        &self,
        stage: &mut Stage,
        command: &kvm_sev_cmd,
        finish: &kvm_sev_snp_launch_finish,
    ) -> std::result::Result<(), Failed> {
        match *stage {
            Stage::Created => return Err(Errno::ENOTTY.into()),
            Stage::Initialized => return Err(Errno::EINVAL.into()),
            Stage::Started => {}
            Stage::Finished if self.hook_finished_again() => {}
            Stage::Finished => return Err(firmware(FirmwareStatus::INVALID_GUEST_STATE)),
        }
        if finish.flags != 0 || finish.pad0 != [0; 3] || finish.pad1 != [0; 4] {
            return Err(Errno::EINVAL.into());
        }
        self.check_sev_fd(command)?;
        if self.hook_busy() {
            return Err(Errno::EBUSY.into());
        }
        *stage = Stage::Finished;
        self.protection.set_launched();
        Ok(())
    }

    /// Whether a command's file is /dev/sev.
    fn check_sev_fd(&self, command: &kvm_sev_cmd) -> Result<()> {
        if self.sev.is(command.sev_fd as RawFd) { Ok(()) } else { Err(Errno::EBADF) }
    }
}
