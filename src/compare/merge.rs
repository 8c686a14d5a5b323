// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform merge`: one results file out of several machines' runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::MergeError;
use super::environment::fields;
use crate::report::resumed_line;
use crate::results::exit;
use crate::results::{AnyVerdict, LineError, Outline, ReadError, ResultsFile};
use crate::results::{
    NotRunRecord, NoteRecord, Record, SCHEMA_VERSION, Summary, Verdict, WaiverRecord, WaiverState,
};
use crate::text::ascii;

/// Types of records that are about the run and that this version joins.
const OTHERS: [&str; 4] = ["resumed", "note", "aborted", "not-run"];

/// What came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// For people: what is missing, and the counts.
    pub text: String,
    /// The exit status of a run with these results.
    pub exit_status: u8,
}

/// One of the files.
struct Part {
    head: Value,
    /// Set by its last line.
    summary: Option<Outline>,
    cases: usize,
    /// Cases that did not run, as far as they are named.
    named: usize,
    /// Why its run ended before its plan.
    aborted: Option<String>,
    /// What its run said that belongs to no case.
    notes: Vec<String>,
}

impl Part {
    /// When its run began, in milliseconds since 1970.
    fn started_ms(&self) -> Option<u64> {
        self.head["started_ms"].as_u64().filter(|ms| *ms > 0)
    }

    fn new(head: Value) -> Part {
        let (named, notes) = (0, Vec::new());
        Part { head, summary: None, cases: 0, named, aborted: None, notes }
    }

    /// How many cases did not run and are not named.
    fn unnamed(&self) -> usize {
        let planned = self.head["planned"].as_u64().unwrap_or_default() as usize;
        let told = self.summary.as_ref().map_or(0, |s| s.not_run);
        told.max(planned.saturating_sub(self.cases)).saturating_sub(self.named)
    }

    /// Takes a record that is about no case; none of a type that only a newer version knows.
    fn take_other(&mut self, line: &[u8], not_run: &mut BTreeSet<String>) {
        match serde_json::from_slice(line) {
            Ok(Record::NotRun(case)) => {
                self.named += 1;
                not_run.insert(case.id);
            }
            Ok(Record::Aborted(aborted)) => self.aborted = Some(aborted.reason),
            Ok(Record::Note(note)) => self.notes.push(note.text),
            Ok(Record::Resumed(resumed)) => self.notes.push(resumed_line(&resumed)),
            _ => {}
        }
    }
}

/// Where a case's result is taken from.
struct Winner {
    rank: u8,
    part: usize,
    verdict: AnyVerdict,
}

/// What has been read of the files.
#[derive(Default)]
struct Joined {
    parts: Vec<Part>,
    /// By the id of the case.
    winners: BTreeMap<String, Winner>,
    /// By id and link.
    waivers: BTreeMap<(String, String), WaiverRecord>,
    /// The cases that did not run, as far as they are named.
    not_run: BTreeSet<String>,
    /// Results of cases that a file before has as well.
    repeated: usize,
}

impl Joined {
    fn read(&mut self, path: &Path) -> Result<(), ReadError> {
        let mut file = ResultsFile::open(path)?;
        let mut part = Part::new(file.head()?);
        while let Some((record, line)) = file.next::<Outline>()? {
            match record.kind.as_str() {
                "case" => {
                    part.cases += 1;
                    if !self.add_case(record) {
                        return Err(file.at(LineError::SecondResult));
                    }
                }
                "waiver" => {
                    // A waiver that cannot be understood is a newer version's, and says nothing about a case.
                    if let Ok(Record::Waiver(waiver)) = serde_json::from_slice(line) {
                        add_waiver(&mut self.waivers, *waiver);
                    }
                }
                "summary" => part.summary = Some(record),
                "run" => return Err(file.at(LineError::SecondRunToMerge)),
                kind if OTHERS.contains(&kind) => part.take_other(line, &mut self.not_run),
                _ => {}
            }
        }
        self.parts.push(part);
        Ok(())
    }

    /// Takes a result of the file that is being read; false if the file has one of the same case.
    fn add_case(&mut self, record: Outline) -> bool {
        let verdict = AnyVerdict::new(&record.verdict);
        let winner = Winner { rank: rank(&verdict), part: self.parts.len(), verdict };
        match self.winners.get_mut(&record.id) {
            None => drop(self.winners.insert(record.id, winner)),
            Some(old) if old.part == winner.part => return false,
            Some(old) => {
                self.repeated += 1;
                if winner.rank > old.rank {
                    *old = winner;
                }
            }
        }
        true
    }
}

