// SPDX-License-Identifier: GPL-2.0-only
//! Making a bundle.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{BundleError, ENVIRONMENT, FOLDER, KERNEL_LOG, RESULTS, STATEMENT, SUMS, statement};
use crate::results::Record;
use crate::results::for_each_record;

/// Writes a bundle of a results file to `out`, with the kernel log in `kernel_log` if there is one. The same files make the
/// same bundle.
pub fn bundle(
    results: &Path,
    kernel_log: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), BundleError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| BundleError::Unreadable { path: path.into(), error })
    };
    let mut records = Vec::new();
    for_each_record(results, |record| records.push(record))?;
    let mut log = String::new();
    for record in &records {
        if let Record::Case(case) = record
            && !case.kernel_log.is_empty()
        {
            let _ = writeln!(log, "== during {}\n{}", case.id, case.kernel_log.join("\n"));
        }
    }
    if log.is_empty() {
        log += "== no warning or worse during any case\n";
    }
    let mut log = log.into_bytes();
    if let Some(path) = kernel_log {
        log.extend_from_slice(b"== the log that was given\n");
        log.extend_from_slice(&read(path)?);
    }
    let head = records.first().ok_or(BundleError::Empty)?;
    let began = match head {
        Record::Run(run) => run.started_ms / 1000,
        _ => 0,
    };
    let environment = serde_json::to_string_pretty(head)? + "\n";
    let mut files = vec![
        (RESULTS, read(results)?),
        (ENVIRONMENT, environment.into_bytes()),
        (KERNEL_LOG, log),
        (STATEMENT, statement(&records)?.into_bytes()),
    ];
    let sums: String =
        files.iter().map(|(name, bytes)| format!("{}  {name}\n", checksum(bytes))).collect();
    files.push((SUMS, sums.into_bytes()));

    let mut archive = tar::Builder::new(out);
    for (name, bytes) in &files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(began);
        archive
            .append_data(&mut header, format!("{FOLDER}/{name}"), bytes.as_slice())
            .map_err(BundleError::Write)?;
    }
    archive.finish().map_err(BundleError::Write)
}

/// SHA-256 in hexadecimal.
pub(super) fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
