// SPDX-License-Identifier: GPL-2.0-only
//! KCIDB's I/O format 5.3, in which laboratories submit results to KernelCI.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::civil;
use crate::fnv::fnv1a;
use crate::results::Event;
use crate::results::{Blame, CaseRecord, RunRecord, Verdict, WaiverNote};

use super::file::{CreateError, create};
use super::summary::caveat;
use super::{Report, failure_lines};

/// The most that KCIDB takes as an excerpt of a log, in characters.
const EXCERPT: usize = 16_384;
/// The version of a waiver's issue: a waiver is never changed, only replaced.
const ISSUE_VERSION: u32 = 1;

/// Who submits, and what was tested, as KCIDB names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The laboratory: `[a-z0-9_]+`.
    pub origin: String,
    /// The build that was tested, `origin:id`, if the laboratory has submitted it; otherwise the report describes one.
    pub build: Option<String>,
}

/// Writes one JSON file when the run has ended.
pub struct Kcidb {
    out: File,
    submission: Submission,
    checkouts: Vec<Value>,
    builds: Vec<Value>,
    tests: Vec<Value>,
    issues: BTreeMap<String, Value>,
    incidents: Vec<Value>,
    build: String,
    /// Names this run among all runs.
    run: String,
    environment: Value,
    started: Option<String>,
    /// Why the run ended before its plan.
    aborted: Option<String>,
}

impl Kcidb {
    /// Into a file, which is emptied.
    pub fn create(path: &Path, submission: Submission) -> Result<Kcidb, CreateError> {
        let out = create("--kcidb", path)?;
        Ok(Kcidb {
            out,
            submission,
            checkouts: Vec::new(),
            builds: Vec::new(),
            tests: Vec::new(),
            issues: BTreeMap::new(),
            incidents: Vec::new(),
            build: String::new(),
            run: String::new(),
            environment: Value::Null,
            started: None,
            aborted: None,
        })
    }

    fn id(&self, what: &str) -> String {
        format!("{}:gmem-conform-{what}", self.submission.origin)
    }

    fn started(&mut self, run: &RunRecord) {
        let environment = &run.environment;
        let origin = &self.submission.origin;
        let kernel = hash(&[&environment.kernel_release, &environment.kernel_version]);
        let started = run.started_ms.to_string();
        let arguments = run.arguments.join(" ");
        self.run = hash(&[
            &kernel,
            &started,
            &environment.cpu,
            &environment.kernel_command_line,
            &arguments,
        ]);
        self.started = (run.started_ms > 0).then(|| civil(Duration::from_millis(run.started_ms)));
        match &self.submission.build {
            Some(build) => self.build = build.clone(),
            None => {
                let (checkout, build) = (self.id(&kernel), self.id(&kernel));
                // Where the kernel comes from cannot be found out on the machine that it runs on.
                self.checkouts.push(json!({
                    "id": checkout,
                    "origin": origin,
                    "comment": format!("unknown source of Linux {}", clean(&environment.kernel_release)),
                }));
                self.builds.push(json!({
                    "id": build,
                    "checkout_id": checkout,
                    "origin": origin,
                    "architecture": "x86_64",
                    "comment": clean(&format!("{} {}", environment.kernel_release, environment.kernel_version)),
                }));
                self.build = build;
            }
        }
        let dialect = environment.dialect.map_or("unknown", |dialect| dialect.name());
        // What lists of results show.
        let comment = match caveat(environment) {
            Some(caveat) => format!("{}; {caveat}", environment.cpu),
            None => environment.cpu.clone(),
        };
        self.environment = json!({
            "comment": clean(&comment),
            "misc": {
                "suite": run.suite,
                "machine": environment.machine,
                "dialect": dialect,
                "virtualization": environment.virtualization,
                "host": environment.host,
                "kernel_command_line": environment.kernel_command_line,
                "kvm_parameters": environment.kvm_parameters,
            },
        });
    }

