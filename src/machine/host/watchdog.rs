// SPDX-License-Identifier: GPL-2.0-only
//! Ends `KVM_RUN` at its deadline.
//!
//! A guest that spins never exits by itself, and there may be no timer that makes it. One thread of the process looks
//! after all runs. At a run's deadline it sets `kvm_run::immediate_exit`, so that KVM_RUN returns if it is about to enter
//! the guest, then signals the vCPU's thread, so that KVM_RUN returns if it is in the guest; and goes on signalling until
//! the run has ended.
//!
//! The thread sleeps until the earliest deadline that it has seen. Deadlines lie further and further ahead, so it has to
//! be woken for the first run only: for most runs, watching costs a mutex that nobody else holds.

use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, pid_t};

use super::system::non_negative;
use crate::errno::Errno;
use crate::machine::Result;

/// The signal, chosen arbitrarily among those that have no meaning by themselves.
const SIGNAL: c_int = libc::SIGUSR1;
/// How long a run may take to end before it is signalled again.
const REPEAT: Duration = Duration::from_millis(10);

static STATE: Mutex<State> = Mutex::new(State { started: false, runs: Vec::new(), wake: None });
static CHANGED: Condvar = Condvar::new();

struct State {
    /// Whether the thread exists.
    started: bool,
    /// The runs in progress, at most one per thread.
    runs: Vec<Run>,
    /// When the thread will look at `runs` next; `None`: when it is woken.
    wake: Option<Instant>,
}

struct Run {
    thread: pid_t,
    deadline: Instant,
    immediate_exit: NonNull<u8>,
}

// SAFETY: the pointer is only used as an atomic, while `watch`'s caller keeps it valid.
unsafe impl Send for Run {}

impl Run {
    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: `watch`'s caller keeps the byte mapped, and everybody who uses it does so atomically.
        unsafe { AtomicU8::from_ptr(self.immediate_exit.as_ptr()) }
    }

    fn interrupt(&self) {
        self.immediate_exit().store(1, Ordering::Release);
        // SAFETY: no pointers. The thread exists: it is inside `run`, and removes this entry under the lock that we hold
        // before it leaves. tgkill() because pthread_kill() would need a pthread_t.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.thread, SIGNAL) };
    }
}

/// A watched run, until it is dropped.
pub(super) struct Watched {
    thread: pid_t,
}

/// Makes `KVM_RUN` on `thread` return EINTR from `deadline` on, until the returned value is dropped. With a deadline that
/// has passed KVM_RUN does not enter the guest at all, and only completes what the last exit left open.
///
/// # Safety
///
/// `immediate_exit` is mapped until the returned value is dropped, by the thread `thread`, and whoever else accesses it
/// meanwhile does so atomically.
pub(super) unsafe fn watch(
    thread: pid_t,
    deadline: Instant,
    immediate_exit: NonNull<u8>,
) -> Result<Watched> {
    let mut state = lock();
    if !state.started {
        start()?;
        state.started = true;
    }
    let run = Run { thread, deadline, immediate_exit };
    if deadline <= Instant::now() {
        run.immediate_exit().store(1, Ordering::Release);
    } else if state.wake.is_none_or(|wake| deadline < wake) {
        CHANGED.notify_one();
    }
    state.runs.push(run);
    Ok(Watched { thread })
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = lock();
        if let Some(i) = state.runs.iter().position(|r| r.thread == self.thread) {
            let run = state.runs.swap_remove(i);
            run.immediate_exit().store(0, Ordering::Release);
        }
    }
}

/// Lets the signal reach the calling thread, whatever mask this process was started with.
pub(super) fn let_signal_in() -> Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset() initializes the set, which the others then use; the old mask is not asked for.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGNAL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), null_mut())
    };
    if error != 0 {
        return Err(Errno(error));
    }
    Ok(())
}

/// Installs the signal handler and starts the thread.
fn start() -> Result<()> {
    extern "C" fn ignore(_: c_int) {}

    // SAFETY: all zeros is a `sigaction` without flags; no SA_RESTART, so that the call is interrupted.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = ignore as extern "C" fn(c_int) as usize;
    // SAFETY: the handler does nothing, so it is safe at any point of any thread.
    non_negative(unsafe { libc::sigaction(SIGNAL, &action, null_mut()) })?;

    thread::Builder::new()
        .name("watchdog".to_string())
        .spawn(look_after_runs)
        .map_err(|e| e.raw_os_error().map_or(Errno::EAGAIN, Errno))?;
    Ok(())
}

/// The thread.
fn look_after_runs() {
    let mut state = lock();
    loop {
        let now = Instant::now();
        let mut wake = None;
        for run in &state.runs {
            let next = if run.deadline <= now {
                run.interrupt();
                now + REPEAT
            } else {
                run.deadline
            };
            wake = Some(wake.map_or(next, |wake| next.min(wake)));
        }
        state.wake = wake;
        state = match wake {
            None => CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wake) => {
                let wait = wake.saturating_duration_since(now);
                let result = CHANGED.wait_timeout(state, wait);
                result.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// The state cannot be left half-changed, so a panic elsewhere does not matter.
fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
