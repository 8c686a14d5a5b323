// SPDX-License-Identifier: GPL-2.0-only
//! What is wrong with a file of waivers.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why waivers cannot be read.
#[derive(Debug, Error)]
pub enum WaiverError {
    /// The suite's own are wrong.
    #[error("cases/known-bugs.toml: {0}")]
    BuiltIn(#[source] Box<FileError>),
    /// The file cannot be read.
    #[error("--waivers {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is wrong.
    #[error("--waivers {}: {error}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<FileError>,
    },
}

/// What is wrong with the text of a file of waivers.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is not TOML, or a field is missing, unknown or of another type.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// A waiver is wrong.
    #[error("waiver {number} (`{id}`): {problem}")]
    Entry {
        /// Its number in the file, from 1.
        number: usize,
        /// Its `id`.
        id: String,
        /// What is wrong.
        problem: EntryError,
    },
}

/// What is wrong with a waiver. Each variant is about the field of its name.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum EntryError {
    #[error("`id` is the id of a case, in which `*` stands for any text")]
    Id,
    #[error("`reason` is empty")]
    Reason,
    #[error("`link` is not an http address, of the mail or the bug that deals with it")]
    Link,
    #[error("`{0}` is not a platform, nor `*`")]
    Platform(String),
    #[error("`{0}` is not a dialect, nor `*`")]
    Dialect(String),
    #[error("`kernel` is a kernel release, in which `*` stands for any text")]
    Kernel,
    #[error("`{0}` is not a clause")]
    Clause(String),
    #[error("`expires` is a day, such as 2027-01-31")]
    Expires,
}
