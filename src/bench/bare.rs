// SPDX-License-Identifier: GPL-2.0-only
//! The same conversions by a program that does nothing else, benches/bare-loop.c: what a measurement adds to a call.

use std::path::Path;
use std::process::{Command, Stdio};

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

/// Has the program take one round of times. The error is to be read after "failed to".
pub(super) fn measure(program: &Path, point: &Point, dialect: Dialect) -> Result<Times, String> {
    let series = &point.series;
    let output = Command::new(program)
        .arg(point.size.to_string())
        .args([series.to.name(), series.backing.name()])
        .args([series.mode.bits(), keep(series, dialect)].map(|flags| flags.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("run {}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().map(str::parse).collect::<Result<Vec<u64>, _>>();
    match times {
        Ok(ns) if output.status.success() && !ns.is_empty() => Ok(Times { ns, refused: 0 }),
        _ => Err(format!(
            "have {} take times: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
