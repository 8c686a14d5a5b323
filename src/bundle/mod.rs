// SPDX-License-Identifier: GPL-2.0-only
//! One file to hand over: the results, where they come from, what was tested and what was not, with checksums.

mod error;
mod make;
mod statement;
#[cfg(test)]
mod tests;
mod verify;

pub use error::{BundleError, Flaw, StatementError, VerifyError};
pub use make::bundle;
pub use statement::statement;
pub use verify::verify;

/// The folder that everything in a bundle lies in.
const FOLDER: &str = "gmem-conform-bundle";
/// The results, word for word.
const RESULTS: &str = "results.jsonl";
/// The first record of the results, to be read.
const ENVIRONMENT: &str = "environment.json";
/// What the kernel said: the lines that the results have, case by case, and the log that was given besides.
const KERNEL_LOG: &str = "kernel-log.txt";
/// What was tested and what was not.
const STATEMENT: &str = "statement.txt";
/// The checksums of all other files, as `sha256sum --check` takes them.
const SUMS: &str = "SHA256SUMS";
