// SPDX-License-Identifier: GPL-2.0-only
//! Runs that are killed or end early, on the model: nothing is lost, and `resume` makes them whole.

mod accounting;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gmem_conform::results::{LeftResults, Record, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How often a run is killed at a random moment, unless this variable says otherwise.
const KILLS_VARIABLE: &str = "GMEM_CONFORM_KILLS";
const KILLS: u64 = 4;

/// Cases of every kind: passes, failures by a planted bug, skips. In one worker, or two.
const CASES: [&str; 8] = [
    "--machine",
    "model",
    "--plant",
    "mode-skipped-on-noop",
    "--platform=sw-protected,default",
    "--skip=.layout.",
    // What a race finds of a bug is a matter of time.
    "--skip=.race.",
    "--format=tap",
];

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gmem-conform"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Waits until a file has so many lines, or the process has ended; whether the process still runs.
fn wait_for_lines(file: &Path, lines: usize, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let text = fs::read(file).unwrap_or_default();
        if text.iter().filter(|byte| **byte == b'\n').count() >= lines {
            return child.try_wait().unwrap().is_none();
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "{} has not {lines} lines", file.display());
        std::thread::yield_now();
    }
}

/// A process that runs the cases: the program's child.
fn worker_of(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(Pid::from_raw(children.split_whitespace().next()?.parse().ok()?))
}

/// Numbers that are the same in every run: the constants of Knuth's MMIX generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit as u64) as usize
    }
}

