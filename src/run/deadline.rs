// SPDX-License-Identifier: GPL-2.0-only
//! How long a case may take. On a kernel that hangs in every other case each of them would take all of its time, so the time
//! shrinks once several have.

use std::collections::HashMap;
use std::time::Duration;

use crate::results::{CaseRecord, Verdict};

/// Timeouts, in a row or at the same place, after which the time shrinks. Arbitrary: one is a case's own affair, and a
/// machine that is busy for a moment may cost two.
const SEVERAL: usize = 3;
/// How many times as long as the slowest case that passed a case may take then. Arbitrary: a busy machine doubles a time.
const MULTIPLE: u32 = 4;
/// The least time that a case then has, in seconds. Arbitrary: an emulated machine launches a guest in less, and the time is
/// told in full seconds.
const LEAST: u64 = 2;

/// The time of the cases of one run.
pub(super) struct Deadline {
    /// The time that a case may take.
    time: Duration,
    /// Of those that passed.
    slowest: Duration,
    in_a_row: usize,
    /// By statement and clause.
    places: HashMap<(Option<String>, Option<String>), usize>,
    shrunk: bool,
}

impl Deadline {
    pub(super) fn new(time: Duration) -> Deadline {
        Deadline {
            time,
            slowest: Duration::ZERO,
            in_a_row: 0,
            places: HashMap::new(),
            shrunk: false,
        }
    }

    /// The time that the next case may take: full seconds.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Takes the verdict of a case. When the time shrinks, returns why, for people.
    pub(super) fn finished(&mut self, record: &CaseRecord) -> Option<String> {
        if record.verdict == Verdict::Pass {
            self.slowest = self.slowest.max(Duration::from_micros(record.duration_us));
        }
        if record.verdict != Verdict::Timeout {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row += 1;
        let failure = record.failure.as_ref();
        let place = failure.map(|f| (f.statement.clone(), f.clause.clone())).unwrap_or_default();
        let at_place = match &place {
            (None, None) => 0,
            _ => {
                let count = self.places.entry(place).or_default();
                *count += 1;
                *count
            }
        };
        let why = match () {
            () if self.in_a_row >= SEVERAL => "in a row",
            () if at_place >= SEVERAL => "at the same statement",
            () => return None,
        };
        self.shrink(&format!("{SEVERAL} cases timed out {why}"))
    }

    /// A worker is left behind in the kernel, which is as good as several timeouts.
    pub(super) fn worker_stuck(&mut self) -> Option<String> {
        self.shrink("a worker cannot be killed")
    }

    fn shrink(&mut self, why: &str) -> Option<String> {
        let seconds = (self.slowest * MULTIPLE).as_millis().div_ceil(1000) as u64;
        let short = Duration::from_secs(seconds.max(LEAST));
        if std::mem::replace(&mut self.shrunk, true) || short >= self.time {
            return None;
        }
        self.time = short;
        Some(format!(
            "{why}: from now on a case may take {} seconds, by the slowest that passed",
            short.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Failure;

    fn record(verdict: Verdict, seconds: u64, statement: &str) -> CaseRecord {
        let failure = Failure { statement: Some(statement.into()), ..Failure::default() };
        CaseRecord {
            duration_us: seconds * 1_000_000,
            failure: verdict.is_failure().then_some(failure),
            ..CaseRecord::new("a.case", verdict)
        }
    }

    /// The time in seconds after cases with these verdicts, times and statements.
    fn after(records: &[(Verdict, u64, &str)]) -> u64 {
        let mut deadline = Deadline::new(Duration::from_secs(30));
        for (verdict, seconds, statement) in records {
            deadline.finished(&record(*verdict, *seconds, statement));
        }
        deadline.time().as_secs()
    }

    /// The time shrinks after three timeouts in a row or at one statement, to a multiple of what passed, and never grows.
    #[test]
    fn several_timeouts_shrink_it() {
        use Verdict::{Fail, Pass, Timeout};
        let [a, b, c] = [(Timeout, 30, "a"), (Timeout, 30, "b"), (Timeout, 30, "c")];
        assert_eq!(after(&[(Pass, 1, ""), a, b]), 30);
        assert_eq!(after(&[(Pass, 1, ""), a, b, c]), 4);
        assert_eq!(after(&[a, b, c]), LEAST);
        assert_eq!(after(&[a, (Pass, 3, ""), b, (Fail, 9, ""), c]), 30);
        assert_eq!(after(&[a, (Pass, 3, ""), a, (Pass, 2, ""), a]), 12);
        assert_eq!(after(&[(Pass, 20, ""), a, b, c]), 30);
    }

    /// A worker that cannot be killed is enough.
    #[test]
    fn a_stuck_worker_shrinks_it() {
        let mut deadline = Deadline::new(Duration::from_secs(30));
        assert!(deadline.worker_stuck().is_some());
        assert_eq!(deadline.time().as_secs(), LEAST);
        assert_eq!(deadline.worker_stuck(), None);
    }
}
