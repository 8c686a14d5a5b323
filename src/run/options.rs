// SPDX-License-Identifier: GPL-2.0-only
//! How to run, and what to go on with.

use std::cell::Cell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::kernel_watch::KernelWatch;
use crate::plan::PlannedCase;
use crate::results::{CaseRecord, ResumedRecord, Shard, Summary};
use crate::waivers::Waivers;

/// How many cases may time out before the run ends, unless `--max-timeouts` says otherwise. Arbitrary: enough to see that it is
/// not one case, and few minutes.
pub const MAX_TIMEOUTS: usize = 10;

/// A watch over the kernel that a probe has begun.
#[derive(Default)]
pub struct WatchFromProbe(pub(super) Cell<Option<KernelWatch>>);

/// How to run.
pub struct Options {
    /// Number of workers that run at the same time; 0 is taken as 1.
    pub jobs: usize,
    /// How long one case may take, in full seconds.
    pub timeout: Duration,
    /// How many cases may time out before the run ends: on a kernel that hangs everywhere each would take all of its time.
    pub max_timeouts: usize,
    /// How many cases may fail, in whatever way, before the run ends; any number if it is `None`.
    pub max_fail: Option<usize>,
    /// The command that starts a worker.
    pub worker: Vec<OsString>,
    /// Readable when the run is to end, with the number of the signal that asked for it; see [`super::interrupts`].
    pub interrupt: Option<OwnedFd>,
    /// Where the kernel's files are found: `/`, but in tests.
    pub root: PathBuf,
    /// The command line without the program's name, for the record.
    pub arguments: Vec<String>,
    /// The command that runs just one case again.
    pub rerun: Box<dyn Fn(&PlannedCase) -> String>,
    /// The part of the suite that the plan is, for the record.
    pub shard: Option<Shard>,
    /// Known failures.
    pub waivers: Option<Waivers>,
    /// Watches the kernel from the probe on, until a run goes on with it.
    pub watch: WatchFromProbe,
}

impl Options {
    /// One worker of this program at a time.
    pub fn new(timeout: Duration) -> Options {
        Options {
            jobs: 1,
            timeout,
            max_timeouts: MAX_TIMEOUTS,
            max_fail: None,
            worker: vec!["/proc/self/exe".into(), "worker".into()],
            interrupt: None,
            root: "/".into(),
            arguments: Vec::new(),
            rerun: Box::new(|case| format!("gmem-conform --exact {}", case.id)),
            shard: None,
            waivers: None,
            watch: WatchFromProbe::default(),
        }
    }
}

/// What there is of a run that goes on.
pub struct Before {
    /// The counts of the cases that have a verdict.
    pub summary: Summary,
    /// Their records, in the order in which they ended.
    pub cases: Vec<CaseRecord>,
    /// The records of those that were running when it was interrupted and do not run again.
    pub lost: Vec<CaseRecord>,
    /// Why it goes on; none when it is only ended.
    pub resumed: Option<ResumedRecord>,
}

/// What to do with a run that was interrupted, once what came of it so far is recorded.
pub enum Next {
    /// Run what is left.
    Run,
    /// Nothing: another process will.
    Wait,
    /// End it for this reason.
    End(String),
}
