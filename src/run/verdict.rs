// SPDX-License-Identifier: GPL-2.0-only
//! The record of a case, from what its worker said or from how the worker ended.

use crate::clause::ClauseId;
use crate::plan::PlannedCase;
use crate::results::{Blame, CaseRecord, Failure, Verdict};

use super::kernel_log;
use super::kernel_watch::Damage;
use super::threads::Hang;
use super::worker_process::{Death, End, describe_status};
use crate::protocol::CaseOutcome;

/// Id of the record that says what the kernel has reported while it was asked what it offers: no case's, because no platform
/// has this name.
const PROBE_ID: &str = "kernel.probe";

/// A record with nothing in it yet.
pub(super) fn empty(case: &PlannedCase, verdict: Verdict) -> CaseRecord {
    let clauses = case.clauses.iter().map(ClauseId::to_string).collect();
    CaseRecord { clauses, ..CaseRecord::new(case.id.clone(), verdict) }
}

/// The record of a probe that the kernel had something to say about, which fails the run.
pub(super) fn of_probe(damage: &Damage) -> CaseRecord {
    let mut record = CaseRecord::new(PROBE_ID, Verdict::Pass);
    add_damage(&mut record, damage, &[], &[]);
    if let Some(failure) = &mut record.failure {
        failure.command = Some("gmem-conform probe".to_string());
    }
    record
}

/// The record of a case that cannot run here.
pub(super) fn skipped(case: &PlannedCase) -> CaseRecord {
    CaseRecord { needs: case.unmet.clone(), ..empty(case, Verdict::Skip) }
}

/// The record of a case whose worker has replied.
pub(super) fn replied(case: &PlannedCase, outcome: CaseOutcome) -> CaseRecord {
    let mut record = CaseRecord {
        failure: outcome.failure,
        observations: outcome.observations,
        ..empty(case, outcome.verdict)
    };
    if let Verdict::Skip | Verdict::Waived = record.verdict {
        record.verdict = Verdict::Error;
        record.failure = Some(suite_failure("the worker passed over a case that was to run"));
    }
    if let (Verdict::Timeout, Some(failure)) = (record.verdict, &mut record.failure) {
        // Whoever was waited for, it was the suite that said what for.
        failure.blame.get_or_insert(Blame::Suite);
    }
    if record.verdict.is_failure() && record.failure.is_none() {
        record.failure = Some(suite_failure("the worker gave no reason for its verdict"));
    }
    record
}

fn suite_failure(summary: &str) -> Failure {
    Failure { summary: summary.to_string(), blame: Some(Blame::Suite), ..Failure::default() }
}

/// What a worker did that it must not, in words that follow "worker".
pub(super) fn misdeed(end: &End, death: &Death) -> String {
    let what = match (end, death) {
        (End::Died, Death::Reaped(status)) => return describe_status(*status),
        (End::Died, Death::Stuck(_)) => "died".to_string(),
        (End::ClosedReplies, _) => "closed its reply pipe".to_string(),
        (End::ClosedJobs, _) => "takes no more jobs".to_string(),
        (End::Garbage(text), _) => format!("replied {text}, which is no reply"),
    };
    match death {
        Death::Reaped(_) => what,
        Death::Stuck(place) => {
            format!("{what}, and cannot be killed: it is stuck in the kernel at {place}")
        }
    }
}

/// The record of a case whose worker ended before it replied.
pub(super) fn worker_ended(
    case: &PlannedCase,
    line: Option<usize>,
    end: &End,
    death: &Death,
) -> CaseRecord {
    let failure = suite_failure(&format!("worker {}", misdeed(end, death)));
    with_statement(empty(case, Verdict::Error), case, line, failure)
}

/// The record of a case whose deadline has passed.
pub(super) fn timed_out(
    case: &PlannedCase,
    line: Option<usize>,
    seconds: u64,
    hang: Option<Hang>,
    death: &Death,
) -> CaseRecord {
    let mut failure =
        Failure { summary: format!("no result within {seconds} seconds"), ..Failure::default() };
    if let Some(hang) = hang {
        failure.blame = Some(hang.blame);
        failure.detail = hang.lines;
        if let Some(clause) = hang.clause {
            failure.breaks(clause);
        }
    }
    if let Death::Stuck(place) = death {
        failure.detail.push(format!(
            "the worker cannot be killed and is left behind: it is stuck in the kernel at {place}"
        ));
        failure.blame = Some(Blame::Kernel);
    }
    with_statement(empty(case, Verdict::Timeout), case, line, failure)
}

fn with_statement(
    record: CaseRecord,
    case: &PlannedCase,
    line: Option<usize>,
    mut failure: Failure,
) -> CaseRecord {
    failure.line = line;
    failure.statement = line
        .and_then(|line| case.text.lines().nth(line - 1))
        .map(|statement| statement.trim().to_string());
    CaseRecord { failure: Some(failure), ..record }
}

/// That other cases may be the cause as well.
pub(super) fn at_the_same_time(others: &[&str]) -> Option<String> {
    (!others.is_empty()).then(|| {
        let ids = others.join(" ");
        format!("at the same time ran: {ids}; run with --jobs 1 to tell which it was")
    })
}

/// Adds what went wrong in the kernel during a case, which fails a case that would have passed. `others` are the cases
/// that ran at the same time, any of which may be the cause.
/// `before` are those that ended right before, of which something may come late.
pub(super) fn add_damage(
    record: &mut CaseRecord,
    damage: &Damage,
    others: &[&str],
    before: &[&str],
) {
    if damage.is_empty() {
        return;
    }
    record.kernel_log = damage.log.clone();
    let by_worker = record.failure.is_some();
    let failure = record.failure.get_or_insert_default();
    if !by_worker {
        failure.summary = match kernel_log::most_telling(&damage.log) {
            Some(line) => format!("the kernel reported: {line}"),
            None => format!("{} (nothing in the log)", damage.counters.join("; ")),
        };
        failure.expected = Some("no warning, BUG or oops of the kernel".to_string());
    }
    failure.detail.extend(kernel_log::known_first(&damage.log));
    failure.detail.extend_from_slice(&damage.counters);
    failure.detail.extend(at_the_same_time(others));
    if kernel_log::may_be_late(&damage.log) && !before.is_empty() {
        failure.detail.push(format!("perhaps late: right before ran {}", before.join(" ")));
    }
    match record.verdict {
        Verdict::Pass => {
            record.verdict = Verdict::Fail;
            failure.blame = Some(Blame::Kernel);
        }
        // A worker that dies while its kernel goes down is no fault of the suite.
        Verdict::Error | Verdict::Timeout if failure.blame != Some(Blame::Machine) => {
            failure.blame = Some(Blame::Kernel);
        }
        Verdict::Fail | Verdict::Error | Verdict::Timeout | Verdict::Skip | Verdict::Waived => {}
    }
}
