// SPDX-License-Identifier: GPL-2.0-only
//! Running cases and scenarios, from their text to their outcomes.

use std::time::Duration;

use crate::activity::{self, Slot};
use crate::case::{self, Case};
use crate::dialect::Dialect;
use crate::exec::{CaseEnd, Setup, UsedVm, run_case};
use crate::machine::{self, Machine, MachineConfig};
use crate::platform::{Platform, launches};
use crate::protocol::CaseOutcome;
use crate::results::{Blame, Observation, Verdict};
use crate::scenario;

/// Runs cases one after the other. VMs are expensive and cases are many, so the VM of a case that passed is used for the
/// next; a case that fails in a used VM is run again in a fresh one before anything is reported.
pub struct Executor {
    config: MachineConfig,
    machine: Option<Box<dyn Machine>>,
    /// The VM that the last case left behind, and how many cases have passed in it.
    used: Option<(Platform, UsedVm, usize)>,
    /// Whether a case has failed in a used VM but not in a fresh one.
    files_spoiled: bool,
}

/// A case that is about to run.
struct CaseToRun<'a> {
    case: &'a Case,
    platform: Platform,
    dialect: Dialect,
    timeout: Duration,
}

impl Executor {
    /// Runs cases on this machine.
    pub fn new(config: MachineConfig) -> Executor {
        Executor { config, machine: None, used: None, files_spoiled: false }
    }

    /// Runs a case given as text; `progress` is told the line of each statement before it is executed.
    pub fn run(
        &mut self,
        id: &str,
        platform: Platform,
        text: &str,
        timeout: Duration,
        progress: &mut dyn FnMut(usize),
    ) -> CaseOutcome {
        let mut observations = Vec::new();
        let launches_before = launches();
        let stop = self.run_text(platform, text, timeout, progress, &mut observations).err();
        let (verdict, mut failure) = match stop {
            None => (Verdict::Pass, None),
            Some(stop) => (stop.verdict, Some(*stop.failure)),
        };
        if let (Verdict::Timeout, Some(failure)) = (verdict, &mut failure) {
            let runs = activity::current().slots;
            failure.detail.extend(runs.iter().filter_map(Slot::describe_runs));
        }
        let launches = launches() - launches_before;
        CaseOutcome { id: id.to_string(), verdict, failure, observations, launches }
    }

    fn run_text(
        &mut self,
        platform: Platform,
        text: &str,
        timeout: Duration,
        progress: &mut dyn FnMut(usize),
        observations: &mut Vec<Observation>,
    ) -> Result<(), CaseEnd> {
        let suite = |why: String| CaseEnd::error(Blame::Suite, why);
        let dialect =
            self.config.dialect.ok_or_else(|| suite("the dialect is not known".into()))?;
        if self.machine.is_none() {
            let machine = machine::open(&self.config);
            self.machine = Some(
                machine.map_err(|e| CaseEnd::error(Blame::Machine, format!("failed to {e}")))?,
            );
        }
        // A scenario has guests of its own, and a machine perhaps an ASID or a KeyID for one only.
        if scenario::is_scenario(text) {
            self.used = None;
        }
        let setup = self.setup(platform, dialect, timeout)?;
        if let Some(result) = scenario::run(text, &setup, progress, observations) {
            return result;
        }
        let mut cases = case::parse("case", text).map_err(|e| suite(e.to_string()))?;
        let [case] = cases.as_mut_slice() else {
            return Err(suite(format!("a job holds {} cases instead of one", cases.len())));
        };
        case.file_reused &= !self.files_spoiled;
        let job = CaseToRun { case, platform, dialect, timeout };

        // A VM whose launch is finished is of no use to a case that begins in the launch.
        let fits =
            |of: Platform| of == platform && !job.case.begins_in_launch() && !job.case.vm_fresh;
        let used = self.used.take().filter(|(of, ..)| fits(*of));
        let Some((_, vm, passed)) = used else {
            return self.run_in(&job, None, 0, progress, observations);
        };
        let Err(first) = self.run_in(&job, Some(vm), passed, progress, observations) else {
            return Ok(());
        };
        // A guest that hangs has used up the time.
        if first.verdict == Verdict::Timeout {
            return Err(first);
        }
        observations.clear();
        self.run_in(&job, None, 0, progress, observations)?;
        // Should it be the used file that was not as it must be, the other cases need not all say so.
        self.files_spoiled = true;
        // Neither a failure that can be run again nor a pass: the suite cannot tell whose it is.
        let mut failure = first.failure;
        failure.company = Some(passed);
        failure.blame = None;
        Err(CaseEnd { verdict: Verdict::Error, failure })
    }

    /// Runs a case in this VM, or a fresh one, and keeps the VM if all went well.
    fn run_in(
        &mut self,
        job: &CaseToRun,
        vm: Option<UsedVm>,
        passed: usize,
        progress: &mut dyn FnMut(usize),
        observations: &mut Vec<Observation>,
    ) -> Result<(), CaseEnd> {
        let setup = self.setup(job.platform, job.dialect, job.timeout)?;
        let vm = run_case(&setup, job.case, vm, progress, observations)?;
        self.used = vm.map(|vm| (job.platform, vm, passed + 1));
        Ok(())
    }

