// SPDX-License-Identifier: GPL-2.0-only
//! Checking a bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::make::checksum;
use super::{ENVIRONMENT, FOLDER, Flaw, KERNEL_LOG, RESULTS, STATEMENT, SUMS, VerifyError};

/// The most that a file of a bundle may hold, in bytes: results of a million cases are below.
const LARGEST: u64 = 1 << 30;

/// Checks that a bundle is whole and unchanged since it was made: every file is there, none besides, each has its
/// checksum, and the environment is that of the results. Returns the statement of what was and was not tested.
/// Who made it, a checksum cannot tell.
pub fn verify(path: &Path) -> Result<String, VerifyError> {
    check(path).map_err(|flaw| VerifyError { path: path.into(), flaw })
}

fn check(path: &Path) -> Result<String, Flaw> {
    let mut files = read(path)?;
    let sums = files.remove(SUMS).ok_or(Flaw::Missing(SUMS))?;
    let sums = String::from_utf8(sums).map_err(|_| Flaw::SumsNoText)?;
    let mut listed: BTreeMap<&str, &str> = BTreeMap::new();
    for line in sums.lines() {
        let (sum, name) =
            line.split_once("  ").ok_or_else(|| Flaw::NoChecksum(line.to_string()))?;
        listed.insert(name, sum);
    }
    for name in [RESULTS, ENVIRONMENT, KERNEL_LOG, STATEMENT] {
        let bytes = files.get(name).ok_or(Flaw::Missing(name))?;
        let sum = listed.get(name).ok_or(Flaw::NotListed(name))?;
        if checksum(bytes) != *sum {
            return Err(Flaw::Changed(name));
        }
    }
    if let Some(name) = files.keys().find(|name| !listed.contains_key(name.as_str())) {
        return Err(Flaw::Besides(name.clone()));
    }
    let first = files[RESULTS].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Value = serde_json::from_slice(first).map_err(Flaw::NoResult)?;
    let shown: Value = serde_json::from_slice(&files[ENVIRONMENT]).map_err(Flaw::NoEnvironment)?;
    // A version that made the bundle may not have known all fields of the results.
    let (head, shown) = (&head["environment"], &shown["environment"]);
    if shown["kernel_release"] != head["kernel_release"] || shown["machine"] != head["machine"] {
        return Err(Flaw::OtherEnvironment);
    }
    Ok(String::from_utf8_lossy(&files[STATEMENT]).into_owned())
}

/// The files of a bundle.
fn read(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Flaw> {
    let file = File::open(path).map_err(Flaw::Open)?;
    let mut archive = tar::Archive::new(file);
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(Flaw::NoArchive)? {
        let mut entry = entry.map_err(Flaw::NoArchive)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = match name.strip_prefix(FOLDER).and_then(|name| name.strip_prefix('/')) {
            Some(name) if entry.header().entry_type().is_file() => name.to_string(),
            _ => return Err(Flaw::Foreign(name)),
        };
        if entry.size() > LARGEST {
            return Err(Flaw::TooLarge(name));
        }
        let mut bytes = Vec::new();
        if let Err(error) = entry.read_to_end(&mut bytes) {
            return Err(Flaw::Unreadable { name, error });
        }
        if bytes.len() as u64 != entry.size() {
            return Err(Flaw::Short(name));
        }
        if files.insert(name.clone(), bytes).is_some() {
            return Err(Flaw::Twice(name));
        }
    }
    Ok(files)
}
