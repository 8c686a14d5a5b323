// SPDX-License-Identifier: GPL-2.0-only
//! The report for people: failures in full when they happen, the rest as counts.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::results::{CaseRecord, RunRecord, Summary, Verdict};
use crate::run::Event;

use super::tap::slugs;
use super::{Report, ascii, failure_lines};

const BAD: Style = AnsiColor::Red.on_default().bold();
const SLOW: Style = AnsiColor::Magenta.on_default().bold();
const SKIPPED: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// How a [`Human`] report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Looks {
    colour: bool,
    heartbeat: bool,
}

/// Skipped cases with the same reason.
struct Skips {
    slugs: String,
    prose: Vec<String>,
    count: usize,
}

/// Writes text for people.
pub struct Human<W> {
    out: W,
    looks: Looks,
    on_model: bool,
    planned: usize,
    ended: usize,
    skips: Vec<Skips>,
    failures: Vec<(Verdict, String)>,
    /// Whether the last line on the terminal is the heartbeat, which the next text overwrites.
    beating: bool,
}

impl<W: Write> Human<W> {
    /// Writes to `out`, without colour and without a heartbeat.
    pub fn new(out: W) -> Human<W> {
        Human {
            out,
            looks: Looks::default(),
            on_model: false,
            planned: 0,
            ended: 0,
            skips: Vec::new(),
            failures: Vec::new(),
            beating: false,
        }
    }

    /// Marks verdicts with colour.
    pub fn colour(mut self, colour: bool) -> Human<W> {
        self.looks.colour = colour;
        self
    }

    /// Shows on the last line which case is running: for terminals only.
    pub fn heartbeat(mut self, heartbeat: bool) -> Human<W> {
        self.looks.heartbeat = heartbeat;
        self
    }

    fn painted(&self, text: &str, style: Style) -> String {
        if self.looks.colour { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    fn named(&self, verdict: Verdict) -> String {
        let (name, style) = match verdict {
            Verdict::Pass => ("PASS", GOOD),
            Verdict::Fail => ("FAIL", BAD),
            Verdict::Error => ("ERROR", BAD),
            Verdict::Timeout => ("TIMEOUT", SLOW),
            Verdict::Skip => ("SKIP", SKIPPED),
        };
        self.painted(name, style)
    }

    fn started(&mut self, run: &RunRecord) -> String {
        self.on_model = run.environment.machine == "model";
        self.planned = run.planned;
        let mut text = headline(run) + "\n";
        for remark in &run.environment.remarks {
            let _ = writeln!(text, "remark: {}", ascii(remark));
        }
        text
    }

    fn finished(&mut self, record: &CaseRecord) -> String {
        self.ended += 1;
        match record.verdict {
            Verdict::Pass => return String::new(),
            Verdict::Skip => {
                self.count_skip(record);
                return String::new();
            }
            Verdict::Fail | Verdict::Error | Verdict::Timeout => {}
        }
        self.failures.push((record.verdict, record.id.clone()));
        let seconds = record.duration_us as f64 / 1e6;
        let mut text =
            format!("\n{} {} ({seconds:.2} s)\n", self.named(record.verdict), ascii(&record.id));
        for line in failure_lines(record) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    fn count_skip(&mut self, record: &CaseRecord) {
        let slugs = slugs(record);
        match self.skips.iter_mut().find(|skips| skips.slugs == slugs) {
            Some(skips) => skips.count += 1,
            None => self.skips.push(Skips {
                slugs,
                prose: record.needs.iter().map(|need| need.prose.clone()).collect(),
                count: 1,
            }),
        }
    }

    fn ended(&self, summary: &Summary) -> String {
        let mut text = String::from("\n");
        for skips in &self.skips {
            let _ = writeln!(
                text,
                "{} {} {}: {}",
                self.named(Verdict::Skip),
                skips.count,
                if skips.count == 1 { "case" } else { "cases" },
                skips.slugs
            );
            for prose in skips.prose.iter().flat_map(|prose| prose.lines()) {
                let _ = writeln!(text, "  {}", ascii(prose));
            }
        }
        for (verdict, id) in &self.failures {
            let _ = writeln!(text, "{} {}", self.named(*verdict), ascii(id));
        }
        if self.on_model {
            let _ = writeln!(text, "{}", model_warning());
        }
        let style = if summary.exit_status == 0 { GOOD } else { BAD };
        let _ = writeln!(text, "{}", self.painted(&counts(summary), style));
        text
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let clear = if self.beating { "\r\x1b[K" } else { "" };
        self.beating = false;
        self.out.write_all(format!("{clear}{text}").as_bytes())?;
        self.out.flush()
    }

    fn beat(&mut self, id: &str, pid: u32) -> io::Result<()> {
        if !self.looks.heartbeat {
            return Ok(());
        }
        let line = format!("[{}/{}] {} (pid {pid})", self.ended, self.planned, ascii(id));
        self.write(&format!("\r\x1b[K{line:.79}"))?;
        self.beating = true;
        Ok(())
    }
}

/// What runs and where, in one line.
pub(super) fn headline(run: &RunRecord) -> String {
    let environment = &run.environment;
    let dialect = match environment.dialect {
        Some(dialect) if environment.dialect_forced => format!("dialect {dialect} (forced)"),
        Some(dialect) => format!("dialect {dialect}"),
        None => "dialect unknown".to_string(),
    };
    let mut text =
        format!("{}: {} cases, machine {}, {dialect}", run.suite, run.planned, environment.machine);
    if let Some(fault) = &environment.planted_fault {
        text += &format!(", planted fault {fault}");
    }
    if !environment.kernel_release.is_empty() {
        text += &format!(", Linux {}, {}", environment.kernel_release, environment.virtualization);
    }
    ascii(&text)
}

/// Every count of a run, in one line.
pub(super) fn counts(summary: &Summary) -> String {
    format!(
        "{} planned: {} passed, {} failed, {} errors, {} timeouts, {} skipped, {} not run; {:.1} s",
        summary.planned,
        summary.passed,
        summary.failed,
        summary.errors,
        summary.timeouts,
        summary.skipped,
        summary.not_run,
        summary.elapsed_ms as f64 / 1000.0
    )
}

/// What every report of a run on the model ends with.
pub(super) fn model_warning() -> &'static str {
    "machine model: nothing here is about a kernel"
}

impl<W: Write> Report for Human<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = match event {
            Event::Started(run) => self.started(run),
            Event::CaseStarted { id, pid } => return self.beat(id, *pid),
            Event::Finished { record, .. } => self.finished(record),
            Event::Note(note) => format!(
                "{}\n",
                note.lines()
                    .map(|line| format!("note: {}", ascii(line)))
                    .collect::<Vec<_>>()
                    .join("\n")
            ),
            Event::Aborted(reason) => {
                format!("\n{} {}\n", self.painted("ABORTED", BAD), ascii(reason))
            }
            Event::Ended(summary) => self.ended(summary),
        };
        self.write(&text)
    }
}
