// SPDX-License-Identifier: GPL-2.0-only
//! What the runner promises about workers, tried on workers that misbehave in every way the promises name.

mod fixture;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gmem_conform::machine::MachineKind;
use gmem_conform::results::{Blame, CaseRecord, Environment, Need, Verdict};
use gmem_conform::results::{Event, exit};
use gmem_conform::run;

use fixture::*;

/// Runs the case between two that pass, and returns its record. The two show that the run goes on.
fn misbehave(id: &str) -> CaseRecord {
    let folder = Folder::new();
    let (log, summary) = run_cases(&["before", id, "after"], &options(folder.path()));
    let records = log.records();
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["test.before", &format!("test.{id}"), "test.after"]);
    assert_eq!(records[0].verdict, Verdict::Pass);
    assert_eq!(records[2].verdict, Verdict::Pass);
    assert_eq!(log.aborted(), None);
    assert_eq!(summary.not_run, 0);
    records[1].clone()
}

/// Whether the process has ended; one that nobody has waited for yet counts as ended.
fn has_ended(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        Err(_) => true,
    }
}

/// Waits until the process has ended; fails if that does not come about.
fn await_end(pid: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !has_ended(pid) {
        assert!(Instant::now() < until, "process {pid} still runs");
        std::thread::yield_now();
    }
}

fn assert_error(id: &str, summary: &str) -> CaseRecord {
    let record = misbehave(id);
    assert_eq!(record.verdict, Verdict::Error, "{record:?}");
    let failure = record.failure.as_ref().unwrap();
    assert_eq!(failure.summary, summary);
    assert_eq!(failure.blame, Some(Blame::Suite));
    assert_eq!(
        failure.command.as_deref(),
        Some(format!("gmem-conform --exact test.{id}").as_str())
    );
    assert_eq!(failure.case_text.as_deref(), Some(case(id).text.as_str()));
    record
}

/// A worker that hangs is killed with its children, and the case is a timeout that names the statement.
#[test]
fn a_hang_is_a_timeout() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    options.timeout = Duration::from_secs(3);
    let (log, summary) = run_cases(&["hang", "after"], &options);
    let record = log.records()[0].clone();
    assert_eq!(record.verdict, Verdict::Timeout);
    let failure = record.failure.unwrap();
    assert_eq!(failure.summary, "no result within 3 seconds");
    assert_eq!(failure.line, Some(3));
    assert_eq!(failure.statement.as_deref(), Some("host write 0..1 A"));
    assert_eq!(failure.blame, Some(Blame::Suite));
    assert_eq!(log.records()[1].verdict, Verdict::Pass);
    assert_eq!((summary.timeouts, summary.exit_status), (1, 1));
    await_end(&fs::read_to_string(folder.join("grandchild")).unwrap());
}

/// A worker that dies of a signal is an error with the signal's name and the statement.
#[test]
fn a_crash_is_an_error() {
    let record = assert_error("segfault", "worker died of SIGSEGV");
    let failure = record.failure.unwrap();
    assert_eq!(failure.line, Some(3));
    assert_eq!(failure.statement.as_deref(), Some("host write 0..1 A"));
    let record = assert_error("kill-worker", "worker died of SIGKILL");
    assert_eq!(record.failure.unwrap().line, None);
}

/// A worker that ends by itself has not replied, whatever its status says.
#[test]
fn an_exit_is_an_error() {
    assert_error("exit", "worker exited with status 3");
    assert_error("exit-silently", "worker exited with status 0");
    assert_error("half-reply", "worker exited with status 0");
}

/// What is no reply, or a reply about another case, is no result.
#[test]
fn garbage_is_an_error() {
    assert_error("garbage", "worker replied \"ok 1 not JSON\", which is no reply");
    assert_error(
        "wrong-id",
        "worker replied a result of another.case out of turn, which is no reply",
    );
    assert_error("deaf-mute", "worker closed its reply pipe");
}

/// A grandchild that holds every pipe open neither delays the verdict nor survives.
#[test]
fn an_orphan_is_killed() {
    let folder = Folder::new();
    let (log, _) = run_cases(&["orphan", "after"], &options(folder.path()));
    let failure = log.records()[0].failure.clone().unwrap();
    assert_eq!(failure.summary, "worker exited with status 5");
    assert_eq!(log.records()[1].verdict, Verdict::Pass);
    await_end(&fs::read_to_string(folder.join("grandchild")).unwrap());
}

