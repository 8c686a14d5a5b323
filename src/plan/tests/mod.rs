// SPDX-License-Identifier: GPL-2.0-only
//! Which cases run where, and what is said about those that do not.

mod files;
mod needs;
mod selection;

use crate::case::{self, Case};
use crate::dialect::Dialect;
use crate::machine::{MachineConfig, MachineKind};
use crate::platform::Platform;
use crate::results::{Environment, Need, PlatformState};

fn config(kind: MachineKind) -> MachineConfig {
    MachineConfig { kind, dialect: None, fault: None, capability_numbers: None }
}

/// A machine that offers every platform in this dialect, without capability numbers.
fn offers_all(dialect: Dialect) -> Environment {
    let state = |p: Platform| PlatformState { name: p.name().into(), missing: Vec::new() };
    Environment {
        dialect: Some(dialect),
        platforms: Platform::ALL.map(state).to_vec(),
        ..Environment::default()
    }
}

/// A machine that offers default VMs only.
fn lacks_protected() -> Environment {
    let mut environment = offers_all(Dialect::RfcV5);
    environment.platforms[1].missing = vec![
        Need::new("no-vm-type-sw-protected", "there are no such VMs"),
        Need::new("no-luck", "there is no luck"),
    ];
    environment
}

/// A case with this line of needs, or none.
fn case_that(needs: &str) -> Case {
    let text = format!("case t.n\nclause fresh.zero\npages 4\nstart shared\n{needs}\nremap\n");
    let cases = case::parse("needs.case", &text).unwrap_or_else(|e| panic!("{e}"));
    cases.into_iter().next().expect("a file without `each` is one case")
}
