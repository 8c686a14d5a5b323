// SPDX-License-Identifier: GPL-2.0-only
//! The report for people: failures in full when they happen, the rest as counts.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use crate::results::Event;
use crate::results::{CaseRecord, RunRecord, Summary, Verdict, WaiverRecord};

use super::summary::{caveat, counts, headline, resumed_line, slugs, waiver_line};
use super::{Report, failure_lines};
use crate::text::ascii;

const BAD: Style = AnsiColor::Red.on_default().bold();
const SLOW: Style = AnsiColor::Magenta.on_default().bold();
const SKIPPED: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// Most of a terminal's line that the progress takes, so that it never wraps.
const WIDTH: usize = 79;

/// Cases that did not run and are shown by name; the results file has them all.
const NOT_RUN: usize = 10;

/// The options of a [`Human`] report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Looks {
    colour: bool,
    /// The shortest time between two progress lines, if there are any.
    progress: Option<Duration>,
    passed: bool,
    skipped: bool,
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
    /// What the run is not about.
    caveat: Option<&'static str>,
    since: Instant,
    /// What has come so far; `planned` is known from the start.
    so_far: Summary,
    skips: Vec<Skips>,
    failures: Vec<(Verdict, String)>,
    waived: Vec<String>,
    waivers: Vec<String>,
    not_run: Vec<String>,
    /// Whether the last line on the terminal is the progress, which the next text overwrites.
    on_progress: bool,
    last_progress: Option<Instant>,
}

impl<W: Write> Human<W> {
    /// Writes to `out`, without colour and without progress.
    pub fn new(out: W) -> Human<W> {
        Human {
            out,
            looks: Looks::default(),
            caveat: None,
            since: Instant::now(),
            so_far: Summary::default(),
            skips: Vec::new(),
            failures: Vec::new(),
            waived: Vec::new(),
            waivers: Vec::new(),
            not_run: Vec::new(),
            on_progress: false,
            last_progress: None,
        }
    }

    /// Marks verdicts with colour.
    pub fn colour(mut self, colour: bool) -> Human<W> {
        self.looks.colour = colour;
        self
    }

    /// Shows on the last line how far the run is, anew after so much time: for terminals only.
    pub fn progress(mut self, every: Option<Duration>) -> Human<W> {
        self.looks.progress = every;
        self
    }

    /// Prints the ids of cases that passed.
    pub fn print_passed(mut self, print: bool) -> Human<W> {
        self.looks.passed = print;
        self
    }

    /// Prints the ids of cases that were skipped, besides counting them by reason.
    pub fn print_skipped(mut self, print: bool) -> Human<W> {
        self.looks.skipped = print;
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
            Verdict::Waived => ("WAIVED", SKIPPED),
        };
        self.painted(name, style)
    }

    fn started(&mut self, run: &RunRecord) -> String {
        self.caveat = caveat(&run.environment);
        self.so_far.planned = run.planned;
        self.since = Instant::now();
        let mut text = headline(run) + "\n";
        for remark in &run.environment.remarks {
            let _ = writeln!(text, "remark: {}", ascii(remark));
        }
        text
    }

    fn finished(&mut self, record: &CaseRecord) -> String {
        self.so_far.count(record.verdict);
        let (named, id) = (self.named(record.verdict), ascii(&record.id));
        match record.verdict {
            Verdict::Pass if self.looks.passed => return format!("{named} {id}\n"),
            Verdict::Pass => return String::new(),
            Verdict::Skip => {
                self.count_skip(record);
                return match self.looks.skipped {
                    true => format!("{named} {id}: {}\n", slugs(record)),
                    false => String::new(),
                };
            }
            Verdict::Waived => {
                let why = record.failure.as_ref().map_or("", |failure| &failure.summary);
                self.waived.push(format!("{id}: {}", ascii(why)));
                return String::new();
            }
            Verdict::Fail | Verdict::Error | Verdict::Timeout => {}
        }
        self.failures.push((record.verdict, record.id.clone()));
        let seconds = record.duration_us as f64 / 1e6;
        let mut text = format!("\n{named} {id} ({seconds:.2} s)\n");
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

    fn waiver(&mut self, record: &WaiverRecord) {
        let Some(line) = waiver_line(record) else { return };
        self.waivers.push(match record.problem {
            Some(_) => self.painted(&line, SKIPPED),
            None => line,
        });
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
        for waived in &self.waived {
            let _ = writeln!(text, "{} {waived}", self.named(Verdict::Waived));
        }
        for line in &self.waivers {
            let _ = writeln!(text, "{line}");
        }
        for (verdict, id) in &self.failures {
            let _ = writeln!(text, "{} {}", self.named(*verdict), ascii(id));
        }
        let (shown, more) = self.not_run.split_at(self.not_run.len().min(NOT_RUN));
        for id in shown {
            let _ = writeln!(text, "{} {}", self.painted("NOT RUN", SKIPPED), ascii(id));
        }
        if !more.is_empty() {
            let _ = writeln!(text, "{} and {} more", self.painted("NOT RUN", SKIPPED), more.len());
        }
        if let Some(caveat) = self.caveat {
            let _ = writeln!(text, "{caveat}");
        }
        let style = if summary.exit_status == 0 { GOOD } else { BAD };
        let _ = writeln!(text, "{}", self.painted(&counts(summary), style));
        text
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let clear = if self.on_progress { "\r\x1b[K" } else { "" };
        self.on_progress = false;
        self.out.write_all(format!("{clear}{text}").as_bytes())?;
        self.out.flush()
    }

    fn show_progress(&mut self, id: &str, pid: u32) -> io::Result<()> {
        let Some(every) = self.looks.progress else {
            return Ok(());
        };
        if self.last_progress.is_some_and(|last| last.elapsed() < every) {
            return Ok(());
        }
        self.last_progress = Some(Instant::now());
        let Summary { planned, passed, failed, errors, timeouts, skipped, waived, .. } =
            self.so_far;
        let bad = failed + errors + timeouts;
        let line = format!(
            "[{}/{planned}] {bad} failed, {skipped} skipped, {} s, pid {pid}: {}",
            passed + bad + skipped + waived,
            self.since.elapsed().as_secs(),
            ascii(id),
        );
        self.write(&format!("{line:.WIDTH$}"))?;
        self.on_progress = true;
        Ok(())
    }
}

impl<W: Write> Report for Human<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = match event {
            Event::Started(run) => self.started(run),
            Event::CaseStarted { id, pid } => return self.show_progress(id, *pid),
            Event::Finished { record, .. } => self.finished(record),
            Event::Note(note) => format!(
                "{}\n",
                note.lines()
                    .map(|line| format!("note: {}", ascii(line)))
                    .collect::<Vec<_>>()
                    .join("\n")
            ),
            Event::Waiver(waiver) => {
                self.waiver(waiver);
                String::new()
            }
            Event::Resumed(resumed) => {
                format!("\n{} {}\n", self.painted("RESUMED", BAD), resumed_line(resumed))
            }
            Event::NotRun(id) => {
                self.not_run.push(id.clone());
                String::new()
            }
            Event::Aborted(reason) => {
                format!("\n{} {}\n", self.painted("ABORTED", BAD), ascii(reason))
            }
            Event::Ended(summary) => self.ended(summary),
        };
        self.write(&text)
    }
}
