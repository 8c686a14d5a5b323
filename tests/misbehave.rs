// SPDX-License-Identifier: GPL-2.0-only
//! Cases that break the suite on purpose: each gets its verdict, and every other result is intact.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use gmem_conform::results::{Blame, CaseRecord, Record, Summary, Verdict};

/// Seconds that a case may take here. A hanging case costs all of them.
const TIMEOUT: &str = "4";

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
        .args(["check", "--machine", "model", "--platform", "sw-protected"])
        .args(["--timeout", TIMEOUT])
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs a fixture between cases that are fine, with one worker so that it disturbs them if it can; returns the
/// fixture's record after checking that of all others, the text report and the counts.
fn between_good_cases(name: &str) -> CaseRecord {
    let file = format!("{name}.case");
    let output = check(&["--jobs", "1", "--json", "-", "fine.case", &file]);
    let json = String::from_utf8(output.stdout).unwrap();
    let mut records: BTreeMap<String, CaseRecord> = BTreeMap::new();
    let mut summary: Option<Summary> = None;
    for line in json.lines() {
        match serde_json::from_str(line).unwrap() {
            Record::Case(record) => assert!(records.insert(record.id.clone(), *record).is_none()),
            Record::Summary(s) => summary = Some(s),
            _ => {}
        }
    }
    let fixture = records.remove(&format!("model.sw-protected.misbehave.{name}")).unwrap();
    assert_eq!(records.len(), 3);
    for record in records.values() {
        assert_eq!(
            (record.verdict, record.stray_output.as_str()),
            (Verdict::Pass, ""),
            "{}",
            record.id
        );
    }
    let summary = summary.unwrap();
    assert_eq!((summary.planned, summary.not_run), (4, 0));
    let failed = fixture.verdict.is_failure();
    assert_eq!(summary.passed, if failed { 3 } else { 4 });
    assert_eq!(output.status.code(), Some(i32::from(failed)));
    assert_eq!(summary.exit_status, u8::from(failed));
    fixture
}

/// What a failing fixture's record must hold besides its verdict: the step that it was in, and how to run it again.
fn assert_located(record: &CaseRecord) {
    let failure = record.failure.as_ref().unwrap();
    let statement = failure.statement.as_deref().unwrap_or("");
    assert!(statement.starts_with("misbehave"), "{statement:?}");
    let text = failure.case_text.as_deref().unwrap();
    assert_eq!(text.lines().nth(failure.line.unwrap() - 1).unwrap().trim(), statement);
    let command = failure.command.as_deref().unwrap();
    assert!(command.starts_with("gmem-conform check --machine model"), "{command}");
}

/// A guest that never answers is a timeout, told from a host that hangs by the guest's own, earlier deadline.
#[test]
fn guest_that_hangs() {
    let record = between_good_cases("hang-guest");
    assert_eq!(record.verdict, Verdict::Timeout);
    let failure = record.failure.as_ref().unwrap();
    assert!(failure.summary.contains("guest"));
    assert_eq!(failure.blame, Some(Blame::Payload));
    let runs = "the last time with EINTR, at the guest's deadline";
    assert!(failure.detail.iter().any(|line| line.ends_with(runs)), "{:?}", failure.detail);
    assert_located(&record);
}

/// A worker that never answers is killed at the deadline.
#[test]
fn host_that_hangs() {
    let record = between_good_cases("hang-host");
    assert_eq!(record.verdict, Verdict::Timeout);
    let failure = record.failure.as_ref().unwrap();
    assert_eq!((failure.blame, failure.clause.as_deref()), (Some(Blame::Suite), None));
    assert_located(&record);
}

