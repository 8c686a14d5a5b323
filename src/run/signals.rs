// SPDX-License-Identifier: GPL-2.0-only
//! Ctrl-C and its kin: the first ends the run in order, the second at once.

use std::fs::File;
use std::io::{self, pipe};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Exit status after a second signal: 128 + SIGINT, as shells count.
const INTERRUPTED_TWICE: i32 = 130;

/// Where the handler writes the number of the first signal; -1 when it must end the program instead.
static NOTIFY: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(number: libc::c_int) {
    let descriptor = NOTIFY.swap(-1, Ordering::SeqCst);
    if descriptor < 0 {
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(INTERRUPTED_TWICE) };
    }
    let byte = number as u8;
    // SAFETY: write is async-signal-safe; the byte is a local that outlives the call. The descriptor is never closed. The
    // pipe is empty, so that the write neither blocks nor fails, and errno stays as the interrupted code left it.
    unsafe { libc::write(descriptor, (&raw const byte).cast(), 1) };
}

/// Catches SIGINT and SIGTERM from now on: after the first one the returned descriptor holds one byte, the
/// signal's number; the second ends the program with status 130. To be called once.
pub fn interrupts() -> io::Result<OwnedFd> {
    let (read, write) = pipe()?;
    NOTIFY.store(write.into_raw_fd(), Ordering::SeqCst);
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only makes async-signal-safe calls and touches one atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(read.into())
}

/// The signal that `interrupts` has caught, when its descriptor is readable.
pub(super) fn caught(interrupt: &OwnedFd) -> String {
    let mut byte = [0];
    let number =
        match interrupt.try_clone().and_then(|fd| io::Read::read(&mut File::from(fd), &mut byte)) {
            Ok(1) => i32::from(byte[0]),
            _ => return "a signal".to_string(),
        };
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_string(),
        Err(_) => format!("signal {number}"),
    }
}