/// Kills the run with `arguments` when the results have so many lines; whether it was still running.
fn killed(folder: &Path, arguments: &[&str], lines: usize) -> bool {
    let mut child = program(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let runs = wait_for_lines(&folder.join("r.jsonl"), lines, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    runs
}

/// Whoever kills the program at whatever moment, `resume` completes the run, and the verdicts are those of one that nobody
/// disturbed. What is killed is the run, or the run and then the one that resumes it; or a worker, which costs its case.
#[test]
fn killed_runs_are_made_whole() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |text| text.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let results = folder.path().join("r.jsonl");
    let whole = [&CASES[..], &["--json", "whole.jsonl"]].concat();
    assert_eq!(run(folder.path(), &whole).status.code(), Some(1));
    let undisturbed = accounting::verdicts(&folder.path().join("whole.jsonl"));
    let lines = fs::read_to_string(folder.path().join("whole.jsonl")).unwrap().lines().count();
    let mut random = Random(17);
    let mut disturbed = 0;
    for kill in 0..kills {
        let jobs = if kill % 2 == 0 { "--jobs=1" } else { "--jobs=2" };
        let arguments = [&CASES[..], &["--json", "r.jsonl", jobs]].concat();
        let at = 1 + random.below(lines - 1);
        if kill % 3 == 2 {
            disturbed += worker_killed(folder.path(), &arguments, at, &undisturbed);
            continue;
        }
        let _ = fs::remove_file(&results);
        disturbed += usize::from(killed(folder.path(), &arguments, at));
        if kill % 4 == 3 {
            killed(folder.path(), &["resume", "r.jsonl"], at + random.below(lines - at + 1));
        }
        let output = run(folder.path(), &["resume", "r.jsonl"]);
        assert_eq!(output.status.code(), Some(1), "killed at line {at}: {output:?}");
        assert!(accounting::verdicts(&results) == undisturbed, "killed at line {at}");
        accounting::holds(&results);
    }
    assert!(disturbed * 2 > kills as usize, "{disturbed} of {kills} were killed in time");
}

/// Kills a worker; how often that was in time. Its case is an error, or passes to another worker, and all others are as ever.
fn worker_killed(
    folder: &Path,
    arguments: &[&str],
    lines: usize,
    undisturbed: &BTreeMap<String, Verdict>,
) -> usize {
    let results = folder.join("r.jsonl");
    let _ = fs::remove_file(&results);
    let mut child = program(folder).args(arguments).stdout(Stdio::null()).spawn().unwrap();
    wait_for_lines(&results, lines, &mut child);
    let hit = worker_of(child.id()).is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let verdicts = accounting::verdicts(&results);
    let differ: Vec<_> = verdicts.iter().filter(|(id, v)| undisturbed[*id] != **v).collect();
    assert!(differ.len() <= 1 && differ.iter().all(|(_, v)| **v == Verdict::Error), "{differ:?}");
    assert_eq!(verdicts.len(), undisturbed.len());
    accounting::holds(&results);
    usize::from(hit)
}

/// A results file that stops in the middle: the head of a run of three cases, and `lines` behind it.
fn stopped(folder: &Path, lines: &[&str]) -> PathBuf {
    let arguments = ["--machine", "model", "--json", "r.jsonl", "sw-protected.zero.holes"];
    run(folder, &arguments);
    let path = folder.join("r.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let head = text.lines().next().unwrap();
    fs::write(&path, [&[head], lines].concat().join("\n") + "\n").unwrap();
    path
}

const STARTED: &str = r#"{"type":"started","id":"model.sw-protected.zero.holes"}"#;

/// The case of [`stopped`] after `resume` with these options.
fn resumed(lines: &[&str], options: &[&str]) -> (Output, Vec<Record>) {
    let folder = TempDir::new().unwrap();
    let path = stopped(folder.path(), lines);
    let output = run(folder.path(), &[&["resume", "r.jsonl"], options].concat());
    let left = LeftResults::read(&path).unwrap();
    if left.summary().is_some() {
        accounting::holds(&path);
    }
    (output, left.records)
}

fn verdict(records: &[Record]) -> Option<Verdict> {
    records.iter().find_map(|record| match record {
        Record::Case(case) => Some(case.verdict),
        _ => None,
    })
}

/// A case that was running when the machine went down is recorded and does not run again; one of a run that was only killed
/// runs again, but not for ever.
#[test]
fn what_was_running_is_recorded() {
    let (output, records) = resumed(&[STARTED], &[]);
    assert_eq!(verdict(&records), Some(Verdict::Pass), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    let (output, records) = resumed(&[STARTED, STARTED, STARTED], &[]);
    assert_eq!(verdict(&records), Some(Verdict::Error));
    assert!(stdout(&output).contains("the run was killed"), "{output:?}");
    let (output, records) = resumed(&[STARTED], &["--why", "the power failed"]);
    assert_eq!((verdict(&records), output.status.code()), (Some(Verdict::Error), Some(1)));
    let Some(Record::Resumed(resumption)) =
        records.iter().find(|record| matches!(record, Record::Resumed(_)))
    else {
        panic!("{records:?}")
    };
    assert_eq!((resumption.part, resumption.reason.as_str()), (2, "the power failed"));
    assert_eq!(resumption.running, ["model.sw-protected.zero.holes"]);
}

/// What remains may be left for later, or be said not to have run.
#[test]
fn what_is_left_can_wait_or_be_ended() {
    let (output, records) = resumed(&[], &["--then", "end", "--why", "the power failed"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("Bail out! the power failed\n"), "{output:?}");
    assert!(records.iter().any(|record| matches!(record, Record::NotRun(_))), "{records:?}");
    let (output, records) = resumed(&[STARTED], &["--then", "wait", "--why", "the power failed"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), ""));
    assert_eq!(verdict(&records), Some(Verdict::Error));
    assert!(!records.iter().any(|record| matches!(record, Record::Summary(_))), "{records:?}");
}

/// A half-written line at the end is no result, and the next one does not run into it.
#[test]
fn a_line_that_was_cut_short_is_taken_back() {
    let folder = TempDir::new().unwrap();
    let path = stopped(folder.path(), &[STARTED]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"type\":\"case\",\"id\":\"mod")).unwrap();
    let output = run(folder.path(), &["resume", "r.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    accounting::holds(&path);
    // Only the end of the line is missing.
    fs::write(&path, text.trim_end()).unwrap();
    let output = run(folder.path(), &["resume", "r.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    accounting::holds(&path);
}

/// A run that has come to its end is told again, and nothing runs.
#[test]
fn a_whole_run_is_only_told() {
    let folder = TempDir::new().unwrap();
    run(folder.path(), &["--machine", "model", "--json", "r.jsonl", "sw-protected.zero.holes"]);
    let before = fs::read(folder.path().join("r.jsonl")).unwrap();
    let output = run(folder.path(), &["resume", "r.jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("ok 1 model.sw-protected.zero.holes"), "{output:?}");
    assert_eq!(fs::read(folder.path().join("r.jsonl")).unwrap(), before);
}

/// What cannot be resumed is told with one message, and is left as it is.
#[test]
fn what_cannot_be_resumed_is_told() {
    let folder = TempDir::new().unwrap();
    let path = stopped(folder.path(), &[]);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, message) in [
        ("\"planned\":1", "\"planned\":2", "its run had 2 cases, and here are 1"),
        ("\"machine\":\"model\"", "\"machine\":\"host\"", "its machine was `host`, and here it is"),
        ("\"merged\":[]", "\"merged\":[{\"file\":\"a\",\"run\":{}}]", "resume each of them"),
        ("\"sw-protected.zero.holes\"", "\"probe\"", "it is not from a run of cases"),
    ] {
        assert!(text.contains(from), "{from} is not in {text}");
        let changed = text.replacen(from, to, 1);
        fs::write(&path, &changed).unwrap();
        let output = run(folder.path(), &["resume", "r.jsonl"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(message), "{message}: {output:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    }
    fs::write(&path, &text).unwrap();
    for (arguments, message) in [
        (&["resume", "missing.jsonl"][..], "missing.jsonl: "),
        (&["resume", "r.jsonl", "--jobs", "2"], "--jobs is none of resume's options"),
        (&["resume", "r.jsonl", "--console", "missing"], "--console missing: "),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(message), "{message}: {output:?}");
    }
}

/// Each way in which a run ends early leaves results in which every case is counted once.
#[test]
fn runs_that_end_early_are_accounted_for() {
    let folder = TempDir::new().unwrap();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let fixture = |name: &str| format!("{fixtures}/{name}.case");
    let planted = ["--machine", "model", "--plant", "mode-skipped-on-noop", "sw-protected."];
    let hangs = ["hang-host", "hang-guest", "exit", "hang-call", "fine"].map(fixture);
    let mut check = vec!["check", "--machine", "model", "--platform", "sw-protected"];
    check.extend(hangs.iter().map(String::as_str));
    for (arguments, not_run) in [
        ([&planted[..], &["--fail-fast"]].concat(), true),
        ([&planted[..], &["--max-fail", "3", "--jobs", "2"]].concat(), true),
        ([&check[..], &["--timeout", "2", "--max-timeouts", "2", "--jobs", "1"]].concat(), true),
        ([&check[..], &["--timeout", "2", "--jobs", "1"]].concat(), false),
    ] {
        let output = run(folder.path(), &[&arguments[..], &["--json", "early.jsonl"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let summary = accounting::holds(&folder.path().join("early.jsonl"));
        assert_eq!(summary.not_run > 0, not_run, "{arguments:?}: {summary:?}");
    }
}
