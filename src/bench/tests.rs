// SPDX-License-Identifier: GPL-2.0-only
//! Tests of what is made of times; the times are made up.

use serde_json::json;

use super::*;
use crate::case::{Attribute, Mode};
use crate::dialect::Dialect;
use crate::measured::{Backing, Extent, Head, Point, Series, What, series};
use crate::platform::Platform;
use crate::results::Environment;
use crate::tests::schema;

const FILE: &str = "bench-schema.json";

/// The committed schema is the one that the types give.
#[test]
fn schema_is_current() {
    let title = "One line of what gmem-conform bench writes";
    schema::is_current(FILE, title, schemars::schema_for!(BenchRecord));
}

fn some_series() -> Vec<(Series, Vec<u64>)> {
    let extent = Extent { pages: 64, fragments: 16, vcpus: 2 };
    series(Platform::SwProtected, Dialect::RfcV4, extent)
}

/// A measurement in which each page costs 100 ns, besides 1 us for a call, times `factor` where the name contains `slow`.
fn measurement(slow: &str, factor: f64) -> Measurement {
    let mut head = Head::new(BENCH_SCHEMA_VERSION, Vec::new(), Environment::default(), 7);
    head.suite = "gmem-conform".to_string();
    head.firmware.clear();
    let mut measurement = Measurement::new(head);
    for (series, sizes) in some_series() {
        let factor = if series.name().contains(slow) { factor } else { 1.0 };
        for size in sizes {
            // Rounds that differ by some percent, in the same way for every point.
            let rounds = (0..7).map(|round| {
                let ns = (1000.0 + 100.0 * size as f64) * (1.0 + f64::from(round) / 100.0);
                vec![(ns * factor) as u64; 3]
            });
            measurement.add(PointRecord::new(Point { series, size }, rounds.collect(), 0));
        }
    }
    measurement
}

/// Every series has a name of its own, and sizes that grow.
#[test]
fn series_are_told_apart() {
    let all = some_series();
    let mut names: Vec<String> = all.iter().map(|(series, _)| series.name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|(_, sizes)| !sizes.is_empty() && sizes.is_sorted()));
    let upstream = Extent { pages: 1, fragments: 4, vcpus: 0 };
    let modes = series(Platform::SwProtected, Dialect::Upstream, upstream);
    assert!(modes.iter().all(|(series, _)| series.mode == Mode::Unspecified && series.vcpus == 0));
}

/// Encrypted guests are measured at what only they can do, in each mode that they are offered: ZERO to shared from RFC
/// v4 on, PRESERVE before the end of the launch in RFC v5.
#[test]
fn series_of_encrypted_guests() {
    let extent = Extent { pages: 4, fragments: 4, vcpus: 2 };
    let only_theirs = |series: &Series| {
        matches!(series.what, What::RoundTrip | What::GuestRequest) || series.what.is_launch()
    };
    let names = |platform, dialect| -> Vec<String> {
        let all = series(platform, dialect, extent).into_iter();
        all.filter(|(series, _)| only_theirs(series)).map(|(series, _)| series.name()).collect()
    };
    assert!(names(Platform::SwProtected, Dialect::RfcV5).is_empty());
    let all = names(Platform::Snp, Dialect::RfcV5);
    insta::assert_snapshot!(all.join("\n"));
    let less = names(Platform::Snp, Dialect::Upstream);
    assert!(less.iter().all(|name| name.contains(".unspecified.")), "{less:?}");
    assert_eq!(all.len() - less.len(), 3);
    // Their further vCPUs would have to be launched with them.
    let all = series(Platform::Tdx, Dialect::RfcV4, extent);
    assert!(all.iter().all(|(series, _)| series.vcpus == 0));
}

/// The table of costs that are known: the line is the one that they were made of.
#[test]
fn the_table_shows_the_line() {
    let mut measurement = measurement("nothing", 1.0);
    measurement.left_out.push(LeftOut {
        point: Point { series: *measurement.series.keys().next().unwrap(), size: 256 },
        why: "a round of 64 takes 3.0 s".into(),
    });
    insta::assert_snapshot!(table(&measurement));
}

/// What became slower is found, what became faster is no alarm, and equal measurements show no difference.
#[test]
fn comparisons_find_what_differs() {
    let base = measurement("nothing", 1.0);
    let same = compare(&base, &measurement("nothing", 1.0), 0.05);
    assert!(!same.slower && same.text.contains("0 slower, 0 faster"), "{}", same.text);
    let slower = compare(&base, &measurement("touch", 1.5), 0.05);
    assert!(slower.slower);
    insta::assert_snapshot!(slower.text);
    let faster = compare(&base, &measurement("touch", 0.5), 0.05);
    assert!(!faster.slower && faster.text.contains("6 faster"), "{}", faster.text);
    // However sure it is, a small difference is none.
    let small = compare(&base, &measurement("touch", 1.2), 0.25);
    assert!(!small.slower, "{}", small.text);
    // Nothing in common is no success.
    let mut nothing = base.clone();
    nothing.series.clear();
    assert!(compare(&base, &nothing, 0.05).slower);
}

/// The picture has every panel, and every series of one by name.
#[test]
fn the_picture_is_whole() {
    let picture = svg(&measurement("nothing", 1.0)).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for text in ["to private", "to shared", "first touch", "to-private.preserve.allocated.vcpus-2"]
    {
        assert!(picture.contains(text), "{text}");
    }
    // A machine on which nothing could be measured has an empty one.
    let mut nothing = measurement("nothing", 1.0);
    nothing.series.clear();
    assert!(svg(&nothing).unwrap().ends_with("</svg>\n"));
}

/// A record of every kind is valid by the schema and comes back as it was written; what is no record is not valid.
#[test]
fn records_are_valid() {
    let series = Series {
        platform: Platform::SwProtected,
        what: What::HostTouch,
        to: Attribute::Shared,
        mode: Mode::Zero,
        backing: Backing::Hole,
        host_mapped: false,
        guest_mapped: true,
        vcpus: 2,
    };
    let point = Point { series, size: 4 };
    let record = BenchRecord::Point(PointRecord::new(point, vec![vec![5, 7, 6], vec![8]], 1));
    let head = Head::new(BENCH_SCHEMA_VERSION, vec!["bench".into()], Environment::default(), 2);
    let records = [
        BenchRecord::Bench(Box::new(head)),
        BenchRecord::Round(RoundRecord { round: 0, at_ms: 7 }),
        record.clone(),
        BenchRecord::LeftOut(LeftOut { point, why: "failed to convert".into() }),
        BenchRecord::Summary(BenchSummary::default()),
    ];
    for record in records {
        let value = serde_json::to_value(&record).unwrap();
        schema::is_valid(FILE, &value).unwrap_or_else(|error| panic!("{record:?}: {error}"));
        assert_eq!(serde_json::from_value::<BenchRecord>(value).unwrap(), record);
    }
    let mut bad = serde_json::to_value(record).unwrap();
    bad["rounds_ns"] = json!([[1.5]]);
    assert!(schema::is_valid(FILE, &bad).is_err());
}
