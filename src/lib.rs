// SPDX-License-Identifier: GPL-2.0-only
//! gmem-conform: a conformance suite for in-place conversion of guest_memfd memory between shared and private.
//!
//! The layers, from the top; data flows one way:
//!
//! * [`cli`]: the command line.
//! * [`plan`]: which cases on which platforms, and which of them cannot run here.
//! * [`run`]: workers, deadlines, the kernel log; it emits [`results`].
//! * [`contract`]: clauses, cases, planted bugs and results put together.
//! * [`waivers`]: failures that are known.
//! * [`report`]: results as text, TAP, JSON and more.
//! * [`bundle`]: results with all that belongs to them, to hand over.
//! * [`compare`]: results files put next to each other and together.
//! * [`explore`]: cases that nobody wrote.
//! * [`observe`], [`bench`]: what conversions do to contents, and what they cost, without judging it.
//! * [`exec`], in a worker process: the steps of a [`case`] against one VM, judged by the [`oracle`].
//! * [`scenario`], in the same place: what the case language cannot say.
//! * [`platform`]: the launch sequence of each VM type.
//! * [`machine`]: one method per KVM call; /dev/kvm or the built-in model.

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
pub mod report;
pub mod results;
mod rig;
pub mod run;
pub mod scenario;
#[cfg(test)]
mod schema;
pub mod text;
pub mod timings;
pub mod uapi;
pub mod waivers;
