// SPDX-License-Identifier: GPL-2.0-only
//! Measurements for people.

use std::fmt::Write;

use super::record::{Measurement, PointRecord, line};
use crate::text::ascii;

/// The table of `gmem-conform bench`: a line a series.
pub fn table(measurement: &Measurement) -> String {
    let mut text = format!("{}, {} rounds\n", measurement.head.line(), measurement.head.repeat);
    for (name, value) in &measurement.head.firmware {
        let _ = writeln!(text, "{name} {}", ascii(value));
    }
    if !measurement.series.is_empty() {
        let mut rows = vec![
            ["series", "sizes", "fixed", "each", "off line", "smallest", "largest"]
                .map(String::from),
        ];
        for (series, points) in &measurement.series {
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            let unit = series.what.unit();
            let sizes = match first.point.size == last.point.size {
                true => count(first.point.size, unit),
                false => format!("{}..{}", first.point.size, count(last.point.size, unit)),
            };
            let [fixed, each, off] = match line(points) {
                Some(line) => [
                    duration(line.fixed),
                    format!("{}/{unit}", duration(line.each)),
                    format!("{:.0} %", line.worst * 100.0),
                ],
                None => [String::new(), String::new(), String::new()],
            };
            rows.push([series.name(), sizes, fixed, each, off, cost(first), cost(last)]);
        }
        text.push('\n');
        text += &aligned(&rows);
        text += "\nfixed + each is the line through the medians, and off line the farthest that one is from it;\n\
                 smallest and largest are the medians at these sizes, give or take half the quartiles' distance\n";
    }
    if !measurement.left_out.is_empty() {
        text += "\nnot measured\n";
    }
    for left_out in &measurement.left_out {
        let series = left_out.point.series;
        let from = count(left_out.point.size, series.what.unit());
        let _ = writeln!(text, "  {} from {from} on: {}", series.name(), ascii(&left_out.why));
    }
    text
}

fn cost(point: &PointRecord) -> String {
    format!("{} +-{:.0} %", duration(point.median_ns), point.spread().relative() * 100.0)
}

fn count(size: u64, unit: &str) -> String {
    match size {
        1 => format!("1 {unit}"),
        _ => format!("{size} {unit}s"),
    }
}

/// Nanoseconds with three digits in a unit that suits them.
pub(super) fn duration(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        size if size < 1e3 => (ns, "ns"),
        size if size < 1e6 => (ns / 1e3, "us"),
        size if size < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    match value.abs() {
        size if size < 10.0 => format!("{value:.2} {unit}"),
        size if size < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// Rows with their cells below each other: the first column to the left, numbers to the right.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
