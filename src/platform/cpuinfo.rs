// SPDX-License-Identifier: GPL-2.0-only
//! What Linux says of the CPU.

/// A field of the first CPU in /proc/cpuinfo.
pub(crate) fn cpuinfo_field(cpuinfo: &str, name: &str) -> String {
    let line = cpuinfo.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name));
    line.and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim()).to_string()
}
