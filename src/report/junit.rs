// SPDX-License-Identifier: GPL-2.0-only
//! JUnit XML as Jenkins and GitLab read it: valid after junit-10.xsd of Jenkins' xunit plugin.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::clock::civil;
use crate::results::Event;
use crate::results::{CaseRecord, RunRecord, Summary, Verdict, platform_of};

use super::file::{CreateError, create, escape};
use super::summary::{caveat, resumed_line, slugs, waiver_line};
use super::{Report, failure_lines};
use crate::text::ascii;

/// Writes one XML file when the run has ended: a test suite for each platform.
pub struct Junit {
    out: File,
    head: String,
    timestamp: String,
    suites: Vec<Suite>,
    /// What belongs to no case.
    notes: String,
    /// Why the run ended before its plan.
    aborted: Option<String>,
    /// Cases without a verdict that are named.
    not_run: usize,
}

/// The cases of one platform.
struct Suite {
    platform: String,
    cases: String,
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
    micros: u64,
}

impl Junit {
    /// Into a file, which is emptied.
    pub fn create(path: &Path) -> Result<Junit, CreateError> {
        let out = create("--junit", path)?;
        Ok(Junit {
            out,
            head: String::new(),
            timestamp: String::new(),
            suites: Vec::new(),
            notes: String::new(),
            aborted: None,
            not_run: 0,
        })
    }

    fn started(&mut self, run: &RunRecord) {
        let environment = &run.environment;
        let dialect = environment.dialect.map_or("unknown", |dialect| dialect.name());
        let mut head = String::from("    <properties>\n");
        for (name, value) in [
            ("suite", run.suite.as_str()),
            ("machine", &environment.machine),
            ("dialect", dialect),
            ("kernel_release", &environment.kernel_release),
            ("kernel_version", &environment.kernel_version),
            ("kernel_command_line", &environment.kernel_command_line),
            ("cpu", &environment.cpu),
            ("virtualization", &environment.virtualization),
            ("host", &environment.host),
        ] {
            let _ = writeln!(head, "      <property name=\"{name}\" value=\"{}\"/>", escape(value));
        }
        self.head = head + "    </properties>\n";
        if run.started_ms > 0 {
            let moment = civil(Duration::from_millis(run.started_ms));
            // Jenkins wants the time without a zone.
            self.timestamp = format!(" timestamp=\"{}\"", moment.trim_end_matches('Z'));
        }
        if let Some(caveat) = caveat(environment) {
            let _ = writeln!(self.notes, "{caveat}");
        }
    }

    fn suite(&mut self, platform: &str) -> &mut Suite {
        let found = self.suites.iter().position(|suite| suite.platform == platform);
        let index = found.unwrap_or_else(|| {
            self.suites.push(Suite {
                platform: platform.to_string(),
                cases: String::new(),
                tests: 0,
                failures: 0,
                errors: 0,
                skipped: 0,
                micros: 0,
            });
            self.suites.len() - 1
        });
        &mut self.suites[index]
    }

    fn finished(&mut self, record: &CaseRecord) {
        let suite = self.suite(record.platform());
        suite.tests += 1;
        suite.micros += record.duration_us;
        let (class, name) = class_and_name(&record.id);
        let _ = write!(
            suite.cases,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\"",
            escape(class),
            escape(name),
            seconds(record.duration_us)
        );
        let summary = record.failure.as_ref().map_or("", |failure| failure.summary.as_str());
        let (element, kind, message) = match record.verdict {
            Verdict::Pass => {
                suite.cases += "/>\n";
                return;
            }
            Verdict::Fail => {
                suite.failures += 1;
                ("failure", "fail", ascii(summary))
            }
            Verdict::Timeout => {
                suite.failures += 1;
                ("failure", "timeout", ascii(summary))
            }
            Verdict::Error => {
                suite.errors += 1;
                ("error", "error", ascii(summary))
            }
            Verdict::Skip => {
                suite.skipped += 1;
                ("skipped", "skip", slugs(record))
            }
            Verdict::Waived => {
                suite.skipped += 1;
                ("skipped", "waived", ascii(summary))
            }
        };
        let mut body = String::new();
        if let Some(waiver) = &record.waiver {
            let _ = writeln!(
                body,
                "waived until {}: {} ({})",
                waiver.expires, waiver.reason, waiver.link
            );
        }
        for need in &record.needs {
            let _ = writeln!(body, "{}: {}", need.slug, need.prose);
        }
        for line in failure_lines(record) {
            let _ = writeln!(body, "{line}");
        }
        if let Some(text) = record.failure.as_ref().and_then(|f| f.case_text.as_deref()) {
            let _ = write!(body, "\n{text}");
        }
        let _ = write!(
            suite.cases,
            ">\n      <{element} type=\"{kind}\" message=\"{}\">{}</{element}>\n    </testcase>\n",
            escape(&message),
            escape(&body)
        );
    }