/// What a worker prints is kept, made printable and bounded, and is never taken for a result.
#[test]
fn noise_is_kept_apart() {
    let record = misbehave("noise");
    assert_eq!(record.verdict, Verdict::Pass);
    assert_eq!(record.stray_output, "not ok 1 fake\nred \\u{1b}[31m \u{fffd}\n");
    let record = misbehave("flood");
    assert_eq!(record.verdict, Verdict::Pass);
    let (kept, rest) = record.stray_output.split_once('\n').unwrap();
    assert_eq!(kept.len(), 64 * 1024);
    assert_eq!(rest, format!("[{} more bytes]", 200_000 - 64 * 1024));
}

/// A case that takes long, but not too long, is no timeout; and one worker does for all cases.
#[test]
fn slowness_within_the_deadline_passes() {
    let folder = Folder::new();
    let (log, summary) = run_cases(&["slow", "other", "last"], &options(folder.path()));
    assert_eq!((summary.passed, summary.exit_status), (3, exit::PASSED));
    let mut pids: Vec<u32> = log
        .events
        .iter()
        .filter_map(|event| match event {
            Event::CaseStarted { pid, .. } => Some(*pid),
            _ => None,
        })
        .collect();
    pids.dedup();
    assert_eq!(pids.len(), 1);
}

/// A worker that dies between two cases costs neither of them its verdict, and is not kept silent.
#[test]
fn a_death_between_cases_costs_nothing() {
    let folder = Folder::new();
    let (log, summary) = run_cases(&["reply-and-die", "after"], &options(folder.path()));
    assert_eq!((summary.passed, summary.not_run), (2, 0));
    assert!(log.notes()[0].starts_with("worker died of SIGABRT after test.reply-and-die"));
    let (log, summary) = run_cases(&["before", "deaf-once"], &options(folder.path()));
    assert_eq!((summary.passed, summary.not_run), (2, 0));
    assert_eq!(
        log.notes(),
        ["worker died of SIGBUS after test.before before it took test.deaf-once, \
          which another one will run"]
    );
}

/// Workers that never take a job end the run with a reason, and what was not run is counted.
#[test]
fn three_strikes_end_the_run() {
    let folder = Folder::new();
    let (log, summary) = run_cases(&["before", "deaf", "after"], &options(folder.path()));
    assert_eq!(
        log.aborted(),
        Some(
            "3 workers in a row ended before they took a case, the last one: worker exited with status 7"
        )
    );
    assert_eq!((summary.passed, summary.not_run, summary.exit_status), (1, 2, 1));
    let mut options = options(folder.path());
    options.worker = shell("echo no such thing >&2; exit 127", folder.path());
    let (log, summary) = run_cases(&["one"], &options);
    assert!(log.aborted().unwrap().ends_with("it wrote: no such thing"));
    assert_eq!((summary.not_run, summary.exit_status), (1, 1));
    options.worker = vec!["/nonexistent/worker".into()];
    let (log, summary) = run_cases(&["one"], &options);
    assert_eq!(
        log.aborted(),
        Some("cannot start a worker (/nonexistent/worker): no such file or directory")
    );
    assert_eq!((summary.not_run, summary.exit_status), (1, 1));
}

/// A job that does not fit a pipe reaches the worker all the same.
#[test]
fn large_jobs_arrive() {
    let folder = Folder::new();
    let mut large = case("large");
    large.text = "host write 0..1 A\n".repeat(40_000);
    let mut log = Log::default();
    let summary = run::run(
        vec![large, case("after")],
        &config(MachineKind::Model),
        &options(folder.path()),
        Environment::default(),
        &mut log,
    );
    assert_eq!(summary.passed, 2);
}

/// With two workers two cases run at the same time, and each number is given once.
#[test]
fn two_workers_run_two_cases() {
    let folder = Folder::new();
    assert!(Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
    let mut options = options(folder.path());
    options.jobs = 2;
    let ids = ["meet-a", "meet-b", "one", "two", "segfault", "three"];
    let (log, summary) = run_cases(&ids, &options);
    assert_eq!((summary.passed, summary.errors), (5, 1));
    let numbers: Vec<(usize, usize)> = log
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Finished { number, total, .. } => Some((*number, *total)),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, (1..=6).map(|n| (n, 6)).collect::<Vec<_>>());
}

/// Skipped cases start no worker, keep all their reasons, and alone are status 4.
#[test]
fn skips_do_not_run() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    options.worker = vec!["/nonexistent/worker".into()];
    let mut skipped = case("snp");
    skipped.unmet = vec![Need::new("no-snp", "No."), Need::new("no-mode-zero", "No.")];
    let mut log = Log::default();
    let plan = vec![skipped.clone(), skipped.clone()];
    let environment = Environment::default();
    let config = config(MachineKind::Model);
    let summary = run::run(plan, &config, &options, environment, &mut log);
    assert_eq!(log.records()[0].needs, skipped.unmet);
    assert_eq!((summary.skipped, summary.exit_status), (2, exit::SKIPPED));
}

