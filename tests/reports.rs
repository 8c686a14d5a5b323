// SPDX-License-Identifier: GPL-2.0-only
//! The reports of one made-up run with every verdict, compared with what was reviewed.

use std::cell::RefCell;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use tempfile::NamedTempFile;

use gmem_conform::dialect::Dialect;
use gmem_conform::report::{Html, Human, Json, Junit, Kcidb, Report, Reports, Submission, Tap};
use gmem_conform::results::*;
use gmem_conform::results::{Event, Sink};

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
        clauses: vec!["preserve.to-private".into()],
        duration_us: 12_345,
        ..CaseRecord::new(id, verdict)
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
            company: None,
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

fn waived() -> CaseRecord {
    let note = WaiverNote {
        id: "sw-protected.zero.*".into(),
        reason: "known <since> v4".into(),
        link: "https://example.org/1?a&b".into(),
        expires: "2027-01-31".into(),
    };
    let record = record("sw-protected.zero.holes", Verdict::Waived);
    CaseRecord { waiver: Some(note), failure: failed().failure, ..record }
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

/// One case of each verdict, a second skip for the same reasons, and one case that was not run; a waiver of each state.
fn events(machine: &str) -> Vec<Event> {
    let records = [
        record("sw-protected.preserve.to-private", Verdict::Pass),
        failed(),
        error(),
        timeout(),
        skipped("snp.preserve.both-ways"),
        skipped("snp.preserve.to-private"),
        waived(),
    ];
    let mut summary = Summary {
        planned: 8,
        not_run: 1,
        elapsed_ms: 30_150,
        exit_status: 1,
        ..Summary::default()
    };
    let mut events = vec![Event::Started(Box::new(RunRecord {
        schema: SCHEMA_VERSION,
        suite: "gmem-conform 0.1.0".into(),
        planned: 8,
        arguments: vec!["--timeout".into(), "30".into()],
        environment: Environment {
            machine: machine.into(),
            dialect: Some(Dialect::RfcV5),
            kernel_release: "7.3.4".into(),
            virtualization: "bare-metal".into(),
            host: "bare-metal".into(),
            remarks: vec!["the kernel log cannot be read".into()],
            ..Environment::default()
        },
        started_ms: 1_790_000_000_000,
        shard: None,
        timeout_s: Some(30),
        merged: Vec::new(),
    }))];
    for (index, record) in records.into_iter().enumerate() {
        summary.count(record.verdict);
        events.push(Event::CaseStarted { id: record.id.clone(), pid: 4711 });
        events.push(Event::Finished { number: index + 1, total: 8, record: Box::new(record) });
    }
    for (state, problem) in [
        (WaiverState::Used, None),
        (WaiverState::NotInScope, None),
        (WaiverState::Stale, Some("the one case that it covers does not fail like that")),
        (WaiverState::Expired, Some("it expired on 2027-01-31")),
    ] {
        events.push(Event::Waiver(Box::new(WaiverRecord {
            waiver: waived().waiver.unwrap(),
            state,
            waived: usize::from(state == WaiverState::Used),
            problem: problem.map(String::from),
        })));
    }
    events.push(Event::Resumed(Box::new(ResumedRecord {
        part: 2,
        reason: "the guest's kernel panicked".into(),
        running: vec!["default.errors.crash".into()],
        started_ms: 1_790_000_020_000,
        boot_id: "1234".into(),
    })));
    events.push(Event::Note("worker died of SIGABRT after a.case".into()));
    events.push(Event::Aborted("interrupted by SIGINT".into()));
    events.push(Event::NotRun("sw-protected.zero.never".into()));
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
    let text = written(Tap::new(out.clone()), &out, &events("host"));
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
        "\r\x1b[K[1/8] 0 failed, 0 skipped, 0 s, pid 4711: sw-protected.preserve.both-ways"
    ));
    assert!(text.contains("both-ways\r\x1b[K\nFAIL sw-protected.preserve.both-ways"));
}

