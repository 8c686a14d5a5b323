// SPDX-License-Identifier: GPL-2.0-only
//! What answers the KVM calls: one method per call, no policy.
//!
//! Two machines stand behind these traits: [`host`] is /dev/kvm, [`model`] is a KVM in this process. Everything above is
//! the same code for both. Methods take and return what the call takes and returns; where a call reads or writes memory
//! that the caller names by address, the method is `unsafe` and says who keeps which promise.

mod config;
pub mod host;
pub mod model;
mod open;
mod patience;
mod traced;
mod traits;

pub use config::{MachineConfig, MachineKind};
pub use open::{OpenError, capability_numbers, open};
pub(crate) use patience::convert_patiently;
pub use traced::Traced;
pub use traits::*;
