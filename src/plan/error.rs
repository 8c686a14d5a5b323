// SPDX-License-Identifier: GPL-2.0-only
//! Why there is no plan.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::case::{BrokenLibrary, ParseError};
use crate::platform::Platform;

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The suite itself is broken.
    #[error(transparent)]
    Library(#[from] BrokenLibrary),
    /// A case file is broken.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A case file cannot be read.
    #[error("{}: {error}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A case file holds bytes that are no text.
    #[error("{}:{line}: not a case file: the line is not UTF-8 text", .file.display())]
    NotText {
        /// The file.
        file: PathBuf,
        /// The first such line, from 1.
        line: usize,
    },
    /// No case of a file is for the platforms that were asked for.
    #[error("{}: no case of it is for the platforms asked for", .0.display())]
    OtherPlatforms(PathBuf),
    /// An id that no case has.
    #[error("there is no case `{id}`; the nearest ids are\n  {near}")]
    NoCase {
        /// The id.
        id: String,
        /// The nearest ids, one a line.
        near: String,
    },
    /// A filter that no case matches.
    #[error("no case matches `{filter}`; the nearest ids are\n  {near}")]
    NoMatch {
        /// The filter.
        filter: String,
        /// The nearest ids, one a line.
        near: String,
    },
    /// Each case matches a filter, or none does, but the options leave none.
    #[error("no case is left to run: the options exclude every one")]
    NoneLeft,
    /// A platform must run, and the options leave no case of it.
    #[error("platform {0} is required but the options exclude every case of it")]
    RequiredExcluded(Platform),
    /// A platform must run, and the machine was not asked about it.
    #[error("platform {0} is required but nothing is known of it here")]
    RequiredUnknown(Platform),
    /// A platform must run, and cannot.
    #[error("platform {platform} is required but cannot run: {reasons}")]
    RequiredMissing {
        /// The platform.
        platform: Platform,
        /// What it lacks.
        reasons: String,
    },
    /// Reports key results by id.
    #[error("two cases have the id {0}")]
    SameId(String),
}
