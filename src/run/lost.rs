// SPDX-License-Identifier: GPL-2.0-only
//! The records of cases that were running when the machine went down.

use crate::plan::PlannedCase;
use crate::results::{Blame, CaseRecord, Failure, Verdict};

use super::{kernel_log, verdict};

/// How a machine went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneDown {
    /// What happened: a sentence without its stop, for people.
    pub why: String,
    /// Whose fault it is, where the kernel's console does not tell.
    pub blame: Blame,
    /// The lines of the kernel's console, as far as it was kept.
    pub console: Vec<String>,
}

/// The record of each of `cases`, which were running when the machine went down: a failure of the kernel's where its console
/// shows one that is not in the record of one of `before`, otherwise an error. `command` gives the one that runs a case again.
pub fn lost(
    cases: &[&PlannedCase],
    before: &[CaseRecord],
    gone: &GoneDown,
    command: &dyn Fn(&PlannedCase) -> String,
) -> Vec<CaseRecord> {
    let messages: Vec<String> =
        gone.console.iter().map(|line| kernel_log::console_message(line)).collect();
    let charged = |line: &String| before.iter().any(|record| record.kernel_log.contains(line));
    let log = kernel_log::damage(&messages);
    let first_new = log.iter().position(|line| kernel_log::is_damage(line) && !charged(line));
    let log = first_new.map_or(&[][..], |at| &log[at..]);
    let one = |case: &&PlannedCase| {
        let mut record = record(case, gone, log);
        if let Some(failure) = &mut record.failure {
            let others: Vec<&str> =
                cases.iter().filter(|other| other.id != case.id).map(|o| o.id.as_str()).collect();
            failure.detail.extend(verdict::at_the_same_time(&others));
            failure.command = Some(command(case));
            failure.case_text = Some(case.text.clone());
        }
        record
    };
    cases.iter().map(one).collect()
}

fn record(case: &PlannedCase, gone: &GoneDown, log: &[String]) -> CaseRecord {
    let mut failure = Failure {
        summary: gone.why.clone(),
        expected: Some("a kernel that goes on".to_string()),
        blame: Some(gone.blame),
        ..Failure::default()
    };
    let mut verdict = Verdict::Error;
    if let Some(first) = kernel_log::most_telling(log) {
        verdict = Verdict::Fail;
        failure.summary = format!("{}: {first}", gone.why);
        failure.blame = Some(Blame::Kernel);
        failure.detail = log.to_vec();
    }
    let kernel_log = log.to_vec();
    CaseRecord { failure: Some(failure), kernel_log, ..verdict::empty(case, verdict) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clause::ClauseId;
    use crate::platform::Platform;

    fn case(id: &str) -> PlannedCase {
        PlannedCase {
            id: id.into(),
            platform: Platform::Default,
            clauses: vec![ClauseId::MemorySame],
            text: "case a.b\n".into(),
            unmet: Vec::new(),
        }
    }

    fn gone(console: &[&str]) -> GoneDown {
        GoneDown {
            why: "the guest's kernel panicked".into(),
            blame: Blame::Machine,
            console: console.iter().map(|line| line.to_string()).collect(),
        }
    }

    fn of(before: &[CaseRecord], console: &[&str]) -> CaseRecord {
        let (a, command) = (case("a.b"), |case: &PlannedCase| format!("run {}", case.id));
        lost(&[&a], before, &gone(console), &command).remove(0)
    }

    /// What the console shows makes it a failure of the kernel's, with the lines; a console without a word an error.
    #[test]
    fn the_console_decides() {
        let console = [
            "[    1.000000] kvm: all is well\r",
            "[    2.000000][   T33] BUG: kernel NULL pointer dereference, address: 8\r",
            "[    2.000001][   T33] RIP: 0010:x+0x1/0x2\r",
            "[    2.000002][   T33] Kernel panic - not syncing: Fatal exception\r",
        ];
        let record = of(&[], &console);
        assert_eq!(record.verdict, Verdict::Fail);
        assert_eq!(record.kernel_log.len(), 3);
        assert_eq!(record.kernel_log[0], "BUG: kernel NULL pointer dereference, address: 8");
        let failure = record.failure.unwrap();
        assert!(
            failure.summary.starts_with("the guest's kernel panicked: "),
            "{}",
            failure.summary
        );
        assert_eq!(failure.blame, Some(Blame::Kernel));
        assert_eq!(failure.command.as_deref(), Some("run a.b"));
        let record = of(&[], &console[..1]);
        assert_eq!((record.verdict, record.kernel_log.len()), (Verdict::Error, 0));
        assert_eq!(record.failure.unwrap().blame, Some(Blame::Machine));
    }

    /// What an earlier case has been charged with is not this one's.
    #[test]
    fn old_reports_are_not_charged_again() {
        let warning = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2";
        let earlier = CaseRecord {
            kernel_log: vec![warning.into()],
            ..verdict::empty(&case("a.a"), Verdict::Fail)
        };
        let record = of(std::slice::from_ref(&earlier), &[warning]);
        assert_eq!(record.verdict, Verdict::Error);
        let record = of(&[earlier], &[warning, "Kernel panic - not syncing: x"]);
        assert_eq!(record.verdict, Verdict::Fail);
        assert_eq!(record.kernel_log, ["Kernel panic - not syncing: x"]);
    }

    /// Several that were running are named in each other's records.
    #[test]
    fn several_are_named() {
        let (a, b) = (case("a.b"), case("a.c"));
        let records = lost(&[&a, &b], &[], &gone(&[]), &|case| case.id.clone());
        let detail = records[0].failure.as_ref().unwrap().detail.join("\n");
        assert!(detail.contains("a.c") && !detail.contains("a.b"), "{detail}");
    }
}