    /// A planned case that has no verdict is an error: whoever reads this must not take the run for a whole one.
    fn not_run(&mut self, id: &str) {
        self.not_run += 1;
        let why = self.aborted.clone().unwrap_or_else(|| "the run ended before".to_string());
        let suite = self.suite(platform_of(id));
        suite.tests += 1;
        suite.errors += 1;
        let (class, name) = class_and_name(id);
        let _ = writeln!(
            suite.cases,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"0.000\">\n      \
             <error type=\"not-run\" message=\"did not run: {}\"/>\n    </testcase>",
            escape(class),
            escape(name),
            escape(&ascii(&why))
        );
    }

    fn ended(&mut self, summary: &Summary) -> io::Result<()> {
        // A run that was killed names none.
        let unnamed = summary.not_run.saturating_sub(self.not_run);
        if unnamed > 0 {
            let suite = self.suite("gmem-conform");
            suite.tests += 1;
            suite.errors += 1;
            let _ = write!(
                suite.cases,
                "    <testcase classname=\"gmem-conform\" name=\"not-run\" time=\"0.000\">\n      \
                 <error type=\"not-run\" message=\"{} planned cases did not run\"/>\n    </testcase>\n",
                unnamed
            );
        }
        let sum = |count: fn(&Suite) -> usize| self.suites.iter().map(count).sum::<usize>();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"gmem-conform\" tests=\"{}\" failures=\"{}\" \
             errors=\"{}\" time=\"{}\">\n",
            sum(|s| s.tests),
            sum(|s| s.failures),
            sum(|s| s.errors),
            seconds(summary.elapsed_ms * 1000)
        );
        for suite in &self.suites {
            let _ = write!(
                text,
                "  <testsuite name=\"gmem-conform.{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" \
                 time=\"{}\"{}>\n{}{}",
                escape(&suite.platform),
                suite.tests,
                suite.failures,
                suite.errors,
                suite.skipped,
                seconds(suite.micros),
                self.timestamp,
                self.head,
                suite.cases
            );
            if !self.notes.is_empty() {
                let _ = writeln!(text, "    <system-out>{}</system-out>", escape(&self.notes));
            }
            text += "  </testsuite>\n";
        }
        text += "</testsuites>\n";
        self.out.write_all(text.as_bytes())
    }
}

/// The class, which is platform and topic, and the name, the rest: readers join them with a dot.
fn class_and_name(id: &str) -> (&str, &str) {
    let after_topic = id.match_indices('.').nth(if id.starts_with("model.") { 2 } else { 1 });
    match after_topic {
        Some((at, _)) => (&id[..at], &id[at + 1..]),
        None => ("gmem-conform", id),
    }
}

/// Seconds with three digits behind the point, all that the schema allows.
fn seconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros / 1000 % 1000)
}

impl Report for Junit {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started(run) => self.started(run),
            Event::Finished { record, .. } => self.finished(record),
            Event::Note(note) => {
                let _ = writeln!(self.notes, "note: {note}");
            }
            Event::Resumed(resumed) => {
                let _ = writeln!(self.notes, "{}", resumed_line(resumed));
            }
            Event::Aborted(reason) => {
                let _ = writeln!(self.notes, "aborted: {reason}");
                self.aborted = Some(reason.clone());
            }
            Event::NotRun(id) => self.not_run(id),
            Event::Waiver(waiver) => {
                if let Some(line) = waiver_line(waiver) {
                    let _ = writeln!(self.notes, "{line}");
                }
            }
            Event::CaseStarted { .. } => {}
            Event::Ended(summary) => return self.ended(summary),
        }
        Ok(())
    }
}
