// SPDX-License-Identifier: GPL-2.0-only
//! One failure: what, where, the pages step by step, the bytes, and the case to run again.

use std::fmt::Write;

use crate::report::failure::{blame_name, clause, company, place, step, tested};
use crate::report::file::escape;
use crate::results::{CaseRecord, Failure, Verdict};

/// Characters of stray output and of a kernel log that are shown.
const SHOWN: usize = 8 * 1024;

/// The failure of a case as an article; `number` makes its anchors unique.
pub(super) fn article(record: &CaseRecord, number: usize) -> String {
    let class = if record.verdict == Verdict::Waived { " class=waived" } else { "" };
    let colour = if record.verdict == Verdict::Waived { "warn" } else { "bad" };
    let mut out = format!(
        "<article{class} id=f{number}><h3><span class={colour}>{}</span> {}</h3>\n",
        record.verdict.name().to_uppercase(),
        escape(&record.id)
    );
    if let Some(failure) = &record.failure {
        body(&mut out, record, failure, number);
    }
    section(&mut out, "kernel log", &record.kernel_log.join("\n"));
    section(&mut out, "the worker wrote", &record.stray_output);
    out + "</article>\n"
}

fn body(out: &mut String, record: &CaseRecord, failure: &Failure, number: usize) {
    let _ = writeln!(out, "<p>{}</p>\n<dl>", escape(&failure.summary));
    let mut row = |name: &str, text: Option<String>| {
        for text in text.into_iter().filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&text));
        }
    };
    row("clause", clause(failure));
    row("tests", tested(failure, &record.clauses));
    row("step", step(failure));
    row("where", place(failure));
    row("expected", failure.expected.clone());
    row("found", failure.found.clone());
    row("company", failure.company.map(company));
    row("blame", failure.blame.map(|blame| blame_name(blame).to_string()));
    for fix in &failure.fixes {
        row("see", Some(fix.clone()));
    }
    if let Some(waiver) = &record.waiver {
        row(
            "waived",
            Some(format!("{} ({}, until {})", waiver.reason, waiver.link, waiver.expires)),
        );
    }
    row("took", Some(format!("{:.3} s", record.duration_us as f64 / 1e6)));
    *out += "</dl>\n";
    maps(out, failure);
    trail(out, failure);
    if !failure.detail.is_empty() {
        *out += "<p class=dim>detail (- expected, + found)</p>\n<pre>";
        for line in &failure.detail {
            let class = match line
                .trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == ' ')
                .chars()
                .next()
            {
                Some('-') => Some("minus"),
                Some('+') => Some("plus"),
                _ => None,
            };
            let _ = match class {
                Some(class) => writeln!(out, "<span class={class}>{}</span>", escape(line)),
                None => writeln!(out, "{}", escape(line)),
            };
        }
        *out += "</pre>\n";
    }
    if let Some(command) = &failure.command {
        let _ = writeln!(
            out,
            "<button type=button class=copy data-of=r{number}>copy</button><p class=dim>run it again</p>\
             <pre id=r{number}>{}</pre>",
            escape(command)
        );
    }
    if let Some(text) = &failure.case_text {
        let _ = writeln!(
            out,
            "<details open><summary>the case <button type=button class=copy data-of=c{number}>copy</button></summary>\
             <pre id=c{number}>{}</pre></details>",
            escape(text)
        );
    }
}

/// The pages before the step, as they must be after it, and as they were found.
fn maps(out: &mut String, failure: &Failure) {
    let rows = [
        ("before", &failure.map_before),
        ("expected", &failure.map_after),
        ("found", &failure.map_found),
    ];
    if rows.iter().all(|(_, map)| map.is_none()) {
        return;
    }
    let count = failure.map_before.as_ref().map_or(0, String::len) as u64;
    let first = failure.map_first_page;
    let _ = writeln!(
        out,
        "<p class=dim>pages {first}..{}</p>\n<div class=maps>",
        first.saturating_add(count)
    );
    for (name, map) in rows {
        let map = match map {
            Some(map) => strip(map, first, failure.page),
            None => "<span class=dim>not looked at</span>".into(),
        };
        let _ = writeln!(out, "<span>{name}</span>{map}");
    }
    *out += "</div>\n";
}

/// Every step with the pages as they must be after it.
fn trail(out: &mut String, failure: &Failure) {
    let Some((last, _)) = failure.trail.split_last() else {
        return;
    };
    *out += "<details open><summary>step by step: the pages as they must be after each</summary><div class=steps>\n";
    for step in &failure.trail {
        let class = if std::ptr::eq(step, last) { " class=last" } else { "" };
        let _ = writeln!(
            out,
            "<span class=dim>{}</span><code{class}>{}</code>{}",
            step.line,
            escape(&step.statement),
            strip(&step.map, failure.map_first_page, None)
        );
    }
    *out += "</div></details>\n";
}

/// A letter a page.
pub(super) fn strip(map: &str, first: u64, here: Option<u64>) -> String {
    let mut out = String::from("<span class=map>");
    for (page, letter) in (first..).zip(map.chars()) {
        let (class, about) = match letter {
            'S' => ("S", "shared"),
            's' => ("s", "shared, a hole"),
            'P' => ("P", "private"),
            'p' => ("p", "private, a hole"),
            _ => ("x", "other contents than expected"),
        };
        let here = if here == Some(page) { " here" } else { "" };
        let _ = write!(
            out,
            "<i class=\"{class}{here}\" title=\"page {page}: {about}\">{}</i>",
            escape(&letter.to_string())
        );
    }
    out + "</span>"
}

fn section(out: &mut String, title: &str, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { "\n(more in the results file)" } else { "" };
    let _ = writeln!(
        out,
        "<details><summary>{title}</summary><pre>{}{more}</pre></details>",
        escape(&shown)
    );
}
