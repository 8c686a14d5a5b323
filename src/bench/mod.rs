// SPDX-License-Identifier: GPL-2.0-only
//! What conversions cost on a machine.
//!
//! A series is a situation: direction, mode, backing, who has the pages mapped. It is measured for sizes from one page up.
//! The points of all series take turns, in an order that is shuffled for each round, so that a machine that becomes slower
//! or faster meanwhile does not fake a trend.

mod bare;
mod command;
mod compare;
mod meter;
mod plot;
mod record;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

pub use bare::BareError;
pub use command::{BenchError, Benched, Benching, bench};
pub use compare::{Comparison, compare};
pub use meter::{Meter, MeterError};
pub use plot::{PlotError, svg};
pub use record::{
    BENCH_SCHEMA_VERSION, BenchRecord, BenchSummary, LeftOut, Measurement, PointRecord, RoundRecord,
};
pub use table::table;
