// SPDX-License-Identifier: GPL-2.0-only
//! Runs the payloads of encrypted guests through all of their commands, through every error that hardware and hypervisors
//! may answer, and shows that payloads with bugs do not get through.

mod common;
mod snp;
mod tdx;
mod teeth;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A check: its name, and the check, which panics if it fails.
type Check = (&'static str, fn());

fn main() -> ExitCode {
    // cargo passes on what it does not know, a part of the names to run being the only thing of use here.
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, check) in [snp::CHECKS, tdx::CHECKS, teeth::CHECKS].concat() {
        if !name.contains(&filter) {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(check));
        println!("{name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += u32::from(result.is_err());
    }
    common::print_totals();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
