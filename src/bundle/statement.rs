// SPDX-License-Identifier: GPL-2.0-only
//! What was tested, and what was not.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::StatementError;
use crate::case::{self, BrokenLibrary};
use crate::contract::{State, contract};
use crate::report::{caveat, counts, headline, slugs};
use crate::results::{CaseRecord, Record, RunRecord, Summary, Verdict};
use crate::text::ascii;

/// What a results file says, taken apart.
#[derive(Default)]
struct Results<'a> {
    run: Option<&'a RunRecord>,
    cases: Vec<CaseRecord>,
    waivers: Vec<String>,
    aborted: Option<&'a str>,
    summary: Option<Summary>,
}

/// The statement about the records of one results file, for people.
pub fn statement(records: &[Record]) -> Result<String, StatementError> {
    let mut results = Results::default();
    for record in records {
        match record {
            Record::Run(run) => results.run = Some(run),
            Record::Case(case) => results.cases.push((**case).clone()),
            Record::Waiver(record) => {
                let (waiver, state) =
                    (&record.waiver, record.problem.as_deref().unwrap_or("in order"));
                results.waivers.push(format!(
                    "{}: {} waived, {state}: {} ({}, until {})",
                    waiver.id, record.waived, waiver.reason, waiver.link, waiver.expires
                ));
            }
            Record::Aborted(record) => results.aborted = Some(&record.reason),
            Record::Started(_) | Record::Resumed(_) | Record::Note(_) | Record::NotRun(_) => {}
            Record::Summary(summary) => results.summary = Some(*summary),
        }
    }
    let run = results.run.ok_or(StatementError::NoRun)?;
    let mut out = String::from("What was tested\n");
    let mut line = |text: &str| {
        let _ = writeln!(out, "  {}", ascii(text));
    };
    line(&headline(run));
    match &results.summary {
        Some(summary) => line(&counts(summary)),
        None => line(&format!(
            "the run was killed: {} of {} cases have a result",
            results.cases.len(),
            run.planned
        )),
    }
    line(&format!("command line: {}", run.arguments.join(" ")));
    if let Some(caveat) = caveat(&run.environment) {
        line(&caveat.to_uppercase());
    }

    out += "\nWhat was not tested\n";
    out += &not_tested(run, &results);

    if !results.waivers.is_empty() {
        out += "\nKnown failures\n";
        for waiver in &results.waivers {
            let _ = writeln!(out, "  {}", ascii(waiver));
        }
    }
    out += "\nClauses, by platform\n";
    out += &clauses(&results.cases)?;
    Ok(out)
}

fn not_tested(run: &RunRecord, results: &Results) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "  {}", ascii(&text));
    };
    for platform in &run.environment.platforms {
        for need in &platform.missing {
            line(format!("platform {}: {}: {}", platform.name, need.slug, need.prose));
        }
    }
    let mut skips: BTreeMap<String, usize> = BTreeMap::new();
    for case in results.cases.iter().filter(|case| case.verdict == Verdict::Skip) {
        *skips.entry(slugs(case)).or_default() += 1;
    }
    for (slugs, count) in skips {
        line(format!("{count} cases skipped: {slugs}"));
    }
    let not_run = run.planned.saturating_sub(results.cases.len());
    if not_run > 0 {
        let why = results.aborted.map_or(String::new(), |reason| format!(": {reason}"));
        line(format!("{not_run} cases did not run, because the run ended before{why}"));
    }
    if let Some(shard) = run.shard {
        line(format!("all but shard {} of {} of the cases", shard.index, shard.count));
    }
    for remark in &run.environment.remarks {
        line(format!("remark: {remark}"));
    }
    if out.is_empty() {
        out += "  nothing of what was asked for; the command line says what that was\n";
    }
    out
}

fn clauses(cases: &[CaseRecord]) -> Result<String, BrokenLibrary> {
    let library = case::library()?;
    let mut out = String::new();
    for promise in contract(&library, Some(cases)) {
        for (platform, state) in &promise.states {
            let _ = writeln!(out, "  {:<28} {platform:<14} {}", promise.clause.id, in_words(state));
        }
    }
    Ok(out)
}

fn in_words(state: &State) -> String {
    let undecided = match state.undecided.len() {
        0 => String::new(),
        n => format!(", undecided in {n} cases"),
    };
    if !state.broken.is_empty() {
        return format!("BROKEN in {} cases{undecided}", state.broken.len());
    }
    if state.passed > 0 {
        return format!("kept in {} cases{undecided}", state.passed);
    }
    let why: Vec<&str> = state.skipped.iter().map(String::as_str).collect();
    match (why.as_slice(), undecided.is_empty()) {
        ([], true) => "NOT TESTED: no case of it was run".into(),
        ([], false) => format!("NOT TESTED{undecided}"),
        (why, _) => format!("NOT TESTED: {}{undecided}", why.join(", ")),
    }
}
