// SPDX-License-Identifier: GPL-2.0-only
//! What two observations differ in.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::record::{ObserveRecord, SpotRecord, Tally, words};
use super::table::group;
use crate::measured::Spot;
use crate::results::{LineError, ReadError, ResultsFile};
use crate::text::ascii;

/// What was seen in one aspect, before and after.
type Change = (&'static str, String, String);

/// Compares what stands in two files behind their first records; the text, and whether they differ.
pub fn diff(
    base: &mut ResultsFile,
    patched: &mut ResultsFile,
) -> Result<(String, bool), ReadError> {
    let (before, after) = (read(base)?, read(patched)?);
    let mut changed: Vec<(Spot, Vec<Change>)> = Vec::new();
    let (mut same, mut only) = (0, [0, 0]);
    for (spot, before) in &before {
        match after.get(spot) {
            None => only[0] += 1,
            Some(after) => match changes(before, after) {
                changes if changes.is_empty() => same += 1,
                changes => changed.push((*spot, changes)),
            },
        }
    }
    only[1] = after.keys().filter(|spot| !before.contains_key(spot)).count();
    let mut text = String::new();
    if !changed.is_empty() {
        text += "\ndiffer\n";
    }
    for line in group(&changed) {
        let _ = writeln!(
            text,
            "  {} {}, mode {}, pages {}",
            line.spot.platform,
            line.spot.conversion(),
            line.modes,
            line.pages
        );
        for (aspect, before, after) in line.what {
            let _ = writeln!(text, "    {aspect}: {} -> {}", ascii(&before), ascii(&after));
        }
    }
    let _ = writeln!(
        text,
        "\n{} situations differ, {same} do not, {} are only in the first file, {} only in the second",
        changed.len(),
        only[0],
        only[1]
    );
    Ok((text, !changed.is_empty()))
}

fn read(file: &mut ResultsFile) -> Result<BTreeMap<Spot, SpotRecord>, ReadError> {
    let mut observations = BTreeMap::new();
    let mut complete = false;
    // Records and fields that this version does not know are passed over.
    while let Some((value, _)) = file.next::<Value>()? {
        match value["type"].as_str() {
            Some("observation") => {
                let record = serde_json::from_value(value);
                match record.map_err(|error| file.at(LineError::NoObservation(error)))? {
                    ObserveRecord::Observation(observation) => {
                        observations.insert(observation.spot, observation);
                    }
                    ObserveRecord::Observe(_) | ObserveRecord::Summary(_) => {}
                }
            }
            Some("observe") => return Err(file.at(LineError::SecondObserve)),
            Some("summary") => complete = true,
            _ => {}
        }
    }
    if !complete {
        return Err(file.at(LineError::NoSummary));
    }
    Ok(observations)
}

/// In what one situation differs. Files may have been made of different numbers of trials, so counts are not compared, only
/// what was ever seen and whether it was always seen.
fn changes(before: &SpotRecord, after: &SpotRecord) -> Vec<Change> {
    fn what<T: Clone + Ord>(tallies: &[Tally<T>]) -> Vec<(T, Option<bool>)> {
        let mut seen: Vec<_> = tallies.iter().map(|t| (t.seen.clone(), t.varies)).collect();
        seen.sort();
        seen
    }
    let mut changes = Vec::new();
    let mut add = |differ: bool, aspect, before: String, after: String| {
        if differ {
            let or_nothing = |text: String| if text.is_empty() { "nothing".into() } else { text };
            changes.push((aspect, or_nothing(before), or_nothing(after)));
        }
    };
    add(
        what(&before.conversion) != what(&after.conversion),
        "returns",
        words(&before.conversion),
        words(&after.conversion),
    );
    for (aspect, before, after) in
        [("host sees", &before.host, &after.host), ("guest sees", &before.guest, &after.guest)]
    {
        add(what(before) != what(after), aspect, words(before), words(after));
    }
    add(
        what(&before.errors) != what(&after.errors),
        "failed to",
        words(&before.errors),
        words(&after.errors),
    );
    changes
}
