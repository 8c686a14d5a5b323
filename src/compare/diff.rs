// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform diff`: what a change of the kernel, or of anything else, did to the results.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::any::environment_text;
use crate::results::{AnyVerdict, LineError, Outline, ReadError, ResultsFile, Verdict};
use crate::text::ascii;

/// Ids that are listed in a section that is no alarm, when not all are asked for.
const SHOWN: usize = 20;

/// How one case ended, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    verdict: AnyVerdict,
    /// What went wrong, and the broken clause; or why it was skipped.
    why: Box<str>,
    clause: Option<Box<str>>,
}

impl Ended {
    fn failed(&self) -> bool {
        matches!(&self.verdict, AnyVerdict::Known(verdict) if verdict.is_failure())
    }

    /// Whether it failed, waived or not.
    fn bad(&self) -> bool {
        self.failed() || self.verdict == AnyVerdict::Known(Verdict::Waived)
    }

    /// Whether the case ran: a newer version's verdict counts as one that did.
    fn ran(&self) -> bool {
        self.verdict != AnyVerdict::Known(Verdict::Skip)
    }
}

/// One results file.
struct Side {
    head: Value,
    cases: BTreeMap<String, Ended>,
    /// Cases without a verdict, because the run ended before its plan did.
    not_run: usize,
    /// Whether the file has its last line.
    complete: bool,
}

impl Side {
    fn read(path: &Path) -> Result<Side, ReadError> {
        let mut file = ResultsFile::open(path)?;
        let head = file.head()?;
        let planned = head["planned"].as_u64().unwrap_or_default() as usize;
        let mut side = Side { head, cases: BTreeMap::new(), not_run: 0, complete: false };
        while let Some((record, _)) = file.next::<Outline>()? {
            match record.kind.as_str() {
                "case" => {
                    let ended = Ended::from(&record);
                    if side.cases.insert(record.id, ended).is_some() {
                        return Err(file.at(LineError::SecondResult));
                    }
                }
                "run" => return Err(file.at(LineError::SecondRun)),
                "summary" => {
                    side.complete = true;
                    side.not_run = record.not_run;
                }
                _ => {}
            }
        }
        side.not_run = side.not_run.max(planned.saturating_sub(side.cases.len()));
        Ok(side)
    }

    fn headline(&self) -> String {
        let text = |value: &Value| ascii(value.as_str().unwrap_or("?"));
        let environment = &self.head["environment"];
        let host = match environment["host"].as_str() {
            None | Some("") => String::new(),
            Some(host) => format!(", {} host", ascii(host)),
        };
        let mut line = format!(
            "{}, machine {}{host}, Linux {}, dialect {}: {} results",
            text(&self.head["suite"]),
            text(&environment["machine"]),
            text(&environment["kernel_release"]),
            text(&environment["dialect"]),
            self.cases.len()
        );
        if !self.complete || self.not_run > 0 {
            let _ = write!(line, ", {} cases did not run", self.not_run);
        }
        line
    }
}

impl From<&Outline> for Ended {
    fn from(record: &Outline) -> Ended {
        let verdict = AnyVerdict::new(&record.verdict);
        let slugs = || {
            let mut slugs: Vec<&str> = record.needs.iter().map(|n| n.slug.as_str()).collect();
            slugs.dedup();
            slugs.join(",")
        };
        let why = record.failure.as_ref().map_or_else(slugs, |failure| failure.summary.clone());
        let clause = record.failure.as_ref().and_then(|f| f.clause.as_deref());
        Ended { verdict, why: why.into(), clause: clause.map(Into::into) }
    }
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// For people.
    pub text: String,
    /// Whether something that did not fail in the first file fails in the second, or the second run did not come to its
    /// end.
    pub broke: bool,
}

/// Lists of cases that changed in the same way.
#[derive(Default)]
struct Changes {
    broke: Vec<String>,
    fixed: Vec<String>,
    otherwise: Vec<String>,
    new: Vec<String>,
    gone: Vec<String>,
    same: usize,
}

