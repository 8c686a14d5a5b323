// SPDX-License-Identifier: GPL-2.0-only
//! Results that travel: shards, merging, comparing, waivers and the other formats, as a user calls them, on the model.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use gmem_conform::results::for_each_record;
use gmem_conform::results::{Record, RunRecord, Shard, Verdict, WaiverState};

/// A planted bug that breaks few of the cases below.
const BUG: &str = "mode-skipped-on-noop";
/// The cases that most tests run: a second's worth, some of which the bug fails.
const FILTER: &str = "model.sw-protected.zero.";

/// A directory, removed at the end.
struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(TempDir::new().unwrap())
    }

    /// Runs the program in it.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
            .args(arguments)
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs the cases of [`FILTER`] on the model.
    fn model(&self, arguments: &[&str]) -> Output {
        self.run(&[&["--machine", "model", FILTER], arguments].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn records(file: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for_each_record(file, |record| records.push(record)).unwrap();
    records
}

fn head(records: &[Record]) -> &RunRecord {
    match &records[0] {
        Record::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn ids(records: &[Record]) -> BTreeSet<String> {
    let id = |record: &Record| match record {
        Record::Case(case) => Some(case.id.clone()),
        _ => None,
    };
    records.iter().filter_map(id).collect()
}

/// Every case is in exactly one of the shards, and together they give the results of the whole.
#[test]
fn shards_make_up_the_whole() {
    let dir = Dir::new();
    assert_eq!(status(&dir.model(&["--json", "whole.jsonl"])), 0);
    let mut seen = BTreeSet::new();
    for index in 1..=3 {
        let (shard, file) = (format!("{index}/3"), format!("{index}.jsonl"));
        assert_eq!(status(&dir.model(&["--shard", &shard, "--json", &file])), 0);
        let records = records(&dir.path(&file));
        assert_eq!(head(&records).shard, Some(Shard { index, count: 3 }));
        for id in ids(&records) {
            assert!(seen.insert(id.clone()), "{id} is in two shards");
        }
    }
    let whole = records(&dir.path("whole.jsonl"));
    assert_eq!(seen, ids(&whole));
    let output = dir.run(&["merge", "1.jsonl", "2.jsonl", "3.jsonl", "--output", "all.jsonl"]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert_eq!(ids(&records(&dir.path("all.jsonl"))), ids(&whole));
    let output = dir.run(&["diff", "whole.jsonl", "all.jsonl"]);
    assert_eq!(status(&output), 0, "{output:?}");
    let output = dir.run(&["merge", "1.jsonl", "3.jsonl"]);
    assert_eq!(status(&output), 1);
    assert!(text(&output.stderr).starts_with("missing shards: 2/3\n"), "{output:?}");
    let output = dir.run(&["merge", "1.jsonl", "2.jsonl", "--output", "2.jsonl"]);
    assert!(text(&output.stderr).contains("2.jsonl is one of the files"), "{output:?}");
}

/// A shard into which no case falls is no mistake and no pass: a plan of no tests and status 4.
#[test]
fn an_empty_shard_is_status_4() {
    let dir = Dir::new();
    let list = ["--machine", "model", "--list", "--exact", "model.sw-protected.zero.holes"];
    let part = |n: u32| dir.run(&[&list[..], &["--shard", &format!("{n}/50")]].concat());
    let empty = (1..=50).find(|n| part(*n).stdout.is_empty()).unwrap();
    let shard = format!("{empty}/50");
    let run = ["--machine", "model", "--exact", "model.sw-protected.zero.holes", "--shard", &shard];
    let output = dir.run(&run);
    assert_eq!(status(&output), 4, "{output:?}");
    assert!(text(&output.stdout).starts_with("TAP version 13\n1..0 # SKIP no-case-in-shard\n"));
}

/// What a bug breaks is found, and so is its being fixed.
#[test]
fn diff_finds_a_bug() {
    let dir = Dir::new();
    assert_eq!(status(&dir.model(&["--json", "base.jsonl"])), 0);
    assert_eq!(status(&dir.model(&["--plant", BUG, "--json", "patched.jsonl"])), 1);
    let output = dir.run(&["diff", "base.jsonl", "patched.jsonl"]);
    let said = text(&output.stdout);
    assert_eq!(status(&output), 1, "{said}");
    assert!(said.contains(&format!("planted_fault: (not recorded) -> {BUG}\n")), "{said}");
    assert!(said.contains("\nbroke ("), "{said}");
    assert!(said.contains("FAIL    model.sw-protected.zero.wholly-shared"), "{said}");
    let output = dir.run(&["diff", "patched.jsonl", "base.jsonl"]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert!(text(&output.stdout).contains("\nfixed ("), "{output:?}");
}

fn waiver(id: &str, expires: &str) -> String {
    format!(
        "[[waiver]]\nid = \"{id}\"\nreason = \"known to skip shared pages\"\n\
         link = \"https://example.org/1\"\nplatform = \"sw-protected\"\nkernel = \"*\"\n\
         dialect = \"rfc-v4\"\nexpires = {expires}\n"
    )
}

/// A waived failure shows in every format and fails nothing; the same waiver is stale once the bug is gone, which fails a
/// strict run only.
#[test]
fn waivers() {
    let dir = Dir::new();
    fs::write(dir.path("known.toml"), waiver("model.sw-protected.*", "9999-12-31")).unwrap();
    let known = ["--waivers", "known.toml", "--strict-waivers"];
    let bug = ["--plant", BUG, "--json", "bug.jsonl", "--format"];
    let tap = dir.model(&[&known[..], &bug, &["tap"]].concat());
    assert_eq!(status(&tap), 0, "{tap:?}");
    let tap = text(&tap.stdout);
    assert!(
        tap.contains(
            " model.sw-protected.zero.wholly-shared.3-4-host # XFAIL waived-until-9999-12-31\n"
        ),
        "{tap}"
    );
    assert!(
        tap.contains("# waived: known to skip shared pages (https://example.org/1)\n"),
        "{tap}"
    );
    let human = dir.model(&[&known[..], &bug, &["human"]].concat());
    let human = text(&human.stdout);
    assert!(human.contains("\nWAIVED model.sw-protected.zero.wholly-shared"), "{human}");
    assert!(human.contains("waiver `model.sw-protected.*`: "), "{human}");
    let found = records(&dir.path("bug.jsonl"));
    let waived =
        |record: &&Record| matches!(record, Record::Case(c) if c.verdict == Verdict::Waived);
    let count = found.iter().filter(waived).count();
    assert!(count > 0);
    let states: Vec<_> = found
        .iter()
        .filter_map(|record| match record {
            Record::Waiver(waiver) => Some((waiver.state, waiver.waived)),
            _ => None,
        })
        .collect();
    assert_eq!(states, [(WaiverState::Used, count)]);

    let stale = dir.model(&["--waivers", "known.toml"]);
    assert_eq!(status(&stale), 0);
    assert!(
        text(&stale.stdout).contains("# stale waiver `model.sw-protected.*`: none of the "),
        "{stale:?}"
    );
    assert_eq!(status(&dir.model(&known)), 1);
}

/// An expired waiver waives nothing and says so; one that no case can match is found out in any selection; a file that
/// is not right is refused before anything runs.
#[test]
fn waivers_that_are_wrong() {
    let dir = Dir::new();
    let file = waiver("model.sw-protected.*", "2020-01-31") + &waiver("no.such", "9999-12-31");
    fs::write(dir.path("w.toml"), file).unwrap();
    let output = dir.model(&["--waivers", "w.toml", "--plant", BUG]);
    assert_eq!(status(&output), 1);
    let said = text(&output.stdout);
    assert!(
        said.contains("# expired waiver `model.sw-protected.*`: it expired on 2020-01-31, and"),
        "{said}"
    );
    assert!(
        said.contains("# stale waiver `no.such`: the suite has no case with such an id"),
        "{said}"
    );
    fs::write(dir.path("w.toml"), "[[waiver]]\nid = \"x\"\n").unwrap();
    let output = dir.model(&["--waivers", "w.toml"]);
    assert_eq!(status(&output), 1);
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("--waivers w.toml: "), "{output:?}");
    assert!(text(&output.stderr).contains("missing field `reason`"), "{output:?}");
    assert_eq!(status(&dir.model(&["--strict-waivers"])), 1);
}

/// A results file gives the same reports as the run that wrote it, notes aside; without one of them it is told as text.
#[test]
fn reports_can_be_made_later() {
    let dir = Dir::new();
    let files = |prefix: &str| {
        ["html", "junit", "kcidb"].map(|f| (format!("--{f}"), format!("{prefix}.{f}")))
    };
    let arguments = |prefix| {
        files(prefix).into_iter().flat_map(|(option, file)| [option, file]).collect::<Vec<_>>()
    };
    let now = arguments("now");
    let now: Vec<&str> = now.iter().map(String::as_str).collect();
    let run =
        dir.model(&[&["--plant", BUG, "--json", "r.jsonl", "--format", "tap"], &now[..]].concat());
    assert_eq!(status(&run), 1);
    let later = arguments("later");
    let later: Vec<&str> = later.iter().map(String::as_str).collect();
    let output = dir.run(&[&["report", "r.jsonl"], &later[..]].concat());
    assert_eq!((status(&output), output.stdout.len()), (0, 0), "{output:?}");
    for ((_, now), (_, later)) in files("now").into_iter().zip(files("later")) {
        let read = |name: &str| fs::read_to_string(dir.path(name)).unwrap();
        assert!(read(&now) == read(&later), "{now} differs from {later}");
        assert!(read(&now).contains("model.sw-protected.zero"), "{now}");
    }
    let text_of = dir.run(&["report", "r.jsonl", "--format", "tap"]);
    assert_eq!(text(&text_of.stdout), text(&run.stdout));
    let output = dir.run(&["report", "r.jsonl", "--html", "r.jsonl"]);
    assert!(text(&output.stderr).contains("r.jsonl holds the results"), "{output:?}");
    assert_eq!(status(&dir.run(&["report", "none.jsonl"])), 1);
}

/// A new case runs at once, is not written over, and is refused where it cannot be one.
#[test]
fn a_new_case_runs() {
    let dir = Dir::new();
    let output = dir.run(&["new", "mine.first"]);
    assert_eq!(text(&output.stdout), "first.case\nrun it with: gmem-conform check first.case\n");
    assert_eq!(status(&dir.run(&["check", "--machine", "model", "first.case"])), 0);
    let again = dir.run(&["new", "mine.first"]);
    assert!(text(&again.stderr).contains("first.case: exists already"), "{again:?}");
    fs::create_dir(dir.path("cases")).unwrap();
    assert_eq!(status(&dir.run(&["new", "mine.first"])), 0);
    assert!(dir.path("cases/mine/first.case").exists());
    for (name, message) in [
        ("Mine.First", "expected topic.name"),
        ("mine", "expected topic.name"),
        ("zero.holes", "there is a case zero.holes already"),
    ] {
        let output = dir.run(&["new", name]);
        assert_eq!(status(&output), 1);
        assert!(text(&output.stderr).contains(message), "{output:?}");
    }
}

/// Completions and man pages come from the definition of the command line: they know every command and option.
#[test]
fn completions_and_man_pages() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = dir.run(&["completions", shell]);
        assert_eq!(status(&output), 0);
        let script = text(&output.stdout);
        for word in ["strict-waivers", "explore", "kcidb-origin", "rfc-v4"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let page = text(&dir.run(&["man"]).stdout);
    assert!(
        page.contains(".TH gmem-conform 1") && page.contains("\\-\\-strict\\-waivers"),
        "{page}"
    );
    let page = text(&dir.run(&["man", "diff"]).stdout);
    assert!(page.contains(".TH gmem-conform-diff 1") && page.contains("what broke"), "{page}");
    let output = dir.run(&["man", "dif"]);
    assert_eq!(status(&output), 1);
    assert!(text(&output.stderr).contains("diff"), "{output:?}");
}

/// Ctrl-C ends the run with its summary, in which what did not run is counted, and leaves the results so far.
#[test]
fn an_interrupted_run_has_its_summary() {
    use std::io::Read;

    let dir = Dir::new();
    let fixture = |name| format!("{}/tests/fixtures/{name}.case", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
        .args([
            "check",
            "--machine",
            "model",
            "--jobs",
            "1",
            "--format",
            "human",
            "--timeout",
            "600",
        ])
        .args(["--json", "r.jsonl", &fixture("hang-host"), &fixture("fine")])
        .current_dir(&dir.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0];
    out.read_exact(&mut first).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.contains("\nABORTED interrupted by SIGINT\n"), "{said}");
    assert!(said.contains(" planned: 0 passed, 0 failed"), "{said}");
    let records = records(&dir.path("r.jsonl"));
    let Some(Record::Summary(summary)) = records.last() else { panic!("{records:?}") };
    assert_eq!((summary.not_run, summary.exit_status), (summary.planned, 1));
}

/// Passed and skipped cases are listed when that is asked for.
#[test]
fn passed_and_skipped_cases_can_be_listed() {
    let dir = Dir::new();
    let human = |arguments: &[&str]| {
        let run = ["--machine", "model", "--format", "human", "zero.holes", "upstream."];
        text(&dir.run(&[&run[..], arguments].concat()).stdout)
    };
    let (pass, skip) =
        ("PASS model.sw-protected.zero.holes", "SKIP model.sw-protected.upstream.no-modes");
    let quiet = human(&[]);
    assert!(!quiet.contains(pass) && !quiet.contains(skip), "{quiet}");
    assert!(human(&["--print-passed"]).contains(pass));
    assert!(human(&["--print-skipped"]).contains(skip));
}

/// A failure shows the mails and commits that its clause and its case name.
#[test]
fn a_failure_names_known_fixes() {
    let dir = Dir::new();
    let case = "case a.b\nclause arguments.reserved\nfixes <a-mail@example.org> (made up)\npages 1\nstart shared\n\n\
                raw offset=0 size=0x1000 reserved3=1 attributes=0 -> EINVAL\n";
    fs::write(dir.path("a.case"), case).unwrap();
    let output =
        dir.run(&["check", "--machine", "model", "--plant", "reserved-not-checked", "a.case"]);
    let said = text(&output.stdout);
    assert!(said.contains("see       reserved words not checked in v1; fixed in v2\n"), "{said}");
    assert!(said.contains("see       <a-mail@example.org> (made up)\n"), "{said}");
}
