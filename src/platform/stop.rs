// SPDX-License-Identifier: GPL-2.0-only
//! Running a vCPU to its next doorbell, and what may happen instead.

use std::fmt;
use std::time::Instant;

use super::mailbox::{self, AnswerError};
use super::memory::PayloadMemory;
use crate::errno::Errno;
use crate::machine::{Exit, Vcpu};
use crate::payload::abi::{DOORBELL_PORT, doorbell};
#[cfg(doc)]
use crate::uapi::MAP_GPA_RANGE_PAGE_SZ_2M;
use crate::uapi::{
    KVM_HC_MAP_GPA_RANGE, KVM_SYSTEM_EVENT_SEV_TERM, KVM_SYSTEM_EVENT_TDX_FATAL,
    MAP_GPA_RANGE_ENCRYPTED,
};

/// How often a vCPU that exits with `KVM_EXIT_MEMORY_FAULT` is run again, unless told otherwise. A guest access that races
/// with a conversion may exit so although nothing is wrong, because KVM looks at the attribute twice. Arbitrary: a race
/// with a single conversion does not repeat.
pub(super) const MEMORY_FAULT_RETRIES: u32 = 16;

/// Runs `vcpu`, whose payload is in `memory`, until it rings the doorbell with `message`; how often it had to be run again
/// after `KVM_EXIT_MEMORY_FAULT`, which is `limit` at most.
pub(super) fn run_until(
    vcpu: &mut dyn Vcpu,
    memory: &PayloadMemory,
    message: u32,
    limit: u32,
    deadline: Instant,
) -> Result<u32, GuestStop> {
    let mut retries = 0;
    loop {
        let exit = vcpu.run(deadline);
        return Err(match exit.map_err(|e| GuestStop::Failed("KVM_RUN", e))? {
            Exit::IoOut { port: DOORBELL_PORT, data } if data == message => return Ok(retries),
            Exit::IoOut { port: DOORBELL_PORT, data: doorbell::EXCEPTION } => {
                let [vector, error_code, rip, cr2] = mailbox::exception(memory);
                GuestStop::Exception { vector, error_code, rip, cr2 }
            }
            Exit::MemoryFault { .. } if retries < limit => {
                retries += 1;
                continue;
            }
            Exit::MemoryFault { flags, gpa, size } => GuestStop::MemoryFault { flags, gpa, size },
            Exit::Hypercall {
                number: KVM_HC_MAP_GPA_RANGE,
                args: [gpa, pages, attributes, ..],
            } => {
                let private = attributes & MAP_GPA_RANGE_ENCRYPTED != 0;
                let page_size = attributes & !MAP_GPA_RANGE_ENCRYPTED;
                GuestStop::MapGpa { gpa, pages, private, page_size }
            }
            Exit::SystemEvent { event, data } => GuestStop::Terminated { event, data },
            Exit::Dead => GuestStop::Dead,
            Exit::Mmio { gpa, write, .. } => GuestStop::Mmio { gpa, write },
            Exit::Shutdown => GuestStop::Shutdown,
            Exit::Interrupted => GuestStop::Hang { rip: vcpu.get_regs().ok().map(|regs| regs.rip) },
            other => GuestStop::Unexpected(format!("{other:?}")),
        });
    }
}

