// SPDX-License-Identifier: GPL-2.0-only
//! A case in words.

use super::{PlanError, platforms_of};
use crate::case::layouts::{Tier, rows};
use crate::case::{self, Case};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::results::unmarked;
use crate::scenario::{SCENARIOS, Scenario};
use crate::text::nearest;

/// Where the description of a scenario is wrapped.
const ABOUT_WIDTH: usize = 100;

/// A case, its clauses and its needs, for people; `id` with or without machine and platform.
pub fn explain(id: &str) -> Result<String, PlanError> {
    let cases = case::library()?;
    let ids = |case: &Case| -> Vec<String> {
        platforms_of(case).into_iter().map(|platform| format!("{platform}.{}", case.name)).collect()
    };
    let wanted = unmarked(id);
    let is_wanted = |c: &&Case| c.name == wanted || ids(c).iter().any(|i| i == wanted);
    // Rows are made when they are asked for: they are many. What revisions without content modes make of one differs.
    let row = || rows(Tier::Full, Dialect::RfcV4).into_iter().find(|row| is_wanted(&row));
    let Some(case) = cases.iter().find(is_wanted).cloned().or_else(row) else {
        let names = || SCENARIOS.iter().flat_map(scenario_ids);
        if let Some(scenario) = SCENARIOS
            .iter()
            .find(|s| s.name == wanted || scenario_ids(s).iter().any(|i| i == wanted))
        {
            return Ok(explain_scenario(scenario));
        }
        let all: Vec<String> = cases.iter().flat_map(ids).chain(names()).collect();
        let near = nearest(all.iter().map(String::as_str), wanted).join("\n  ");
        return Err(PlanError::NoCase { id: id.to_string(), near });
    };
    Ok(format!("{case}{}", clauses_and_ids(&case.clauses, ids(&case))))
}

fn scenario_ids(scenario: &Scenario) -> Vec<String> {
    scenario.platforms.iter().map(|platform| format!("{platform}.{}", scenario.name)).collect()
}

/// What there is to say about a scenario: it has no steps to show.
fn explain_scenario(scenario: &Scenario) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in scenario.about.split_whitespace() {
        if line.len() + 1 + word.len() > ABOUT_WIDTH {
            out += &line;
            out += "\n";
            line = String::from("#");
        }
        line += " ";
        line += word;
    }
    out += &format!("{line}\n{}", scenario.text());
    if let Some(facility) = scenario.needs {
        out += &format!("needs {}\n", facility.name());
    }
    out + &clauses_and_ids(scenario.clauses, scenario_ids(scenario))
}

/// The clauses with their words and sources, and the ids.
fn clauses_and_ids(clauses: &[ClauseId], ids: Vec<String>) -> String {
    let mut out = String::from("\nclauses\n");
    for clause in clauses.iter().map(|id| id.clause()) {
        out += &format!("  {}\n    {}\n    source: {}\n", clause.id, clause.text, clause.source);
        for fix in &clause.fixes {
            out += &format!("    see: {fix}\n");
        }
    }
    out += "runs as\n";
    for id in ids {
        out += &format!("  {id}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a failure names can be explained: cases, scenarios and enumerated rows of both tiers, as the machine names them.
    #[test]
    fn every_kind_of_id() {
        for (id, says) in [
            ("model.sw-protected.documentation.shared-hole-shared.zero", "case    documentation."),
            ("sw-protected.layout.sa-ph-sh.0-2-private-preserve-guest", "file    reused"),
            ("layout-at-4g.ph-ph-ph.0-1-shared-zero-both", "pages   1048584"),
        ] {
            let text = explain(id).unwrap();
            assert!(text.contains(says), "{id}: {text}");
        }
        let error = explain("sw-protected.layout.sa").unwrap_err().to_string();
        assert!(error.contains("the nearest ids"), "{error}");
    }
}
