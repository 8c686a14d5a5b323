// SPDX-License-Identifier: GPL-2.0-only
//! A forked process that keeps the host's mapping of the guest_memfd and accesses it on request.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::guard::{self, BusError};
use crate::errno::Errno;
use crate::machine::HostView;
use crate::oracle::PageBytes;
use crate::uapi::PAGE_SIZE;

/// What the parent asks for; the numbers go over the pipe.
#[derive(Clone, Copy)]
enum Request {
    Read = 1,
    Write = 2,
    /// Write one word only: to see whether it faults.
    Probe = 3,
}

/// On the pipe: the access completed.
const DONE: i64 = -1;

const WORDS: usize = PAGE_SIZE as usize / 8;

/// The child; killed when dropped.
pub(super) struct Child {
    pid: Pid,
    requests: File,
    replies: File,
}

impl Child {
    /// Forks. The child inherits the mapping behind `view` as it is now.
    pub fn fork(view: &dyn HostView) -> Result<Child, Errno> {
        let (child_requests, requests) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (replies, child_replies) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // SAFETY: the process has other threads, so the child may only do what is async-signal-safe: `serve` makes
        // system calls and touches the mapping and its own stack, and never returns.
        match unsafe { fork() }? {
            ForkResult::Child => serve(view, &child_requests, &child_replies),
            ForkResult::Parent { child } => {
                Ok(Child { pid: child, requests: requests.into(), replies: replies.into() })
            }
        }
    }

    /// Reads a page through the child's mapping.
    pub fn read(&mut self, page: u64) -> Result<Result<PageBytes, BusError>, Errno> {
        let mut bytes = [0; PAGE_SIZE as usize];
        Ok(match self.ask(Request::Read, page, &[])? {
            Ok(()) => {
                self.replies.read_exact(&mut bytes).map_err(errno)?;
                Ok(bytes)
            }
            Err(fault) => Err(fault),
        })
    }

    /// Writes a page through the child's mapping.
    pub fn write(&mut self, page: u64, bytes: &PageBytes) -> Result<Result<(), BusError>, Errno> {
        self.ask(Request::Write, page, bytes)
    }

    /// Writes one word of a page through the child's mapping, to see whether it faults.
    pub fn probe_write(&mut self, page: u64) -> Result<Result<(), BusError>, Errno> {
        self.ask(Request::Probe, page, &[])
    }

    fn ask(
        &mut self,
        request: Request,
        page: u64,
        payload: &[u8],
    ) -> Result<Result<(), BusError>, Errno> {
        let mut message = (request as u64).to_ne_bytes().to_vec();
        message.extend(page.to_ne_bytes());
        message.extend(payload);
        self.requests.write_all(&message).map_err(errno)?;
        let mut code = [0; 8];
        self.replies.read_exact(&mut code).map_err(errno)?;
        Ok(match i64::from_ne_bytes(code) {
            DONE => Ok(()),
            code => Err(BusError { copied: 0, code: code as i32 }),
        })
    }
}

/// A child that has died shows as a closed pipe: EPIPE, or an end of file, which has no number of its own.
fn errno(error: std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EPIPE))
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has nothing to clean up; that it may be gone already is fine.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// The child's loop. Nothing here may allocate or lock.
fn serve(view: &dyn HostView, requests: &OwnedFd, replies: &OwnedFd) -> ! {
    // SAFETY: plain system call. The child must not outlive its parent, which may be killed at any time.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut head = [0u64; 2];
    let mut page = [0u64; WORDS];
    while read_words(requests, &mut head) {
        let offset = head[1] * PAGE_SIZE;
        if head[0] == Request::Write as u64 && !read_words(requests, &mut page) {
            break;
        }
        view.sync_in_child(offset, PAGE_SIZE);
        // SAFETY: the parent asks for pages of the mapping only, so the address is within it.
        let address = unsafe { view.address().add(offset as usize) }.cast::<u64>();
        // SAFETY: `install` ran before the fork; `address` is in the guest_memfd's mapping, `page` is this thread's.
        let result = unsafe {
            match head[0] {
                n if n == Request::Read as u64 => guard::copy(page.as_mut_ptr(), address, WORDS),
                n if n == Request::Write as u64 => guard::copy(address, page.as_ptr(), WORDS),
                _ => guard::copy(address, page.as_ptr(), 1),
            }
        };
        let code = [result.map_or_else(|fault| i64::from(fault.code), |()| DONE) as u64];
        if !write_words(replies, &code) {
            break;
        }
        if head[0] == Request::Read as u64 && result.is_ok() && !write_words(replies, &page) {
            break;
        }
    }
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(0) }
}

/// Fills `words` from `fd`; false at the end of the file or on an error.
fn read_words(fd: &OwnedFd, words: &mut [u64]) -> bool {
    let mut done = 0;
    while done < size_of_val(words) {
        // SAFETY: the buffer is ours and has that many bytes left.
        let n = unsafe {
            let at = words.as_mut_ptr().cast::<u8>().add(done);
            libc::read(fd.as_raw_fd(), at.cast(), size_of_val(words) - done)
        };
        if n <= 0 {
            return false;
        }
        done += n as usize;
    }
    true
}

/// Writes `words` to `fd`; false on an error.
fn write_words(fd: &OwnedFd, words: &[u64]) -> bool {
    let mut done = 0;
    while done < size_of_val(words) {
        // SAFETY: the buffer is ours and has that many bytes left.
        let n = unsafe {
            let at = words.as_ptr().cast::<u8>().add(done);
            libc::write(fd.as_raw_fd(), at.cast(), size_of_val(words) - done)
        };
        if n <= 0 {
            return false;
        }
        done += n as usize;
    }
    true
}
