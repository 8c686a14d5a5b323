// SPDX-License-Identifier: GPL-2.0-only
//! No case is lost or counted twice: planned = passed + failed + errors + timeouts + skipped + waived + not run, in every
//! format that the program makes of a results file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gmem_conform::results::{Record, Summary, Verdict};
use serde_json::Value;
use tempfile::TempDir;

/// The counts of a run, each as often as a format has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    errors: usize,
    timeouts: usize,
    skipped: usize,
    waived: usize,
    not_run: usize,
}

impl From<&Summary> for Counts {
    fn from(summary: &Summary) -> Counts {
        let Summary { passed, failed, errors, timeouts, skipped, waived, not_run, .. } = *summary;
        Counts { passed, failed, errors, timeouts, skipped, waived, not_run }
    }
}

impl Counts {
    fn planned(&self) -> usize {
        let Counts { passed, failed, errors, timeouts, skipped, waived, not_run } = self;
        passed + failed + errors + timeouts + skipped + waived + not_run
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Error => self.errors += 1,
            Verdict::Timeout => self.timeouts += 1,
            Verdict::Skip => self.skipped += 1,
            Verdict::Waived => self.waived += 1,
        }
    }
}

/// The verdict of each case in a results file, by its id.
#[allow(dead_code, reason = "not every program of tests that has this module compares verdicts")]
pub fn verdicts(results: &Path) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    for line in fs::read_to_string(results).unwrap().lines() {
        if let Record::Case(case) = serde_json::from_str(line).unwrap() {
            assert!(verdicts.insert(case.id, case.verdict).is_none(), "twice: {line}");
        }
    }
    verdicts
}

/// Fails unless the sum is right in every format of these results, which have come to their end.
pub fn holds(results: &Path) -> Summary {
    let text = fs::read_to_string(results).unwrap();
    let records: Vec<Record> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let Some(Record::Run(run)) = records.first() else { panic!("no head: {text}") };
    let Some(Record::Summary(summary)) = records.last() else { panic!("no end: {text}") };
    let expected = Counts::from(summary);
    assert_eq!(summary.planned, run.planned);
    assert_eq!(expected.planned(), summary.planned, "{summary:?}");

    let mut json = Counts::default();
    let mut ids = BTreeSet::new();
    for record in &records {
        match record {
            Record::Case(case) => {
                json.count(case.verdict);
                assert!(ids.insert(&case.id), "{} twice", case.id);
            }
            Record::NotRun(case) => {
                json.not_run += 1;
                assert!(ids.insert(&case.id), "{} twice", case.id);
            }
            _ => {}
        }
    }
    assert_eq!(json, expected, "JSON");

    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let report = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
            .arg("report")
            .arg(results)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(tap(&report(&["--format", "tap"]), summary.planned), expected, "TAP");
    let human = report(&["--format", "human"]);
    let counts = gmem_conform::report::counts(summary);
    assert!(human.lines().any(|line| line == counts), "no {counts} in {human}");
    report(&["--junit", "junit", "--kcidb", "kcidb", "--html", "html"]);
    let junit_counts = junit(&fs::read_to_string(file("junit")).unwrap());
    assert_eq!(junit_counts, expected, "JUnit");
    assert_eq!(kcidb(&fs::read_to_string(file("kcidb")).unwrap()), expected, "KCIDB");
    let html = fs::read_to_string(file("html")).unwrap();
    for (name, count) in [
        ("planned", summary.planned),
        ("passed", summary.passed),
        ("failed", summary.failed),
        ("errors", summary.errors),
        ("timeouts", summary.timeouts),
        ("skipped", summary.skipped),
        ("waived", summary.waived),
        ("not run", summary.not_run),
    ] {
        let said = format!(">{count}</b> {name}<");
        assert!(html.contains(&said), "{said} is not in the HTML");
    }
    *summary
}

fn tap(text: &str, planned: usize) -> Counts {
    let mut counts = Counts::default();
    assert!(text.lines().any(|line| line == format!("1..{planned}")), "{text}");
    for line in text.lines() {
        if line.starts_with("# not run: ") {
            counts.not_run += 1;
        } else if line.starts_with("not ok ") {
            match line {
                line if line.contains(" # TIMEOUT") => counts.timeouts += 1,
                line if line.contains(" # ERROR") => counts.errors += 1,
                _ => counts.failed += 1,
            }
        } else if line.starts_with("ok ") {
            match line {
                line if line.contains(" # SKIP") => counts.skipped += 1,
                line if line.contains(" # XFAIL") => counts.waived += 1,
                _ => counts.passed += 1,
            }
        }
    }
    counts
}

fn junit(text: &str) -> Counts {
    let of_type = |kind: &str| text.matches(&format!(" type=\"{kind}\"")).count();
    let mut counts = Counts {
        passed: 0,
        failed: of_type("fail"),
        errors: of_type("error"),
        timeouts: of_type("timeout"),
        skipped: of_type("skip"),
        waived: of_type("waived"),
        not_run: of_type("not-run"),
    };
    counts.passed = text.matches("<testcase ").count() - counts.planned();
    counts
}

fn kcidb(text: &str) -> Counts {
    let report: Value = serde_json::from_str(text).unwrap();
    let mut counts = Counts::default();
    for test in report["tests"].as_array().into_iter().flatten() {
        let cause = test["misc"]["cause"].as_str().unwrap_or_default();
        match (test["status"].as_str().unwrap(), cause) {
            ("PASS", _) => counts.passed += 1,
            ("FAIL", "timeout") => counts.timeouts += 1,
            ("FAIL", "waived") => counts.waived += 1,
            ("FAIL", _) => counts.failed += 1,
            ("ERROR", _) => counts.errors += 1,
            ("SKIP", _) => counts.skipped += 1,
            ("MISS", _) => counts.not_run += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}
