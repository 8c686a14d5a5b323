// SPDX-License-Identifier: GPL-2.0-only
//! Why files cannot be compared or joined.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::results::ReadError;

/// Why two files cannot be compared.
#[derive(Debug, Error)]
pub enum DiffError {
    /// One of them cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first line of a file of observations or measurements is none.
    #[error("{}:1: {error}", .path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What is wrong with the line.
        error: serde_json::Error,
    },
    /// They are not of the same kind.
    #[error(
        "{} is of the kind `{}` and {} of the kind `{}`, which cannot be compared",
        .base.0.display(), .base.1, .patched.0.display(), .patched.1
    )]
    Kinds {
        /// The first file and its kind.
        base: (PathBuf, String),
        /// The second file and its kind.
        patched: (PathBuf, String),
    },
}

/// Why results cannot be joined.
#[derive(Debug, Error)]
pub enum MergeError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record cannot be written as JSON.
    #[error("{0}")]
    Record(#[from] serde_json::Error),
    /// The output cannot be written.
    #[error("cannot write the merged results: {0}")]
    Write(#[source] io::Error),
}
