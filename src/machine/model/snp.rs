// SPDX-License-Identifier: GPL-2.0-only
//! The launch of an SEV-SNP guest: `sev_mem_enc_ioctl()` and the firmware behind it.

use std::ffi::c_void;
use std::os::fd::RawFd;
use std::ptr::with_exposed_provenance_mut as pointer;

use super::user::{Argument, copy_from_user, copy_to_user};
use super::vm::VmState;
use crate::dialect::Dialect;
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
        if !matches!(stage, Stage::Started | Stage::Finished) {
            return Err(Errno::EINVAL.into());
        }
        let argument = pointer(command.data as usize);
        // SAFETY: the caller's promise is the one that is asked for.
        let mut update: kvm_sev_snp_launch_update = unsafe { copy_from_user(argument) }?;
        let known = matches!(
            update.type_,
            PAGE_TYPE_NORMAL
                | PAGE_TYPE_ZERO
                | PAGE_TYPE_UNMEASURED
                | PAGE_TYPE_SECRETS
                | PAGE_TYPE_CPUID
        );
        let zero = update.type_ == PAGE_TYPE_ZERO;
        // 0, where it is allowed: what the page holds is the source.
        let in_place =
            update.uaddr == 0 && matches!(self.config.dialect, Dialect::RfcV5 | Dialect::Upstream);
        let has_source =
            zero || in_place || update.uaddr != 0 && update.uaddr.is_multiple_of(PAGE_SIZE);
        let good = known
            && has_source
            && update.flags == 0
            && update.len != 0
            && update.len.is_multiple_of(PAGE_SIZE);
        let gpa = update.gfn_start.wrapping_mul(PAGE_SIZE);
        let Some((_, _, in_slot)) = self.gmem_page(gpa).filter(|_| good) else {
            return Err(Errno::EINVAL.into());
        };
        self.check_sev_fd(command)?;

        let source = update.uaddr;
        let pages = (update.len / PAGE_SIZE).min(in_slot);
        for done in 0..pages {
            let at = done * PAGE_SIZE;
            // SAFETY: as above.
            let result = unsafe {
                match (zero, in_place) {
                    (true, _) => self.populate_zeros(gpa + at),
                    (_, true) => self.populate_in_place(gpa + at),
                    _ => self.populate_from(gpa + at, source.wrapping_add(at)),
                }
            };
            let failed = match (stage, result) {
                (Stage::Finished, _) => firmware(FirmwareStatus::INVALID_GUEST_STATE),
                (_, Err(_)) => firmware(FirmwareStatus::SUCCESS),
                (_, Ok(())) => {
                    update.gfn_start += 1;
                    update.len -= PAGE_SIZE;
                    if !zero && !in_place {
                        update.uaddr += PAGE_SIZE;
                    }
                    continue;
                }
            };
            if done == 0 {
                return Err(failed);
            }
            break;
        }
        // SAFETY: as above.
        Ok(unsafe { copy_to_user(argument, update) }?)
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
            Stage::Finished => return Err(firmware(FirmwareStatus::INVALID_GUEST_STATE)),
        }
        if finish.flags != 0 || finish.pad0 != [0; 3] || finish.pad1 != [0; 4] {
            return Err(Errno::EINVAL.into());
        }
        self.check_sev_fd(command)?;
        *stage = Stage::Finished;
        self.protection.set_launched();
        Ok(())
    }

    /// Whether a command's file is /dev/sev.
    fn check_sev_fd(&self, command: &kvm_sev_cmd) -> Result<()> {
        if self.sev.is(command.sev_fd as RawFd) { Ok(()) } else { Err(Errno::EBADF) }
    }
}
