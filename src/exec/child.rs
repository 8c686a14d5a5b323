// SPDX-License-Identifier: GPL-2.0-only
//! A forked process that keeps the host's mapping of the guest_memfd and accesses it on request.

use std::fs::File;
use std::io::{Read, Write};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::guard::{self, BusError};
use crate::activity::{Call, access};
use crate::errno::Errno;
use crate::machine::HostView;
use crate::oracle::PageBytes;
use crate::uapi::PAGE_SIZE;

/// What the parent asks for; the numbers go over the pipe.
#[derive(Clone, Copy)]
enum Request {
    Read = 1,
    Write = 2,
}

/// On the pipe: the access completed. No `si_code` is that small.
const DONE: i64 = i64::MIN;

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
            ForkResult::Child => serve(view, &child_requests.into(), &child_replies.into()),
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

/// A page's bytes where words can be copied to and from.
#[repr(align(8))]
struct Buffer(PageBytes);

/// The child's loop. Nothing here may allocate or lock.
fn serve(view: &dyn HostView, mut requests: &File, mut replies: &File) -> ! {
    // SAFETY: plain system call. The child must not outlive its parent, which may be killed at any time.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let (mut request, mut page) = ([0; 8], [0; 8]);
    let mut buffer = Buffer([0; PAGE_SIZE as usize]);
    while requests.read_exact(&mut request).is_ok() && requests.read_exact(&mut page).is_ok() {
        let is_read = u64::from_ne_bytes(request) == Request::Read as u64;
        if !is_read && requests.read_exact(&mut buffer.0).is_err() {
            break;
        }
        let offset = u64::from_ne_bytes(page) * PAGE_SIZE;
        view.sync_in_child(offset, PAGE_SIZE);
        // SAFETY: the parent asks for pages of the mapping only, so the address is within it.
        let address = unsafe { view.address().add(offset as usize) }.cast::<u64>();
        let words = buffer.0.as_mut_ptr().cast::<u64>();
        let (to, from) = if is_read { (words, address) } else { (address, words) };
        let call = if is_read { Call::HostRead } else { Call::HostWrite };
        // SAFETY: `install` ran before the fork; `address` is in the guest_memfd's mapping, `words` is this thread's page.
        let copy = || unsafe { guard::copy(to, from, WORDS) };
        let result = access(call, address, offset / PAGE_SIZE, copy);
        let code = result.map_or_else(|fault| i64::from(fault.code), |()| DONE);
        if replies.write_all(&code.to_ne_bytes()).is_err() {
            break;
        }
        if is_read && result.is_ok() && replies.write_all(&buffer.0).is_err() {
            break;
        }
    }
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::WaitPidFlag;

    use super::*;
    use crate::dialect::Dialect;
    use crate::exec::access;
    use crate::exec::session::tests::in_session;
    use crate::machine::Machine;
    use crate::machine::model::{Config, Model};
    use crate::uapi::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_X86_DEFAULT_VM};

    const SIZE: u64 = 2 * PAGE_SIZE;

    /// A child sees what its parent writes, the parent what the child writes, page by page; what lies behind the end of
    /// the file faults in the child and does not end it; and it is gone once it is dropped.
    #[test]
    fn serves_until_it_is_dropped() {
        guard::install().unwrap();
        let model = Model::new(Config { dialect: Dialect::RfcV5, fault: None });
        let vm = model.create_vm(KVM_X86_DEFAULT_VM.into()).unwrap();
        let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
        let gmem = vm.create_guest_memfd(SIZE, flags).unwrap();
        let view = gmem.mmap(0, SIZE + PAGE_SIZE).unwrap();
        let mut child = Child::fork(&*view).unwrap();
        let (ours, theirs) = ([0x11; PAGE_SIZE as usize], [0x22; PAGE_SIZE as usize]);
        access::write_page(&*view, 0, &ours).unwrap();
        assert_eq!(child.read(0).unwrap(), Ok(ours));
        assert_eq!(child.write(1, &theirs).unwrap(), Ok(()));
        assert_eq!(access::read_page(&*view, 1), Ok(theirs));
        assert_eq!(access::read_page(&*view, 0), Ok(ours));
        assert!(child.read(2).unwrap().is_err());
        assert!(child.write(2, &ours).unwrap().is_err());
        assert_eq!(child.read(1).unwrap(), Ok(theirs));
        let pid = child.pid;
        drop(child);
        assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(nix::Error::ECHILD));
    }

    /// What a case has a child do the child does: one that is gone cannot.
    #[test]
    fn a_child_that_is_gone_is_missed() {
        in_session("child fork\nchild write 1..2 A\nchild read 1..2", |session, case| {
            session.step(&case.steps[0]).unwrap();
            kill(session.child.as_ref().unwrap().pid, Signal::SIGKILL).unwrap();
            for step in &case.steps[1..] {
                let stop = session.step(step).unwrap_err();
                let summary = &stop.failure.summary;
                assert!(summary.starts_with("an access through the forked child"), "{summary}");
            }
        });
    }
}