/// What happened instead of the guest's answer. Displayed as a noun: "failed to have the guest read page 3: ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestStop {
    /// `KVM_EXIT_MMIO`: an access to an address that no memslot backs.
    Mmio {
        /// Guest physical address.
        gpa: u64,
        /// Whether it was a write.
        write: bool,
    },
    /// `KVM_EXIT_MEMORY_FAULT`, again and again.
    MemoryFault {
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// Guest physical address.
        gpa: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The guest took an exception. Like an answer, this is what the guest says. Resumed, it ends itself.
    Exception {
        /// Vector.
        vector: u64,
        /// Error code, 0 where the vector has none.
        error_code: u64,
        /// The instruction that faulted.
        rip: u64,
        /// CR2, the address for a page fault.
        cr2: u64,
    },
    /// `KVM_EXIT_HYPERCALL`: the guest asks the host to convert memory. Not a failure: see [`super::Guest::command`].
    MapGpa {
        /// Guest physical address.
        gpa: u64,
        /// Number of 4 KiB pages.
        pages: u64,
        /// To private, or to shared.
        private: bool,
        /// All other bits of the attributes: the page size that is preferred, [`MAP_GPA_RANGE_PAGE_SZ_2M`] and the like, 0
        /// for 4 KiB.
        page_size: u64,
    },
    /// `KVM_EXIT_SYSTEM_EVENT`: an encrypted guest has asked to be ended.
    Terminated {
        /// `KVM_SYSTEM_EVENT_*`.
        event: u32,
        /// What comes with the event: the GHCB MSR's value, or the registers of a TD.
        data: Vec<u64>,
    },
    /// `KVM_RUN` failed with EIO: the VM is lost. A TD's access to a page that it has not accepted ends so.
    Dead,
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    Shutdown,
    /// The deadline passed.
    Hang {
        /// Where the guest was, if the registers can be read.
        rip: Option<u64>,
    },
    /// An exit that nothing here asked for, described.
    Unexpected(String),
    /// A call failed: its name, and why.
    Failed(&'static str, Errno),
    /// The guest rang the doorbell without having answered.
    BadAnswer(AnswerError),
}

impl GuestStop {
    /// Whether the vCPU may be run again to go on with what it was at.
    pub(super) fn can_go_on(&self) -> bool {
        match self {
            GuestStop::MapGpa { .. }
            | GuestStop::MemoryFault { .. }
            | GuestStop::Mmio { .. }
            | GuestStop::Hang { .. }
            | GuestStop::Exception { .. } => true,
            GuestStop::Terminated { .. }
            | GuestStop::Dead
            | GuestStop::Shutdown
            | GuestStop::Unexpected(_)
            | GuestStop::Failed(..)
            | GuestStop::BadAnswer(_) => false,
        }
    }
}

impl fmt::Display for GuestStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestStop::Mmio { gpa, write } => {
                let access = if *write { "write" } else { "read" };
                write!(f, "KVM_EXIT_MMIO for a {access} at guest physical address {gpa:#x}")
            }
            GuestStop::MemoryFault { flags, gpa, size } => write!(
                f,
                "KVM_EXIT_MEMORY_FAULT at guest physical address {gpa:#x}, {size:#x} bytes, flags {flags:#x}"
            ),
            GuestStop::Exception { vector, error_code, rip, cr2 } => write!(
                f,
                "exception {vector} in the guest, error code {error_code:#x}, RIP {rip:#x}, CR2 {cr2:#x}"
            ),
            GuestStop::MapGpa { gpa, pages, private, .. } => {
                let to = if *private { "private" } else { "shared" };
                write!(f, "the guest asks for {pages} pages at {gpa:#x} to be made {to}")
            }
            GuestStop::Terminated { event: KVM_SYSTEM_EVENT_SEV_TERM, data } => {
                let msr = data.first().copied().unwrap_or(0);
                let (set, code) = (msr >> 12 & 0xf, msr >> 16 & 0xff);
                write!(f, "the guest ended itself, reason set {set:#x}, code {code:#x}")
            }
            GuestStop::Terminated { event: KVM_SYSTEM_EVENT_TDX_FATAL, data } => {
                let code = data.get(12).copied().unwrap_or(0);
                write!(f, "the guest reported a fatal error, code {code:#x}")
            }
            GuestStop::Terminated { event, data } => {
                write!(f, "KVM_EXIT_SYSTEM_EVENT of type {event}, data {data:x?}")
            }
            GuestStop::Dead => f.write_str("KVM_RUN: EIO, the VM is dead"),
            GuestStop::Shutdown => f.write_str("KVM_EXIT_SHUTDOWN, a triple fault"),
            GuestStop::Hang { rip: Some(rip) } => {
                write!(f, "no answer before the deadline, RIP {rip:#x}")
            }
            GuestStop::Hang { rip: None } => f.write_str("no answer before the deadline"),
            GuestStop::Unexpected(exit) => write!(f, "unexpected exit: {exit}"),
            GuestStop::Failed(call, errno) => write!(f, "{call}: {errno}"),
            GuestStop::BadAnswer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GuestStop {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;
    use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};

    /// A vCPU that exits as it is told, and whose registers cannot be read.
    struct Scripted(std::vec::IntoIter<machine::Result<Exit>>);

    impl Vcpu for Scripted {
        fn set_cpuid2(&self, _: &[kvm_cpuid_entry2]) -> machine::Result<()> {
            Err(Errno::EINVAL)
        }
        fn pre_fault_memory(&self, _: u64, _: u64) -> machine::Result<u64> {
            Err(Errno::EINVAL)
        }
        fn set_runnable(&self) -> machine::Result<()> {
            Err(Errno::EINVAL)
        }
        fn get_sregs(&self) -> machine::Result<kvm_sregs> {
            Err(Errno::EINVAL)
        }
        fn set_sregs(&self, _: &kvm_sregs) -> machine::Result<()> {
            Err(Errno::EINVAL)
        }
        fn get_regs(&self) -> machine::Result<kvm_regs> {
            Err(Errno::EINVAL)
        }
        fn set_regs(&self, _: &kvm_regs) -> machine::Result<()> {
            Err(Errno::EINVAL)
        }
        unsafe fn memory_encrypt_op(&self, _: *mut std::ffi::c_void) -> machine::Result<()> {
            Err(Errno::ENOTTY)
        }
        fn set_hypercall_result(&mut self, _: u64) {}
        fn run(&mut self, _: Instant) -> machine::Result<Exit> {
            self.0.next().unwrap_or(Err(Errno::EIO))
        }
    }

    fn run(exits: Vec<machine::Result<Exit>>) -> Result<u32, GuestStop> {
        let memory = PayloadMemory::new().unwrap();
        let mut vcpu = Scripted(exits.into_iter());
        run_until(&mut vcpu, &memory, doorbell::DONE, MEMORY_FAULT_RETRIES, Instant::now())
    }

    fn out(port: u16, data: u32) -> machine::Result<Exit> {
        Ok(Exit::IoOut { port, data })
    }

    const FAULT: Exit = Exit::MemoryFault { flags: 8, gpa: 0x1000, size: 0x1000 };

    /// A memory fault that goes away is a race and is counted; one that stays is reported with its numbers.
    #[test]
    fn memory_faults_are_retried_so_often() {
        let limit = MEMORY_FAULT_RETRIES as usize;
        let mut exits = vec![Ok(FAULT); limit];
        exits.push(out(DOORBELL_PORT, doorbell::DONE));
        assert_eq!(run(exits), Ok(MEMORY_FAULT_RETRIES));

        let mut exits = vec![Ok(FAULT); limit + 1];
        exits.push(out(DOORBELL_PORT, doorbell::DONE));
        let fault = GuestStop::MemoryFault { flags: 8, gpa: 0x1000, size: 0x1000 };
        assert_eq!(run(exits), Err(fault));
    }

    /// Only the doorbell that is waited for ends a run well: no other message, no other port.
    #[test]
    fn other_exits_are_not_the_doorbell() {
        assert_eq!(run(vec![out(DOORBELL_PORT, doorbell::DONE)]), Ok(0));
        for exit in [
            out(DOORBELL_PORT, doorbell::READY),
            out(DOORBELL_PORT + 1, doorbell::DONE),
            Ok(Exit::Hlt),
            Ok(Exit::Other("exit reason 99".to_string())),
        ] {
            let stop = run(vec![exit, out(DOORBELL_PORT, doorbell::DONE)]);
            assert!(matches!(stop, Err(GuestStop::Unexpected(_))), "{stop:?}");
        }
        let failed = GuestStop::Failed("KVM_RUN", Errno::EINVAL);
        assert_eq!(run(vec![Err(Errno::EINVAL)]), Err(failed));
        let hang = GuestStop::Hang { rip: None };
        assert_eq!(run(vec![Ok(Exit::Interrupted)]), Err(hang));
    }
}