    fn finished(&mut self, record: &CaseRecord) {
        let (status, cause) = match record.verdict {
            Verdict::Pass => ("PASS", None),
            Verdict::Fail => ("FAIL", None),
            Verdict::Error => ("ERROR", None),
            Verdict::Timeout => ("FAIL", Some("timeout")),
            Verdict::Skip => ("SKIP", None),
            Verdict::Waived => ("FAIL", Some("waived")),
        };
        let id = self.id(&format!("{}-{}", self.run, record.id));
        let mut misc = Map::new();
        misc.insert("clauses".into(), json!(record.clauses));
        if let Some(cause) = cause {
            misc.insert("cause".into(), cause.into());
        }
        let mut test = self.test(&record.id, status);
        test["duration"] = (record.duration_us as f64 / 1e6).into();
        if let Some(failure) = &record.failure {
            test["comment"] = clean(&failure.summary).into();
            misc.insert("clause".into(), json!(failure.clause));
            misc.insert("command".into(), json!(failure.command));
            misc.insert("fixes".into(), json!(failure.fixes));
            let mut log = failure_lines(record).join("\n");
            if let Some(text) = &failure.case_text {
                log += &format!("\n\n{text}");
            }
            test["log_excerpt"] = clean(&log).into();
        } else if let Some(need) = record.needs.first() {
            test["comment"] = clean(&need.prose).into();
            let slugs: Vec<&str> = record.needs.iter().map(|need| need.slug.as_str()).collect();
            misc.insert("needs".into(), json!(slugs));
        }
        test["misc"] = Value::Object(misc);
        self.tests.push(test);
        if let Some(waiver) = &record.waiver {
            let kernels = record.failure.as_ref().is_some_and(|f| f.blame != Some(Blame::Suite));
            self.waived(&id, waiver, kernels);
        }
    }

    /// What every test has.
    fn test(&self, id: &str, status: &str) -> Value {
        let mut test = json!({
            "id": self.id(&format!("{}-{id}", self.run)),
            "build_id": self.build,
            "origin": self.submission.origin,
            "path": format!("gmem_conform.{id}"),
            "status": status,
            "environment": self.environment,
        });
        if let Some(started) = &self.started {
            test["start_time"] = started.as_str().into();
        }
        test
    }

    /// KCIDB has a status for a test that gave no result.
    fn not_run(&mut self, id: &str) {
        let mut test = self.test(id, "MISS");
        let why = self.aborted.as_deref().unwrap_or("the run ended before");
        test["comment"] = clean(&format!("did not run: {why}")).into();
        self.tests.push(test);
    }

    /// A known failure is an issue, and the test that shows it an incident of it.
    fn waived(&mut self, test: &str, waiver: &WaiverNote, kernels: bool) {
        let issue = self.id(&format!("waiver-{}", hash(&[&waiver.id, &waiver.link])));
        let origin = &self.submission.origin;
        self.issues.entry(issue.clone()).or_insert_with(|| {
            json!({
                "id": issue,
                "version": ISSUE_VERSION,
                "origin": origin,
                "report_url": waiver.link,
                "report_subject": clean(&waiver.reason),
                "culprit": { "code": kernels, "tool": false, "harness": !kernels },
                "comment": format!("{}, until {}", waiver.id, waiver.expires),
            })
        });
        self.incidents.push(json!({
            "id": format!("{test}-waived"),
            "origin": origin,
            "issue_id": issue,
            "issue_version": ISSUE_VERSION,
            "test_id": test,
            "present": true,
        }));
    }

    fn ended(&mut self) -> io::Result<()> {
        let issues: Vec<&Value> = self.issues.values().collect();
        let mut report = json!({ "version": { "major": 5, "minor": 3 } });
        for (name, list) in [
            ("checkouts", json!(self.checkouts)),
            ("builds", json!(self.builds)),
            ("tests", json!(self.tests)),
            ("issues", json!(issues)),
            ("incidents", json!(self.incidents)),
        ] {
            if list != json!([]) {
                report[name] = list;
            }
        }
        let mut out = BufWriter::new(&self.out);
        serde_json::to_writer_pretty(&mut out, &report)?;
        out.write_all(b"\n")?;
        out.flush()
    }
}

/// `text` as KCIDB takes it: without NUL, and not too long.
fn clean(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(EXCERPT).collect()
}

/// Names what these texts name, in 16 hexadecimal digits.
fn hash(texts: &[&str]) -> String {
    // Between two of them, and behind the last, a byte that no text has.
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    let hash = fnv1a(bytes);
    format!("{hash:016x}")
}

impl Report for Kcidb {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started(run) => self.started(run),
            Event::Finished { record, .. } => self.finished(record),
            Event::NotRun(id) => self.not_run(id),
            Event::Aborted(reason) => self.aborted = Some(reason.clone()),
            Event::CaseStarted { .. } | Event::Resumed(_) | Event::Note(_) | Event::Waiver(_) => {}
            Event::Ended(_) => return self.ended(),
        }
        Ok(())
    }
}