/// What a worker does not come out of is told: an access with its address and page, a call with its name, KVM_RUN with how
/// often it came back. The kernel is to blame for each.
#[test]
fn kernel_that_hangs() {
    for (name, said, clause) in [
        ("hang-access", "in a write of page 0 of the guest_memfd, at host address 0x", true),
        ("hang-call", "in KVM_SET_MEMORY_ATTRIBUTES2", false),
        ("hang-run", "KVM_RUN has not come back", false),
    ] {
        let record = between_good_cases(name);
        assert_eq!(record.verdict, Verdict::Timeout);
        let failure = record.failure.as_ref().unwrap();
        assert_eq!(failure.blame, Some(Blame::Kernel));
        assert!(failure.detail.iter().any(|line| line.contains(said)), "{:?}", failure.detail);
        assert_eq!(failure.clause.as_deref(), clause.then_some("host.access-shared"));
        assert_located(&record);
    }
}

/// What would break the kernel is refused outside of a virtual machine, where the kernel is somebody's.
#[test]
fn kernels_of_others_are_not_broken() {
    for name in ["panic-kernel", "reboot", "hang-unkillable"] {
        let record = between_good_cases(name);
        assert_eq!(record.verdict, Verdict::Error);
        let failure = record.failure.as_ref().unwrap();
        assert_eq!(failure.summary, "only a virtual machine of run-in-vm may be broken");
    }
}

/// A worker that dies of a signal is an error that names the signal, never a pass and never a kernel's failure.
#[test]
fn worker_that_dies() {
    for (name, signal) in [("segfault", "SIGSEGV"), ("kill", "SIGKILL")] {
        let record = between_good_cases(name);
        assert_eq!(record.verdict, Verdict::Error);
        let failure = record.failure.as_ref().unwrap();
        assert!(failure.summary.contains(signal), "{}", failure.summary);
        assert_eq!(failure.blame, Some(Blame::Suite));
        assert_located(&record);
    }
}

/// A worker that exits or panics in the middle of a case is an error.
#[test]
fn worker_that_exits() {
    for (name, status) in [("exit", "status 3"), ("panic", "status 101")] {
        let record = between_good_cases(name);
        assert_eq!(record.verdict, Verdict::Error);
        let failure = record.failure.as_ref().unwrap();
        assert!(failure.summary.contains(status), "{}", failure.summary);
        assert_located(&record);
    }
}

/// What a case writes to its standard output is kept beside its result and taken for none.
#[test]
fn case_that_writes_garbage() {
    let record = between_good_cases("garbage");
    assert_eq!(record.verdict, Verdict::Pass);
    assert!(record.stray_output.contains("not ok 1 this.is.no.result"), "{}", record.stray_output);
    assert!(!record.stray_output.contains('\u{1b}'), "control characters do not reach a terminal");
}

/// An exception in the guest is reported with vector, error code, RIP and CR2, and blamed on the payload.
#[test]
fn guest_that_takes_an_exception() {
    let record = between_good_cases("guest-exception");
    assert_eq!(record.verdict, Verdict::Error);
    let failure = record.failure.as_ref().unwrap();
    assert_eq!(failure.blame, Some(Blame::Payload));
    for part in ["14", "0x400000000000"] {
        assert!(failure.summary.contains(part), "{}", failure.summary);
    }
    assert_located(&record);
}

/// All fixtures in one run, with several workers: every case has a line of TAP, and the counts are right.
#[test]
fn all_at_once() {
    let names =
        ["hang-guest", "segfault", "kill", "exit", "garbage", "guest-exception", "panic", "fine"];
    let files: Vec<String> = names.iter().map(|name| format!("{name}.case")).collect();
    let mut arguments = vec!["--format", "tap", "--jobs", "3"];
    arguments.extend(files.iter().map(String::as_str));
    let output = check(&arguments);
    let tap = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(tap.contains("\n1..10\n") || tap.starts_with("1..10\n"), "{tap}");
    let results: Vec<&str> =
        tap.lines().filter(|l| l.starts_with("ok ") || l.starts_with("not ok ")).collect();
    assert_eq!(results.len(), 10, "{tap}");
    assert_eq!(results.iter().filter(|l| l.starts_with("ok ")).count(), 4, "{tap}");
    assert_eq!(results.iter().filter(|l| l.contains("# ERROR")).count(), 5, "{tap}");
    assert_eq!(results.iter().filter(|l| l.contains("# TIMEOUT")).count(), 1, "{tap}");
}
