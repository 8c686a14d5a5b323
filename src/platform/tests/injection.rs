// SPDX-License-Identifier: GPL-2.0-only
//! Launches in which calls fail, stop halfway, or have to be given again.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs;
use std::rc::Rc;

use super::support::*;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::{GuestCommand, LaunchError, Platform};
use crate::uapi::PAGE_SIZE;
use crate::uapi::sev::*;
use crate::uapi::tdx::*;

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

/// Names of the calls of a launch that succeeds.
fn calls(platform: Platform, dialect: Dialect) -> Vec<&'static str> {
    let machine = Scripted::new(dialect, |_| None);
    launch(&machine, platform).expect("a launch");
    machine.log()
}

/// Whichever call of a launch fails, the launch fails with the call's errno, says what the call was for, and leaves
/// nothing behind. Only a refused content mode is no failure: the contents are then copied.
#[test]
fn every_call_may_fail() {
    // In a process of its own: other tests open files, too.
    in_a_child(fail_each_call).expect("the test passes");
}

fn fail_each_call() {
    for platform in ENCRYPTED {
        for dialect in Dialect::ALL {
            let calls = calls(platform, dialect);
            assert!(calls.len() > 15, "{calls:?}");
            let before = open_files();
            for (n, name) in calls.iter().enumerate() {
                let machine =
                    Scripted::new(dialect, move |call| (call.number == n).then_some(Errno::ENOSPC));
                let Err(error) = launch(&machine, platform) else {
                    panic!("{platform} {dialect}: {name}, call {n}, may fail unnoticed");
                };
                let text = error.to_string();
                assert!(text.contains("ENOSPC"), "{name}: {text}");
                let named = match *name {
                    "open_sev" => "/dev/sev",
                    "mmap" => "mmap",
                    _ => "KVM_",
                };
                assert!(text.contains(named), "{name}: {text}");
                drop(machine);
                assert_eq!(open_files(), before, "{name} leaks files");
            }
        }
    }
}

/// What KVM cannot do at once it does bit by bit, and the launch goes on where it stopped, with the right contents.
#[test]
fn progress_is_partial() {
    for platform in ENCRYPTED {
        for dialect in Dialect::ALL {
            let machine = Scripted::around(
                dialect,
                |_| None,
                move |command, call| {
                    // SAFETY: the launches give valid commands, and nothing else is looking at them.
                    unsafe { one_page_at_a_time(platform, command.cast(), call) }
                },
            );
            let mut guest = launch(&machine, platform).expect("a launch");
            let image = image(platform);
            // The word in the middle of its second page.
            let at = PAGE_SIZE as usize + 2048;
            if let Some(bytes) = image.get(at..at + 8) {
                let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                let address = crate::payload::abi::IMAGE + at as u64;
                let answer =
                    guest.command(GuestCommand::Read { address }, soon()).expect("an answer");
                assert_eq!(answer.found, word, "{platform} {dialect}");
            }
        }
    }
}

/// Passes only the first page of a launch command to the machine. The other pages are then left to do, as after a
/// signal.
///
/// # Safety
///
/// `command` is a valid command of a launch.
unsafe fn one_page_at_a_time(
    platform: Platform,
    command: *mut u64,
    call: &mut dyn FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    // SAFETY: the id is a command's first half word, and the data its second word.
    let (id, data) = unsafe { (command.cast::<u32>().read(), command.add(1).read()) };
    let data = std::ptr::with_exposed_provenance_mut::<u8>(data as usize);
    match (platform, id) {
        (Platform::Snp, KVM_SEV_SNP_LAUNCH_UPDATE) => {
            let data: *mut kvm_sev_snp_launch_update = data.cast();
            // SAFETY: an update's data is this structure.
            unsafe {
                let rest = (*data).len - PAGE_SIZE;
                (*data).len = PAGE_SIZE;
                let result = call();
                (*data).len += rest;
                result
            }
        }
        (Platform::Tdx, KVM_TDX_INIT_MEM_REGION) => {
            let data: *mut TdxInitMemRegion = data.cast();
            // SAFETY: this command's data is this structure.
            unsafe {
                let rest = (*data).nr_pages - 1;
                (*data).nr_pages = 1;
                let result = call();
                (*data).nr_pages += rest;
                // That it was interrupted is an error, with the progress written back all the same.
                if rest > 0 { result.and(Err(Errno::EINTR)) } else { result }
            }
        }
        _ => call(),
    }
}

