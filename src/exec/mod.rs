// SPDX-License-Identifier: GPL-2.0-only
//! Running the steps of a case against one VM, in a worker process.

pub(crate) mod access;
mod alias;
mod audit;
mod bystander;
mod child;
mod convert;
mod encrypted;
mod file;
pub mod guard;
mod hexdiff;
mod host;
mod launch;
mod look;
mod mappings;
mod memslot;
mod other_vm;
mod probe;
mod request;
mod run_case;
mod session;
mod steps;
mod stop;
mod survey;
mod used;

pub(crate) use bystander::BYSTANDER_PAGES;
pub(crate) use bystander::creation_flags;
pub(crate) use convert::{TRANSIENT_TRIES, convert_unjudged};
pub(crate) use look::guest_stop;
pub(crate) use probe::cpuinfo_field;
pub(crate) use probe::launch_in_place;
pub use probe::probe;
pub use run_case::Executor;
pub(crate) use run_case::open_machine;
pub(crate) use session::{Setup, failed, launch_failed};
pub(crate) use steps::pattern_bytes;
pub(crate) use stop::Stop;
