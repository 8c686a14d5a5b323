// SPDX-License-Identifier: GPL-2.0-only
//! What one VM must not get of another.

use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM};

use super::case_end::CaseEnd;
use super::encrypted::suite;
use super::session::{After, Session, failed};
use crate::case::{OtherVmCall, Returns};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::uapi::PAGE_SIZE;

impl Session<'_> {
    /// Makes another VM of the same type, which tries `call`. That must be refused, and nothing may have changed.
    pub fn other_vm(
        &mut self,
        call: OtherVmCall,
        expect: Option<&Returns>,
    ) -> Result<After, CaseEnd> {
        let Some(allowed) = expect.map(|r| &r.any_of).filter(|any_of| !any_of.contains(&None))
        else {
            return Err(suite("of this call the clauses expect a refusal".into()));
        };
        let (clause, what) = match call {
            OtherVmCall::Slot => {
                (ClauseId::MemslotOtherVm, "a memslot of another VM's guest_memfd")
            }
            OtherVmCall::MoveContext => {
                (ClauseId::CocoContext, "to move a guest's encryption context into another VM")
            }
            OtherVmCall::CopyContext => {
                (ClauseId::CocoContext, "to copy a guest's encryption context into another VM")
            }
        };
        let vm = self.setup.machine.create_vm(self.setup.platform.vm_type());
        let vm = vm.map_err(|e| failed("KVM_CREATE_VM", e))?;
        let source = self.guest.vm().fd().as_raw_fd() as u64;
        let result = match call {
            OtherVmCall::Slot => {
                let region = self.region(0, 0, PAGE_SIZE, 0);
                // SAFETY: no vCPU of that VM runs, and the VM goes before the view, which is accessed through raw pointers
                // only.
                unsafe { vm.set_user_memory_region2(&region) }
            }
            OtherVmCall::MoveContext => {
                vm.enable_cap(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, [source, 0, 0, 0])
            }
            OtherVmCall::CopyContext => {
                vm.enable_cap(KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, [source, 0, 0, 0])
            }
        };
        let errno: Option<Errno> = result.err();
        if allowed.contains(&errno) {
            return Ok(After::Refused(clause));
        }
        // Whatever it has got of this VM.
        self.spoiled = true;
        let found = errno.map_or("success".to_string(), |errno| errno.to_string());
        let summary = format!("{what}: {found}");
        Err(CaseEnd::broken(clause, summary).but("a refusal", found))
    }
}