/// A kernel warning fails the case in which it comes, and no other; a harmless log does not.
#[test]
fn a_kernel_warning_fails_its_case() {
    let folder = Folder::new();
    let ids = ["fine", "warn", "fine", "taint", "fine", "warn-and-die", "fine"];
    let options = options(folder.path());
    let (log, summary) = run_log(&ids, MachineKind::Host, &options, Log::default());
    let records = log.records();
    let verdicts: Vec<Verdict> = records.iter().map(|record| record.verdict).collect();
    use Verdict::*;
    assert_eq!(verdicts, [Pass, Fail, Pass, Fail, Pass, Error, Pass]);
    let line = "WARNING: CPU: 0 PID: 1 at virt/kvm/guest_memfd.c:1 x+0x1/0x2";
    assert_eq!(records[1].kernel_log, [line]);
    let failure = records[1].failure.as_ref().unwrap();
    assert_eq!(failure.summary, format!("the kernel reported: {line}"));
    assert_eq!(failure.detail, [line]);
    assert!(failure.command.is_some() && failure.case_text.is_some());
    assert!(records[3].failure.as_ref().unwrap().summary.contains("(bit 9)"));
    for record in [&records[1], &records[3], &records[5]] {
        let failure = record.failure.as_ref().unwrap();
        assert_eq!(failure.blame, Some(Blame::Kernel));
    }
    assert_eq!(summary.exit_status, exit::FAILED);
}

/// A kernel warning that the probe causes is a record of its own, the first one, which fails the run; the cases pass.
#[test]
fn a_kernel_warning_of_the_probe_fails_the_run() {
    let folder = Folder::new();
    let line = "WARNING: CPU: 0 PID: 1 at virt/kvm/guest_memfd.c:1 x+0x1/0x2";
    let mut reply = serde_json::to_value(Environment::default()).unwrap();
    reply["reply"] = "probed".into();
    let script =
        format!("read -r a; read -r b; echo '4,9,9,-;{line}' >>$1/dev/kmsg; echo '{reply}' >&3");
    let mut options = options(folder.path());
    let worker = std::mem::replace(&mut options.worker, shell(&script, folder.path()));
    run::probe(&config(MachineKind::Host), &options).expect("it answers");
    options.worker = worker;
    let (log, summary) = run_log(&["fine"], MachineKind::Host, &options, Log::default());
    let records = log.records();
    let verdicts: Vec<_> = records.iter().map(|r| (r.id.as_str(), r.verdict)).collect();
    assert_eq!(verdicts, [("kernel.probe", Verdict::Fail), ("test.fine", Verdict::Pass)]);
    let failure = records[0].failure.as_ref().unwrap();
    assert_eq!(failure.summary, format!("the kernel reported: {line}"));
    assert_eq!(failure.command.as_deref(), Some("gmem-conform probe"));
    assert_eq!((summary.planned, summary.failed, summary.passed), (2, 1, 1));
    assert_eq!((summary.not_run, summary.exit_status), (0, exit::FAILED));
}

/// A signal ends the run in order: workers are killed, what was not run is counted.
#[test]
fn an_interrupt_ends_the_run() {
    let folder = Folder::new();
    let (read, mut write) = pipe().unwrap();
    let mut options = options(folder.path());
    options.interrupt = Some(read.into());
    let log = Log {
        spy: Some(Box::new(move |event| {
            if matches!(event, Event::CaseStarted { id, .. } if id == "test.hang") {
                write.write_all(&[libc::SIGTERM as u8]).unwrap();
            }
        })),
        ..Log::default()
    };
    let ids = ["fine", "hang", "never"];
    let (log, summary) = run_log(&ids, MachineKind::Model, &options, log);
    assert_eq!(log.aborted(), Some("interrupted by SIGTERM"));
    assert_eq!((summary.passed, summary.not_run, summary.exit_status), (1, 2, 1));
}

/// When nobody reads on, the run ends, and without a word about it.
#[test]
fn nobody_reads_on() {
    let folder = Folder::new();
    let log = Log { break_after: Some(3), ..Log::default() };
    let (log, summary) =
        run_log(&["one", "two", "three"], MachineKind::Model, &options(folder.path()), log);
    assert_eq!((summary.passed, summary.not_run, summary.exit_status), (1, 2, 1));
    assert_eq!(log.aborted(), None);
}

