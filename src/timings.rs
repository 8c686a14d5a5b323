// SPDX-License-Identifier: GPL-2.0-only
//! Where the program's own time goes: `--timings`.
//!
//! Each process adds up what it spends in each [`Part`]; workers tell the runner after each case. When nobody asked, the
//! cost is that of looking at a flag.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Asking the machine, and making the plan.
    Planning,
    /// Cases in their workers, all of it. The parts below are parts of it.
    Cases,
    /// Calls that make, map and destroy VMs, vCPUs, memslots and guest_memfds.
    SetUp,
    /// Conversions, and `fallocate`.
    Conversions,
    /// `KVM_RUN`.
    Guest,
    /// Accesses through the host's view, with the faults that they cause.
    Host,
    /// Writing reports.
    Reporting,
}

const PARTS: usize = Part::Reporting as usize + 1;

static ON: AtomicBool = AtomicBool::new(false);
static SPENT: [AtomicU64; PARTS] = [const { AtomicU64::new(0) }; PARTS];

/// Nanoseconds, by [`Part`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings([u64; PARTS]);

/// Begins to add up.
pub fn switch_on() {
    ON.store(true, Ordering::Relaxed);
}

/// Whether time is added up.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Does `work`, and adds the time to a part.
pub fn spend<T>(part: Part, work: impl FnOnce() -> T) -> T {
    if !is_on() {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    SPENT[part as usize].fetch_add(spent, Ordering::Relaxed);
    result
}

/// What has been added up in this process since the last time.
pub(crate) fn take() -> Timings {
    Timings(std::array::from_fn(|part| SPENT[part].swap(0, Ordering::Relaxed)))
}

/// Adds what a worker has spent.
pub(crate) fn add(timings: &Timings) {
    for (sum, spent) in SPENT.iter().zip(timings.0) {
        sum.fetch_add(spent, Ordering::Relaxed);
    }
}

/// The lines of a summary: name, and seconds. The first of the parts of cases is behind [`Part::Cases`].
fn summary(timings: &Timings, wall: Duration, jobs: usize) -> Vec<(&'static str, f64)> {
    let seconds = |part: Part| timings.0[part as usize] as f64 / 1e9;
    let calls = [Part::SetUp, Part::Conversions, Part::Guest, Part::Host].map(seconds);
    let cases = seconds(Part::Cases);
    let (planning, reporting) = (seconds(Part::Planning), seconds(Part::Reporting));
    // Workers run at the same time, so their time is that of the wall only when each is busy.
    let rest = wall.as_secs_f64() - planning - reporting - cases / jobs.max(1) as f64;
    let [set_up, conversions, guest, host] = calls;
    vec![
        ("wall", wall.as_secs_f64()),
        ("planning", planning),
        ("cases", cases),
        ("set-up calls", set_up),
        ("conversion calls", conversions),
        ("guest entries", guest),
        ("host accesses", host),
        ("checking", (cases - calls.iter().sum::<f64>()).max(0.0)),
        ("reporting", reporting),
        ("workers and waiting", rest.max(0.0)),
    ]
}

/// For people.
pub fn table(timings: &Timings, wall: Duration, jobs: usize) -> String {
    let mut text = String::new();
    let all = summary(timings, wall, jobs);
    let cases = all.iter().find(|(name, _)| *name == "cases").map_or(0.0, |(_, s)| *s);
    for (name, seconds) in all {
        let _ = match name {
            "wall" => writeln!(text, "time: {seconds:.3} s with {jobs} workers"),
            "planning" | "reporting" | "workers and waiting" => {
                writeln!(text, "  {name:<22}{seconds:>9.3} s")
            }
            "cases" => writeln!(text, "  {name:<22}{seconds:>9.3} s of all workers' time:"),
            _ => writeln!(
                text,
                "    {name:<20}{seconds:>9.3} s {:>3.0} %",
                100.0 * seconds / cases.max(f64::MIN_POSITIVE)
            ),
        };
    }
    text
}

/// For programs: an object with the seconds of each part.
pub fn json(timings: &Timings, wall: Duration, jobs: usize) -> String {
    let parts = summary(timings, wall, jobs);
    let mut object: serde_json::Map<String, serde_json::Value> = parts
        .into_iter()
        .map(|(name, seconds)| (format!("{}_s", name.replace([' ', '-'], "_")), seconds.into()))
        .collect();
    object.insert("jobs".into(), jobs.into());
    format!("{}\n", serde_json::Value::from(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not in a call is checking, what is in no part is waiting, and several workers' time is not counted against
    /// the wall's.
    #[test]
    fn the_rest_is_told() {
        let mut timings = Timings::default();
        for (part, seconds) in
            [(Part::Cases, 8), (Part::Conversions, 2), (Part::Guest, 3), (Part::Planning, 1)]
        {
            timings.0[part as usize] = seconds * 1_000_000_000;
        }
        let text = table(&timings, Duration::from_secs(6), 2);
        insta::assert_snapshot!(text);
        assert!(json(&timings, Duration::from_secs(6), 2).contains("\"checking_s\":3.0"));
    }
}
