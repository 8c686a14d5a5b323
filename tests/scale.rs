// SPDX-License-Identifier: GPL-2.0-only
//! 100,000 results: what comparing, joining and reporting them costs. Nothing is asserted but that it works; run it with
//! `cargo test --release --test scale -- --ignored --nocapture`.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use gmem_conform::clause::ClauseId;
use gmem_conform::results::*;

const RESULTS: usize = 100_000;

fn record(number: usize, verdict: Verdict) -> CaseRecord {
    let clauses = ClauseId::ALL;
    let clause = clauses[number % clauses.len()].to_string();
    let failure = Failure {
        summary: format!("host sees pattern A in page {number} instead of zeros"),
        clause: Some(clause.clone()),
        expected: Some("zeros".into()),
        found: Some("pattern A".into()),
        detail: vec![" 00".repeat(16); 9],
        map_before: Some("S".repeat(16)),
        map_after: Some("P".repeat(16)),
        case_text: Some("convert 0..16 private zero\n".repeat(10)),
        ..Failure::default()
    };
    CaseRecord {
        clauses: vec![clause, "convert.range".into()],
        duration_us: 1234,
        needs: match verdict {
            Verdict::Skip => vec![Need::new("no-mode-zero", "there is no content mode ZERO")],
            _ => Vec::new(),
        },
        failure: verdict.is_failure().then_some(failure),
        ..CaseRecord::new(format!("sw-protected.layout.to-private.{number:06}"), verdict)
    }
}

/// Writes results of which one in `failing` fails and one in ten is skipped.
fn write(path: &PathBuf, failing: usize) {
    let mut out = BufWriter::new(fs::File::create(path).unwrap());
    let mut line = |record: Record| writeln!(out, "{}", serde_json::to_string(&record).unwrap());
    let mut summary = Summary { planned: RESULTS, exit_status: 1, ..Summary::default() };
    line(Record::Run(Box::new(RunRecord {
        schema: SCHEMA_VERSION,
        suite: "gmem-conform".into(),
        planned: RESULTS,
        arguments: Vec::new(),
        environment: Environment::default(),
        started_ms: 0,
        shard: None,
        timeout_s: Some(30),
        merged: Vec::new(),
    })))
    .unwrap();
    for number in 0..RESULTS {
        let verdict = match number {
            n if n % failing == 0 => Verdict::Fail,
            n if n % 10 == 1 => Verdict::Skip,
            _ => Verdict::Pass,
        };
        summary.count(verdict);
        line(Record::Case(Box::new(record(number, verdict)))).unwrap();
    }
    line(Record::Summary(summary)).unwrap();
    out.flush().unwrap();
}

/// Prints the time and the peak memory of each command.
#[test]
#[ignore = "a measurement, for a release build"]
#[expect(clippy::zombie_processes, reason = "wait() below waits, and learns what the child used")]
fn a_hundred_thousand_results() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name);
    write(&file("few.jsonl"), 1000);
    write(&file("more.jsonl"), 20);
    write(&file("all.jsonl"), 1);
    let commands: [&[&str]; 6] = [
        &["diff", "few.jsonl", "more.jsonl"],
        &["diff", "few.jsonl", "all.jsonl"],
        &["merge", "few.jsonl", "more.jsonl", "--output", "merged.jsonl"],
        &["report", "more.jsonl", "--html", "report.html"],
        &["report", "all.jsonl", "--html", "report.html"],
        &["report", "more.jsonl", "--junit", "report.xml"],
    ];
    for arguments in commands {
        let since = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
            .args(arguments)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (status, usage) = wait(child.id());
        let megabytes = usage.ru_maxrss / 1024;
        // On a machine that does other things as well, the time of the CPU says more than that of the clock.
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        println!(
            "{:5.2} s, CPU {cpu:5.2} s, {megabytes:4} MB  {}",
            since.elapsed().as_secs_f64(),
            arguments.join(" ")
        );
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 1, "{arguments:?}");
    }
}

/// Waits for a child and says what it used.
fn wait(pid: u32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage, a structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call; the child is ours and was not waited for.
    let waited = unsafe { libc::wait4(pid as i32, &mut status, 0, &mut usage) };
    assert_eq!(waited, pid as i32);
    (status, usage)
}