/// Compares two results files, of whatever versions; `all` lists every case instead of the first few.
pub fn diff(base: &Path, patched: &Path, all: bool) -> Result<Diff, ReadError> {
    let (before, after) = (Side::read(base)?, Side::read(patched)?);
    let mut text = String::new();
    let _ = writeln!(text, "base     {}: {}", base.display(), before.headline());
    let _ = writeln!(text, "patched  {}: {}", patched.display(), after.headline());

    text += &environment_text(&before.head, &after.head);

    let changes = changes(&before.cases, &after.cases);
    let mut section = |title: &str, lines: &[String], limit: usize| {
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{title} ({})", lines.len());
        for line in lines.iter().take(limit) {
            let _ = writeln!(text, "  {line}");
        }
        if lines.len() > limit {
            let _ = writeln!(text, "  and {} more; --all lists them", lines.len() - limit);
        }
    };
    let limit = if all { usize::MAX } else { SHOWN };
    section("broke", &changes.broke, usize::MAX);
    section("fails otherwise", &changes.otherwise, limit);
    section("fixed", &changes.fixed, limit);
    section("new", &changes.new, limit);
    section("no longer ran", &changes.gone, limit);

    let cut_short = !after.complete || after.not_run > 0;
    text += "\n";
    if cut_short {
        let _ = writeln!(
            text,
            "the patched run did not come to its end: {} cases did not run",
            after.not_run
        );
    }
    if !before.complete || before.not_run > 0 {
        text += "the base run did not come to its end: what is new may not be\n";
    }
    let disjoint = !before.cases.is_empty()
        && !after.cases.is_empty()
        && !after.cases.keys().any(|id| before.cases.contains_key(id));
    if disjoint {
        text += "the files have no case in common\n";
    }
    let _ = writeln!(
        text,
        "{} broke, {} fail otherwise, {} fixed, {} new, {} no longer ran, {} as before",
        changes.broke.len(),
        changes.otherwise.len(),
        changes.fixed.len(),
        changes.new.len(),
        changes.gone.len(),
        changes.same
    );
    Ok(Diff { text, broke: !changes.broke.is_empty() || cut_short || disjoint })
}

fn changes(before: &BTreeMap<String, Ended>, after: &BTreeMap<String, Ended>) -> Changes {
    let mut changes = Changes::default();
    for (id, now) in after {
        let was = before.get(id);
        let from = was.map_or("was not there".into(), |was| format!("was {}", was.verdict.name()));
        let line = format!("{:<7} {}  ({})", name(now), ascii(id), ascii(&from));
        let with_why = || format!("{line}\n            {}", ascii(&now.why));
        match was {
            Some(was) if was.verdict == now.verdict && was.clause == now.clause => {
                changes.same += 1;
            }
            Some(was) if was.failed() && now.failed() => {
                let why = format!("{}\n            before: {}", with_why(), ascii(&was.why));
                changes.otherwise.push(why);
            }
            _ if now.failed() => changes.broke.push(with_why()),
            Some(was) if was.ran() && !now.ran() => {
                changes.gone.push(format!("{line}: {}", ascii(&now.why)));
            }
            Some(was) if was.bad() && now.verdict == AnyVerdict::Known(Verdict::Pass) => {
                changes.fixed.push(line);
            }
            Some(was) if !was.ran() => changes.new.push(line),
            // Waived or not, or a verdict that this version does not know: worth a look, no alarm.
            Some(_) => changes.otherwise.push(line),
            None if now.ran() => changes.new.push(line),
            None => changes.same += 1,
        }
    }
    for (id, was) in before {
        if was.ran() && !after.contains_key(id) {
            changes.gone.push(format!("{:<7} {}  (was {})", "NONE", ascii(id), was.verdict.name()));
        }
    }
    changes
}

fn name(ended: &Ended) -> String {
    ended.verdict.name().to_ascii_uppercase()
}