/// The payload is launched from a copy in every revision: whether launch calls do without a source is for cases to try.
#[test]
fn the_payload_is_launched_from_a_copy() {
    for (platform, dialect) in
        ENCRYPTED.into_iter().flat_map(|platform| Dialect::ALL.map(|dialect| (platform, dialect)))
    {
        let sources = Rc::new(Cell::new(0));
        let count = Rc::clone(&sources);
        let around = move |command: *mut c_void, call: &mut dyn FnMut() -> Result<(), Errno>| {
            let command = command.cast::<u64>();
            // SAFETY: the id is a command's first half word, and the data its second word.
            let (id, data) = unsafe { (command.cast::<u32>().read(), command.add(1).read()) };
            let data = std::ptr::with_exposed_provenance::<u64>(data as usize);
            // The source is the second word of an update and the first of a region.
            let source = match (platform, id) {
                // SAFETY: an update's data is kvm_sev_snp_launch_update.
                (Platform::Snp, KVM_SEV_SNP_LAUNCH_UPDATE) => unsafe { data.add(1).read() },
                // SAFETY: this command's data is kvm_tdx_init_mem_region.
                (Platform::Tdx, KVM_TDX_INIT_MEM_REGION) => unsafe { data.read() },
                _ => return call(),
            };
            assert_ne!(source, 0, "{platform} {dialect}");
            count.set(count.get() + 1);
            call()
        };
        let machine = Scripted::around(dialect, |_| None, around);
        launch(&machine, platform).expect("a launch");
        assert!(sources.get() >= 2, "{platform} {dialect}");
    }
}

/// A launch command that is interrupted or finds something busy is given again.
#[test]
fn transient_errors_are_retried() {
    let commands: [(Platform, &[(u32, Errno)]); 2] = [
        (
            Platform::Snp,
            &[
                (KVM_SEV_SNP_LAUNCH_UPDATE, Errno::EAGAIN),
                (KVM_SEV_SNP_LAUNCH_UPDATE, Errno::EINTR),
                (KVM_SEV_SNP_LAUNCH_FINISH, Errno::EBUSY),
            ],
        ),
        (
            Platform::Tdx,
            &[
                (KVM_TDX_INIT_VM, Errno::EAGAIN),
                (KVM_TDX_INIT_MEM_REGION, Errno::EINTR),
                (KVM_TDX_INIT_MEM_REGION, Errno::EAGAIN),
                (KVM_TDX_FINALIZE_VM, Errno::EBUSY),
            ],
        ),
    ];
    for (platform, commands) in commands {
        for (id, errno) in commands {
            let left = Rc::new(Cell::new(3));
            let failures = Rc::clone(&left);
            let machine = Scripted::new(Dialect::Upstream, move |call| {
                let fails = call.command == Some(*id) && failures.get() > 0;
                failures.set(failures.get() - u32::from(fails));
                fails.then_some(*errno)
            });
            assert!(launch(&machine, platform).is_ok(), "{platform} {id} {errno}");
            assert_eq!(left.get(), 0, "{platform} {id} {errno} was not given");
        }
    }
}

/// A command that claims success without having done anything does not keep the launch for ever.
#[test]
fn no_progress_is_an_error() {
    let update = KVM_SEV_SNP_LAUNCH_UPDATE;
    for (platform, command) in [(Platform::Snp, update), (Platform::Tdx, KVM_TDX_INIT_MEM_REGION)] {
        let machine = Scripted::around(
            Dialect::Upstream,
            |_| None,
            move |argument, call| {
                // SAFETY: both command structures start with their id.
                let id = unsafe { argument.cast::<u32>().read() };
                if id == command { Ok(()) } else { call() }
            },
        );
        let error = launch(&machine, platform).err();
        assert!(matches!(error, Some(LaunchError::NoProgress { .. })), "{error:?}");
    }
}

/// What firmware and module say is in the message, by name.
#[test]
fn statuses_are_decoded() {
    let fail = |platform, command: u32, status: u64| {
        let machine = Scripted::around(
            Dialect::Upstream,
            |_| None,
            move |argument, call| {
                // SAFETY: both command structures start with their id, and have their status in the third word.
                unsafe {
                    if argument.cast::<u32>().read() != command {
                        return call();
                    }
                    let third = argument.cast::<u64>().add(2);
                    third.write(third.read() & !0xffff_ffff | status);
                }
                Err(Errno::EIO)
            },
        );
        launch(&machine, platform).err().expect("the launch fails").to_string()
    };
    insta::assert_snapshot!(fail(Platform::Snp, KVM_SEV_SNP_LAUNCH_START, 7), @"start the launch with KVM_SEV_SNP_LAUNCH_START: EIO, firmware status 0x7 POLICY_FAILURE");
    insta::assert_snapshot!(fail(Platform::Snp, KVM_SEV_SNP_LAUNCH_UPDATE, 0), @"launch the payload's pages with KVM_SEV_SNP_LAUNCH_UPDATE: EIO");
    insta::assert_snapshot!(fail(Platform::Snp, KVM_SEV_SNP_LAUNCH_FINISH, 0x7777), @"finish the launch with KVM_SEV_SNP_LAUNCH_FINISH: EIO, firmware status 0x7777");
    insta::assert_snapshot!(fail(Platform::Tdx, KVM_TDX_INIT_VM, 0xc000_0100_0000_0009), @"make the VM a TD with KVM_TDX_INIT_VM: EIO, SEAMCALL status 0xc000010000000009 OPERAND_INVALID");
    insta::assert_snapshot!(fail(Platform::Tdx, KVM_TDX_FINALIZE_VM, 0), @"finish the launch with KVM_TDX_FINALIZE_VM: EIO");
}
