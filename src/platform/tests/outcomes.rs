// SPDX-License-Identifier: GPL-2.0-only
//! Every single call of both launches, made to fail in every way that KVM, firmware and module know: what becomes of it.

use std::collections::BTreeMap;
use std::fs;

use super::support::*;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::exec::launch_failed;
use crate::platform::{LaunchError, Platform, missing};
use crate::results::{Blame, Verdict};

/// What KVM's calls may fail with, transient errors and those that mean something to the launches included.
const ERRNOS: [Errno; 14] = [
    Errno::EPERM,
    Errno::ENOENT,
    Errno::EINTR,
    Errno::EIO,
    Errno::EBADF,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::EFAULT,
    Errno::EBUSY,
    Errno::EINVAL,
    Errno::ENOSPC,
    Errno::ENOTTY,
    Errno::EOPNOTSUPP,
    Errno::E2BIG,
];

/// What the firmware may say, with EIO: named codes, one without a name, and that it was never called.
const FIRMWARE: [u64; 8] = [1, 2, 7, 0xd, 0x16, 0x1a, 0x7777, 0xffff_ffff];
/// What the module may say.
const MODULE: [u64; 8] = [
    0xc000_0100_0000_0009,
    0x8000_0200_0000_0001,
    0x8000_0203_0000_0000,
    0xc000_0b0d_0000_0001,
    0xc000_0300_0000_0000,
    0x4000_0002_0000_0000,
    0x8000_ff00_0000_0000,
    0x1234_5678_0000_0000,
];

/// One failure of one call.
#[derive(Clone, Copy)]
struct Failure {
    call: usize,
    errno: Errno,
    /// What firmware or module say.
    status: Option<u64>,
}

/// How often each way to end was seen.
type Counts = BTreeMap<&'static str, usize>;

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

/// A machine on which one call fails. What the machine would have done for it is not done.
fn failing(platform: Platform, dialect: Dialect, failure: Failure) -> Scripted {
    let Failure { call, errno, status } = failure;
    let Some(status) = status else {
        return Scripted::new(dialect, move |c| (c.number == call).then_some(errno));
    };
    // The plan sees every call before the function around commands does.
    let now = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&now);
    let plan = move |c: &Call| {
        now.set(c.number);
        None
    };
    Scripted::around(dialect, plan, move |argument, go_on| {
        if seen.get() != call {
            return go_on();
        }
        // SAFETY: both command structures are of three words and have their status in the third: in its lower half, beside
        // the firmware's descriptor, or in all of it.
        unsafe {
            let third = argument.cast::<u64>().add(2);
            let kept = if platform == Platform::Snp { third.read() & !0xffff_ffff } else { 0 };
            third.write(kept | status);
        }
        Err(errno)
    })
}

/// Launches with every failure; what a launch does about one is to be told in a message, as an error of the machine, or
/// not to matter.
fn launches(platform: Platform, dialect: Dialect, counts: &mut Counts) {
    let clean = Scripted::new(dialect, |_| None);
    launch(&clean, platform).expect("a launch");
    let calls = clean.log();
    drop(clean);
    let statuses = if platform == Platform::Snp { FIRMWARE } else { MODULE };
    let before = open_files();
    for (call, name) in calls.iter().enumerate() {
        let errnos = ERRNOS.map(|errno| Failure { call, errno, status: None });
        let with_status = |status| Failure { call, errno: Errno::EIO, status: Some(status) };
        let commands = statuses.map(with_status);
        let commands = if name.ends_with("memory_encrypt_op") { &commands[..] } else { &[] };
        for failure in errnos.iter().chain(commands) {
            let machine = failing(platform, dialect, *failure);
            let outcome = match launch(&machine, platform) {
                Err(error) => {
                    told(name, failure, &error);
                    "told"
                }
                Ok(mut guest) => {
                    let address = crate::payload::abi::IMAGE;
                    let read = crate::platform::GuestCommand::Read { address };
                    guest.command(read, soon()).expect("a launch that succeeds has a guest");
                    overcome(name, failure, &machine.log(), calls.len())
                }
            };
            *counts.entry(outcome).or_default() += 1;
            drop(machine);
            assert_eq!(open_files(), before, "{name} leaks files after {}", failure.errno);
        }
    }
}

