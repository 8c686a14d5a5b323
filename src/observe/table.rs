// SPDX-License-Identifier: GPL-2.0-only
//! Observations for people: situations that behave alike are one line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::record::{SpotRecord, words};
use crate::case::Mode;
use crate::measured::{Backing, History, Spot, states};
use crate::platform::Platform;
use crate::text::ascii;

/// A line: which situations, and what they have in common.
pub(super) struct Line<T> {
    /// One of the situations: platform, phase and attributes are those of all.
    pub spot: Spot,
    pub modes: String,
    pub pages: String,
    pub what: T,
}

/// What pages do, each time with a name for those that do it.
type ByPages<T> = Vec<(String, T)>;

/// Groups what was found out about situations by what it is: first pages of the same conversion and mode, then modes for
/// which every page does the same.
pub(super) fn group<T: Clone + PartialEq>(all: &[(Spot, T)]) -> Vec<Line<T>> {
    let mut lines = Vec::new();
    let conversion = |spot: &Spot| (spot.platform, spot.phase, spot.from, spot.to);
    let firsts: BTreeMap<_, Spot> = all.iter().rev().map(|(s, _)| (conversion(s), *s)).collect();
    for first in firsts.into_values() {
        let mut tables: Vec<(Vec<Mode>, ByPages<T>)> = Vec::new();
        for mode in Mode::ALL {
            let of_mode = all
                .iter()
                .filter(|(spot, _)| spot.mode == mode && conversion(spot) == conversion(&first));
            let table = by_pages(of_mode);
            match tables.iter_mut().find(|(_, known)| *known == table) {
                _ if table.is_empty() => {}
                Some((modes, _)) => modes.push(mode),
                None => tables.push((vec![mode], table)),
            }
        }
        for (modes, table) in tables {
            let modes: Vec<&str> = modes.into_iter().map(Mode::name).collect();
            let modes =
                if modes.len() == Mode::ALL.len() { "any".into() } else { modes.join(", ") };
            for (pages, what) in table {
                lines.push(Line { spot: first, modes: modes.clone(), pages, what });
            }
        }
    }
    lines
}

/// What pages do, in the order in which they first do it, with a name for those that do the same.
fn by_pages<'a, T: Clone + PartialEq + 'a>(
    spots: impl Iterator<Item = &'a (Spot, T)>,
) -> ByPages<T> {
    let mut groups: Vec<(Vec<Spot>, T)> = Vec::new();
    for (spot, what) in spots {
        match groups.iter_mut().find(|(_, known)| known == what) {
            Some((spots, _)) => spots.push(*spot),
            None => groups.push((vec![*spot], what.clone())),
        }
    }
    groups.into_iter().map(|(spots, what)| (name(&spots), what)).collect()
}

/// A name for pages of one conversion: backings, with histories where not every history of the backing is meant.
fn name(spots: &[Spot]) -> String {
    let Some(first) = spots.first() else { return String::new() };
    let all: Vec<(Backing, History)> = states(first.platform, first.phase, first.from).collect();
    if spots.len() == all.len() {
        return "any".to_string();
    }
    let mut names = Vec::new();
    for backing in Backing::ALL {
        let of_backing = |spot: &&Spot| spot.backing == backing;
        let histories: Vec<&str> =
            spots.iter().filter(of_backing).map(|spot| spot.history.name()).collect();
        let possible = all.iter().filter(|(other, _)| *other == backing).count();
        if histories.len() == possible {
            names.push(backing.name().to_string());
        } else if !histories.is_empty() {
            names.push(format!("{} ({})", backing.name(), histories.join(", ")));
        }
    }
    names.join(", ")
}

/// The table of `gmem-conform observe`.
pub(super) fn table(observations: &[SpotRecord]) -> String {
    let outcome = |o: &SpotRecord| {
        let mut result = words(&o.conversion);
        for error in &o.errors {
            let _ = write!(result, "{}failed to {}", sep(&result), error.seen);
        }
        [result, words(&o.host), words(&o.guest)]
    };
    let all: Vec<(Spot, [String; 3])> = observations.iter().map(|o| (o.spot, outcome(o))).collect();
    let mut text = String::new();
    let platforms: BTreeSet<Platform> = all.iter().map(|(spot, _)| spot.platform).collect();
    for platform in platforms {
        let of_platform: Vec<_> =
            all.iter().filter(|(spot, _)| spot.platform == platform).cloned().collect();
        let mut rows = vec![
            ["conversion", "mode", "pages", "returns", "host sees", "guest sees"].map(String::from),
        ];
        for line in group(&of_platform) {
            let [result, host, guest] = line.what;
            rows.push([line.spot.conversion(), line.modes, line.pages, result, host, guest]);
        }
        let _ = write!(text, "\n{platform}\n{}", columns(&rows));
    }
    text
}

fn sep(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "; " }
}

/// Rows with their cells below each other. A cell that repeats the one above, with all before it, is left out.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    let mut above: Option<&[String; N]> = None;
    for row in rows {
        let mut line = String::from(" ");
        let mut same = true;
        for (column, cell) in row.iter().enumerate() {
            // The first two say which conversion; the others are what differs.
            same = same && column < 2 && above.is_some_and(|above| above[column] == *cell);
            let cell = if same { "" } else { cell };
            let _ = write!(line, " {:<width$} ", ascii(cell), width = widths[column]);
        }
        let _ = writeln!(text, "{}", line.trim_end());
        above = Some(row);
    }
    text
}