/// Writes the results of `files`, of whatever versions, to `out` as those of one run. Records are copied as they are.
/// Where several files have a result of the same case, a failure wins over a pass, and anything over a skip.
pub fn merge(files: &[PathBuf], out: &mut dyn Write) -> Result<Merged, MergeError> {
    let mut joined = Joined::default();
    for path in files {
        joined.read(path)?;
    }
    // What did not run in one run may have run in another.
    let winners = &joined.winners;
    joined.not_run.retain(|id| !winners.contains_key(id));
    let Joined { parts, winners, not_run, repeated, .. } = &joined;
    let problems = problems(files, parts);
    let mut summary = Summary {
        not_run: not_run.len() + parts.iter().map(Part::unnamed).sum::<usize>(),
        only_in_company: parts
            .iter()
            .filter_map(|p| Some(p.summary.as_ref()?.only_in_company))
            .sum(),
        launches: parts.iter().filter_map(|p| Some(p.summary.as_ref()?.launches)).sum(),
        elapsed_ms: elapsed_ms(parts),
        ..Summary::default()
    };
    for winner in winners.values() {
        if let AnyVerdict::Known(verdict) = winner.verdict {
            summary.count(verdict);
        }
    }
    summary.planned = winners.len() + summary.not_run;
    let unwell =
        parts.iter().any(|p| p.summary.as_ref().is_none_or(|s| s.exit_status == exit::FAILED));
    let failures = summary.failed + summary.errors + summary.timeouts;
    summary.exit_status = if unwell || failures + summary.not_run > 0 || !problems.is_empty() {
        exit::FAILED
    } else if summary.passed + summary.waived > 0 {
        exit::PASSED
    } else {
        exit::SKIPPED
    };

    write_all(files, &joined, &problems, &summary, out)?;
    let mut text = String::new();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    if *repeated > 0 {
        let _ = writeln!(
            text,
            "{repeated} results of cases that another file has as well: a failure wins, then a pass"
        );
    }
    let _ = writeln!(text, "{}", crate::report::counts(&summary));
    Ok(Merged { text, exit_status: summary.exit_status })
}

/// How long any of the runs went on: those of shards may have done so side by side. One of unknown beginning, as old
/// versions wrote them, counts as if alone.
fn elapsed_ms(parts: &[Part]) -> u64 {
    let mut spans: Vec<(Option<u64>, u64)> = parts
        .iter()
        .filter_map(|part| Some((part.started_ms(), part.summary.as_ref()?.elapsed_ms)))
        .collect();
    spans.sort_unstable();
    let (mut total, mut covered) = (0, 0);
    for (started, elapsed) in spans {
        let Some(started) = started else {
            total += elapsed;
            continue;
        };
        let end = started.saturating_add(elapsed);
        total += end.saturating_sub(started.max(covered));
        covered = covered.max(end);
    }
    total
}

/// Which of two results of one case tells more.
fn rank(verdict: &AnyVerdict) -> u8 {
    match verdict {
        AnyVerdict::Known(Verdict::Skip) => 0,
        AnyVerdict::Unknown(_) => 1,
        AnyVerdict::Known(Verdict::Pass) => 2,
        AnyVerdict::Known(Verdict::Waived) => 3,
        AnyVerdict::Known(Verdict::Fail | Verdict::Error | Verdict::Timeout) => 4,
    }
}

/// A waiver that is of use on one machine is of use.
fn add_waiver(waivers: &mut BTreeMap<(String, String), WaiverRecord>, new: WaiverRecord) {
    let weight = |state| match state {
        WaiverState::Expired => 3,
        WaiverState::Used => 2,
        WaiverState::Stale => 1,
        WaiverState::NotInScope => 0,
    };
    let key = (new.waiver.id.clone(), new.waiver.link.clone());
    match waivers.get_mut(&key) {
        None => drop(waivers.insert(key, new)),
        Some(old) => {
            let waived = old.waived + new.waived;
            if weight(new.state) > weight(old.state) {
                *old = new;
            }
            old.waived = waived;
        }
    }
}

/// What keeps the files from being the whole suite.
fn problems(files: &[PathBuf], parts: &[Part]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut shards: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut whole = 0;
    for (file, part) in files.iter().zip(parts) {
        let name = ascii(&file.display().to_string());
        if part.summary.is_none() {
            problems.push(format!("{name} ends early: its run was killed"));
        }
        if let Some(reason) = &part.aborted {
            problems.push(format!("{name} ends early: {}", ascii(reason)));
        }
        for run in runs(file, &part.head) {
            match (run["run"]["shard"]["index"].as_u64(), run["run"]["shard"]["count"].as_u64()) {
                (Some(index), Some(count)) => drop(shards.entry(count).or_default().insert(index)),
                _ => whole += 1,
            }
        }
    }
    if shards.len() > 1 {
        problems.push("the files are shards of different partitions".into());
    }
    for (count, found) in shards {
        let missing: Vec<String> =
            (1..=count).filter(|i| !found.contains(i)).map(|i| format!("{i}/{count}")).collect();
        if !missing.is_empty() && whole == 0 {
            problems.push(format!("missing shards: {}", missing.join(" ")));
        }
    }
    problems
}

