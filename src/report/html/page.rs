// SPDX-License-Identifier: GPL-2.0-only
//! The page around the failures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::failure::{article, strip};
use super::matrix::Matrix;
use crate::clock::civil;
use crate::report::file::{CreateError, create, escape};
use crate::report::summary::{caveat, counts, resumed_line, slugs, waiver_line};
use crate::report::{Report, headline};
use crate::results::Event;
use crate::results::{CaseRecord, RunRecord, Summary, Verdict};

/// Failures that are shown in full: what differs after that is better looked for in the results file.
const IN_FULL: usize = 200;

/// Skipped cases with the same reason.
struct Skips {
    prose: Vec<String>,
    count: usize,
}

/// Writes one HTML file when the run has ended.
pub struct Html {
    out: File,
    run: Option<Box<RunRecord>>,
    matrix: Matrix,
    articles: String,
    waived: String,
    in_full: usize,
    /// Failures beyond those, a line each.
    others: String,
    skips: BTreeMap<String, Skips>,
    waivers: Vec<String>,
    notes: Vec<String>,
    not_run: Vec<String>,
}

impl Html {
    /// Into a file, which is emptied.
    pub fn create(path: &Path) -> Result<Html, CreateError> {
        let out = create("--html", path)?;
        Ok(Html {
            out,
            run: None,
            matrix: Matrix::default(),
            articles: String::new(),
            waived: String::new(),
            in_full: 0,
            others: String::new(),
            skips: BTreeMap::new(),
            waivers: Vec::new(),
            notes: Vec::new(),
            not_run: Vec::new(),
        })
    }

    fn finished(&mut self, record: &CaseRecord) {
        self.matrix.count(record);
        match record.verdict {
            Verdict::Pass => {}
            Verdict::Skip => {
                let skips = self.skips.entry(slugs(record)).or_insert_with(|| Skips {
                    prose: record.needs.iter().map(|need| need.prose.clone()).collect(),
                    count: 0,
                });
                skips.count += 1;
            }
            Verdict::Fail | Verdict::Error | Verdict::Timeout | Verdict::Waived => {
                if self.in_full < IN_FULL {
                    self.in_full += 1;
                    let article = article(record, self.in_full);
                    match record.verdict {
                        Verdict::Waived => self.waived += &article,
                        _ => self.articles += &article,
                    }
                    return;
                }
                let summary = record.failure.as_ref().map_or("", |failure| &failure.summary);
                let _ = writeln!(
                    self.others,
                    "<tr><td>{}</td><th>{}</th><td>{}</td></tr>",
                    record.verdict.name(),
                    escape(&record.id),
                    escape(summary)
                );
            }
        }
    }

    fn ended(&mut self, summary: &Summary) -> io::Result<()> {
        let mut page = beginning(summary);
        if let Some(run) = self.run.take() {
            page += &about(&run, summary);
        }
        page += &counters(summary, !self.not_run.is_empty());
        for note in &self.notes {
            let _ = writeln!(page, "<p class=warn>{}</p>", escape(note));
        }

        page += "<h2>Clauses by platform</h2>\n";
        page += &self.matrix.table();
        self.write_failures(&mut page);
        self.write_waivers_and_skips(&mut page);
        page += &not_run(&self.not_run);
        let _ =
            write!(page, "</main><script>\n{}</script></body></html>\n", include_str!("script.js"));
        self.out.write_all(page.as_bytes())
    }

    fn write_failures(&self, page: &mut String) {
        if !self.articles.is_empty() || !self.waived.is_empty() {
            *page += "<h2 id=failures>Failures</h2>\n<p class=key>";
            for (letter, about) in [
                ("S", "shared"),
                ("s", "shared, a hole"),
                ("P", "private"),
                ("p", "private, a hole"),
                ("!", "other contents than expected"),
            ] {
                let _ = write!(page, "<span>{}{about}</span>", strip(letter, 0, None));
            }
            *page += "</p>\n";
            *page += &self.articles;
        }
        if !self.waived.is_empty() {
            *page += "<h2 id=waived>Waived</h2>\n";
            *page += &self.waived;
        }
        if !self.others.is_empty() {
            let _ = write!(
                page,
                "<h2>More failures</h2>\n<p class=dim>The first {IN_FULL} are shown in full; the results file has all.</p>\n\
                 <div class=scroll><table><tbody>\n{}</tbody></table></div>\n",
                self.others
            );
        }
    }

    fn write_waivers_and_skips(&self, page: &mut String) {
        if !self.waivers.is_empty() {
            *page += "<h2>Waivers</h2>\n<ul>\n";
            for line in &self.waivers {
                let _ = writeln!(page, "<li>{}</li>", escape(line));
            }
            *page += "</ul>\n";
        }
        if !self.skips.is_empty() {
            *page += "<h2 id=skipped>Skipped</h2>\n<div class=scroll><table><thead><tr><th>reason</th><th>cases</th><th></th></tr></thead><tbody>\n";
            for (slugs, skips) in &self.skips {
                let prose = skips.prose.join("\n");
                let _ = writeln!(
                    page,
                    "<tr><th>{}</th><td>{}</td><td>{}</td></tr>",
                    escape(slugs),
                    skips.count,
                    escape(&prose).replace('\n', "<br>")
                );
            }
            *page += "</tbody></table></div>\n";
        }
    }
}

