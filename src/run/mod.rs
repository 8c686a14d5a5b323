// SPDX-License-Identifier: GPL-2.0-only
//! Running a plan: workers, deadlines, the kernel log.

mod child;
mod event;
mod headers;
mod interview;
mod kernel_log;
mod kernel_watch;
mod pool;
mod probe;
pub mod protocol;
mod signals;
mod spawn;
mod verdict;
pub mod worker;

pub use event::{Event, Sink};
pub use headers::capability_numbers;
pub use interview::{Interview, NoAnswer};
pub(crate) use pool::now_ms;
pub use pool::{EXIT_FAILED, EXIT_PASSED, EXIT_SKIPPED, MAX_TIMEOUTS, Options, run, suite};
pub use probe::probe;
pub use signals::interrupts;
