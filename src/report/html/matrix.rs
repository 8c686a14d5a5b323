// SPDX-License-Identifier: GPL-2.0-only
//! What the run says about each clause on each platform.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::clause::{clause, clauses};
use crate::report::file::escape;
use crate::results::{CaseRecord, RunRecord, Verdict};

/// What has come so far of one clause on one platform.
#[derive(Default)]
struct Cell {
    passed: usize,
    broken: usize,
    waived: usize,
    undecided: usize,
    skipped: BTreeSet<String>,
}

/// Platforms and clauses, with what has come so far.
#[derive(Default)]
pub(super) struct Matrix {
    /// In the order of the environment.
    platforms: Vec<String>,
    cells: BTreeMap<String, BTreeMap<String, Cell>>,
}

impl Matrix {
    pub fn started(&mut self, run: &RunRecord) {
        self.platforms = run.environment.platforms.iter().map(|p| p.name.clone()).collect();
    }

    pub fn count(&mut self, record: &CaseRecord) {
        let name = record.platform();
        if !self.platforms.iter().any(|platform| platform == name) {
            self.platforms.push(name.to_string());
        }
        let broken = record.failure.as_ref().and_then(|failure| failure.clause.as_ref());
        let extra = broken.filter(|clause| !record.clauses.contains(clause));
        for id in record.clauses.iter().chain(extra) {
            let cells = match self.cells.get_mut(id) {
                Some(cells) => cells,
                None => self.cells.entry(id.clone()).or_default(),
            };
            let cell = match cells.get_mut(name) {
                Some(cell) => cell,
                None => cells.entry(name.to_string()).or_default(),
            };
            match record.verdict {
                Verdict::Fail if broken == Some(id) => cell.broken += 1,
                Verdict::Waived if broken == Some(id) => cell.waived += 1,
                Verdict::Pass => cell.passed += 1,
                Verdict::Fail | Verdict::Error | Verdict::Timeout | Verdict::Waived => {
                    cell.undecided += 1;
                }
                Verdict::Skip => {
                    for need in &record.needs {
                        if !cell.skipped.contains(&need.slug) {
                            cell.skipped.insert(need.slug.clone());
                        }
                    }
                }
            }
        }
    }

    /// A table: the clauses that this version knows, in their order, then others.
    pub fn table(&self) -> String {
        let mut out = String::from("<div class=scroll><table><thead><tr><th>clause</th>");
        for platform in &self.platforms {
            let _ = write!(out, "<th>{}</th>", escape(platform));
        }
        out += "</tr></thead><tbody>\n";
        let known = clauses().iter().map(|clause| clause.id.name());
        let others = self.cells.keys().map(String::as_str).filter(|id| clause(id).is_none());
        for id in known.chain(others) {
            let about = clause(id).map_or(String::new(), |c| format!("{} ({})", c.text, c.source));
            let _ = write!(out, "<tr><th title=\"{}\">{}</th>", escape(&about), escape(id));
            for platform in &self.platforms {
                let cell = self.cells.get(id).and_then(|cells| cells.get(platform));
                let (class, text) = cell.map_or(("idle", "no case".to_string()), describe);
                let _ = write!(out, "<td class=\"state {class}\">{}</td>", escape(&text));
            }
            out += "</tr>\n";
        }
        out + "</tbody></table></div>\n"
    }
}

/// How a cell looks, and its words: broken outweighs everything, and without a verdict it says why.
fn describe(cell: &Cell) -> (&'static str, String) {
    let undecided = match cell.undecided {
        0 => String::new(),
        n => format!(", undecided {n}"),
    };
    let kept = if cell.passed > 0 { format!(", kept {}", cell.passed) } else { String::new() };
    let waived = if cell.waived > 0 { format!(", waived {}", cell.waived) } else { String::new() };
    if cell.broken > 0 {
        return ("bad", format!("BROKEN {}{waived}{kept}{undecided}", cell.broken));
    }
    if cell.waived > 0 {
        return ("warn", format!("broken{waived}{kept}{undecided}"));
    }
    if cell.undecided > 0 {
        return ("warn", format!("kept {}{undecided}", cell.passed));
    }
    if cell.passed > 0 {
        return ("good", format!("kept {}", cell.passed));
    }
    let why: Vec<&str> = cell.skipped.iter().map(String::as_str).collect();
    ("idle", format!("not checked: {}", why.join(", ")))
}
