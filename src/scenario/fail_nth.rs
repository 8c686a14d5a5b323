// SPDX-License-Identifier: GPL-2.0-only
//! fail-nth: making the Nth allocation of one call fail (Documentation/fault-injection/fault-injection.rst).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::errno::Errno;
use crate::machine::Result;

/// The file of the calling thread.
const FILE: &str = "/proc/thread-self/fail-nth";
const DEBUGFS: &str = "/sys/kernel/debug";

/// What must be set so that an allocation that may sleep or that is of one page can fail at all, and so that each failure
/// is not a backtrace in the kernel's log. Without a probability, which stays 0, none of it concerns anybody else.
const SETTINGS: [(&str, &str); 5] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];

/// Makes allocations of the thread that opened it fail.
pub(super) struct FailNth {
    file: File,
    /// What was set before.
    before: Vec<(PathBuf, String)>,
    /// Whether copies from and to user memory can fail as well (CONFIG_FAULT_INJECTION_USERCOPY).
    pub copies_fail: bool,
    /// The file is this thread's.
    _not_send: PhantomData<*const ()>,
}

impl FailNth {
    /// Opens the calling thread's file and makes the settings. Fails with ENOENT where the kernel has no such thing, EACCES
    /// without permission.
    pub fn open() -> Result<FailNth> {
        let number = |error: io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
        let file = OpenOptions::new().read(true).write(true).open(FILE).map_err(number)?;
        let debugfs = Path::new(DEBUGFS);
        let mut fail = FailNth {
            file,
            before: Vec::new(),
            copies_fail: debugfs.join("fail_usercopy").exists(),
            _not_send: PhantomData,
        };
        // One of the two is enough, and a kernel may lack the other.
        let mut error = None;
        for (name, value) in SETTINGS {
            let path = debugfs.join(name);
            match set(&path, value) {
                Ok(before) => fail.before.push((path, before)),
                Err(e) => error = error.or(Some(number(e))),
            }
        }
        match error {
            Some(error)
                if !fail.before.iter().any(|(path, _)| path.ends_with("ignore-gfp-wait")) =>
            {
                Err(error)
            }
            _ => Ok(fail),
        }
    }

    /// Makes `call` with its `n`th allocation, counted from 1, failing; and whether there was such an allocation.
    ///
    /// `call` itself must not need memory: what it allocates in this process may fail too.
    pub fn during<T>(&self, n: u32, call: impl FnOnce() -> T) -> io::Result<(T, bool)> {
        let text = n.to_string();
        let mut left = [0; 16];
        self.file.write_all_at(text.as_bytes(), 0)?;
        let value = call();
        let read = self.file.read_at(&mut left, 0);
        // Whatever comes next must not fail.
        self.file.write_all_at(b"0", 0)?;
        Ok((value, left[..read?].trim_ascii() == b"0"))
    }
}

/// Writes a setting; what it was.
fn set(path: &Path, value: &str) -> io::Result<String> {
    let before = fs::read_to_string(path)?;
    fs::write(path, value)?;
    Ok(before)
}

impl Drop for FailNth {
    fn drop(&mut self) {
        for (path, value) in &self.before {
            // Nothing depends on it: see SETTINGS.
            let _ = fs::write(path, value.trim());
        }
    }
}