/// The message says which call failed, how, and what firmware or module had to say; the verdict is an error, or after the
/// launch a failure.
fn told(name: &str, failure: &Failure, error: &LaunchError) {
    let text = error.to_string();
    let errno = failure.errno.to_string();
    assert!(text.contains(&errno), "{name}: {text} instead of {errno}");
    let named = match name {
        "open_sev" => "/dev/sev",
        "mmap" => "mmap",
        _ => "KVM_",
    };
    assert!(text.contains(named), "{name}: {text}");
    if let Some(status) = failure.status {
        assert!(text.contains(&format!("{status:#x}")), "{name}: {text} without {status:#x}");
    }
    let stop = launch_failed(error);
    // A guest that does not run after a launch of which no call failed is the kernel's doing.
    let (verdict, blame) = match error {
        LaunchError::StoppedAfterLaunch(_) => (Verdict::Fail, Blame::Kernel),
        _ => (Verdict::Error, Blame::Machine),
    };
    assert_eq!((stop.verdict, stop.failure.blame), (verdict, Some(blame)));
    assert!(stop.failure.summary.contains(text.trim_start_matches("start the payload: ")));
}

/// Why a failure did not keep the launch from succeeding: the launch made the call again.
fn overcome(name: &str, failure: &Failure, log: &[&str], calls: usize) -> &'static str {
    let transient = [Errno::EINTR, Errno::EAGAIN, Errno::EBUSY].contains(&failure.errno);
    assert!(transient && log.len() > calls, "{name} may fail with {} unnoticed", failure.errno);
    "tried again"
}

/// Whichever call of a launch fails in whatever way, the message says so and the verdict is an error, unless trying again
/// helps; and no file is left open.
#[test]
fn launches_fail_clearly() {
    // In a process of its own: other tests open files, too.
    in_a_child(count_launches).expect("the test passes");
}

fn count_launches() {
    let mut counts = Counts::new();
    for platform in ENCRYPTED {
        for dialect in Dialect::ALL {
            launches(platform, dialect, &mut counts);
        }
    }
    println!("failures of launches, by outcome: {counts:?}");
    assert!(counts["told"] > 1500 && counts["tried again"] > 50);
}

/// Whichever call of the trial for the probe fails in whatever way, there is a reason to skip, which names it; and no file
/// is left open. Only what passes by itself is no reason.
#[test]
fn trials_fail_clearly() {
    in_a_child(count_trials).expect("the test passes");
}

fn count_trials() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for platform in ENCRYPTED {
        let clean = Scripted::new(Dialect::Upstream, |_| None);
        assert_eq!(missing(&clean, platform, None), None);
        let calls = clean.log();
        drop(clean);
        let before = open_files();
        for (call, name) in calls.iter().enumerate() {
            for errno in ERRNOS {
                let failure = Failure { call, errno, status: None };
                let machine = failing(platform, Dialect::Upstream, failure);
                let slug = match missing(&machine, platform, None) {
                    Some(need) => {
                        let said = name.ends_with("check_extension")
                            || need.prose.contains(&errno.to_string())
                            || !need.slug.ends_with("failed");
                        assert!(said && need.prose.len() > 20, "{name} {errno}: {need:?}");
                        need.slug
                    }
                    None => {
                        let passes = [Errno::EAGAIN, Errno::EINTR].contains(&errno);
                        assert!(passes, "{name} may fail with {errno} unnoticed");
                        "tried again".to_string()
                    }
                };
                *counts.entry(slug).or_default() += 1;
                drop(machine);
                assert_eq!(open_files(), before, "{name} leaks files after {errno}");
            }
        }
    }
    println!("failures of trials, by slug: {counts:?}");
    assert!(counts.values().sum::<usize>() > 150 && counts.len() > 8, "{counts:?}");
}

/// Where a TD cannot do without #VE for pages that it has not accepted, it is launched all the same, and such a page is an
/// exception that it reports.
#[test]
fn td_with_ve() {
    use crate::machine::model::{Config, Fault, Model};
    use crate::payload::abi::{PRIVATE_WINDOW, TEST_MEMORY};
    use crate::platform::{GuestCommand, GuestStop};
    let fault = Some(Fault::SeptVeNotOffered);
    let machine = Model::new(Config { dialect: Dialect::Upstream, fault });
    let mut guest = launch(&machine, Platform::Tdx).expect("a launch");
    let gmem = guest.vm().create_guest_memfd(4096, 1).expect("a private guest_memfd");
    let region = crate::uapi::kvm_userspace_memory_region2 {
        flags: crate::uapi::KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: TEST_MEMORY,
        memory_size: 4096,
        guest_memfd: std::os::fd::AsRawFd::as_raw_fd(&gmem.fd()) as u32,
        ..Default::default()
    };
    // SAFETY: the memslot has no userspace address.
    unsafe { guest.vm().set_user_memory_region2(&region) }.expect("a memslot");
    let address = PRIVATE_WINDOW + TEST_MEMORY;
    let stop = guest.command(GuestCommand::Read { address }, soon());
    assert!(matches!(stop, Err(GuestStop::Exception { vector: 20, .. })), "{stop:?}");
}
