// SPDX-License-Identifier: GPL-2.0-only
//! gmem-conform: a conformance suite for in-place conversion of guest_memfd memory between shared and private.
//!
//! The modules, from the top. A module uses only modules below it; a test draws the graph from the imports.
//!
//! What people call:
//!
//! * [`cli`]: the command line.
//! * [`init`]: the program as process 1 of a virtual machine.
//!
//! What the commands do:
//!
//! * [`compare`]: results files put next to each other and together.
//! * [`bundle`]: results with all that belongs to them, to hand over.
//! * [`contract`]: clauses, cases, planted bugs and results put together.
//! * [`explore`]: random histories, and what is left of one that fails.
//! * [`worker`]: the process in which cases run: jobs in, replies out.
//! * [`bench`]: what conversions cost, without judging it.
//! * [`observe`]: what conversions do to contents, without judging it.
//! * [`report`]: the events of a run as text, TAP, JSON and more.
//! * [`run`]: workers, deadlines, the kernel log; it emits the events of [`results`].
//! * [`plan`]: which cases on which platforms, and which of them cannot run here.
//!
//! Inside a worker:
//!
//! * [`scenario`]: what the case language cannot say.
//! * [`exec`]: the steps of a [`case`] against one VM, judged by the [`oracle`].
//!
//! What they share:
//!
//! * [`protocol`]: what the runner and its workers say to each other.
//! * [`measured`]: what observing and measuring speak of.
//! * [`waivers`]: failures that are known.
//! * [`oracle`]: what the clauses allow, and what memory then holds.
//! * [`case`]: the case language, the built-in cases and the enumerated rows.
//! * [`platform`]: the launch sequence of each VM type.
//! * [`results`]: the records and events of a run, and the reader of results files.
//! * [`machine`]: one method per KVM call; /dev/kvm or the built-in model.
//!
//! What everything stands on:
//!
//! * [`clause`]: the promises of the interface.
//! * [`dialect`]: the revisions of the interface.
//! * [`payload`]: the guests' programs, and the mailbox through which they are told what to do.
//! * [`uapi`]: the structures and numbers of the kernel's interface.
//! * [`activity`]: what a worker's threads are doing, told to its runner through a page.
//! * [`errno`]: error numbers.
//! * [`text`]: text for people, terminals and shells.
//! * [`timings`]: where the program's own time goes.
//! * `clock`: the time of day, and days of the calendar.
//! * `rng`: random numbers that are the same everywhere.
//! * `fnv`: a hash that is the same everywhere.

pub mod activity;
pub mod bench;
pub mod bundle;
pub mod case;
pub mod clause;
pub mod cli;
mod clock;
pub mod compare;
pub mod contract;
pub mod dialect;
pub mod errno;
pub mod exec;
pub mod explore;
mod fnv;
pub mod init;
pub mod machine;
pub mod measured;
pub mod observe;
pub mod oracle;
pub mod payload;
pub mod plan;
pub mod platform;
pub mod protocol;
pub mod report;
pub mod results;
mod rng;
pub mod run;
pub mod scenario;
#[cfg(test)]
mod tests;
pub mod text;
pub mod timings;
pub mod uapi;
pub mod waivers;
pub mod worker;
