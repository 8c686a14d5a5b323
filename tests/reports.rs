// SPDX-License-Identifier: GPL-2.0-only
//! The reports of one made-up run with every verdict, compared with what was reviewed.

use std::cell::RefCell;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use gmem_conform::dialect::Dialect;
use gmem_conform::report::{Human, Json, Report, Reports, Tap};
use gmem_conform::results::*;
use gmem_conform::run::{Event, Sink};

/// A writer whose text can be looked at while a report holds it.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

/// A writer that fails.
struct Broken(ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(id: &str, verdict: Verdict) -> CaseRecord {
    CaseRecord {
        id: id.into(),
        verdict,
        clauses: vec!["preserve.to-private".into()],
        duration_us: 12_345,
        needs: Vec::new(),
        failure: None,
        observations: Vec::new(),
        kernel_log: Vec::new(),
        stray_output: String::new(),
        waiver: None,
    }
}

fn failed() -> CaseRecord {
    CaseRecord {
        failure: Some(Failure {
            summary: "preserve.to-private broken: guest page 2 lost its contents".into(),
            clause: Some("preserve.to-private".into()),
            clause_text: Some("what was last written survives".into()),
            clause_source: Some("RFC v4 13/44".into()),
            line: Some(8),
            statement: Some("convert 0..4 private preserve".into()),
            view: Some("guest".into()),
            page: Some(2),
            offset: Some(0),
            expected: Some("pattern A of page 2".into()),
            found: Some("zeros".into()),
            detail: vec![
                "offset    expected          found".into(),
                "00000000  41a0020000000000  0000000000000000".into(),
            ],
            map_first_page: 0,
            map_before: Some("SSSS".into()),
            map_after: Some("PPPP".into()),
            blame: Some(Blame::Kernel),
            map_found: Some("PP!P".into()),
            trail: vec![
                TrailStep { line: 7, statement: "guest write 0..4 A".into(), map: "SSSS".into() },
                TrailStep {
                    line: 8,
                    statement: "convert 0..4 private preserve".into(),
                    map: "PPPP".into(),
                },
            ],
            fixes: vec!["RFC v4 13/44 (a made-up fix)".into()],
            command: Some("gmem-conform --exact sw-protected.preserve.both-ways".into()),
            case_text: Some("case preserve.both-ways\n".into()),
        }),
        ..record("sw-protected.preserve.both-ways", Verdict::Fail)
    }
}

fn error() -> CaseRecord {
    CaseRecord {
        failure: Some(Failure {
            summary: "worker died of SIGSEGV".into(),
            line: Some(3),
            statement: Some("host write 0..1 A".into()),
            blame: Some(Blame::Suite),
            command: Some("gmem-conform --exact default.errors.crash".into()),
            ..Failure::default()
        }),
        stray_output: "ok 1 not a result\nr\u{e9}sum\u{e9}\n".into(),
        ..record("default.errors.crash", Verdict::Error)
    }
}

fn timeout() -> CaseRecord {
    CaseRecord {
        failure: Some(Failure {
            summary: "no result within 30 seconds".into(),
            command: Some("gmem-conform --exact default.errors.hang".into()),
            ..Failure::default()
        }),
        duration_us: 30_000_123,
        ..record("default.errors.hang", Verdict::Timeout)
    }
}

fn skipped(id: &str) -> CaseRecord {
    CaseRecord {
        needs: vec![
            Need::new("no-snp", "SEV-SNP is off: load kvm_amd with sev_snp=1."),
            Need::new("no-mode-preserve", "The machine does not offer PRESERVE."),
        ],
        duration_us: 0,
        ..record(id, Verdict::Skip)
    }
}

/// One case of each verdict, a second skip for the same reasons, and one case that was not run.
fn events(machine: &str) -> Vec<Event> {
    let records = [
        record("sw-protected.preserve.to-private", Verdict::Pass),
        failed(),
        error(),
        timeout(),
        skipped("snp.preserve.both-ways"),
        skipped("snp.preserve.to-private"),
    ];
    let mut summary = Summary {
        planned: 7,
        not_run: 1,
        elapsed_ms: 30_150,
        exit_status: 1,
        ..Summary::default()
    };
    let mut events = vec![Event::Started(Box::new(RunRecord {
        schema: SCHEMA_VERSION,
        suite: "gmem-conform 0.1.0".into(),
        planned: 7,
        arguments: vec!["--timeout".into(), "30".into()],
        environment: Environment {
            machine: machine.into(),
            dialect: Some(Dialect::RfcV5),
            kernel_release: "7.3.4".into(),
            virtualization: "bare-metal".into(),
            remarks: vec!["the kernel log cannot be read".into()],
            ..Environment::default()
        },
        started_ms: 1_790_000_000_000,
        shard: None,
        merged: Vec::new(),
    }))];
    for (index, record) in records.into_iter().enumerate() {
        summary.count(record.verdict);
        events.push(Event::CaseStarted { id: record.id.clone(), pid: 4711 });
        events.push(Event::Finished { number: index + 1, total: 7, record: Box::new(record) });
    }
    events.push(Event::Note("worker died of SIGABRT after a.case".into()));
    events.push(Event::Aborted("interrupted by SIGINT".into()));
    events.push(Event::Ended(summary));
    events
}

fn written(mut report: impl Report, out: &Shared, events: &[Event]) -> String {
    for event in events {
        report.event(event).unwrap();
    }
    out.text()
}

/// The TAP report of every verdict. `#` lines come before their result line, and everything is ASCII.
#[test]
fn tap() {
    let out = Shared::default();
    let text = written(Tap::new(out.clone(), 30), &out, &events("host"));
    assert!(text.is_ascii());
    insta::assert_snapshot!(text);
}

/// The report for people, without colour, on the model.
#[test]
fn human() {
    let out = Shared::default();
    let text = written(Human::new(out.clone()), &out, &events("model"));
    assert!(text.is_ascii());
    insta::assert_snapshot!(text);
}

/// Colour marks verdicts only: without its control sequences the text is the same.
#[test]
fn colour_adds_nothing_else() {
    let (plain, colour) = (Shared::default(), Shared::default());
    let plain_text = written(Human::new(plain.clone()), &plain, &events("host"));
    let report = Human::new(colour.clone()).colour(true);
    let colour_text = written(report, &colour, &events("host"));
    assert!(colour_text.contains("\x1b[1m\x1b[31mFAIL\x1b[0m"), "{colour_text}");
    let stripped = anstream::adapter::strip_str(&colour_text).to_string();
    assert_eq!(stripped, plain_text);
}

/// The progress line names the running case and its process, and is gone before other text comes.
#[test]
fn progress_is_overwritten() {
    let out = Shared::default();
    let report = Human::new(out.clone()).progress(Some(Duration::ZERO));
    let text = written(report, &out, &events("host"));
    assert!(text.contains(
        "\r\x1b[K[1/7] 0 failed, 0 skipped, 0 s: sw-protected.preserve.both-ways (pid 4711)"
    ));
    assert!(text.contains("(pid 4711)\r\x1b[K\nFAIL sw-protected.preserve.both-ways"));
}

/// On the model both text reports end by saying so, before the counts.
#[test]
fn the_model_is_named() {
    for machine in ["model", "host"] {
        let (tap, human) = (Shared::default(), Shared::default());
        let texts = [
            written(Tap::new(tap.clone(), 30), &tap, &events(machine)),
            written(Human::new(human.clone()), &human, &events(machine)),
        ];
        for text in texts {
            let mut last = text.lines().rev();
            assert!(last.next().unwrap().contains("1 not run"), "{text}");
            let warns = last.next().unwrap().ends_with("nothing here is about a kernel");
            assert_eq!(warns, machine == "model", "{text}");
        }
    }
}

/// A file in the temporary folder, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let name = format!("gmem-reports-{name}-{}", std::process::id());
        Temporary(std::env::temp_dir().join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Each line of the JSON file is a record as soon as its event has been reported, and reads back as it was.
#[test]
fn json_lines_read_back() {
    let file = Temporary::new("lines");
    let mut report = Json::create(&file.0).unwrap();
    let mut expected = Vec::new();
    for event in events("host") {
        report.event(&event).unwrap();
        match event {
            Event::Started(run) => expected.push(Record::Run(run)),
            Event::Finished { record, .. } => expected.push(Record::Case(record)),
            Event::Ended(summary) => expected.push(Record::Summary(summary)),
            _ => {}
        }
        let text = fs::read_to_string(&file.0).unwrap();
        assert!(text.ends_with('\n'));
        let records: Vec<Record> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records, expected);
    }
    assert_eq!(expected.len(), 8);
}

/// A directory is refused before anything runs, with a sentence that names it.
#[test]
fn json_into_a_directory_is_refused() {
    let message = Json::create(&std::env::temp_dir()).err().unwrap();
    assert!(message.starts_with("--json "), "{message}");
    assert!(message.contains("is a directory"), "{message}");
}

/// A full disk ends the JSON report and fails the run; the text report goes on to its end.
#[test]
fn a_full_disk_ends_only_its_report() {
    let out = Shared::default();
    let mut reports = Reports::new();
    reports.add("/dev/full", Json::create("/dev/full".as_ref()).unwrap());
    reports.add("the text", Human::new(out.clone()));
    for event in events("host") {
        assert_eq!(reports.event(&event), ControlFlow::Continue(()));
    }
    assert!(reports.failed());
    assert!(out.text().trim_end().ends_with("30.1 s"), "{}", out.text());
}

/// A line that did not fit is taken back: what is left are complete lines.
#[test]
fn a_line_that_does_not_fit_is_taken_back() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const CHILD: &str = "GMEM_CONFORM_TEST_CHILD";
    if let Some(path) = std::env::var_os(CHILD) {
        // Without SIGXFSZ, a write past the limit is short and the next one fails.
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe {
            nix::sys::signal::signal(
                nix::sys::signal::Signal::SIGXFSZ,
                nix::sys::signal::SigHandler::SigIgn,
            )
        }
        .unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 2000, hard).unwrap();
        let mut reports = Reports::new();
        reports.add("results", Json::create(path.as_ref()).unwrap());
        let stopped = events("host").iter().any(|event| reports.event(event).is_break());
        assert!(stopped && reports.failed());
        return;
    }
    let file = Temporary::new("limit");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_line_that_does_not_fit_is_taken_back", "--nocapture"])
        .env(CHILD, &file.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(messages.contains("gmem-conform: cannot write results: "), "{messages}");
    let text = fs::read_to_string(&file.0).unwrap();
    assert!(text.len() > 500 && text.ends_with('\n'), "{text:?}");
    for line in text.lines() {
        serde_json::from_str::<Record>(line).unwrap();
    }
}

/// A reader that goes away ends its report and asks for the end of the run; the other reports are complete.
#[test]
fn a_closed_pipe_ends_the_run() {
    let out = Shared::default();
    let mut reports = Reports::new();
    reports.add("the pipe", Tap::new(Broken(ErrorKind::BrokenPipe), 30));
    reports.add("the text", Human::new(out.clone()));
    let events = events("host");
    assert_eq!(reports.event(&events[0]), ControlFlow::Break(()));
    for event in &events[1..] {
        assert_eq!(reports.event(event), ControlFlow::Continue(()));
    }
    assert!(reports.failed());
    assert!(out.text().contains("1 not run"));
}