/// The runs that a file consists of.
fn runs(file: &Path, head: &Value) -> Vec<Value> {
    match head["merged"].as_array() {
        Some(runs) if !runs.is_empty() => runs.clone(),
        _ => vec![json!({ "file": file.display().to_string(), "run": head })],
    }
}

/// The first record: the first file's, with what all of them say.
fn head(files: &[PathBuf], parts: &[Part], problems: &[String], planned: usize) -> Value {
    let mut head = parts[0].head.clone();
    let mut remarks: Vec<String> = problems.to_vec();
    let mut platforms: Vec<Value> = Vec::new();
    for (file, part) in files.iter().zip(parts) {
        for platform in part.head["environment"]["platforms"].as_array().into_iter().flatten() {
            let missing = |p: &Value| p["missing"].as_array().map_or(0, Vec::len);
            match platforms.iter_mut().find(|p| p["name"] == platform["name"]) {
                Some(known) if missing(platform) < missing(known) => *known = platform.clone(),
                Some(_) => {}
                None => platforms.push(platform.clone()),
            }
        }
        for remark in part.head["environment"]["remarks"].as_array().into_iter().flatten() {
            remarks.push(format!("{}: {}", file.display(), remark.as_str().unwrap_or_default()));
        }
    }
    let first = fields(&parts[0].head);
    for (file, part) in files.iter().zip(parts).skip(1) {
        let other = fields(&part.head);
        let telling =
            ["suite", "machine", "host", "dialect", "kernel_release", "cpu", "planted_fault"];
        for name in telling.into_iter().filter(|n| first.get(*n) != other.get(*n)) {
            let value =
                |fields: &BTreeMap<String, String>| fields.get(name).cloned().unwrap_or_default();
            remarks.push(format!(
                "{name} is `{}` in {} and `{}` in {}",
                value(&first),
                files[0].display(),
                value(&other),
                file.display()
            ));
        }
    }
    let version = |part: &Part| part.head["schema"].as_u64().unwrap_or_default();
    let newest = parts.iter().map(version).max().unwrap_or_default();
    head["schema"] = newest.max(u64::from(SCHEMA_VERSION)).into();
    head["planned"] = planned.into();
    head["started_ms"] = parts.iter().filter_map(Part::started_ms).min().unwrap_or_default().into();
    head["shard"] = Value::Null;
    let merged: Vec<Value> =
        files.iter().zip(parts).flat_map(|(file, part)| runs(file, &part.head)).collect();
    head["merged"] = merged.into();
    if head["environment"].is_object() {
        head["environment"]["platforms"] = platforms.into();
        head["environment"]["remarks"] = remarks.into();
        let each = |name| parts.iter().map(move |part| part.head["environment"][name].as_str());
        head["environment"]["host"] =
            least_real(each("host").map(Option::unwrap_or_default)).into();
        if each("virtualization").any(|kind| kind == Some("nested")) {
            head["environment"]["virtualization"] = "nested".into();
        }
    }
    head
}

/// What results of these hosts together are worth: no more than the least real of them.
fn least_real<'a>(hosts: impl Iterator<Item = &'a str>) -> &'a str {
    // An old version did not say what it was; what a newer one says, this one cannot judge.
    let rank = |host: &&str| match *host {
        "bare-metal" => 0,
        "" => 1,
        "virtual" => 2,
        _ => 3,
    };
    hosts.max_by_key(rank).unwrap_or_default()
}

fn write_all(
    files: &[PathBuf],
    joined: &Joined,
    problems: &[String],
    summary: &Summary,
    out: &mut dyn Write,
) -> Result<(), MergeError> {
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(MergeError::Write);
    write(&line(&head(files, &joined.parts, problems, summary.planned))?)?;
    for (part, path) in files.iter().enumerate() {
        let mut file = ResultsFile::open(path)?;
        file.head()?;
        while let Some((record, text)) = file.next::<Outline>()? {
            let kind = record.kind.as_str();
            let wins = || joined.winners.get(&record.id).is_some_and(|winner| winner.part == part);
            let wanted = match kind {
                "case" => wins(),
                "run" | "started" | "waiver" | "summary" => false,
                _ => !OTHERS.contains(&kind),
            };
            if wanted {
                write(text.strip_suffix(b"\n").unwrap_or(text))?;
                write(b"\n")?;
            }
        }
    }
    for waiver in joined.waivers.values() {
        write(&line(&Record::Waiver(Box::new(waiver.clone())))?)?;
    }
    for (path, part) in files.iter().zip(&joined.parts) {
        for note in &part.notes {
            let text = format!("{}: {note}", path.display());
            write(&line(&Record::Note(NoteRecord { text }))?)?;
        }
    }
    for id in &joined.not_run {
        write(&line(&Record::NotRun(NotRunRecord { id: id.clone() }))?)?;
    }
    write(&line(&Record::Summary(*summary))?)
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>, MergeError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}
