// SPDX-License-Identifier: GPL-2.0-only
//! Running a plan: workers, deadlines, the kernel log.

mod deadline;
mod headers;
mod interview;
mod kernel_log;
mod kernel_watch;
mod lost;
mod options;
mod pool;
mod probe;
mod signals;
mod spawn;
mod threads;
mod verdict;
mod worker_process;

pub use headers::{HeaderError, capability_numbers};
pub use interview::{Interview, NoAnswer};
pub use lost::{GoneDown, lost};
pub use options::{Before, MAX_TIMEOUTS, Next, Options, WatchFromProbe};
pub use pool::{resume, run};
pub use probe::{ProbeError, probe};
pub use signals::interrupts;
