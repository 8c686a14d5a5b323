// SPDX-License-Identifier: GPL-2.0-only
//! vCPUs that are in the guest and do nothing there: what a conversion costs may depend on how many there are.

use std::thread;
use std::time::Instant;

use kvm_bindings::kvm_cpuid_entry2;

use super::launch_error::LaunchError;
use super::memory::PayloadMemory;
use super::plain;
use super::stop::GuestStop;
use crate::machine::{Exit, Vm};
use crate::payload::abi::{DOORBELL_PORT, PAGE_TABLES_END, doorbell};

/// Where the code goes: a page between mailbox and image that nobody uses.
const CODE: u64 = PAGE_TABLES_END + 0x1_0000;
/// A word that each vCPU adds 1 to when it begins.
const STARTED: u64 = CODE + 0x800;
/// A word that is not 0 when they are to leave the guest.
const LEAVE: u64 = CODE + 0x808;

/// What they execute: they wait, without leaving the guest, and then ring the doorbell.
fn code() -> Vec<u8> {
    let mut code = vec![0xf0, 0xff, 0x04, 0x25]; // lock inc dword [STARTED]
    code.extend((STARTED as u32).to_le_bytes());
    code.extend([0xf3, 0x90]); // wait: pause
    code.extend([0x83, 0x3c, 0x25]); // cmp dword [LEAVE], 0
    code.extend((LEAVE as u32).to_le_bytes());
    code.extend([0x00, 0x74, 0xf4]); // je wait
    code.extend([0x66, 0xba]); // mov dx, DOORBELL_PORT
    code.extend(DOORBELL_PORT.to_le_bytes());
    code.push(0xb8); // mov eax, DONE
    code.extend(doorbell::DONE.to_le_bytes());
    code.push(0xef); // out dx, eax
    code
}

/// Runs `count` vCPUs of `vm`, numbered from 1, and does `work` while all of them are in the guest. A thread of its own
/// creates and runs each vCPU. Every vCPU leaves the guest at `deadline` at the latest.
pub(super) fn while_running<R>(
    vm: &dyn Vm,
    memory: &mut PayloadMemory,
    cpuid: &[kvm_cpuid_entry2],
    count: u32,
    deadline: Instant,
    work: impl FnOnce() -> R,
) -> Result<R, LaunchError> {
    memory.load(CODE, &code());
    memory.write(STARTED, 0);
    memory.write(LEAVE, 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=u64::from(count))
            .map(|id| {
                scope.spawn(move || -> Result<(), LaunchError> {
                    let mut vcpu = plain::create_vcpu(vm, id, cpuid)?;
                    plain::set_registers(&*vcpu, CODE)?;
                    let stop = match vcpu.run(deadline) {
                        Ok(Exit::IoOut { port: DOORBELL_PORT, data: doorbell::DONE }) => {
                            return Ok(());
                        }
                        Ok(Exit::Interrupted) => GuestStop::Hang { rip: None },
                        Ok(other) => GuestStop::Unexpected(format!("{other:?}")),
                        Err(errno) => GuestStop::Failed("KVM_RUN", errno),
                    };
                    Err(LaunchError::Stopped(stop))
                })
            })
            .collect();
        let all_run = || memory.read(STARTED) == u64::from(count);
        while !all_run() && !threads.iter().any(|t| t.is_finished()) && Instant::now() < deadline {
            thread::yield_now();
        }
        let done = all_run().then(work);
        memory.write(LEAVE, 1);
        for thread in threads {
            thread.join().unwrap_or_else(|_| Err(stopped("a thread of a vCPU panicked")))?;
        }
        done.ok_or_else(|| stopped("the vCPUs did not begin in time"))
    })
}

fn stopped(why: &str) -> LaunchError {
    LaunchError::Stopped(GuestStop::Unexpected(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    /// The bytes are the instructions that stand beside them, and the jump goes to the one that it should.
    #[test]
    fn the_code_is_what_it_says() {
        let code = code();
        let decoded: Vec<String> = Decoder::with_ip(64, &code, CODE, DecoderOptions::NONE)
            .iter()
            .map(|i| i.to_string())
            .collect();
        assert_eq!(
            decoded,
            [
                "lock inc dword ptr [90800h]",
                "pause",
                "cmp dword ptr [90808h],0",
                "je short 0000000000090008h",
                "mov dx,6D0h",
                "mov eax,600D0002h",
                "out dx,eax",
            ]
        );
    }
}
