// SPDX-License-Identifier: GPL-2.0-only
//! The reports that are written into files when a run has ended: one row each.

use std::path::Path;

use super::args::FileArgs;
use crate::report::{CreateError, Html, Junit, Kcidb, Report, Submission};

/// Creates the file of a report.
type Create = fn(&FileArgs, &Path) -> Result<Box<dyn Report>, CreateError>;

/// A format of reports.
pub(super) struct FileFormat {
    /// The option that names the file.
    pub option: &'static str,
    /// The file, if one was given.
    path: fn(&FileArgs) -> Option<&Path>,
    /// Creates the file.
    create: Create,
}

/// Every format, in the order in which they are written.
pub(super) const FILE_FORMATS: &[FileFormat] = &[
    FileFormat {
        option: "--junit",
        path: |args| args.junit.as_deref(),
        create: |_, path| Ok(Box::new(Junit::create(path)?)),
    },
    FileFormat {
        option: "--kcidb",
        path: |args| args.kcidb.as_deref(),
        create: |args, path| {
            let (origin, build) = (args.kcidb_origin.clone(), args.kcidb_build.clone());
            Ok(Box::new(Kcidb::create(path, Submission { origin, build })?))
        },
    },
    FileFormat {
        option: "--html",
        path: |args| args.html.as_deref(),
        create: |_, path| Ok(Box::new(Html::create(path)?)),
    },
];

impl FileFormat {
    /// The file that was given for it.
    pub fn path<'a>(&self, args: &'a FileArgs) -> Option<&'a Path> {
        (self.path)(args)
    }

    /// Creates the file at `path`.
    pub fn create(&self, args: &FileArgs, path: &Path) -> Result<Box<dyn Report>, CreateError> {
        (self.create)(args, path)
    }
}

/// The formats that were asked for, with their files.
pub(super) fn wanted(args: &FileArgs) -> impl Iterator<Item = (&'static FileFormat, &Path)> {
    FILE_FORMATS.iter().filter_map(|format| Some((format, format.path(args)?)))
}
