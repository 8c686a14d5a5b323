// SPDX-License-Identifier: GPL-2.0-only
//! Why a bundle cannot be made, or is not whole.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{ENVIRONMENT, RESULTS, SUMS};
use crate::case::BrokenLibrary;
use crate::results::ReadError;

/// Why a bundle cannot be made.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The results cannot be read as such.
    #[error(transparent)]
    Results(#[from] ReadError),
    /// A file that goes into the bundle cannot be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The results have no record.
    #[error("the results are empty")]
    Empty,
    /// The first record cannot be written as JSON.
    #[error("{0}")]
    Record(#[from] serde_json::Error),
    /// Nothing can be said about the results.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The archive cannot be written.
    #[error("cannot write the bundle: {0}")]
    Write(#[source] io::Error),
}

/// Why nothing can be said about results.
#[derive(Debug, Error)]
pub enum StatementError {
    /// There is no record of the run.
    #[error("the results have no record of the run")]
    NoRun,
    /// The suite itself is broken.
    #[error(transparent)]
    Library(#[from] BrokenLibrary),
}

/// What is wrong with a bundle. The text names it.
#[derive(Debug, Error)]
#[error("{}: {flaw}", .path.display())]
pub struct VerifyError {
    /// The bundle.
    pub path: PathBuf,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a bundle; names are of files in it.
#[derive(Debug, Error)]
pub enum Flaw {
    /// It cannot be opened.
    #[error("{0}")]
    Open(#[source] io::Error),
    /// It is no archive.
    #[error("not a bundle: {0}")]
    NoArchive(#[source] io::Error),
    /// An archive of other files.
    #[error("not a bundle: it has {0}")]
    Foreign(String),
    /// A file is larger than any of a bundle.
    #[error("{0} is larger than a bundle's files may be")]
    TooLarge(String),
    /// The archive ends within a file.
    #[error("{0} is cut short")]
    Short(String),
    /// A file cannot be read to its end.
    #[error("{name} is cut short: {error}")]
    Unreadable {
        /// The file.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A file is there twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The checksums are no text.
    #[error("{SUMS} is no text")]
    SumsNoText,
    /// A line of the checksums is none.
    #[error("{SUMS} has a line that is no checksum: {0}")]
    NoChecksum(String),
    /// A file has no checksum, though it must have one.
    #[error("{SUMS} does not list {0}")]
    NotListed(&'static str),
    /// A file has no checksum, and is no part of a bundle.
    #[error("{0} is not listed in {SUMS}")]
    Besides(String),
    /// A file was changed.
    #[error("{0} is not what it was: its checksum differs")]
    Changed(&'static str),
    /// The first line of the results is no record.
    #[error("{RESULTS}:1: no result: {0}")]
    NoResult(#[source] serde_json::Error),
    /// The environment is no JSON.
    #[error("{ENVIRONMENT}: {0}")]
    NoEnvironment(#[source] serde_json::Error),
    /// The environment belongs to other results.
    #[error("{ENVIRONMENT} is not that of {RESULTS}")]
    OtherEnvironment,
}
