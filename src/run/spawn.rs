// SPDX-License-Identifier: GPL-2.0-only
//! Making a worker process and its descriptors.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::activity;
use crate::protocol::{PROGRESS_FD, REPLY_FD};

/// A new process and the runner's ends of what connects the two. The pipes do not block.
pub(super) struct Spawned {
    pub(super) child: Child,
    /// Readable when the process is dead.
    pub(super) pidfd: OwnedFd,
    /// Its standard input.
    pub(super) jobs: ChildStdin,
    /// The other end of [`REPLY_FD`].
    pub(super) replies: PipeReader,
    /// Its standard output and error.
    pub(super) output: PipeReader,
    /// The file at [`PROGRESS_FD`].
    pub(super) progress: File,
}

/// Starts `command` in a process group of its own, killed by the kernel when the calling thread ends. The runner keeps
/// none of the ends that the worker writes to, so that they close with the worker.
pub(super) fn spawn(command: &[OsString]) -> io::Result<Spawned> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "no worker command"));
    };
    hold_low_descriptors()?;
    let (output, output_end) = pipe()?;
    let (replies, reply_end) = pipe()?;
    let reply_end = high_copy(reply_end.as_fd())?;
    let progress = memfd_create(c"gmem-conform-progress", MFdFlags::MFD_CLOEXEC)?;
    let progress = File::from(high_copy(progress.as_fd())?);
    progress.set_len(activity::BYTES as u64)?;

    let mut builder = Command::new(program);
    builder
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(output_end.try_clone()?)
        .stderr(output_end)
        .process_group(0);
    let runner = std::process::id();
    let (reply_raw, progress_raw) = (reply_end.as_raw_fd(), progress.as_raw_fd());
    // SAFETY: the closure makes only async-signal-safe calls, allocates nothing, and its descriptors are open until
    // `spawn` has returned.
    unsafe { builder.pre_exec(move || become_worker(runner, reply_raw, progress_raw)) };
    let mut child = builder.spawn()?;
    let jobs = child.stdin.take();
    let spawned = jobs.ok_or_else(|| io::Error::other("no standard input"));
    let spawned = spawned.and_then(|jobs| {
        set_nonblocking(jobs.as_fd())?;
        set_nonblocking(replies.as_fd())?;
        set_nonblocking(output.as_fd())?;
        Ok((open_pidfd(&child)?, jobs))
    });
    match spawned {
        Ok((pidfd, jobs)) => Ok(Spawned { child, pidfd, jobs, replies, output, progress }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Keeps 3 and 4 taken in the runner. Otherwise the pipe by which std learns of a failed exec may get one of these
/// numbers, and the new process would put our own descriptor in its place.
fn hold_low_descriptors() -> io::Result<()> {
    static HELD: OnceLock<Vec<OwnedFd>> = OnceLock::new();
    if HELD.get().is_none() {
        let null: OwnedFd = File::open("/dev/null")?.into();
        let mut held = Vec::new();
        loop {
            let next = null.try_clone()?;
            if next.as_raw_fd() > PROGRESS_FD {
                break;
            }
            held.push(next);
        }
        held.push(null);
        // Another thread may have been faster; then its descriptors stay and these close.
        let _ = HELD.set(held);
    }
    Ok(())
}

/// A copy of `fd` with a number above those that a worker is given.
fn high_copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(PROGRESS_FD + 1))?;
    // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What the new process does before exec: only system calls.
fn become_worker(runner: u32, reply: RawFd, progress: RawFd) -> io::Result<()> {
    let failed = |result: libc::c_int| {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: prctl, getppid, dup2 and sigprocmask are async-signal-safe and take no memory but `none`, a local. The
    // numbers 3 and 4 are free for use in this process: `hold_low_descriptors` keeps std's own descriptors away.
    unsafe {
        failed(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if u32::try_from(libc::getppid()) != Ok(runner) {
            // The runner died before the line above.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        failed(libc::dup2(reply, REPLY_FD))?;
        failed(libc::dup2(progress, PROGRESS_FD))?;
        let mut none: libc::sigset_t = std::mem::zeroed();
        failed(libc::sigemptyset(&mut none))?;
        failed(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()))
    }
}

fn open_pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of this process.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, which is close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}
