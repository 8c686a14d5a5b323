// SPDX-License-Identifier: GPL-2.0-only
//! Measurements as a picture.

use std::collections::BTreeSet;

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

use super::record::{Measurement, PointRecord};
use crate::case::Attribute;
use crate::measured::{Series, What};
use crate::text::ascii;

/// Width of the picture, height of its heading and of a row of panels, in pixels.
const WIDTH: u32 = 1400;
const HEADING: u32 = 60;
const ROW: u32 = 500;

/// Panels in a row.
const COLUMNS: usize = 2;

/// A panel: its title, and which series are in it.
type Panel = (&'static str, fn(&Series, &Measurement) -> bool);

const PANELS: [Panel; 8] = [
    ("to private", |s, _| s.what == What::Conversion && s.to == Attribute::Private && s.vcpus == 0),
    ("to shared", |s, _| s.what == What::Conversion && s.to == Attribute::Shared && s.vcpus == 0),
    ("first touch after a conversion", |s, _| matches!(s.what, What::HostTouch | What::GuestTouch)),
    ("vCPUs in the guest", |s, all| s.vcpus > 0 || has_vcpus(s, all)),
    ("a range that alternates page by page", |s, _| s.what == What::Fragments),
    ("one page of such a file", |s, _| s.what == What::OneOfFragments),
    ("an encrypted guest's requests and round trips", |s, _| {
        matches!(s.what, What::GuestRequest | What::RoundTrip)
    }),
    ("the launch", |s, _| s.what.is_launch()),
];

/// Whether the same is measured with vCPUs in the guest, too.
fn has_vcpus(series: &Series, all: &Measurement) -> bool {
    let without = |other: &Series| Series { vcpus: series.vcpus, ..*other };
    all.series.keys().any(|other| other.vcpus > 0 && without(other) == *series)
}

/// Why plotters cannot draw.
#[derive(Debug, Error)]
#[error("cannot draw: {0}")]
pub struct PlotError(Box<dyn std::error::Error>);

/// Draws the medians of all series over their sizes, with the quartiles, as SVG.
pub fn svg(measurement: &Measurement) -> Result<String, PlotError> {
    let mut picture = String::new();
    draw(measurement, &mut picture).map_err(PlotError)?;
    Ok(picture)
}

fn draw(measurement: &Measurement, picture: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let panels: Vec<_> = PANELS
        .into_iter()
        .map(|(title, wanted)| (title, series_of(measurement, wanted)))
        .filter(|(_, series)| !series.is_empty())
        .collect();
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let root = SVGBackend::with_string(picture, (WIDTH, HEADING + ROW * rows as u32));
    let root = root.into_drawing_area();
    root.fill(&WHITE)?;
    let (heading, below) = root.split_vertically(HEADING);
    let style = ("sans-serif", 20).into_font();
    heading.draw(&Text::new("gmem-conform bench: what conversions cost", (20, 12), style))?;
    let line = ascii(&measurement.head.line());
    heading.draw(&Text::new(line, (20, 38), ("sans-serif", 13).into_font()))?;
    let platforms = measurement.series.keys().map(|s| s.platform).collect::<BTreeSet<_>>().len();
    for (area, (title, series)) in below.split_evenly((rows, COLUMNS)).iter().zip(&panels) {
        panel(area, title, series, platforms > 1)?;
    }
    root.present()?;
    Ok(())
}

/// The series of a panel that have points.
fn series_of(
    measurement: &Measurement,
    wanted: fn(&Series, &Measurement) -> bool,
) -> Vec<(&Series, &[PointRecord])> {
    let all = measurement.series.iter();
    all.filter(|(series, points)| wanted(series, measurement) && !points.is_empty())
        .map(|(series, points)| (series, points.as_slice()))
        .collect()
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    series: &[(&Series, &[PointRecord])],
    with_platform: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let one = matches!(series[0].0.what, What::OneOfFragments);
    // Costs per page or fragment, so that a line that rises says that a size costs more than in proportion.
    let per = |point: &PointRecord| if one { 1.0 } else { point.point.size as f64 };
    let bounds = |point: &PointRecord| point.quartiles_ns.map(|ns| ns / per(point));
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let low = points().map(|point| bounds(point)[0]).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| bounds(point)[1]).fold(0.0, f64::max);
    let [first, last] = [
        points().map(|point| point.point.size).min().unwrap_or(1) as f64,
        points().map(|point| point.point.size).max().unwrap_or(1) as f64,
    ];
    let unit = series[0].0.what.unit();
    let cost = if one { "ns".to_string() } else { format!("ns per {unit}") };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (first * 0.8..last * 1.25).log_scale(),
            // Room for the legend above the curves.
            (low * 0.7..high * 1.4 * (high / low).powf(0.06 * series.len() as f64)).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(format!("{unit}s"))
        .y_desc(cost)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    for (index, (series, points)) in series.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let curve: Vec<(f64, f64)> = points
            .iter()
            .map(|point| (point.point.size as f64, point.median_ns / per(point)))
            .collect();
        chart
            .draw_series(LineSeries::new(curve.clone(), colour.stroke_width(2)))?
            .label(label(series, with_platform))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        // The quartiles, as a bar through the median.
        chart.draw_series(points.iter().zip(curve).map(|(point, (x, _))| {
            let [lower, upper] = bounds(point);
            PathElement::new([(x, lower), (x, upper)], colour.mix(0.4).stroke_width(5))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11))
        .draw()?;
    Ok(())
}

/// A name, without the platform where there is one only.
fn label(series: &Series, with_platform: bool) -> String {
    let name = series.name();
    match name.split_once('.') {
        Some((_, rest)) if !with_platform => rest.to_string(),
        _ => name,
    }
}

/// A number with a letter for thousands and millions.
fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", (v / 1e4).round() / 100.0),
        v if v >= 1e3 => format!("{} k", (v / 10.0).round() / 100.0),
        v if v >= 1.0 => format!("{}", v.round()),
        v => format!("{v:.2}"),
    }
}
