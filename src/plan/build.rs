// SPDX-License-Identifier: GPL-2.0-only
//! Making the plan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::needs::unmet_by_scenario;
use super::{nearest, platforms_of, unmet};
use crate::case::{self, Case};
use crate::dialect::Dialect;
use crate::explore::layouts::{self, Tier};
use crate::fnv::fnv1a;
use crate::platform::Platform;
use crate::results::{Environment, Need, Shard};
use crate::run::protocol::{MachineConfig, MachineKind};
use crate::scenario::{SCENARIOS, Scenario};

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCase {
    /// `platform.topic.name[.variant]`, with `model.` in front on the model.
    pub id: String,
    /// The platform's name.
    pub platform: String,
    /// The clauses that the case tests.
    pub clauses: Vec<String>,
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
    pub platforms: Option<Vec<String>>,
    /// How many of the enumerated layouts.
    pub tier: Tier,
    /// Platforms that must run: their absence is a failure instead of a skip.
    pub required: Vec<String>,
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

/// The plan for a selection of the built-in cases, platform by platform. The error is a sentence for people.
pub fn build(
    config: &MachineConfig,
    environment: &Environment,
    selection: &Selection,
) -> Result<Vec<PlannedCase>, String> {
    check_required(environment, &selection.required)?;
    let mut cases =
        case::library().map_err(|error| format!("a built-in case is broken: {error}"))?;
    // Without the interface every row is skipped, so it does not matter for which dialect they are.
    let dialect = environment.dialect.filter(|d| *d != Dialect::None).unwrap_or(Dialect::RfcV4);
    cases.extend(layouts::rows(selection.tier, dialect));
    let all = plan(config, environment, &cases, SCENARIOS, selection.platforms.as_deref());
    check_unique(&all)?;
    // A filter that matches nothing is a mistake, even when another one matches.
    let ids = || all.iter().map(|case| case.id.as_str());
    for filter in &selection.filters {
        let alone = Selection { filters: vec![filter.clone()], ..selection.clone() };
        let alone = Selection { skips: Vec::new(), ..alone };
        if !ids().any(|id| alone.selects(id)) {
            let near = nearest(ids(), filter).join("\n  ");
            return Err(format!("no case matches `{filter}`; the nearest ids are\n  {near}"));
        }
    }
    let mut planned: Vec<PlannedCase> =
        all.into_iter().filter(|c| selection.selects(&c.id)).collect();
    if planned.is_empty() {
        return Err("no case is left to run: the options exclude every one".into());
    }
    let runs = |name: &String| planned.iter().any(|case| case.platform == *name);
    if let Some(name) = selection.required.iter().find(|name| !runs(name)) {
        return Err(format!(
            "platform {name} is required but the options exclude every case of it"
        ));
    }
    if let Some(shard) = selection.shard {
        planned.retain(|case| in_shard(&case.id, shard));
    }
    Ok(planned)
}

/// Whether a case belongs to a shard: always to the same one, whatever else is selected, and to one of them only.
pub fn in_shard(id: &str, shard: Shard) -> bool {
    let hash = fnv1a(id.bytes());
    // The upper half is the better mixed one.
    (hash >> 32) % u64::from(shard.count.max(1)) == u64::from(shard.index.saturating_sub(1))
}

/// The ids of all cases that could run on this machine, of every tier.
pub fn all_ids(config: &MachineConfig, environment: &Environment) -> Result<Vec<String>, String> {
    let everything = Selection { tier: Tier::Full, ..Selection::default() };
    let all = build(config, environment, &everything)?;
    Ok(all.into_iter().map(|case| case.id).collect())
}

/// The plan for case files given on the command line, each planned case with the file that it comes from. The error is
/// a sentence for people: with file, line, column and what was expected there.
pub fn from_files(
    config: &MachineConfig,
    environment: &Environment,
    files: &[PathBuf],
    platforms: Option<&[String]>,
) -> Result<Vec<(PathBuf, PlannedCase)>, String> {
    let mut planned = Vec::new();
    for file in files {
        let text = read_case(file)?;
        let cases =
            case::parse(&file.to_string_lossy(), &text).map_err(|error| error.to_string())?;
        let of_file = plan(config, environment, &cases, &[], platforms);
        if of_file.is_empty() {
            return Err(format!(
                "{}: no case of it is for the platforms asked for",
                file.display()
            ));
        }
        planned.extend(of_file.into_iter().map(|case| (file.clone(), case)));
    }
    let cases: Vec<PlannedCase> = planned.iter().map(|(_, case)| case.clone()).collect();
    check_unique(&cases)?;
    Ok(planned)
}

/// Reads a case file. Bytes that are no UTF-8 are named by their line, like every other mistake in it.
fn read_case(file: &Path) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        format!("{}:{line}: not a case file: the line is not UTF-8 text", file.display())
    })
}

/// The id of a case: on the model it says so, so that nobody takes it for a kernel's.
pub fn case_id(machine: MachineKind, platform: Platform, name: &str) -> String {
    match machine {
        MachineKind::Host => format!("{platform}.{name}"),
        MachineKind::Model => format!("model.{platform}.{name}"),
    }
}

fn plan(
    config: &MachineConfig,
    environment: &Environment,
    cases: &[Case],
    scenarios: &'static [Scenario],
    platforms: Option<&[String]>,
) -> Vec<PlannedCase> {
    let wanted = |p: &Platform| platforms.is_none_or(|names| names.iter().any(|n| n == p.name()));
    let mut planned = Vec::new();
    for platform in Platform::ALL.into_iter().filter(wanted) {
        for case in cases.iter().filter(|case| platforms_of(case).contains(&platform)) {
            planned.push(PlannedCase {
                id: case_id(config.kind, platform, &case.name),
                platform: platform.name().into(),
                clauses: case.clauses.clone(),
                text: case.to_string(),
                unmet: unmet(case, platform, environment),
            });
        }
        if !Scenario::platforms().any(|p| p == platform) {
            continue;
        }
        for scenario in scenarios {
            planned.push(PlannedCase {
                id: case_id(config.kind, platform, scenario.name),
                platform: platform.name().into(),
                clauses: scenario.clauses.iter().map(|id| id.to_string()).collect(),
                text: scenario.text(),
                unmet: unmet_by_scenario(scenario, platform, environment),
            });
        }
    }
    planned
}

fn check_required(environment: &Environment, required: &[String]) -> Result<(), String> {
    for name in required {
        let Some(state) = environment.platforms.iter().find(|p| p.name == *name) else {
            return Err(format!("platform {name} is required but nothing is known of it here"));
        };
        if !state.missing.is_empty() {
            let reasons: Vec<&str> = state.missing.iter().map(|n| n.prose.as_str()).collect();
            return Err(format!(
                "platform {name} is required but cannot run: {}",
                reasons.join("; ")
            ));
        }
    }
    Ok(())
}

/// Every report keys its results by id, so two cases with one id would hide each other.
fn check_unique(planned: &[PlannedCase]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match planned.iter().find(|case| !seen.insert(&case.id)) {
        Some(case) => Err(format!("two cases have the id {}", case.id)),
        None => Ok(()),
    }
}
