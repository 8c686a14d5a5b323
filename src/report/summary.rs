// SPDX-License-Identifier: GPL-2.0-only
//! Lines that the text reports have in common.

use crate::results::{
    CaseRecord, Environment, ResumedRecord, RunRecord, Summary, WaiverRecord, WaiverState,
};
use crate::text::ascii;

/// What runs and where, in one line.
pub(crate) fn headline(run: &RunRecord) -> String {
    let environment = &run.environment;
    let dialect = match environment.dialect {
        Some(dialect) if environment.dialect_forced => format!("dialect {dialect} (forced)"),
        Some(dialect) => format!("dialect {dialect}"),
        None => "dialect unknown".to_string(),
    };
    let mut text =
        format!("{}: {} cases, machine {}, {dialect}", run.suite, run.planned, environment.machine);
    if let Some(shard) = run.shard {
        text += &format!(", shard {}/{}", shard.index, shard.count);
    }
    if let Some(fault) = &environment.planted_fault {
        text += &format!(", planted fault {fault}");
    }
    if !environment.kernel_release.is_empty() {
        text += &format!(", Linux {}, {}", environment.kernel_release, environment.kind_of_host());
    }
    ascii(&text)
}

/// Every count of a run, in one line.
pub fn counts(summary: &Summary) -> String {
    let waived = match summary.waived {
        0 => String::new(),
        n => format!("{n} waived, "),
    };
    let company = match summary.only_in_company {
        0 => String::new(),
        n => format!(" ({n} only in the company of other cases)"),
    };
    let launches = match summary.launches {
        0 => String::new(),
        1 => ", 1 launch of encrypted guests".to_string(),
        n => format!(", {n} launches of encrypted guests"),
    };
    format!(
        "{} planned: {} passed, {} failed, {} errors{company}, {} timeouts, {} skipped, {waived}{} not run; {:.1} s{launches}",
        summary.planned,
        summary.passed,
        summary.failed,
        summary.errors,
        summary.timeouts,
        summary.skipped,
        summary.not_run,
        summary.elapsed_ms as f64 / 1000.0
    )
}

/// That a run goes on, and why it had to.
pub(crate) fn resumed_line(resumed: &ResumedRecord) -> String {
    let during = match resumed.running.as_slice() {
        [] => String::new(),
        ids => format!(" during {}", ids.join(" ")),
    };
    ascii(&format!("part {} of the run: {}{during}", resumed.part, resumed.reason))
}

/// What a reader must not take the results for, if anything; every report of the run says so.
pub(crate) fn caveat(environment: &Environment) -> Option<&'static str> {
    if environment.is_model() {
        Some("machine model: nothing here is about a kernel")
    } else if environment.host == "emulated" {
        Some("emulated host: nothing here is about real hardware")
    } else {
        None
    }
}

/// The slugs of a skip's needs, each once.
pub(crate) fn slugs(record: &CaseRecord) -> String {
    let mut slugs: Vec<&str> = Vec::new();
    for need in &record.needs {
        if !slugs.contains(&need.slug.as_str()) {
            slugs.push(&need.slug);
        }
    }
    ascii(&slugs.join(","))
}

/// What there is to say about a waiver; nothing of one that has no bearing on the run.
pub(super) fn waiver_line(record: &WaiverRecord) -> Option<String> {
    let waiver = &record.waiver;
    let about = format!("{} ({}, until {})", waiver.reason, waiver.link, waiver.expires);
    let line = match (&record.problem, record.state) {
        (Some(problem), state) => {
            let state = match state {
                WaiverState::Stale => "stale ",
                WaiverState::Expired => "expired ",
                WaiverState::Used | WaiverState::NotInScope => "",
            };
            format!("{state}waiver `{}`: {problem}: {about}", waiver.id)
        }
        (None, WaiverState::Used) => {
            format!("waiver `{}`: {} waived: {about}", waiver.id, record.waived)
        }
        (None, _) => return None,
    };
    Some(ascii(&line))
}
