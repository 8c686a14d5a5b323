// SPDX-License-Identifier: GPL-2.0-only
//! A failure as a few lines that can be pasted into a mail: the same in every text report.

use crate::results::{Blame, CaseRecord, Failure, Verdict};
use crate::text::ascii;

/// Width of the column of names.
const NAME: usize = 9;
/// Longest map of pages that is shown letter by letter.
const MAP: usize = 64;
/// Lines of stray output that are shown; the results file has them all.
const STRAY_LINES: usize = 10;

/// What went wrong in a case, line by line; nothing for a case that did not fail.
pub fn failure_lines(record: &CaseRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failure) = &record.failure {
        block(failure, &record.clauses, &mut lines);
    }
    if record.verdict != Verdict::Pass && !record.stray_output.trim().is_empty() {
        let stray: Vec<&str> = record.stray_output.trim_end().lines().collect();
        let (shown, more) = stray.split_at(stray.len().min(STRAY_LINES));
        lines.push("  the worker wrote:".to_string());
        lines.extend(shown.iter().map(|line| format!("    {}", ascii(line))));
        if !more.is_empty() {
            lines.push(format!("    ({} more lines)", more.len()));
        }
    }
    lines
}

fn block(failure: &Failure, clauses: &[String], lines: &mut Vec<String>) {
    lines.extend(failure.summary.lines().map(ascii));
    let mut row = |name: &str, text: Option<String>| {
        for (n, line) in text.iter().flat_map(|text| text.lines()).enumerate() {
            let name = if n == 0 { name } else { "" };
            lines.push(format!("  {name:<NAME$} {}", ascii(line)));
        }
    };
    row("clause", clause(failure));
    row("tests", tested(failure, clauses));
    row("step", step(failure));
    row("where", place(failure));
    row("expected", failure.expected.clone());
    row("found", failure.found.clone());
    for line in &failure.detail {
        row("", Some(format!("  {line}")));
    }
    row("pages", pages(failure));
    for fix in &failure.fixes {
        row("see", Some(fix.clone()));
    }
    row("company", failure.company.map(company));
    row("blame", failure.blame.map(|blame| blame_name(blame).to_string()));
    row("run", failure.command.clone());
}

pub(super) fn clause(failure: &Failure) -> Option<String> {
    let mut text = failure.clause.clone()?;
    if let Some(words) = &failure.clause_text {
        text += &format!(": {words}");
    }
    if let Some(source) = &failure.clause_source {
        text += &format!(" ({source})");
    }
    Some(text)
}

/// The clauses that the case tests, where it is not known which of them is broken.
pub(super) fn tested(failure: &Failure, clauses: &[String]) -> Option<String> {
    (failure.clause.is_none() && !clauses.is_empty()).then(|| clauses.join(", "))
}

pub(super) fn step(failure: &Failure) -> Option<String> {
    match (failure.line, &failure.statement) {
        (Some(line), Some(statement)) => Some(format!("line {line}: {statement}")),
        (Some(line), None) => Some(format!("line {line}")),
        (None, statement) => statement.clone(),
    }
}

pub(super) fn place(failure: &Failure) -> Option<String> {
    let parts: Vec<String> = [
        failure.view.clone(),
        failure.page.map(|page| format!("page {page}")),
        failure.offset.map(|offset| format!("offset {offset:#x}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn pages(failure: &Failure) -> Option<String> {
    let (before, after) = (failure.map_before.as_deref(), failure.map_after.as_deref());
    let count = before.or(after)?.len() as u64;
    let mut text =
        format!("{}..{}", failure.map_first_page, failure.map_first_page.saturating_add(count));
    if let Some(map) = before {
        text += &format!("  before {}", map_text(map));
    }
    if let Some(map) = after {
        text += &format!("  after {}", map_text(map));
    }
    let Some(map) = &failure.map_found else {
        return Some(text + "  (S shared, P private; lower case: a hole)");
    };
    text += &format!("  found {}", map_text(map));
    Some(text + "\n(S shared, P private, ! other contents; lower case: a hole)")
}

/// A map, or, when it is long, its runs: `500S 12P`.
fn map_text(map: &str) -> String {
    if map.len() <= MAP {
        return map.to_string();
    }
    let mut runs: Vec<(char, usize)> = Vec::new();
    for letter in map.chars() {
        match runs.last_mut() {
            Some((last, count)) if *last == letter => *count += 1,
            _ => runs.push((letter, 1)),
        }
    }
    let runs: Vec<String> = runs.iter().map(|(letter, count)| format!("{count}{letter}")).collect();
    runs.join(" ")
}

/// What it means that a case fails only after others.
pub(super) fn company(passed: usize) -> String {
    format!("it fails in a VM in which {passed} other cases have passed, and passes in a fresh one")
}

pub(super) fn blame_name(blame: Blame) -> &'static str {
    match blame {
        Blame::Kernel => "kernel",
        Blame::Payload => "payload",
        Blame::Suite => "suite",
        Blame::Machine => "machine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure in company only says so, with how many others there were.
    #[test]
    fn company_is_told() {
        let failure =
            Failure { summary: "it fails".into(), company: Some(7), ..Failure::default() };
        let mut lines = Vec::new();
        block(&failure, &[], &mut lines);
        let told = "  company   it fails in a VM in which 7 other cases have passed, and passes in a fresh one";
        assert_eq!(lines, ["it fails", told]);
    }

    /// A map of a large guest_memfd does not fill the screen, and loses nothing.
    #[test]
    fn long_maps_are_runs() {
        let map = "S".repeat(500) + &"p".repeat(12);
        assert_eq!(map_text(&map), "500S 12p");
        assert_eq!(map_text("SSPp"), "SSPp");
    }
}