/// On the model both text reports end by saying so, before the counts.
#[test]
fn the_model_is_named() {
    for machine in ["model", "host"] {
        let (tap, human) = (Shared::default(), Shared::default());
        let texts = [
            written(Tap::new(tap.clone()), &tap, &events(machine)),
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

/// Whatever is made of a run on an emulated host says so, and nothing in it speaks of real hardware.
#[test]
fn an_emulated_host_is_named() {
    let mut events = events("host");
    let Some(Event::Started(run)) = events.first_mut() else { panic!("no run") };
    run.environment.host = "emulated".into();
    run.environment.virtualization = "nested".into();
    run.environment.cpu = "AuthenticAMD AMD EPYC-Milan Processor".into();
    let (tap, human) = (Shared::default(), Shared::default());
    let submission = Submission { origin: "a_lab".into(), build: None };
    let caveat = "emulated host: nothing here is about real hardware";
    for (name, text, says) in [
        ("tap", written(Tap::new(tap.clone()), &tap, &events), caveat),
        ("human", written(Human::new(human.clone()), &human, &events), caveat),
        ("html", of(&events, |path| Box::new(Html::create(path).unwrap())), caveat),
        ("junit", of(&events, |path| Box::new(Junit::create(path).unwrap())), caveat),
        ("kcidb", of(&events, |path| Box::new(Kcidb::create(path, submission).unwrap())), caveat),
        ("json", of(&events, |path| Box::new(Json::create(path).unwrap())), r#""host":"emulated""#),
    ] {
        assert!(text.contains(says), "{name}: {text}");
        assert!(!text.contains("bare-metal"), "{name}: {text}");
        // Where the run is named, at the top, it is said as well.
        if let Some(headline) = text.lines().find(|line| line.contains(": 8 cases, ")) {
            assert!(headline.contains("Linux 7.3.4, emulated host"), "{name}: {text}");
        }
    }
}

/// Each line of the JSON file is a record as soon as its event has been reported, and reads back as it was.
#[test]
fn json_lines_read_back() {
    let file = NamedTempFile::new().unwrap();
    let mut report = Json::create(file.path()).unwrap();
    let mut expected = Vec::new();
    for event in events("host") {
        report.event(&event).unwrap();
        match event {
            Event::Started(run) => expected.push(Record::Run(run)),
            Event::Finished { record, .. } => expected.push(Record::Case(record)),
            Event::CaseStarted { id, .. } => expected.push(Record::Started(StartedRecord { id })),
            Event::Resumed(resumed) => expected.push(Record::Resumed(resumed)),
            Event::Waiver(waiver) => expected.push(Record::Waiver(waiver)),
            Event::Note(text) => expected.push(Record::Note(NoteRecord { text })),
            Event::Aborted(reason) => expected.push(Record::Aborted(AbortedRecord { reason })),
            Event::NotRun(id) => expected.push(Record::NotRun(NotRunRecord { id })),
            Event::Ended(summary) => expected.push(Record::Summary(summary)),
        }
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.ends_with('\n'));
        let records: Vec<Record> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records, expected);
    }
    assert_eq!(expected.len(), 24);
}

/// A directory is refused before anything runs, with a sentence that names it.
#[test]
fn json_into_a_directory_is_refused() {
    let message = Json::create(&std::env::temp_dir()).err().unwrap().to_string();
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
    let file = NamedTempFile::new().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_line_that_does_not_fit_is_taken_back", "--nocapture"])
        .env(CHILD, file.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(messages.contains("gmem-conform: cannot write results: "), "{messages}");
    let text = fs::read_to_string(file.path()).unwrap();
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
    reports.add("the pipe", Tap::new(Broken(ErrorKind::BrokenPipe)));
    reports.add("the text", Human::new(out.clone()));
    let events = events("host");
    assert_eq!(reports.event(&events[0]), ControlFlow::Break(()));
    for event in &events[1..] {
        assert_eq!(reports.event(event), ControlFlow::Continue(()));
    }
    assert!(reports.failed());
    assert!(out.text().contains("1 not run"));
}

/// The text of a report that is written when the run has ended.
fn at_end(create: impl FnOnce(&std::path::Path) -> Box<dyn Report>) -> String {
    of(&events("host"), create)
}

/// The text of a report of `events` that goes to a file.
fn of(events: &[Event], create: impl FnOnce(&std::path::Path) -> Box<dyn Report>) -> String {
    let file = NamedTempFile::new().unwrap();
    let mut report = create(file.path());
    for event in events {
        report.event(event).unwrap();
    }
    fs::read_to_string(file.path()).unwrap()
}

/// The JUnit report of every verdict: its counts are those of its elements, and a case that did not run is an error.
#[test]
fn junit() {
    let text = at_end(|path| Box::new(Junit::create(path).unwrap()));
    insta::assert_snapshot!(text);
    for (element, count) in [("<testcase ", 8), ("<failure ", 2), ("<error ", 2), ("<skipped ", 3)]
    {
        assert_eq!(text.matches(element).count(), count, "{element}");
    }
}

/// The KCIDB report of every verdict; a waived failure is one, with an issue and an incident.
#[test]
fn kcidb() {
    let submission = Submission { origin: "a_lab".into(), build: None };
    let text = at_end(|path| Box::new(Kcidb::create(path, submission).unwrap()));
    insta::assert_snapshot!(text);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let statuses: Vec<&str> =
        report["tests"].as_array().unwrap().iter().map(|t| t["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["PASS", "FAIL", "ERROR", "FAIL", "SKIP", "SKIP", "FAIL", "MISS"]);
    assert_eq!(report["incidents"][0]["issue_id"], report["issues"][0]["id"]);
    assert_eq!(report["incidents"][0]["test_id"], report["tests"][6]["id"]);
}

/// A build that the laboratory has submitted is referred to, not described again.
#[test]
fn kcidb_of_a_known_build() {
    let submission = Submission { origin: "a_lab".into(), build: Some("a_lab:b1".into()) };
    let text = at_end(|path| Box::new(Kcidb::create(path, submission).unwrap()));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["tests"][0]["build_id"], "a_lab:b1");
    assert!(report["builds"].is_null() && report["checkouts"].is_null());
}

/// The page says everything that a failure has to say, escapes what it shows, and refers to nothing outside of itself.
#[test]
fn html() {
    let text = at_end(|path| Box::new(Html::create(path).unwrap()));
    for part in [
        "<title>gmem-conform: failed</title>",
        "guest page 2 lost its contents",
        "<span>before</span><span class=map><i class=\"S\"",
        "<span>found</span><span class=map><i class=\"P\"",
        "<i class=\"x here\" title=\"page 2: other contents than expected\">!</i>",
        "<code>guest write 0..4 A</code>",
        "<code class=last>convert 0..4 private preserve</code>",
        "<pre id=c1>case preserve.both-ways\n</pre>",
        "known &lt;since&gt; v4 (https://example.org/1?a&amp;b, until 2027-01-31)",
        "<td class=\"state bad\">BROKEN 1, waived 1, kept 1</td>",
        "<dt>see</dt><dd>RFC v4 13/44 (a made-up fix)</dd>",
        "<th>no-snp,no-mode-preserve</th><td>2</td>",
        "aborted: interrupted by SIGINT",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    for part in ["src=", "<link rel=stylesheet", "@import", "url(", "known <since>"] {
        assert!(!text.contains(part), "{part}");
    }
    for element in ["article", "table", "details", "span", "dl", "div"] {
        let (opened, closed) = (format!("<{element}"), format!("</{element}>"));
        assert_eq!(text.matches(&opened).count(), text.matches(&closed).count(), "{element}");
    }
}
