// SPDX-License-Identifier: GPL-2.0-only
//! What the waivers make of a run.

use super::file::{Waiver, Waivers};
use super::glob::matches;
use crate::results::{Blame, CaseRecord, Environment, Verdict, WaiverRecord, WaiverState};

/// The waivers during a run.
pub struct Waiving<'a> {
    waivers: &'a Waivers,
    tallies: Vec<Tally>,
}

/// What has come of one waiver so far.
#[derive(Clone, Copy)]
struct Tally {
    in_scope: bool,
    /// Cases that it matches and that ran.
    ran: usize,
    /// Failures that it waived, or would have waived had it not expired.
    failed: usize,
}

impl<'a> Waiving<'a> {
    /// For a run in this environment.
    pub fn new(waivers: &'a Waivers, environment: &Environment) -> Waiving<'a> {
        let dialect = environment.dialect.map_or("", |dialect| dialect.name());
        let in_scope = |waiver: &Waiver| {
            matches(&waiver.kernel, &environment.kernel_release)
                && (waiver.dialect == "*" || waiver.dialect == dialect)
        };
        let tally = |waiver| Tally { in_scope: in_scope(waiver), ran: 0, failed: 0 };
        Waiving { waivers, tallies: waivers.list.iter().map(tally).collect() }
    }

    /// Waives a failure that a waiver knows: the first one in the file that does.
    pub fn apply(&mut self, record: &mut CaseRecord) {
        if record.verdict == Verdict::Skip {
            return;
        }
        for (waiver, tally) in self.waivers.list.iter().zip(&mut self.tallies) {
            if !tally.in_scope || !covers(waiver, record) {
                continue;
            }
            tally.ran += 1;
            if !waivable(waiver, record) {
                continue;
            }
            tally.failed += 1;
            if *self.waivers.today <= *waiver.note.expires {
                record.verdict = Verdict::Waived;
                record.waiver = Some(waiver.note.clone());
            }
        }
    }

    /// Takes note of a record to which the same waivers were applied before the run was interrupted.
    pub fn remember(&mut self, record: &CaseRecord) {
        let mut record = record.clone();
        if record.verdict == Verdict::Waived {
            record.verdict = Verdict::Fail;
        }
        self.apply(&mut record);
    }

    /// What became of each waiver.
    pub fn records(&self) -> Vec<WaiverRecord> {
        let one = |(waiver, tally): (&Waiver, &Tally)| {
            let (state, problem) = self.state(waiver, tally);
            let waived = if state == WaiverState::Used { tally.failed } else { 0 };
            WaiverRecord { waiver: waiver.note.clone(), state, waived, problem }
        };
        // Of the suite's own only those are worth a word that had a failure to waive.
        let told = |(waiver, tally): &(&Waiver, &Tally)| !waiver.built_in || tally.failed > 0;
        self.waivers.list.iter().zip(&self.tallies).filter(told).map(one).collect()
    }

    /// Whether something wrong with a waiver fails the run.
    pub fn is_strict(&self) -> bool {
        self.waivers.strict
    }

    fn state(&self, waiver: &Waiver, tally: &Tally) -> (WaiverState, Option<String>) {
        let expires = &waiver.note.expires;
        if *self.waivers.today > **expires {
            let problem = match tally.failed {
                0 => format!("it expired on {expires}"),
                n => format!("it expired on {expires}, and {n} failures count again"),
            };
            return (WaiverState::Expired, Some(problem));
        }
        if !waiver.known {
            return (WaiverState::Stale, Some("the suite has no case with such an id".into()));
        }
        match tally.ran {
            0 => (WaiverState::NotInScope, None),
            _ if tally.failed > 0 => (WaiverState::Used, None),
            1 => (
                WaiverState::Stale,
                Some("the one case that it covers does not fail like that".into()),
            ),
            n => (
                WaiverState::Stale,
                Some(format!("none of the {n} cases that it covers fails like that")),
            ),
        }
    }
}

fn covers(waiver: &Waiver, record: &CaseRecord) -> bool {
    (waiver.platform == "*" || waiver.platform == record.platform())
        && matches(&waiver.note.id, &record.id)
}

/// Whether a record is a failure that a waiver can be about: one of the kernel. That the suite could not decide is never
/// known beforehand.
fn waivable(waiver: &Waiver, record: &CaseRecord) -> bool {
    let failure = record.failure.as_ref();
    let of_kernel = match record.verdict {
        Verdict::Fail | Verdict::Timeout => true,
        Verdict::Error => failure.is_some_and(|f| f.blame == Some(Blame::Kernel)),
        Verdict::Pass | Verdict::Skip | Verdict::Waived => false,
    };
    let clause = failure.and_then(|f| f.clause.as_deref());
    of_kernel && waiver.clause.is_none_or(|wanted| clause == Some(wanted.name()))
}
