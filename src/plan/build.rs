// SPDX-License-Identifier: GPL-2.0-only
//! Making the plan.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::needs::unmet_by_scenario;
use super::{PlanError, platforms_of, unmet};
use crate::case::layouts::{self, Tier};
use crate::case::{self, Case};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::fnv::fnv1a;
use crate::machine::{MachineConfig, MachineKind};
use crate::platform::Platform;
use crate::results::{Environment, Need, Shard};
use crate::scenario::{SCENARIOS, Scenario};
use crate::text::nearest;

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCase {
    /// `platform.topic.name[.variant]`, with `model.` in front on the model.
    pub id: String,
    /// The type of its VM.
    pub platform: Platform,
    /// The clauses that the case tests.
    pub clauses: Vec<ClauseId>,
    /// The case in canonical text; for a scenario the line that names it.
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
    /// The platforms to run on; `None` for every one.
    pub platforms: Option<Vec<Platform>>,
    /// How many of the enumerated layouts.
    pub tier: Tier,
    /// Platforms that must run: their absence is a failure instead of a skip.
    pub required: Vec<Platform>,
    /// Only this part of what the rest selects, which may be none.
    pub shard: Option<Shard>,
}

impl Selection {
    fn selects(&self, id: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact { id == filter } else { id.contains(filter.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(|skip| id.contains(skip.as_str()))
    }
}

/// The plan for a selection of the built-in cases, platform by platform.
pub fn build(
    config: &MachineConfig,
    environment: &Environment,
    selection: &Selection,
) -> Result<Vec<PlannedCase>, PlanError> {
    check_required(environment, &selection.required)?;
    let mut cases = case::library()?;
    // Without the interface every row is skipped, so it does not matter for which dialect they are.
    let dialect = environment.dialect.filter(|d| *d != Dialect::None).unwrap_or(Dialect::RfcV4);
    cases.extend(layouts::rows(selection.tier, dialect));
    let mut all = candidates(config, &cases, SCENARIOS, selection.platforms.as_deref());
    let ids = || all.iter().map(|candidate| candidate.id.as_str());
    check_unique(ids())?;
    // A filter that matches nothing is a mistake, even when another one matches.
    for filter in &selection.filters {
        let alone = Selection { filters: vec![filter.clone()], ..selection.clone() };
        let alone = Selection { skips: Vec::new(), ..alone };
        if !ids().any(|id| alone.selects(id)) {
            let near = nearest(ids(), filter).join("\n  ");
            return Err(PlanError::NoMatch { filter: filter.clone(), near });
        }
    }
    all.retain(|candidate| selection.selects(&candidate.id));
    if all.is_empty() {
        return Err(PlanError::NoneLeft);
    }
    let runs = |wanted: Platform| all.iter().any(|candidate| candidate.platform == wanted);
    if let Some(platform) = selection.required.iter().find(|platform| !runs(**platform)) {
        return Err(PlanError::RequiredExcluded(*platform));
    }
    if let Some(shard) = selection.shard {
        all.retain(|candidate| in_shard(&candidate.id, shard));
    }
    Ok(all.into_iter().map(|candidate| candidate.plan(environment)).collect())
}

/// Whether a case belongs to a shard: always to the same one, whatever else is selected, and to one of them only.
pub fn in_shard(id: &str, shard: Shard) -> bool {
    let hash = fnv1a(id.bytes());
    // The upper half is the better mixed one.
    (hash >> 32) % u64::from(shard.count.max(1)) == u64::from(shard.index.saturating_sub(1))
}

/// The ids of all cases that could run on this machine, of every tier.
pub fn all_ids(
    config: &MachineConfig,
    environment: &Environment,
) -> Result<Vec<String>, PlanError> {
    let everything = Selection { tier: Tier::Full, ..Selection::default() };
    let all = build(config, environment, &everything)?;
    Ok(all.into_iter().map(|case| case.id).collect())
}

/// The plan for case files given on the command line, each planned case with the file that it comes from.
pub fn from_files(
    config: &MachineConfig,
    environment: &Environment,
    files: &[PathBuf],
    platforms: Option<&[Platform]>,
) -> Result<Vec<(PathBuf, PlannedCase)>, PlanError> {
    let mut planned = Vec::new();
    for file in files {
        let text = read_case(file)?;
        let cases = case::parse(&file.to_string_lossy(), &text)?;
        let of_file = candidates(config, &cases, &[], platforms);
        if of_file.is_empty() {
            return Err(PlanError::OtherPlatforms(file.clone()));
        }
        planned.extend(of_file.into_iter().map(|case| (file.clone(), case.plan(environment))));
    }
    check_unique(planned.iter().map(|(_, case)| case.id.as_str()))?;
    Ok(planned)
}

/// Reads a case file. Bytes that are no UTF-8 are named by their line, like every other mistake in it.
fn read_case(file: &Path) -> Result<String, PlanError> {
    let bytes =
        std::fs::read(file).map_err(|error| PlanError::Unreadable { file: file.into(), error })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        PlanError::NotText { file: file.into(), line }
    })
}

