// SPDX-License-Identifier: GPL-2.0-only
//! The same conversions by a program that does nothing else, benches/bare-loop.c: what a measurement adds to a call.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use super::meter::keep;
use crate::dialect::Dialect;
use crate::measured::{Backing, Point, Times, What};
use crate::platform::Platform;

/// Whether the program can do this.
pub(super) fn can(point: &Point) -> bool {
    let series = &point.series;
    let plain = !series.host_mapped && !series.guest_mapped && series.vcpus == 0;
    series.platform == Platform::SwProtected
        && series.what == What::Conversion
        && series.backing != Backing::Reserved
        && plain
}

/// Why the bare loop gave no times. To be read after "failed to".
#[derive(Debug, Error)]
pub enum BareError {
    /// The program cannot be run.
    #[error("run {}: {error}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The program failed, or printed no times.
    #[error("have {} take times: {said}", .program.display())]
    NoTimes {
        /// The program.
        program: PathBuf,
        /// Its standard error.
        said: String,
    },
}

/// Has the program take one round of times.
pub(super) fn measure(program: &Path, point: &Point, dialect: Dialect) -> Result<Times, BareError> {
    let series = &point.series;
    let output = Command::new(program)
        .arg(point.size.to_string())
        .args([series.to.name(), series.backing.name()])
        .args([series.mode.bits(), keep(series, dialect)].map(|flags| flags.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| BareError::Run { program: program.into(), error })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().map(str::parse).collect::<Result<Vec<u64>, _>>();
    match times {
        Ok(ns) if output.status.success() && !ns.is_empty() => Ok(Times { ns, refused: 0 }),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            Err(BareError::NoTimes { program: program.into(), said })
        }
    }
}
