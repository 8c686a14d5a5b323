// SPDX-License-Identifier: GPL-2.0-only
//! What every guest_memfd under test begins with: the file, a view of all of it, and a memslot.

use std::os::fd::AsRawFd;

use super::case_end::CaseEnd;
use super::session::{failed, wrongly_refused};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView, Vm};
use crate::payload::abi::TEST_MEMORY;
use crate::uapi::{KVM_MEM_GUEST_MEMFD, kvm_userspace_memory_region2};

/// A call of the set-up that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedCall {
    pub call: &'static str,
    pub errno: Errno,
    /// The clause that says that the call succeeds.
    clause: ClauseId,
}

impl FailedCall {
    /// The kernel should have taken the call.
    pub fn wrongly_refused(self) -> CaseEnd {
        wrongly_refused(self.clause, self.call, self.errno)
    }
}

impl From<FailedCall> for CaseEnd {
    fn from(FailedCall { call, errno, .. }: FailedCall) -> CaseEnd {
        failed(call, errno)
    }
}

/// Makes a guest_memfd of `size` bytes.
pub(crate) fn new_file(
    vm: &dyn Vm,
    size: u64,
    flags: u64,
) -> Result<Box<dyn GuestMemfd>, FailedCall> {
    let (call, clause) = ("KVM_CREATE_GUEST_MEMFD", ClauseId::CreateArguments);
    vm.create_guest_memfd(size, flags).map_err(|errno| FailedCall { call, errno, clause })
}

/// Maps all of a guest_memfd of `size` bytes.
pub(crate) fn map_all(gmem: &dyn GuestMemfd, size: u64) -> Result<Box<dyn HostView>, FailedCall> {
    let (call, clause) = ("mmap of the guest_memfd", ClauseId::DescriptorCalls);
    gmem.mmap(0, size).map_err(|errno| FailedCall { call, errno, clause })
}

/// Slot 0 over all of a guest_memfd and its view, where the memory under test begins.
pub(crate) fn whole_slot(
    gmem: &dyn GuestMemfd,
    view: &dyn HostView,
) -> kvm_userspace_memory_region2 {
    kvm_userspace_memory_region2 {
        slot: 0,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: TEST_MEMORY,
        memory_size: view.length(),
        userspace_addr: view.address() as u64,
        guest_memfd: gmem.fd().as_raw_fd() as u32,
        ..Default::default()
    }
}