    /// What a case or a scenario runs against, once the machine has been opened.
    fn setup(
        &self,
        platform: Platform,
        dialect: Dialect,
        timeout: Duration,
    ) -> Result<Setup<'_>, CaseEnd> {
        let Some(machine) = &self.machine else {
            return Err(CaseEnd::error(Blame::Suite, "the machine has not been opened"));
        };
        Ok(Setup {
            machine: &**machine,
            platform,
            dialect,
            capability_numbers: machine::capability_numbers(&self.config),
            // The guest's deadline comes first, so that its hanging is told from the host's.
            guest_deadline: timeout / 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::TRAIL_STEPS;
    use crate::machine::model::Fault;

    const REUSED: &str = "pages 4\nstart shared\nfile reused";
    const PRIVATE: &str = "pages 4\nstart private\nfile reused";
    const HIDDEN: &str = "pages 4\nstart private\nmmap none\nfile reused";
    const WRITE: &str = "host write 0..4 A";
    const ZERO: &str = "host expect 0..4 zero";

    /// A file that this bug leaves to the next case is not empty, which tells whether the next case has used it.
    const BUG: Fault = Fault::PunchKeepsContents;

    fn executor(fault: Option<Fault>) -> Executor {
        Executor::new(MachineConfig::model(Dialect::RfcV4, fault))
    }

    fn run(executor: &mut Executor, (head, steps): (&str, &str)) -> CaseOutcome {
        let text = format!("case t.t\nclause convert.range\n{head}\n\n{steps}\n");
        let timeout = Duration::from_secs(60);
        executor.run("t.t", Platform::SwProtected, &text, timeout, &mut |_| {})
    }

    /// A case that fails in a used VM and not in a fresh one is neither a pass nor the kernel's failure, and from then on
    /// no case uses another one's file.
    #[test]
    fn a_failure_in_a_used_vm_is_tried_in_a_fresh_one() {
        let mut executor = executor(Some(BUG));
        assert_eq!(run(&mut executor, (REUSED, WRITE)).verdict, Verdict::Pass);
        assert_eq!(run(&mut executor, (REUSED, WRITE)).verdict, Verdict::Pass);
        let outcome = run(&mut executor, (REUSED, ZERO));
        let failure = outcome.failure.unwrap();
        assert_eq!((outcome.verdict, failure.blame), (Verdict::Error, None));
        assert_eq!(failure.company, Some(2));
        for case in [(REUSED, WRITE), (REUSED, ZERO)] {
            assert_eq!(run(&mut executor, case).verdict, Verdict::Pass, "{case:?}");
        }
    }

    /// A file goes on to the next case if both are content with that, are of the same kind, and the first has left it as it
    /// was.
    #[test]
    fn files_are_used_again() {
        const ONCE: &str = "pages 4\nstart shared";
        const GUEST_WRITE: &str = "guest write 0..4 A";
        const GUEST_ZERO: &str = "guest expect 0..4 zero";
        for (first, second, used) in [
            ((REUSED, WRITE), (REUSED, ZERO), true),
            ((PRIVATE, GUEST_WRITE), (PRIVATE, GUEST_ZERO), true),
            ((ONCE, WRITE), (REUSED, ZERO), false),
            ((REUSED, WRITE), (ONCE, ZERO), false),
            ((REUSED, WRITE), ("pages 5\nstart shared\nfile reused", ZERO), false),
            ((REUSED, WRITE), (PRIVATE, GUEST_ZERO), false),
            ((PRIVATE, GUEST_WRITE), (HIDDEN, GUEST_ZERO), false),
            ((HIDDEN, GUEST_WRITE), (PRIVATE, GUEST_ZERO), false),
            (
                (REUSED, WRITE),
                (
                    "pages 4\nstart shared\nslots none\nfile reused",
                    "slot 0 map 0..4\nhost expect 0..4 zero",
                ),
                false,
            ),
            (
                (
                    "pages 4\nstart shared\nslots none\nfile reused",
                    "slot 0 map 0..4\nhost write 0..4 A",
                ),
                (REUSED, ZERO),
                false,
            ),
            (
                (REUSED, "host write 0..4 A\nslot 0 delete\nslot 0 map 0..4 at 8"),
                (REUSED, ZERO),
                false,
            ),
            ((REUSED, "host write 0..4 A\nslot 0 delete"), (REUSED, ZERO), false),
            ((REUSED, "host write 0..4 A\npin 0..1"), (REUSED, ZERO), false),
        ] {
            let mut executor = executor(Some(BUG));
            assert_eq!(run(&mut executor, first).verdict, Verdict::Pass, "{first:?}");
            let found = run(&mut executor, second);
            let expected = if used { Verdict::Error } else { Verdict::Pass };
            assert_eq!(found.verdict, expected, "{first:?} {second:?} {:?}", found.failure);
        }
    }

    /// The next case finds the file as a fresh one is.
    #[test]
    fn used_files_are_as_good_as_fresh_ones() {
        let mut executor = executor(None);
        for case in [
            (REUSED, "host write 0..4 A\nconvert 1..3 private preserve"),
            (REUSED, ZERO),
            (PRIVATE, "guest write 0..4 A\nconvert 1..3 shared preserve"),
            (PRIVATE, "host expect 0..4 fault\nguest expect 0..4 zero"),
        ] {
            let outcome = run(&mut executor, case);
            assert_eq!(outcome.verdict, Verdict::Pass, "{case:?} {:?}", outcome.failure);
        }
    }

    /// A failure shows the way that led to it: all of it, or the end of a long one.
    #[test]
    fn the_way_to_a_failure_is_shown() {
        for (before, shown) in [(2, 3), (TRAIL_STEPS - 1, TRAIL_STEPS), (100, TRAIL_STEPS)] {
            let mut executor = executor(Some(Fault::UnspecifiedRejected));
            let steps =
                format!("{}convert 0..1 private unspecified", "punch 0..1\n".repeat(before));
            let failure = run(&mut executor, (REUSED, &steps)).failure.unwrap();
            let lines: Vec<usize> = failure.trail.iter().map(|step| step.line).collect();
            let last = failure.line.unwrap();
            assert_eq!(lines, (last + 1 - shown..=last).collect::<Vec<_>>());
        }
    }
}
