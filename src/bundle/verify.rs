// SPDX-License-Identifier: GPL-2.0-only
//! Checking a bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::make::checksum;
use super::{ENVIRONMENT, FOLDER, KERNEL_LOG, RESULTS, STATEMENT, SUMS};

/// The most that a file of a bundle may hold, in bytes: results of a million cases are below.
const LARGEST: u64 = 1 << 30;

/// Checks that a bundle is whole and unchanged since it was made: every file is there, none besides, each has its
/// checksum, and the environment is that of the results. Returns the statement of what was and was not tested; the error
/// is a sentence for people. Who made it, a checksum cannot tell.
pub fn verify(path: &Path) -> Result<String, String> {
    check(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn check(path: &Path) -> Result<String, String> {
    let mut files = read(path)?;
    let sums = files.remove(SUMS).ok_or(format!("{SUMS} is missing"))?;
    let sums = String::from_utf8(sums).map_err(|_| format!("{SUMS} is no text"))?;
    let mut listed: BTreeMap<&str, &str> = BTreeMap::new();
    for line in sums.lines() {
        let (sum, name) = line
            .split_once("  ")
            .ok_or(format!("{SUMS} has a line that is no checksum: {line}"))?;
        listed.insert(name, sum);
    }
    for name in [RESULTS, ENVIRONMENT, KERNEL_LOG, STATEMENT] {
        let bytes = files.get(name).ok_or(format!("{name} is missing"))?;
        let sum = listed.get(name).ok_or(format!("{SUMS} does not list {name}"))?;
        if checksum(bytes) != *sum {
            return Err(format!("{name} is not what it was: its checksum differs"));
        }
    }
    if let Some(name) = files.keys().find(|name| !listed.contains_key(name.as_str())) {
        return Err(format!("{name} is not listed in {SUMS}"));
    }
    let first = files[RESULTS].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Value =
        serde_json::from_slice(first).map_err(|e| format!("{RESULTS}:1: no result: {e}"))?;
    let shown: Value =
        serde_json::from_slice(&files[ENVIRONMENT]).map_err(|e| format!("{ENVIRONMENT}: {e}"))?;
    // A version that made the bundle may not have known all fields of the results.
    let (head, shown) = (&head["environment"], &shown["environment"]);
    if shown["kernel_release"] != head["kernel_release"] || shown["machine"] != head["machine"] {
        return Err(format!("{ENVIRONMENT} is not that of {RESULTS}"));
    }
    Ok(String::from_utf8_lossy(&files[STATEMENT]).into_owned())
}

/// The files of a bundle.
fn read(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let no_bundle = |error: std::io::Error| format!("not a bundle: {error}");
    let mut archive = tar::Archive::new(file);
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(no_bundle)? {
        let mut entry = entry.map_err(no_bundle)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = match name.strip_prefix(FOLDER).and_then(|name| name.strip_prefix('/')) {
            Some(name) if entry.header().entry_type().is_file() => name.to_string(),
            _ => return Err(format!("not a bundle: it has {name}")),
        };
        if entry.size() > LARGEST {
            return Err(format!("{name} is larger than a bundle's files may be"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| format!("{name} is cut short: {error}"))?;
        if bytes.len() as u64 != entry.size() {
            return Err(format!("{name} is cut short"));
        }
        if files.insert(name.clone(), bytes).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(files)
}