/// The id of a case: on the model it says so, so that nobody takes it for a kernel's.
pub fn case_id(machine: MachineKind, platform: Platform, name: &str) -> String {
    match machine {
        MachineKind::Host => format!("{platform}.{name}"),
        MachineKind::Model => format!("model.{platform}.{name}"),
    }
}

/// A case on a platform, of which only the id has been made: most runs are of a few cases.
struct Candidate<'a> {
    id: String,
    platform: Platform,
    source: Source<'a>,
}

enum Source<'a> {
    Case(&'a Case),
    Scenario(&'static Scenario),
}

impl Candidate<'_> {
    fn plan(self, environment: &Environment) -> PlannedCase {
        let Candidate { id, platform, source } = self;
        let (clauses, text, unmet) = match source {
            Source::Case(case) => {
                (case.clauses.clone(), case.to_string(), unmet(case, platform, environment))
            }
            Source::Scenario(scenario) => (
                scenario.clauses.to_vec(),
                scenario.text(),
                unmet_by_scenario(scenario, platform, environment),
            ),
        };
        PlannedCase { id, platform, clauses, text, unmet }
    }
}

/// Everything on every platform that it is for, of those asked for, platform by platform.
fn candidates<'a>(
    config: &MachineConfig,
    cases: &'a [Case],
    scenarios: &'static [Scenario],
    platforms: Option<&[Platform]>,
) -> Vec<Candidate<'a>> {
    let wanted = |p: &Platform| platforms.is_none_or(|wanted| wanted.contains(p));
    let mut candidates = Vec::new();
    for platform in Platform::ALL.into_iter().filter(wanted) {
        let mut add = |name: &str, source| {
            let id = case_id(config.kind, platform, name);
            candidates.push(Candidate { id, platform, source });
        };
        for case in cases.iter().filter(|case| platforms_of(case).contains(&platform)) {
            add(&case.name, Source::Case(case));
        }
        for scenario in scenarios.iter().filter(|s| s.platforms.contains(&platform)) {
            add(scenario.name, Source::Scenario(scenario));
        }
    }
    candidates
}

fn check_required(environment: &Environment, required: &[Platform]) -> Result<(), PlanError> {
    for &platform in required {
        let Some(state) = environment.platforms.iter().find(|p| p.name == platform.name()) else {
            return Err(PlanError::RequiredUnknown(platform));
        };
        if !state.missing.is_empty() {
            let reasons: Vec<&str> = state.missing.iter().map(|n| n.prose.as_str()).collect();
            let reasons = reasons.join("; ");
            return Err(PlanError::RequiredMissing { platform, reasons });
        }
    }
    Ok(())
}

/// Every report keys its results by id, so two cases with one id would hide each other.
fn check_unique<'a>(mut ids: impl Iterator<Item = &'a str>) -> Result<(), PlanError> {
    let mut seen = HashSet::new();
    match ids.find(|id| !seen.insert(*id)) {
        Some(id) => Err(PlanError::SameId(id.to_string())),
        None => Ok(()),
    }
}
