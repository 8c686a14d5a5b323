// SPDX-License-Identifier: GPL-2.0-only
//! Why a guest could not be launched.

use std::fmt;

use super::stop::GuestStop;
use crate::errno::Errno;
use crate::uapi::sev::FirmwareStatus;
use crate::uapi::tdx::SeamcallStatus;

/// Why a guest could not be launched. Displayed to be read after "failed to".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// A call failed.
    Call {
        /// What it was to do, and its name.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A command of an SNP guest's launch failed.
    Firmware {
        /// What it was to do, and its name.
        what: &'static str,
        /// What KVM says.
        errno: Errno,
        /// What the firmware says; [`FirmwareStatus::SUCCESS`] if it had no part in it.
        status: FirmwareStatus,
    },
    /// A command of a TD's launch failed.
    Seamcall {
        /// What it was to do, and its name.
        what: &'static str,
        /// What KVM says.
        errno: Errno,
        /// What the TDX module says; [`SeamcallStatus::SUCCESS`] if it had no part in it.
        status: SeamcallStatus,
    },
    /// A command that does its work piece by piece claimed success, but had done nothing.
    NoProgress {
        /// What it was to do, and its name.
        what: &'static str,
    },
    /// The machine offers the platform, but not this part of it.
    Lacks(&'static str),
    /// The guest's page tables have no room for this range.
    NoRoom {
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Nobody can set the registers of an encrypted guest: it must be launched anew.
    CannotReset,
    /// The payload did not get as far as to wait for a command.
    Stopped(GuestStop),
    /// The same of an encrypted guest, every call of whose launch has succeeded.
    StoppedAfterLaunch(GuestStop),
}

impl LaunchError {
    /// The error number of the call that failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            LaunchError::Call { errno, .. }
            | LaunchError::Firmware { errno, .. }
            | LaunchError::Seamcall { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Call { what, errno } => write!(f, "{what}: {errno}"),
            LaunchError::Firmware { what, errno, status: FirmwareStatus::SUCCESS } => {
                write!(f, "{what}: {errno}")
            }
            LaunchError::Firmware { what, errno, status } => write!(f, "{what}: {errno}, {status}"),
            LaunchError::Seamcall { what, errno, status: SeamcallStatus::SUCCESS } => {
                write!(f, "{what}: {errno}")
            }
            LaunchError::Seamcall { what, errno, status } => write!(f, "{what}: {errno}, {status}"),
            LaunchError::NoProgress { what } => {
                write!(f, "{what}: it succeeds without doing anything")
            }
            LaunchError::Lacks(what) => write!(f, "find {what}"),
            LaunchError::NoRoom { gpa, size } => {
                write!(f, "map {size:#x} bytes at {gpa:#x} in the guest's page tables")
            }
            LaunchError::CannotReset => f.write_str("start an encrypted guest anew"),
            LaunchError::Stopped(stop) | LaunchError::StoppedAfterLaunch(stop) => {
                write!(f, "start the payload: {stop}")
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LaunchError::Call { errno, .. }
            | LaunchError::Firmware { errno, .. }
            | LaunchError::Seamcall { errno, .. } => Some(errno),
            LaunchError::Stopped(stop) | LaunchError::StoppedAfterLaunch(stop) => Some(stop),
            LaunchError::NoProgress { .. }
            | LaunchError::Lacks(_)
            | LaunchError::NoRoom { .. }
            | LaunchError::CannotReset => None,
        }
    }
}

/// Says what a call was for when it has failed.
pub(super) fn call<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, LaunchError> {
    result.map_err(|errno| LaunchError::Call { what, errno })
}
