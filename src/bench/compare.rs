// SPDX-License-Identifier: GPL-2.0-only
//! Two measurements next to each other.

use std::fmt::Write;

use super::record::{Measurement, PointRecord};
use super::statistics::{Pair, holm, p_value, ratio};
use super::table::aligned;
use crate::measured::Series;

/// What a comparison says.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// For people.
    pub text: String,
    /// Whether a series is slower.
    pub slower: bool,
}

/// Compares the points that both measurements have. A series is slower or faster when a rank test says so and the ratio is
/// off 1 by `least` or more; two boots of one kernel differ a little, too.
pub fn compare(base: &Measurement, patched: &Measurement, least: f64) -> Comparison {
    let mut compared: Vec<(Series, Vec<Pair>, [Option<f64>; 2])> = Vec::new();
    let mut only = [Vec::new(), Vec::new()];
    for (series, before) in &base.series {
        let Some(after) = patched.series.get(series) else {
            only[0].push(series.name());
            continue;
        };
        let pairs = pairs(before, after);
        if !pairs.is_empty() {
            let one = |pair: Option<&Pair>| pair.map(|pair| ratio(std::slice::from_ref(pair)).0);
            let ends = [one(pairs.first()), one(pairs.last())];
            compared.push((*series, pairs, ends));
        }
    }
    for series in patched.series.keys().filter(|series| !base.series.contains_key(series)) {
        only[1].push(series.name());
    }
    let p_values: Vec<f64> = compared.iter().map(|(_, pairs, _)| p_value(pairs)).collect();
    let header = ["series", "points", "ratio", "95 % interval", "smallest", "largest", "verdict"];
    let mut rows = vec![header.map(String::from)];
    let mut counts = [0; 3];
    for ((series, pairs, ends), significant) in compared.iter().zip(holm(&p_values)) {
        let (all, [low, high]) = ratio(pairs);
        let verdict = match significant && (all - 1.0).abs() >= least {
            true if all > 1.0 => 0,
            true => 1,
            false => 2,
        };
        counts[verdict] += 1;
        let [smallest, largest] = ends.map(|end| end.map_or(String::new(), |r| format!("{r:.3}")));
        rows.push([
            series.name(),
            pairs.len().to_string(),
            format!("{all:.3}"),
            format!("{low:.3}..{high:.3}"),
            smallest,
            largest,
            ["slower", "faster", "no difference shown"][verdict].to_string(),
        ]);
    }
    let mut text = match compared.is_empty() {
        true => "\nthe files have no point in common\n".to_string(),
        false => format!("\n{}", aligned(&rows)),
    };
    for (names, which) in only.iter().zip(["first", "second"]) {
        if !names.is_empty() {
            let _ = writeln!(text, "\nonly in the {which}: {}", names.join(", "));
        }
    }
    let [slower, faster, same] = counts;
    let _ = write!(
        text,
        "\n{slower} slower, {faster} faster, {same} without a difference that can be shown\n\
         ratios are of medians, new to old; a verdict takes a ratio off 1 by {:.0} % and Mann and Whitney's test over the\n\
         rounds, stratified by size, at 5 % for all series together (Holm); intervals are by bootstrap over the rounds\n",
        least * 100.0
    );
    Comparison { text, slower: slower > 0 || compared.is_empty() }
}

/// Pairs the rounds of points that both measurements have. Sizes that only one of them has are left out.
fn pairs(before: &[PointRecord], after: &[PointRecord]) -> Vec<Pair> {
    let same = |point: &&PointRecord| after.iter().find(|other| other.point == point.point);
    before.iter().filter_map(|point| Some((point.rounds(), same(&point)?.rounds()))).collect()
}
