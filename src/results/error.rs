// SPDX-License-Identifier: GPL-2.0-only
//! Why a file that this program has written cannot be read.

use std::io;

use thiserror::Error;

use super::SCHEMA_VERSION;

/// Why a file of results, observations or measurements cannot be read. The text names the file.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A system call failed.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// There is no first line.
    #[error("{file}: the file is empty")]
    Empty {
        /// The file.
        file: String,
    },
    /// A line is wrong.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is no record of results.
    #[error("no result: {0}")]
    NoResult(#[source] serde_json::Error),
    /// The same, in a file of a newer version.
    #[error(
        "no result: {error} (the file has version {version} of the format, this program knows {SCHEMA_VERSION})"
    )]
    Newer {
        /// Why this version cannot read it.
        error: serde_json::Error,
        /// The version of the file.
        version: u64,
    },
    /// It is no record of an observation.
    #[error("no observation: {0}")]
    NoObservation(#[source] serde_json::Error),
    /// It is no record of a measurement.
    #[error("no measurement: {0}")]
    NoMeasurement(#[source] serde_json::Error),
    /// The first line is not about a run.
    #[error("a results file begins with a record of type `run`")]
    NoRun,
    /// The first line is not about measurements.
    #[error("a file of measurements begins with a record of type `bench`")]
    NoBench,
    /// A later line begins a run, in a file of one run.
    #[error("a second run; `gmem-conform merge` joins files")]
    SecondRun,
    /// The same, in a file to be merged.
    #[error("a second run in one file")]
    SecondRunToMerge,
    /// A later line begins observations.
    #[error("a second beginning")]
    SecondObserve,
    /// Two lines are about one case.
    #[error("a second result of the same case")]
    SecondResult,
    /// A measurement holds no times.
    #[error("a point without times")]
    NoTimes,
    /// A measurement holds a time that no clock gives.
    #[error("a time of 0 ns")]
    NoTime,
    /// The summary is missing at the end.
    #[error("the file has no last line: the program was killed")]
    NoSummary,
}
