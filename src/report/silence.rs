// SPDX-License-Identifier: GPL-2.0-only
//! A report that goes on where another process has stopped must not print again what that has printed.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

/// Whether reports are silent for now; clones share it.
#[derive(Clone, Default)]
pub struct Silence(Rc<Cell<bool>>);

impl Silence {
    /// Makes the reports silent, or lets them write.
    pub fn set(&self, silent: bool) {
        self.0.set(silent);
    }

    /// Whether they are.
    pub(super) fn is_kept(&self) -> bool {
        self.0.get()
    }
}

/// A writer that drops what comes in a silence.
pub struct Silenced<W> {
    out: W,
    silence: Silence,
}

impl<W: Write> Silenced<W> {
    /// Writes to `out`.
    pub fn new(out: W, silence: Silence) -> Silenced<W> {
        Silenced { out, silence }
    }
}

impl<W: Write> Write for Silenced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.silence.is_kept() { Ok(bytes.len()) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
