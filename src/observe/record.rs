// SPDX-License-Identifier: GPL-2.0-only
//! What was observed, as data: JSON Lines, one [`ObserveRecord`] a line, after `observe-schema.json`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::measured::{Head, PageSight, Seen, Spot, Trial};
use crate::protocol::WorkerError;

/// Version of the format, raised whenever a field is added.
pub const OBSERVE_SCHEMA_VERSION: u32 = 2;

/// One line of a file that `gmem-conform observe` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ObserveRecord {
    /// The first line: where it takes place.
    Observe(Box<Head>),
    /// What was seen in one situation.
    Observation(SpotRecord),
    /// The last line. Missing when the program was killed.
    Summary(ObserveSummary),
}

/// What was seen in one situation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Observation"))]
pub struct SpotRecord {
    /// The situation.
    #[serde(flatten)]
    pub spot: Spot,
    /// What the conversion returned: `success`, `success after EAGAIN`, or the name of an error.
    pub conversion: Vec<Tally<String>>,
    /// What the host found in the pages.
    pub host: Vec<Tally<Seen>>,
    /// What the guest found in the pages.
    pub guest: Vec<Tally<Seen>>,
    /// Why the situation could not be brought about or looked at, to be read after "failed to".
    pub errors: Vec<Tally<String>>,
}

/// Something that was seen, and how often. What was seen most comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tally<T> {
    /// What.
    pub seen: T,
    /// How often: calls, or pages of all trials.
    pub count: u32,
    /// Of ciphertext-like contents that were seen more than once in some page: whether they ever differed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub varies: Option<bool>,
}

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Summary"))]
pub struct ObserveSummary {
    /// Situations.
    pub spots: u32,
    /// Situations that could not be brought about or looked at, be it once.
    pub errors: u32,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
    /// The program's exit status.
    pub exit_status: u8,
}

impl SpotRecord {
    /// Sums up what was seen in each trial.
    pub(super) fn new(spot: Spot, trials: &[Result<Trial, WorkerError>]) -> SpotRecord {
        let good = || trials.iter().flatten();
        let pages = |of: fn(&Trial) -> &Vec<PageSight>| {
            let mut tallies = tally(good().flat_map(of).map(|sight| sight.seen.clone()));
            for tally in &mut tallies {
                if tally.seen == Seen::CiphertextLike {
                    tally.varies = varies(&good().map(of).collect::<Vec<_>>());
                }
            }
            tallies
        };
        SpotRecord {
            spot,
            conversion: tally(good().map(|trial| trial.conversion.clone())),
            host: pages(|trial| &trial.host),
            guest: pages(|trial| &trial.guest),
            errors: tally(trials.iter().filter_map(|trial| Some(trial.as_ref().err()?.0.clone()))),
        }
    }
}

fn tally<T: Ord + Clone>(seen: impl Iterator<Item = T>) -> Vec<Tally<T>> {
    let mut counts = std::collections::BTreeMap::new();
    for seen in seen {
        *counts.entry(seen).or_insert(0) += 1;
    }
    let mut tallies: Vec<Tally<T>> =
        counts.into_iter().map(|(seen, count)| Tally { seen, count, varies: None }).collect();
    tallies.sort_by_key(|tally| std::cmp::Reverse(tally.count));
    tallies
}

/// Whether a page ever had other ciphertext-like contents than in another trial; none when there is nothing to compare.
fn varies(trials: &[&Vec<PageSight>]) -> Option<bool> {
    let mut varies = None;
    for page in 0..trials.first().map_or(0, |pages| pages.len()) {
        let prints = trials.iter().filter_map(|pages| pages.get(page));
        let mut prints = prints.filter(|sight| sight.seen == Seen::CiphertextLike);
        let Some(first) = prints.next() else { continue };
        for other in prints {
            varies = Some(varies == Some(true) || other.fingerprint != first.fingerprint);
        }
    }
    varies
}

/// What was always seen, or how often each was, as `zeros 3/4, kept 1/4`.
pub(super) fn words<T: fmt::Display>(tallies: &[Tally<T>]) -> String {
    let total: u32 = tallies.iter().map(|tally| tally.count).sum();
    let word = |tally: &Tally<T>| {
        let seen = match tally.varies {
            None => tally.seen.to_string(),
            Some(true) => format!("{}, different each time", tally.seen),
            Some(false) => format!("{}, the same each time", tally.seen),
        };
        match tally.count == total {
            true => seen,
            false => format!("{seen} {}/{total}", tally.count),
        }
    };
    tallies.iter().map(word).collect::<Vec<_>>().join("; ")
}