/// On a kernel that hangs everywhere the run ends by itself, says why, and counts what did not run.
#[test]
fn many_timeouts_end_the_run() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    (options.timeout, options.max_timeouts) = (Duration::from_secs(1), 2);
    let (log, summary) = run_cases(&["hang", "hang", "after", "later"], &options);
    assert_eq!((summary.timeouts, summary.not_run, summary.exit_status), (2, 2, 1));
    let why = "2 cases have timed out; --max-timeouts allows for more";
    assert_eq!(log.aborted(), Some(why));
}

/// A run ends when as many cases have failed as it is to bear, and names those that did not run.
#[test]
fn many_failures_end_the_run() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    options.max_fail = Some(2);
    let (log, summary) = run_cases(&["exit", "fine", "garbage", "late", "later"], &options);
    assert_eq!((summary.passed, summary.errors, summary.not_run), (1, 2, 2));
    assert_eq!(log.aborted(), Some("2 cases have failed; --max-fail allows for more"));
    let not_run: Vec<&str> = log
        .events
        .iter()
        .filter_map(|event| match event {
            Event::NotRun(id) => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(not_run, ["test.late", "test.later"]);
}

/// After three timeouts in a row the cases that follow have less time.
#[test]
fn several_timeouts_shrink_the_deadline() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    options.timeout = Duration::from_secs(4);
    let (log, summary) = run_cases(&["fine", "hang", "hang", "hang", "hang", "after"], &options);
    assert_eq!((summary.passed, summary.timeouts, summary.not_run), (2, 4, 0));
    let said: Vec<&str> = log
        .records()
        .iter()
        .filter_map(|record| record.failure.as_ref())
        .map(|failure| failure.summary.as_str())
        .collect();
    let full = "no result within 4 seconds";
    assert_eq!(said, [full, full, full, "no result within 2 seconds"]);
    assert!(log.notes()[0].starts_with("3 cases timed out in a row: "), "{:?}", log.notes());
}

/// A probe that answers, one that hangs, one that dies: the last two are sentences.
#[test]
fn a_probe_has_a_deadline() {
    let folder = Folder::new();
    let mut options = options(folder.path());
    let mut probe = |script: &str, seconds: u64| {
        options.timeout = Duration::from_secs(seconds);
        options.worker = shell(script, folder.path());
        run::probe(&config(MachineKind::Host), &options)
    };
    assert_eq!(
        probe("sleep 1000", 1),
        Err(run::ProbeError::Failed("no answer within 1 seconds".into()))
    );
    assert_eq!(
        probe("echo Oh >&2; kill -SEGV $$", 60),
        Err(run::ProbeError::Failed("its worker died of SIGSEGV; it wrote:\nOh".into()))
    );
    let environment = Environment { machine: "host".into(), ..Environment::default() };
    let mut reply = serde_json::to_value(&environment).unwrap();
    reply["reply"] = "probed".into();
    let script = format!("read -r a; read -r b; echo '{reply}' >&3");
    assert_eq!(probe(&script, 60), Ok(environment));
}

/// Set in a child of this test program: what it is to do.
const CHILD: &str = "GMEM_CONFORM_TEST_CHILD";

/// This test program again, running only `test`, with the variable that makes it play the child.
fn child(test: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, argument);
    command
}

/// The first signal is one byte to read; the second ends the program with 130.
#[test]
fn a_second_signal_ends_the_program() {
    if std::env::var_os(CHILD).is_some() {
        let mut first = fs::File::from(run::interrupts().unwrap());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        assert_eq!(i32::from(byte[0]), libc::SIGINT);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        unreachable!("the second signal did not end the program");
    }
    let status = child("a_second_signal_ends_the_program", Path::new("1"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
}

/// When the runner is killed, so is its worker, in the middle of a case.
#[test]
fn no_worker_survives_the_runner() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let log = Log {
            spy: Some(Box::new(|event| {
                if let Event::CaseStarted { pid, .. } = event {
                    println!("\nworker {pid}");
                }
            })),
            ..Log::default()
        };
        run_log(&["hang"], MachineKind::Model, &options(Path::new(&dir)), log);
        unreachable!("the case hangs");
    }
    let folder = Folder::new();
    let mut runner = child("no_worker_survives_the_runner", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    let worker = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("worker ").map(str::to_string))
        .unwrap();
    assert!(!has_ended(&worker));
    runner.kill().unwrap();
    let status = runner.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    await_end(&worker);
    // The shell's own child is nobody's business but this test's; a program that forks passes the promise on itself.
    if let Ok(pid) = fs::read_to_string(folder.join("grandchild"))
        && let Ok(pid) = pid.trim().parse()
    {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}
