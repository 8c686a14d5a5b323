// SPDX-License-Identifier: GPL-2.0-only
//! Files that reports are written to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the file of a report cannot be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// It is a directory.
    #[error("{option} {}: is a directory; name a file in it", .path.display())]
    Directory {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{option} {}: cannot be created: {error}", .path.display())]
    Io {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Why a results file cannot be gone on with.
#[derive(Debug, Error)]
#[error("{}: cannot be written to: {error}", .path.display())]
pub struct AppendError {
    /// The file.
    pub(super) path: PathBuf,
    /// Why.
    pub(super) error: io::Error,
}

/// Creates, or empties, the file that `option` names.
pub(crate) fn create(option: &'static str, path: &Path) -> Result<File, CreateError> {
    let path = path.to_path_buf();
    File::create(&path).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => CreateError::Directory { option, path },
        _ => CreateError::Io { option, path, error },
    })
}

/// Why records cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {name}: {error}")]
pub struct WriteError {
    /// The file, or another name of what is written to.
    pub name: String,
    /// Why.
    pub error: io::Error,
}

/// `text` for XML and HTML, without characters that these cannot hold.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            // XML 1.0 has no way to write them.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}
