// SPDX-License-Identifier: GPL-2.0-only
//! Running the steps of a case against one VM, in a worker process.

pub(crate) mod access;
mod alias;
mod attribution;
mod audit;
mod bystander;
mod case_end;
mod child;
mod convert;
mod coverage;
mod encrypted;
mod file;
pub mod guard;
mod hexdiff;
mod launch;
mod look;
mod mappings;
mod memslot;
mod observations;
mod other_vm;
mod pre_fault;
mod request;
mod rig;
mod run_case;
mod session;
mod setup;
mod steps;
mod survey;
mod used;

pub(crate) use bystander::BYSTANDER_PAGES;
pub(crate) use case_end::CaseEnd;
pub(crate) use convert::TRANSIENT_TRIES;
pub(crate) use encrypted::is_accepted_already;
pub(crate) use look::guest_stop;
pub use rig::RigError;
pub(crate) use rig::{Rig, RigFile};
#[cfg(test)]
pub(crate) use run_case::TRAIL_STEPS;
pub(crate) use run_case::run_case;
pub(crate) use session::{Setup, failed, launch_failed};
pub(crate) use setup::{map_all, new_file, whole_slot};
pub(crate) use steps::pattern_bytes;
pub(crate) use used::UsedVm;
