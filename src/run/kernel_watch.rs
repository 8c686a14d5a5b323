// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's health between two moments: its taint, its counters of warnings and oopses, its log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::headers::describe;
use super::kernel_log;

/// Taint flags that a kernel sets when something went wrong in it (Documentation/admin-guide/tainted-kernels.rst); others
/// tell of modules and user requests.
const TAINTS: [(u32, &str); 3] =
    [(4, "machine check"), (7, "kernel died"), (9, "kernel issued a warning")];

/// Largest record of /dev/kmsg (`PRINTK_MESSAGE_MAX` and its properties), with room to spare.
const RECORD_BYTES: usize = 16 * 1024;

/// Records read at one check, so that a log that grows faster than it is read cannot hold the runner.
const RECORDS_AT_ONCE: usize = 4096;

/// What has gone wrong in the kernel since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Lines of the kernel log.
    pub log: Vec<String>,
    /// Changes of the taint and the counters, in words.
    pub counters: Vec<String>,
}

impl Damage {
    /// Whether nothing has.
    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.counters.is_empty()
    }

    /// Adds what a later look found.
    pub(crate) fn merge(&mut self, later: &Damage) {
        self.log.extend_from_slice(&later.log);
        self.counters.extend_from_slice(&later.counters);
    }
}

/// A number that the kernel shows in a file, and its last value.
struct Counter {
    name: &'static str,
    file: File,
    last: u64,
}

impl Counter {
    fn open(root: &Path, path: &'static str) -> Option<Counter> {
        let mut counter = Counter { name: path, file: File::open(root.join(path)).ok()?, last: 0 };
        counter.last = counter.read()?;
        Some(counter)
    }

    fn read(&self) -> Option<u64> {
        let mut buffer = [0; 32];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        std::str::from_utf8(&buffer[..length]).ok()?.trim().parse().ok()
    }

    /// The value before and now, if it has changed.
    fn change(&mut self) -> Option<(u64, u64)> {
        let now = self.read()?;
        let before = std::mem::replace(&mut self.last, now);
        (now != before).then_some((before, now))
    }
}

/// Watches the kernel. The files stay open, because a run looks thousands of times.
pub(crate) struct KernelWatch {
    taint: Option<Counter>,
    counters: Vec<Counter>,
    log: io::Result<File>,
    /// Where a record of the log is read to.
    record: Vec<u8>,
}

impl KernelWatch {
    /// Starts watching, from now on; `root` is `/` but in tests.
    pub(crate) fn start(root: &Path) -> KernelWatch {
        let log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(root.join("dev/kmsg"))
            .and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log));
        KernelWatch {
            taint: Counter::open(root, "proc/sys/kernel/tainted"),
            // Since Linux 6.2; an older kernel shows its warnings only in the log and, the first one, in the taint.
            counters: ["sys/kernel/warn_count", "sys/kernel/oops_count"]
                .into_iter()
                .filter_map(|path| Counter::open(root, path))
                .collect(),
            log,
            record: vec![0; RECORD_BYTES],
        }
    }

    /// What cannot be watched here, in sentences for the report of the run.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Err(error) = &self.log {
            let why = describe(error);
            remarks.push(format!(
                "the kernel log cannot be read (/dev/kmsg: {why}); a warning is noticed by taint and counters only"
            ));
        }
        if self.taint.is_none() {
            remarks.push("the kernel's taint cannot be read".to_string());
        }
        let taint = self.taint.as_ref().map_or(0, |taint| taint.last);
        for (bit, meaning) in TAINTS {
            if taint & 1 << bit != 0 {
                remarks
                    .push(format!("the kernel was tainted before the run: {meaning} (bit {bit})"));
            }
        }
        remarks
    }

    /// What has gone wrong since the last look.
    pub(crate) fn look(&mut self) -> Damage {
        let mut counters = Vec::new();
        if let Some((before, now)) = self.taint.as_mut().and_then(Counter::change) {
            for (bit, meaning) in TAINTS {
                if now & !before & 1 << bit != 0 {
                    counters.push(format!("the kernel became tainted: {meaning} (bit {bit})"));
                }
            }
        }
        for counter in &mut self.counters {
            if let Some((before, now)) = counter.change() {
                counters.push(format!("/{} went from {before} to {now}", counter.name));
            }
        }
        Damage { log: kernel_log::damage(&self.read_log()), counters }
    }

    /// The messages that have been logged since the last call.
    fn read_log(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        let Ok(log) = &mut self.log else {
            return messages;
        };
        for _ in 0..RECORDS_AT_ONCE {
            match log.read(&mut self.record) {
                Ok(0) => break,
                Ok(length) => messages
                    .extend(kernel_log::messages(&String::from_utf8_lossy(&self.record[..length]))),
                // EPIPE: records were overwritten before they were read; the next read goes on with the oldest left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // EAGAIN: nothing new. Nothing else is expected, and the counters still tell.
                Err(_) => break,
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use tempfile::TempDir;

    use super::*;

    /// A likeness of the files that are watched.
    struct Root(TempDir);

    impl Root {
        fn new() -> Root {
            let root = TempDir::new().unwrap();
            for dir in ["proc/sys/kernel", "sys/kernel", "dev"] {
                fs::create_dir_all(root.path().join(dir)).unwrap();
            }
            let root = Root(root);
            root.set("proc/sys/kernel/tainted", "4096\n");
            root.set("sys/kernel/warn_count", "3\n");
            root.set("dev/kmsg", "4,1,1,-;WARNING: before the run\n");
            root
        }

        fn set(&self, path: &str, text: &str) {
            fs::write(self.0.path().join(path), text).unwrap();
        }

        fn log(&self, text: &str) {
            fs::OpenOptions::new()
                .append(true)
                .open(self.0.path().join("dev/kmsg"))
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
    }

    /// What was there before does not count, and each change counts once.
    #[test]
    fn changes_count_once() {
        let root = Root::new();
        let mut watch = KernelWatch::start(root.0.path());
        assert_eq!(watch.remarks(), Vec::<String>::new());
        assert!(watch.look().is_empty());
        // An out-of-tree module (bit 12 was set) or a proprietary one (bit 0) is no damage.
        root.set("proc/sys/kernel/tainted", "4097\n");
        root.log("6,2,2,-;kvm: harmless\n");
        assert!(watch.look().is_empty());
        root.set("proc/sys/kernel/tainted", "4609\n");
        root.set("sys/kernel/warn_count", "4\n");
        root.log("4,3,3,-;WARNING: CPU: 0 PID: 1 at x.c:1\n");
        let damage = watch.look();
        assert_eq!(damage.log, ["WARNING: CPU: 0 PID: 1 at x.c:1"]);
        assert_eq!(
            damage.counters,
            [
                "the kernel became tainted: kernel issued a warning (bit 9)",
                "/sys/kernel/warn_count went from 3 to 4"
            ]
        );
        assert!(watch.look().is_empty());
    }

    /// What cannot be watched is said, and a kernel that was broken before is said too.
    #[test]
    fn blind_spots_are_named() {
        let root = Root::new();
        fs::remove_file(root.0.path().join("dev/kmsg")).unwrap();
        root.set("proc/sys/kernel/tainted", "512\n");
        let mut watch = KernelWatch::start(root.0.path());
        let remarks = watch.remarks();
        assert!(remarks[0].contains("/dev/kmsg: no such file"), "{remarks:?}");
        assert!(remarks[1].contains("(bit 9)"), "{remarks:?}");
        assert!(watch.look().is_empty());
    }
}
