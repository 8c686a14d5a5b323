// SPDX-License-Identifier: GPL-2.0-only
//! Which cases on which platforms, and which of them cannot run here.

mod nearest;

use std::path::PathBuf;

use crate::results::{Environment, Need};
use crate::run::protocol::MachineConfig;

pub use nearest::nearest;

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCase {
    /// `platform.topic.name[.variant]`, with `model.` in front on the model.
    pub id: String,
    /// The platform's name.
    pub platform: String,
    /// The clauses that the case tests.
    pub clauses: Vec<String>,
    /// The case in canonical text.
    pub text: String,
    /// What it needs that is not there; the case runs if this is empty.
    pub unmet: Vec<Need>,
}

/// Which cases the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Substrings of ids, any of which may match; empty for every case.
    pub filters: Vec<String>,
    /// Whether the filters are whole ids.
    pub exact: bool,
    /// Substrings of ids that are left out.
    pub skips: Vec<String>,
    /// The platforms to run on; `None` for every one that the machine offers.
    pub platforms: Option<Vec<String>>,
    /// Platforms that must run: their absence is a failure instead of a skip.
    pub required: Vec<String>,
}

/// The plan for a selection of the built-in cases. The error is a sentence for people.
pub fn build(
    _config: &MachineConfig,
    _environment: &Environment,
    _selection: &Selection,
) -> Result<Vec<PlannedCase>, String> {
    Err("being written".to_string())
}

/// The plan for case files given on the command line, each planned case with the file that it comes from. The error is
/// a sentence for people: with file, line, column and what was expected there.
pub fn from_files(
    _config: &MachineConfig,
    _environment: &Environment,
    files: &[PathBuf],
    _platforms: Option<&[String]>,
) -> Result<Vec<(PathBuf, PlannedCase)>, String> {
    let plan = |file: &PathBuf| {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let case = PlannedCase {
            id: "model.being.written".to_string(),
            platform: "default".to_string(),
            clauses: Vec::new(),
            text,
            unmet: Vec::new(),
        };
        Ok((file.clone(), case))
    };
    files.iter().map(plan).collect()
}

/// A case, its clauses and its needs, for people; `id` with or without platform. The error names the nearest ids.
pub fn explain(_id: &str) -> Result<String, String> {
    Err("being written".to_string())
}
