// SPDX-License-Identifier: GPL-2.0-only
//! What was measured, as data: JSON Lines, one [`BenchRecord`] a line, after `bench-schema.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::statistics::{Line, Spread, fit, median};
use crate::measured::{Head, Point, Series};
use crate::results::{LineError, ReadError, ResultsFile};

/// Version of the format, raised whenever a field is added.
pub const BENCH_SCHEMA_VERSION: u32 = 3;

/// One line of a file that `gmem-conform bench` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum BenchRecord {
    /// The first line: where it takes place.
    Bench(Box<Head>),
    /// A round begins: a sign of life, and when it was.
    Round(RoundRecord),
    /// The times of one point.
    Point(PointRecord),
    /// Sizes of a series that were not measured.
    LeftOut(LeftOut),
    /// The last line. Missing when the program was killed.
    Summary(BenchSummary),
}

/// The times of one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PointRecord {
    /// Which.
    #[serde(flatten)]
    pub point: Point,
    /// The times in nanoseconds, by round.
    pub rounds_ns: Vec<Vec<u64>>,
    /// The median of the rounds' medians, in nanoseconds.
    pub median_ns: f64,
    /// Their quartiles.
    pub quartiles_ns: [f64; 2],
    /// How often a conversion was refused with EAGAIN and made again.
    pub refused: u32,
}

/// A round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RoundRecord {
    /// Counted from 1; 0 warms up and does not count.
    pub round: u32,
    /// Milliseconds since the beginning.
    pub at_ms: u64,
}

/// Sizes of a series that were not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOut {
    /// From this one on.
    #[serde(flatten)]
    pub point: Point,
    /// Why.
    pub why: String,
}

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Summary"))]
pub struct BenchSummary {
    /// Points that were measured.
    pub points: usize,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
    /// The program's exit status.
    pub exit_status: u8,
}

impl PointRecord {
    /// Of rounds of which each has one time at least.
    pub(super) fn new(point: Point, rounds_ns: Vec<Vec<u64>>, refused: u32) -> PointRecord {
        let Spread { median, lower, upper } = Spread::of(&medians(&rounds_ns));
        PointRecord { point, rounds_ns, median_ns: median, quartiles_ns: [lower, upper], refused }
    }

    /// The medians of the rounds.
    pub(super) fn rounds(&self) -> Vec<f64> {
        medians(&self.rounds_ns)
    }

    /// Median and quartiles.
    pub(super) fn spread(&self) -> Spread {
        let [lower, upper] = self.quartiles_ns;
        Spread { median: self.median_ns, lower, upper }
    }
}

fn medians(rounds: &[Vec<u64>]) -> Vec<f64> {
    let floats = |round: &Vec<u64>| round.iter().map(|ns| *ns as f64).collect::<Vec<_>>();
    rounds.iter().filter(|round| !round.is_empty()).map(|round| median(&floats(round))).collect()
}

/// All that was measured, wherever it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The first record.
    pub head: Head,
    /// The points of each series by size.
    pub series: BTreeMap<Series, Vec<PointRecord>>,
    /// What was not measured.
    pub left_out: Vec<LeftOut>,
}

impl Measurement {
    pub(super) fn new(head: Head) -> Measurement {
        Measurement { head, series: BTreeMap::new(), left_out: Vec::new() }
    }

    pub(super) fn add(&mut self, record: PointRecord) {
        let points = self.series.entry(record.point.series).or_default();
        let at = points.partition_point(|known| known.point.size < record.point.size);
        points.insert(at, record);
    }

    /// Reads a file. Records that this version does not know are passed over.
    pub fn read(file: &mut ResultsFile) -> Result<Measurement, ReadError> {
        let first = file.first()?;
        if first["type"] != "bench" {
            return Err(file.at(LineError::NoBench));
        }
        let head = serde_json::from_value(first);
        let head = head.map_err(|error| file.at(LineError::NoMeasurement(error)))?;
        let mut measurement = Measurement::new(head);
        let mut complete = false;
        while let Some((value, _)) = file.next::<Value>()? {
            let kind = value["type"].as_str().unwrap_or_default().to_string();
            if !["point", "left-out", "summary"].contains(&kind.as_str()) {
                continue;
            }
            let record = serde_json::from_value(value);
            match record.map_err(|error| file.at(LineError::NoMeasurement(error)))? {
                BenchRecord::Point(point) if point.rounds().is_empty() => {
                    return Err(file.at(LineError::NoTimes));
                }
                BenchRecord::Point(point)
                    if point.rounds_ns.iter().flatten().any(|ns| *ns == 0) =>
                {
                    return Err(file.at(LineError::NoTime));
                }
                BenchRecord::Point(point) => {
                    // What the times say is computed anew, whoever wrote it.
                    measurement.add(PointRecord::new(point.point, point.rounds_ns, point.refused));
                }
                BenchRecord::LeftOut(left_out) => measurement.left_out.push(left_out),
                BenchRecord::Summary(_) => complete = true,
                BenchRecord::Bench(_) | BenchRecord::Round(_) => {}
            }
        }
        match complete {
            true => Ok(measurement),
            false => Err(file.at(LineError::NoSummary)),
        }
    }
}

/// The line through the medians of a series.
pub(super) fn line(points: &[PointRecord]) -> Option<Line> {
    let all: Vec<(f64, f64)> =
        points.iter().map(|point| (point.point.size as f64, point.median_ns)).collect();
    fit(&all)
}
