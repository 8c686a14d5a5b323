// SPDX-License-Identifier: GPL-2.0-only
//! TAP version 13, flat, which is also valid KTAP 1.

use std::io::{self, Write};

use crate::results::Event;
use crate::results::{CaseRecord, RunRecord, Summary, Verdict};

use super::summary::{caveat, counts, headline, resumed_line, slugs, waiver_line};
use super::{Report, failure_lines};
use crate::text::ascii;

/// Writes TAP. The result lines are numbered in the order in which cases end.
pub struct Tap<W> {
    out: W,
    /// What one case is given, in seconds, where the run says it.
    timeout_s: Option<u64>,
    /// What the run is not about.
    caveat: Option<&'static str>,
}

impl<W: Write> Tap<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Tap<W> {
        Tap { out, timeout_s: None, caveat: None }
    }

    fn started(&mut self, run: &RunRecord) -> String {
        self.caveat = caveat(&run.environment);
        self.timeout_s = run.timeout_s;
        let mut text = format!("TAP version 13\n1..{}", run.planned);
        // Nothing falls into the shard; a plan of no tests must say why.
        text += if run.planned == 0 { " # SKIP no-case-in-shard\n" } else { "\n" };
        comment(&mut text, &headline(run));
        for remark in &run.environment.remarks {
            comment(&mut text, &format!("remark: {remark}"));
        }
        text
    }

    fn result(&self, number: usize, record: &CaseRecord) -> String {
        let mut text = String::new();
        // What is known need not be told in full: the results file has it.
        let shown = if record.verdict == Verdict::Waived { 1 } else { usize::MAX };
        for line in failure_lines(record).into_iter().take(shown) {
            comment(&mut text, &line);
        }
        for need in &record.needs {
            comment(&mut text, &format!("{}: {}", need.slug, need.prose));
        }
        if let Some(waiver) = &record.waiver {
            comment(&mut text, &format!("waived: {} ({})", waiver.reason, waiver.link));
        }
        let until = record.waiver.as_ref().map_or("", |waiver| &waiver.expires);
        let (status, directive) = match record.verdict {
            Verdict::Pass => ("ok", String::new()),
            Verdict::Fail => ("not ok", String::new()),
            Verdict::Error => ("not ok", " # ERROR".to_string()),
            Verdict::Timeout => {
                // A guest's own deadline comes earlier, and that of a kernel that hangs everywhere.
                let seconds = |most: u64| most.min(record.duration_us / 1_000_000);
                let seconds =
                    self.timeout_s.map_or(String::new(), |n| format!(" {} seconds", seconds(n)));
                ("not ok", format!(" # TIMEOUT{seconds}"))
            }
            Verdict::Skip => ("ok", format!(" # SKIP {}", slugs(record))),
            Verdict::Waived => ("ok", ascii(&format!(" # XFAIL waived-until-{until}"))),
        };
        text += &format!("{status} {number} {}{directive}\n", ascii(&record.id));
        text
    }

    fn ended(&self, summary: &Summary) -> String {
        let mut text = String::new();
        comment(&mut text, self.caveat.unwrap_or_default());
        comment(&mut text, &counts(summary));
        text
    }
}

fn comment(text: &mut String, lines: &str) {
    for line in lines.lines() {
        *text += &format!("# {}\n", ascii(line));
    }
}

impl<W: Write> Report for Tap<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = match event {
            Event::Started(run) => self.started(run),
            Event::CaseStarted { .. } => return Ok(()),
            Event::Finished { number, record, .. } => self.result(*number, record),
            Event::Note(note) => {
                let mut text = String::new();
                comment(&mut text, &format!("note: {note}"));
                text
            }
            Event::Waiver(waiver) => {
                let mut text = String::new();
                comment(&mut text, &waiver_line(waiver).unwrap_or_default());
                text
            }
            Event::Resumed(resumed) => {
                let mut text = String::new();
                comment(&mut text, &resumed_line(resumed));
                text
            }
            Event::Aborted(reason) => format!("Bail out! {}\n", ascii(reason)),
            Event::NotRun(id) => {
                let mut text = String::new();
                comment(&mut text, &format!("not run: {id}"));
                text
            }
            Event::Ended(summary) => self.ended(summary),
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}
