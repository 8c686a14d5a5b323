// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform bench`: all points of all series, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::bare::{self, BareError};
use super::compare::compare;
use super::record::{
    BENCH_SCHEMA_VERSION, BenchRecord, BenchSummary, LeftOut, Measurement, PointRecord, RoundRecord,
};
use crate::dialect::Dialect;
use crate::machine::{MachineConfig, MachineKind};
use crate::measured::{Extent, Head, Point, Series, Times, What, runnable, series};
use crate::platform::Platform;
use crate::protocol::{Job, Reply};
use crate::report::WriteError;
use crate::results::Environment;
use crate::results::exit;
use crate::rng::Rng;
use crate::run::{Interview, NoAnswer, Options};
use crate::text::nearest;
use crate::uapi::PAGE_SIZE;

/// The most fragments of a file of the model, which copies its list of fragments with each conversion.
const MODEL_FRAGMENTS: u64 = 4096;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Benching {
    /// Rounds, at least 1; one more comes before that does not count.
    pub repeat: u32,
    /// Pages of the largest range.
    pub pages: u64,
    /// Fragments of the most fragmented file.
    pub fragments: u64,
    /// A size is the last of its series in which one round takes longer.
    pub longest: Duration,
    /// Only series whose name contains one of these; all if there is none.
    pub filters: Vec<String>,
    /// The platforms' names; `None` for every one.
    pub platforms: Option<Vec<Platform>>,
    /// The program of benches/bare-loop.c, to be compared with.
    pub bare_loop: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Benched {
    /// What was measured.
    pub measurement: Measurement,
    /// What else is to be said.
    pub text: String,
    /// The program's exit status.
    pub exit_status: u8,
}

/// A difference to the bare loop that is worth a word.
const LEAST: f64 = 0.05;

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// No series has a name like that.
    #[error("no series matches `{filters}`; the nearest are\n  {near}")]
    NoSeries {
        /// What was asked for.
        filters: String,
        /// The nearest names, one a line.
        near: String,
    },
    /// The program was told to end.
    #[error("{0}")]
    Interrupted(String),
    /// The bare loop cannot be measured.
    #[error("failed to {0}")]
    Bare(#[from] BareError),
    /// The records cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Takes records as they come.
type RecordSink<'a> = &'a mut dyn FnMut(&BenchRecord) -> Result<(), WriteError>;

/// Measures, and hands the records to `sink`. `progress` is told what comes next.
pub fn bench(
    benching: &Benching,
    config: &MachineConfig,
    environment: Environment,
    options: &Options,
    sink: RecordSink<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Benched, BenchError> {
    let since = Instant::now();
    let dialect = environment.dialect;
    let (platforms, missing) = runnable(&environment, benching.platforms.as_deref());
    let head =
        Head::new(BENCH_SCHEMA_VERSION, options.arguments.clone(), environment, benching.repeat);
    sink(&BenchRecord::Bench(Box::new(head.clone())))?;
    let in_place = |platform: Platform| platform.launches_in_place(&head.environment.capabilities);
    let all = wanted_series(benching, config.kind, platforms, dialect, in_place)?;
    let mut bench = Bench {
        benching,
        dialect,
        interview: Interview::new(config, options),
        measurement: Measurement::new(head),
        rounds: BTreeMap::new(),
        bare_rounds: BTreeMap::new(),
        since,
        sink,
        progress,
    };
    bench.begin_round(0)?;
    for (series, sizes) in &all {
        bench.warm_up_series(series, sizes)?;
    }
    for round in 0..benching.repeat {
        bench.measure_round(round)?;
    }
    bench.finish(missing)
}

/// The series that were asked for, with their sizes. `in_place` says whether the launch calls of a platform's guests take
/// no source.
fn wanted_series(
    benching: &Benching,
    kind: MachineKind,
    platforms: Vec<Platform>,
    dialect: Option<Dialect>,
    in_place: impl Fn(Platform) -> bool,
) -> Result<Vec<(Series, Vec<u64>)>, BenchError> {
    let Some(dialect) = dialect else { return Ok(Vec::new()) };
    let extent = extent(benching, kind);
    let platforms = platforms.into_iter().filter(|platform| platform.has_private_memory());
    let all: Vec<(Series, Vec<u64>)> = platforms
        .flat_map(|platform| series(platform, dialect, extent))
        .filter(|(series, _)| series.what != What::LaunchInPlace || in_place(series.platform))
        .collect();
    if benching.filters.is_empty() || all.is_empty() {
        return Ok(all);
    }
    let names: BTreeSet<String> = all.iter().map(|(series, _)| series.name()).collect();
    let is_wanted = |(series, _): &(Series, Vec<u64>)| {
        let name = series.name();
        benching.filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let wanted: Vec<(Series, Vec<u64>)> = all.into_iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        let near = nearest(names.iter().map(String::as_str), &benching.filters[0]).join("\n  ");
        return Err(BenchError::NoSeries { filters: benching.filters.join(" "), near });
    }
    Ok(wanted)
}

/// A measurement that goes on.
struct Bench<'a> {
    benching: &'a Benching,
    dialect: Option<Dialect>,
    interview: Interview<'a>,
    measurement: Measurement,
    /// What has been measured of each point.
    rounds: BTreeMap<Point, Rounds>,
    /// The same by the bare loop.
    bare_rounds: BTreeMap<Point, Rounds>,
    since: Instant,
    sink: RecordSink<'a>,
    progress: &'a mut dyn FnMut(&str),
}

impl Bench<'_> {
    fn begin_round(&mut self, round: u32) -> Result<(), WriteError> {
        let at_ms = milliseconds(self.since);
        (self.sink)(&BenchRecord::Round(RoundRecord { round, at_ms }))
    }

    /// Takes the sizes of a series in one by one, up to the first of which a round takes too long.
    fn warm_up_series(&mut self, series: &Series, sizes: &[u64]) -> Result<(), BenchError> {
        (self.progress)(&format!("warming up: {}", series.name()));
        for size in sizes {
            let point = Point { series: *series, size: *size };
            let longest = self.benching.longest;
            match warm_up(&mut self.interview, point, longest) {
                Ok(time) => {
                    self.rounds.insert(point, Rounds::default());
                    if time <= longest {
                        continue;
                    }
                    if let Some(next) = sizes.iter().find(|other| *other > size) {
                        let why = format!("a round of {size} takes {:.1} s", time.as_secs_f64());
                        self.leave_out(Point { series: *series, size: *next }, why)?;
                    }
                }
                Err(NoAnswer::Interrupted(why)) => return Err(BenchError::Interrupted(why)),
                Err(NoAnswer::Failed(why)) => self.leave_out(point, format!("failed to {why}"))?,
            }
            break;
        }
        Ok(())
    }

    fn measure_round(&mut self, round: u32) -> Result<(), BenchError> {
        (self.progress)(&format!("round {} of {}", round + 1, self.benching.repeat));
        self.begin_round(round + 1)?;
        for point in shuffled(self.rounds.keys().copied().collect(), u64::from(round)) {
            match ask(&mut self.interview, point) {
                Ok(times) => {
                    let rounds = self.rounds.entry(point).or_default();
                    rounds.ns.push(times.ns);
                    rounds.refused += times.refused;
                }
                Err(NoAnswer::Interrupted(why)) => return Err(BenchError::Interrupted(why)),
                Err(NoAnswer::Failed(why)) => {
                    self.leave_out(point, format!("failed to {why}"))?;
                    self.rounds.remove(&point);
                }
            }
            if let (Some(program), Some(dialect)) = (&self.benching.bare_loop, self.dialect)
                && bare::can(&point)
            {
                let times = bare::measure(program, &point, dialect)?;
                self.bare_rounds.entry(point).or_default().ns.push(times.ns);
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, point: Point, why: String) -> Result<(), WriteError> {
        let left_out = LeftOut { point, why };
        self.measurement.left_out.push(left_out.clone());
        (self.sink)(&BenchRecord::LeftOut(left_out))
    }

    /// Sums up. `text` says which platforms cannot run.
    fn finish(self, mut text: String) -> Result<Benched, BenchError> {
        let Bench { benching, mut measurement, rounds, bare_rounds, since, sink, progress, .. } =
            self;
        progress("");
        let mut bare = Measurement::new(measurement.head.clone());
        for (point, Rounds { ns, refused }) in bare_rounds {
            bare.add(PointRecord::new(point, ns, refused));
        }
        for (point, Rounds { ns, refused }) in rounds {
            let record = PointRecord::new(point, ns, refused);
            sink(&BenchRecord::Point(record.clone()))?;
            measurement.add(record);
        }
        if benching.bare_loop.is_some() {
            let mut ours = measurement.clone();
            ours.series.retain(|series, _| bare.series.contains_key(series));
            text += &format!("\ncompared with a bare loop\n{}", compare(&bare, &ours, LEAST).text);
        }
        let points = measurement.series.values().map(Vec::len).sum();
        let exit_status = match points {
            0 if measurement.left_out.is_empty() => exit::SKIPPED,
            0 => exit::FAILED,
            _ => exit::PASSED,
        };
        let elapsed_ms = milliseconds(since);
        sink(&BenchRecord::Summary(BenchSummary { points, elapsed_ms, exit_status }))?;
        if points == 0 && text.is_empty() {
            text = "no platform with private memory can run\n".to_string();
        }
        Ok(Benched { measurement, text, exit_status })
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What has been measured of a point.
#[derive(Default)]
struct Rounds {
    ns: Vec<Vec<u64>>,
    refused: u32,
}

fn ask(interview: &mut Interview<'_>, point: Point) -> Result<Times, NoAnswer> {
    match interview.ask(&Job::Measure { point })? {
        Reply::Measured(measured) => measured.map_err(|error| NoAnswer::Failed(error.0)),
        _ => Err(interview.out_of_turn()),
    }
}

/// A round that does not count, or two if the first takes too long, which may have been the machine's other work; how long
/// the shorter takes.
fn warm_up(
    interview: &mut Interview<'_>,
    point: Point,
    longest: Duration,
) -> Result<Duration, NoAnswer> {
    let mut round = || {
        let start = Instant::now();
        ask(interview, point).map(|_| start.elapsed())
    };
    let first = round()?;
    Ok(if first > longest { first.min(round()?) } else { first })
}

/// The points in an order that is another in each round, and the same in each run.
fn shuffled(mut points: Vec<Point>, round: u64) -> Vec<Point> {
    let mut rng = Rng::new(0, round);
    for last in (1..points.len()).rev() {
        points.swap(last, rng.below(last as u64 + 1) as usize);
    }
    points
}

/// What the machine has room for.
fn extent(benching: &Benching, kind: MachineKind) -> Extent {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    let pages = match available_memory() {
        // Half of it: the machine is to have some left.
        Some(bytes) => benching.pages.min(bytes / 2 / PAGE_SIZE).max(1),
        None => benching.pages,
    };
    match kind {
        MachineKind::Host => Extent { pages, fragments: benching.fragments, vcpus: cpus },
        MachineKind::Model => {
            Extent { pages, fragments: benching.fragments.min(MODEL_FRAGMENTS), vcpus: 0 }
        }
    }
}

/// `MemAvailable`, in bytes.
fn available_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
