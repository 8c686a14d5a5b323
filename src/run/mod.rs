// SPDX-License-Identifier: GPL-2.0-only
//! Running a plan: workers, deadlines, the kernel log.

mod headers;
mod interview;
mod kernel_log;
mod kernel_watch;
mod pool;
mod probe;
mod signals;
mod spawn;
mod verdict;
mod worker_process;

pub use headers::{HeaderError, capability_numbers};
pub use interview::{Interview, NoAnswer};
pub use pool::{MAX_TIMEOUTS, Options, run};
pub use probe::{ProbeError, probe};
pub use signals::interrupts;
