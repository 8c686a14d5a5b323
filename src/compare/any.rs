// SPDX-License-Identifier: GPL-2.0-only
//! Comparing two files of whatever kind, as long as it is the same.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::DiffError;
use super::diff::{Diff, diff};
use super::environment::differences;
use crate::bench::{self, Measurement};
use crate::measured::Head;
use crate::observe;
use crate::results::ResultsFile;
use crate::text::ascii;

/// The share by which measurements must differ to differ; `bench --compare` can be told another.
const LEAST: f64 = 0.05;

/// Compares two files that runs, observations or measurements have written; `all` lists every case instead of the first
/// few.
pub fn diff_any(base: &Path, patched: &Path, all: bool) -> Result<Diff, DiffError> {
    let (mut before, mut after) = (ResultsFile::open(base)?, ResultsFile::open(patched)?);
    let heads = [before.first()?, after.first()?];
    match heads.each_ref().map(|head| head["type"].as_str()) {
        [Some("observe"), Some("observe")] => {
            let head = measured_head([base, patched], &heads)?;
            let (text, broke) = observe::diff(&mut before, &mut after)?;
            Ok(Diff { text: head + &text, broke })
        }
        [Some("bench"), Some("bench")] => {
            let head = measured_head([base, patched], &heads)?;
            let read = |path| Measurement::read(&mut ResultsFile::open(path)?);
            let comparison = bench::compare(&read(base)?, &read(patched)?, LEAST);
            Ok(Diff { text: head + &comparison.text, broke: comparison.slower })
        }
        [Some(one), Some(other)] if one != other => Err(DiffError::Kinds {
            base: (base.into(), one.to_string()),
            patched: (patched.into(), other.to_string()),
        }),
        // Whatever else is wrong with them is found there.
        _ => Ok(diff(base, patched, all)?),
    }
}

/// Which files, and in what the circumstances differ.
pub(super) fn measured_head(paths: [&Path; 2], heads: &[Value; 2]) -> Result<String, DiffError> {
    let mut text = String::new();
    for (name, (path, head)) in ["base   ", "patched"].iter().zip(paths.iter().zip(heads)) {
        let head: Head = serde_json::from_value(head.clone())
            .map_err(|error| DiffError::Head { path: path.into(), error })?;
        let _ = writeln!(text, "{name}  {}: {}", path.display(), head.line());
    }
    text += &environment_text(&heads[0], &heads[1]);
    Ok(text)
}

/// The part of a comparison that says in what the surroundings differ.
pub(super) fn environment_text(before: &Value, after: &Value) -> String {
    let environment = differences(before, after);
    let mut text = match environment.is_empty() {
        true => "\nenvironment: no difference\n".to_string(),
        false => "\nenvironment\n".to_string(),
    };
    for (name, before, after) in environment {
        let side = |value: Option<String>| value.map_or("(not recorded)".into(), |v| ascii(&v));
        let _ = writeln!(text, "  {}: {} -> {}", ascii(&name), side(before), side(after));
    }
    text
}