/// The head of the page, and the verdict of the run.
fn beginning(summary: &Summary) -> String {
    let (class, verdict) = match (summary.exit_status, summary.passed + summary.waived) {
        (0, _) => ("good", "all that ran passed"),
        (_, 0) if summary.failed + summary.errors + summary.timeouts + summary.not_run == 0 => {
            ("warn", "nothing ran")
        }
        _ => ("bad", "failed"),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=icon href=\"data:,\">\n\
         <title>gmem-conform: {verdict}</title>\n<style>\n{}</style></head><body><main>\n\
         <h1>gmem-conform</h1>\n<p class=\"banner {class}\">{verdict}</p>\n",
        include_str!("style.css")
    )
}

/// The planned cases that have no verdict.
fn not_run(ids: &[String]) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let mut out = String::from("<h2 id=not-run>Not run</h2>\n");
    let _ = writeln!(out, "<details><summary>{} cases</summary><ul>", ids.len());
    for id in ids {
        let _ = writeln!(out, "<li><code>{}</code></li>", escape(id));
    }
    out + "</ul></details>\n"
}

/// What ran, where and when.
fn about(run: &RunRecord, summary: &Summary) -> String {
    let environment = &run.environment;
    let mut out = format!("<p>{}</p>\n", escape(&headline(run)));
    let _ = writeln!(out, "<p class=dim>{}</p>", escape(&counts(summary)));
    if let Some(caveat) = caveat(environment) {
        let _ = writeln!(out, "<p class=warn>{caveat}</p>");
    }
    for remark in &environment.remarks {
        let _ = writeln!(out, "<p class=warn>{}</p>", escape(remark));
    }
    out += "<details><summary>environment</summary><dl>\n";
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
    };
    if run.started_ms > 0 {
        row("began", &civil(Duration::from_millis(run.started_ms)));
    }
    row("arguments", &run.arguments.join(" "));
    row("kernel", &format!("{} {}", environment.kernel_release, environment.kernel_version));
    row("command line", &environment.kernel_command_line);
    row("cpu", &environment.cpu);
    row("virtualization", &environment.virtualization);
    row("host", &environment.host);
    for (name, value) in &environment.kvm_parameters {
        row(name, value);
    }
    for (name, value) in &environment.capabilities {
        row(name, &value.to_string());
    }
    for merged in &run.merged {
        let kernel = merged.run["environment"]["kernel_release"].as_str().unwrap_or_default();
        row("made of", &format!("{} ({kernel})", merged.file));
    }
    out += "</dl></details>\n";
    let missing = environment.platforms.iter().filter(|platform| !platform.missing.is_empty());
    for platform in missing {
        let prose: Vec<&str> = platform.missing.iter().map(|need| need.prose.as_str()).collect();
        let _ = writeln!(
            out,
            "<p class=dim>{} cannot run: {}</p>",
            escape(&platform.name),
            escape(&prose.join("; "))
        );
    }
    out
}

fn counters(summary: &Summary, named: bool) -> String {
    let mut out = String::from("<ul class=counts>\n");
    for (name, count, class) in [
        ("planned", summary.planned, ""),
        ("passed", summary.passed, "good"),
        ("failed", summary.failed, "bad"),
        ("errors", summary.errors, "bad"),
        ("timeouts", summary.timeouts, "bad"),
        ("skipped", summary.skipped, "warn"),
        ("waived", summary.waived, "warn"),
        ("not run", summary.not_run, "bad"),
    ] {
        let class = if count == 0 { "idle" } else { class };
        let section = match name {
            "failed" | "errors" | "timeouts" if count > 0 => "failures",
            "waived" if count > 0 => "waived",
            "skipped" if count > 0 => "skipped",
            "not run" if count > 0 && named => "not-run",
            _ => "",
        };
        let _ = match section {
            "" => writeln!(out, "<li><b class=\"{class}\">{count}</b> {name}</li>"),
            id => writeln!(
                out,
                "<li><a href=\"#{id}\"><b class=\"{class}\">{count}</b> {name}</a></li>"
            ),
        };
    }
    out + "</ul>\n"
}

impl Report for Html {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started(run) => {
                self.matrix.started(run);
                self.run = Some(run.clone());
            }
            Event::Finished { record, .. } => self.finished(record),
            Event::CaseStarted { .. } => {}
            Event::Note(note) => self.notes.push(format!("note: {note}")),
            Event::Resumed(resumed) => self.notes.push(resumed_line(resumed)),
            Event::Aborted(reason) => self.notes.push(format!("aborted: {reason}")),
            Event::NotRun(id) => self.not_run.push(id.clone()),
            Event::Waiver(waiver) => self.waivers.extend(waiver_line(waiver)),
            Event::Ended(summary) => return self.ended(summary),
        }
        Ok(())
    }
}
