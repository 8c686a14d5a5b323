// SPDX-License-Identifier: GPL-2.0-only
//! The system file descriptor.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_device_attr};
use kvm_ioctls::Kvm;
use libc::c_ulong;

use super::vm::HostVm;
use crate::errno::Errno;
use crate::machine::{Machine, Result, Vm};
use crate::uapi::KVM_GET_DEVICE_ATTR;

/// KVM, by its device file. Closed when dropped.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens the device file, usually `/dev/kvm`. EINVAL for a path that contains a NUL, otherwise what open(2) says.
    pub fn open(path: impl AsRef<Path>) -> Result<Host> {
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let fd = Kvm::open_with_cloexec_at(&path, true)?;
        // SAFETY: `fd` was opened in the line above and belongs to nobody else. Should the file not be KVM's, each call
        // will fail with ENOTTY.
        let kvm = unsafe { Kvm::from_raw_fd(fd) };
        Ok(Host { kvm })
    }
}

impl Machine for Host {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        non_negative(self.kvm.check_extension_raw(c_ulong::from(capability)))
    }

    fn get_supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        let cpuid = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        Ok(cpuid.as_slice().to_vec())
    }

    fn get_device_attr(&self, group: u32, attribute: u64) -> Result<u64> {
        let mut value = 0u64;
        let argument = kvm_device_attr {
            group,
            attr: attribute,
            addr: (&raw mut value) as u64,
            ..Default::default()
        };
        // SAFETY: KVM reads the 24 bytes of `argument` and writes `value`, whose address is in it: every attribute of
        // /dev/kvm is a word.
        let result =
            unsafe { libc::ioctl(self.kvm.as_raw_fd(), KVM_GET_DEVICE_ATTR, &raw const argument) };
        non_negative(result)?;
        Ok(value)
    }

    fn open_sev(&self) -> Result<OwnedFd> {
        // Close-on-exec, as all files of std are.
        let file = OpenOptions::new().read(true).write(true).open("/dev/sev");
        file.map(OwnedFd::from).map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn create_vm(&self, vm_type: u64) -> Result<Box<dyn Vm>> {
        Ok(Box::new(HostVm::new(self.kvm.create_vm_with_type(vm_type)?)))
    }
}

/// What a call that has just returned `value` means: below 0, that errno says why it failed.
pub(super) fn non_negative(value: i32) -> Result<i32> {
    if value < 0 {
        return Err(Errno::last());
    }
    Ok(value)
}
