// SPDX-License-Identifier: GPL-2.0-only
//! The run: cases are handed to workers one by one, and every case gets a verdict whatever its worker does.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::clock::now_ms;
use crate::plan::PlannedCase;
use crate::results::{
    CaseRecord, Environment, Event, RunRecord, SCHEMA_VERSION, Sink, Summary, exit, suite,
};
use crate::timings::{self, Part, spend};
use crate::waivers::Waiving;

use super::deadline::Deadline;
use super::kernel_watch::{Damage, KernelWatch};
use super::options::{Before, Next, Options};
use super::worker_process::{self, Death, End, StartError, WorkerProcess};
use super::{kernel_log, signals, threads, verdict};
use crate::machine::{MachineConfig, MachineKind};
use crate::protocol::{CaseOutcome, Job, Reply};

/// Workers that may die in a row before one of them takes a job.
const STRIKES: usize = 3;

/// Cases that are named when the kernel complains late. Arbitrary: what is put off is rarely put off for longer.
const RECENT: usize = 3;

/// A case that a worker has been given.
struct Running {
    case: PlannedCase,
    since: Instant,
    /// What it may take.
    time: Duration,
    damage: Damage,
}

impl Running {
    fn deadline(&self) -> Instant {
        self.since + self.time
    }
}

/// A worker and what it does.
struct WorkerSlot {
    worker: WorkerProcess,
    running: Option<Running>,
    /// The last case that it ended.
    before: Option<String>,
}

impl WorkerSlot {
    /// When the runner must look at it even if it stays silent.
    fn deadline(&self) -> Option<Instant> {
        let deadline = self.running.as_ref().map(Running::deadline);
        match (deadline, self.worker.closing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Why a run stops before its plan ends.
enum AbortReason {
    /// Nobody reads on.
    Quietly,
    /// For this reason.
    Because(String),
}

struct Runner<'a> {
    config: &'a MachineConfig,
    options: &'a Options,
    sink: &'a mut dyn Sink,
    queue: VecDeque<PlannedCase>,
    slots: Vec<WorkerSlot>,
    summary: Summary,
    number: usize,
    /// The cases that ended last, at most [`RECENT`].
    recent: VecDeque<String>,
    strikes: usize,
    deadline: Deadline,
    watch: Option<KernelWatch>,
    waiving: Option<Waiving<'a>>,
    stop: Option<AbortReason>,
    broken: bool,
}

/// Runs `plan` and tells `sink` of everything that happens. The summary is that of the last event.
pub fn run(
    plan: Vec<PlannedCase>,
    config: &MachineConfig,
    options: &Options,
    mut environment: Environment,
    sink: &mut dyn Sink,
) -> Summary {
    let since = Instant::now();
    let since_probe = options.watch.0.take();
    let mut watch = (config.kind == MachineKind::Host)
        .then(|| since_probe.unwrap_or_else(|| KernelWatch::start(&options.root)));
    if let Some(watch) = &watch {
        environment.remarks.extend(watch.remarks());
    }
    // What the kernel has said of the probe is no case's.
    let of_probe = watch.as_mut().map(KernelWatch::look).filter(|damage| !damage.is_empty());
    let mut runner = Runner::new(plan, config, options, &environment, sink);
    runner.summary.planned += usize::from(of_probe.is_some());
    runner.watch = watch;
    runner.emit(Event::Started(Box::new(RunRecord {
        schema: SCHEMA_VERSION,
        suite: suite(),
        planned: runner.summary.planned,
        arguments: options.arguments.clone(),
        environment,
        started_ms: now_ms(),
        shard: options.shard,
        timeout_s: Some(options.timeout.as_secs()),
        merged: Vec::new(),
    })));
    if let Some(damage) = of_probe {
        runner.finish(verdict::of_probe(&damage));
    }
    runner.work();
    runner.end(since)
}

/// Goes on with a run of which `rest` is left, and tells `sink` of everything that happens from now on. The summary is that of
/// the last event, if there is one, and otherwise of what came so far.
pub fn resume(
    rest: Vec<PlannedCase>,
    before: Before,
    next: Next,
    config: &MachineConfig,
    options: &Options,
    environment: &Environment,
    sink: &mut dyn Sink,
) -> Summary {
    let since = Instant::now();
    let mut runner = Runner::new(rest, config, options, environment, sink);
    runner.take_up(before);
    match next {
        Next::Run => {
            let host = config.kind == MachineKind::Host;
            runner.watch = host.then(|| KernelWatch::start(&options.root));
            runner.work();
        }
        Next::Wait => return runner.summary,
        Next::End(reason) => runner.abort(reason),
    }
    runner.end(since)
}

impl<'a> Runner<'a> {
    fn new(
        plan: Vec<PlannedCase>,
        config: &'a MachineConfig,
        options: &'a Options,
        environment: &Environment,
        sink: &'a mut dyn Sink,
    ) -> Runner<'a> {
        Runner {
            config,
            options,
            sink,
            summary: Summary { planned: plan.len(), ..Summary::default() },
            queue: plan.into(),
            slots: Vec::new(),
            number: 0,
            recent: VecDeque::new(),
            strikes: 0,
            deadline: Deadline::new(options.timeout),
            watch: None,
            waiving: options.waivers.as_ref().map(|waivers| Waiving::new(waivers, environment)),
            stop: None,
            broken: false,
        }
    }

    /// Takes over what has come of the run so far.
    fn take_up(&mut self, before: Before) {
        self.summary = before.summary;
        for record in &before.cases {
            self.number += 1;
            let _ = self.deadline.finished(record);
            if let Some(waiving) = &mut self.waiving {
                waiving.remember(record);
            }
        }
        if let Some(resumed) = before.resumed {
            self.emit(Event::Resumed(Box::new(resumed)));
        }
        for record in before.lost {
            self.finish(record);
        }
        self.check_limits();
    }
}

impl Runner<'_> {
    fn emit(&mut self, event: Event) {
        let sent = spend(Part::Reporting, || self.sink.event(&event));
        if sent.is_break() && self.stop.is_none() {
            self.stop = Some(AbortReason::Quietly);
        }
    }

    fn abort(&mut self, reason: String) {
        if self.stop.is_none() {
            self.stop = Some(AbortReason::Because(reason));
        }
    }

    /// Runs until every case has a verdict or the run is to stop.
    fn work(&mut self) {
        loop {
            self.hand_out();
            if self.stop.is_some() || self.slots.iter().all(|slot| slot.running.is_none()) {
                return;
            }
            let until = self.slots.iter().filter_map(WorkerSlot::deadline).min();
            let interrupt = self.options.interrupt.as_ref();
            let mut workers: Vec<&mut WorkerProcess> =
                self.slots.iter_mut().map(|slot| &mut slot.worker).collect();
            match worker_process::wait(&mut workers, interrupt.map(AsFd::as_fd), until) {
                Ok(false) => {}
                Ok(true) => {
                    let signal = interrupt.map_or_else(String::new, signals::caught);
                    self.abort(format!("interrupted by {signal}"));
                    return;
                }
                Err(error) => {
                    self.abort(format!("poll: {error}"));
                    return;
                }
            }
            let mut index = 0;
            while index < self.slots.len() {
                // The others stay in their slots: they may share the blame for what the kernel did.
                let slot = self.slots.remove(index);
                if let Some(slot) = self.look_at(slot) {
                    self.slots.insert(index, slot);
                    index += 1;
                }
            }
        }
    }

    /// Gives every idle worker a case, and starts workers as long as there are cases for them.
    fn hand_out(&mut self) {
        for index in 0.. {
            if self.stop.is_some() {
                return;
            }
            if index < self.slots.len() {
                if self.slots[index].running.is_some() {
                    continue;
                }
            } else if index >= self.options.jobs.max(1) {
                return;
            }
            let Some(case) = self.next_case() else { return };
            if index == self.slots.len() {
                match self.start_worker() {
                    Ok(worker) => {
                        self.slots.push(WorkerSlot { worker, running: None, before: None })
                    }
                    Err(error) => {
                        self.queue.push_front(case);
                        return self.abort(error.to_string());
                    }
                }
            }
            self.give(index, case);
        }
    }

    /// The next case that is to run; those that are skipped get their verdict on the way.
    fn next_case(&mut self) -> Option<PlannedCase> {
        while self.stop.is_none() {
            let case = self.queue.pop_front()?;
            if case.unmet.is_empty() {
                return Some(case);
            }
            self.finish(verdict::skipped(&case));
        }
        None
    }

    fn start_worker(&self) -> Result<WorkerProcess, StartError> {
        let command = &self.options.worker;
        WorkerProcess::start(command)
            .and_then(|mut worker| {
                worker.send(&Job::Configure(self.config.clone()))?;
                Ok(worker)
            })
            .map_err(|error| StartError::new(command, error))
    }

    fn give(&mut self, index: usize, case: PlannedCase) {
        let slot = &mut self.slots[index];
        slot.worker.begin_case();
        let job = Job::Case {
            id: case.id.clone(),
            platform: case.platform,
            text: case.text.clone(),
            timeout_s: self.deadline.time().as_secs(),
        };
        let event = Event::CaseStarted { id: case.id.clone(), pid: slot.worker.pid() };
        let since = Instant::now();
        let sent = slot.worker.send(&job);
        slot.running =
            Some(Running { case, since, time: self.deadline.time(), damage: Damage::default() });
        if let Err(error) = sent {
            // Only serialisation can fail here.
            self.abort(format!("cannot write a job: {error}"));
        }
        self.emit(event);
    }

    /// Takes what a worker has said and done. Returns its slot if it can go on.
    fn look_at(&mut self, mut slot: WorkerSlot) -> Option<WorkerSlot> {
        while let Some(reply) = slot.worker.said.pop_front() {
            let unexpected = match (reply, &slot.running) {
                (Reply::Timings { spent }, Some(_)) => {
                    timings::add(&spent);
                    continue;
                }
                (Reply::Done(outcome), Some(running)) if outcome.id == running.case.id => {
                    self.replied(&mut slot, *outcome);
                    continue;
                }
                (Reply::Done(outcome), _) => format!("a result of {} out of turn", outcome.id),
                (Reply::Timings { .. }, _) => "timings out of turn".to_string(),
                (Reply::Probed(_), _) => "\"probed\" to a case".to_string(),
                (Reply::Observed(_), _) => "\"observed\" to a case".to_string(),
                (Reply::Measured(_), _) => "\"measured\" to a case".to_string(),
            };
            slot.worker.end = Some(End::Garbage(unexpected));
            break;
        }
        let now = Instant::now();
        slot.worker.check_closing(now);
        if let Some(end) = slot.worker.end.take() {
            self.worker_ended(slot, Some(end));
            return None;
        }
        if slot.running.as_ref().is_some_and(|running| running.deadline() <= now) {
            self.worker_ended(slot, None);
            return None;
        }
        Some(slot)
    }

    fn replied(&mut self, slot: &mut WorkerSlot, outcome: CaseOutcome) {
        let Some(running) = slot.running.take() else {
            return;
        };
        self.strikes = 0;
        self.summary.launches += outcome.launches;
        let record = verdict::replied(&running.case, outcome);
        slot.before = Some(running.case.id.clone());
        self.complete(slot, running, record);
    }

    /// A worker is of no more use: `end` says why, or else a deadline has passed.
    fn worker_ended(&mut self, mut slot: WorkerSlot, end: Option<End>) {
        let activity = slot.worker.activity();
        // Dead threads tell nothing.
        let hang = || threads::look(&self.options.root, slot.worker.pid(), &activity);
        let hang = end.is_none().then(hang);
        let death = slot.worker.kill();
        let what = match &end {
            Some(end) => format!("worker {}", verdict::misdeed(end, &death)),
            None => "worker hangs".to_string(),
        };
        let Some(running) = slot.running.take() else {
            let after = slot.before.as_deref().unwrap_or("its start");
            self.emit(Event::Note(format!("{what} after {after}")));
            return;
        };
        let Some(line) = activity.line else {
            self.strikes += 1;
            if self.strikes >= STRIKES {
                let said = slot.worker.stray_output();
                let said = match said.trim() {
                    "" => String::new(),
                    text => format!("; it wrote: {}", text.replace('\n', " | ")),
                };
                self.abort(format!(
                    "{STRIKES} workers in a row ended before they took a case, the last one: {what}{said}"
                ));
            } else {
                let before = match &slot.before {
                    Some(id) => format!(" after {id}"),
                    None => String::new(),
                };
                self.emit(Event::Note(format!(
                    "{what}{before} before it took {}, which another one will run",
                    running.case.id
                )));
            }
            self.queue.push_front(running.case);
            return;
        };
        self.strikes = 0;
        let line = (line > 0).then_some(line);
        let record = match (&end, hang) {
            (Some(end), _) => verdict::worker_ended(&running.case, line, end, &death),
            (None, hang) => {
                let seconds = running.time.as_secs();
                verdict::timed_out(&running.case, line, seconds, hang, &death)
            }
        };
        self.complete(&mut slot, running, record);
        if let Death::Stuck(_) = death {
            let why = self.deadline.worker_stuck();
            self.note(why);
        }
    }

    /// Adds to a record what the runner knows, and reports it.
    fn complete(&mut self, slot: &mut WorkerSlot, mut running: Running, mut record: CaseRecord) {
        record.duration_us = u64::try_from(running.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        record.stray_output = slot.worker.stray_output();
        if let Some(watch) = &mut self.watch {
            let damage = watch.look();
            // Any of the cases that are running may be the cause.
            running.damage.merge(&damage);
            for other in &mut self.slots {
                if let Some(running) = &mut other.running {
                    running.damage.merge(&damage);
                }
            }
            let others: Vec<&str> = self
                .slots
                .iter()
                .filter_map(|slot| slot.running.as_ref())
                .map(|running| running.case.id.as_str())
                .collect();
            let before: Vec<&str> = self.recent.iter().map(String::as_str).collect();
            verdict::add_damage(&mut record, &running.damage, &others, &before);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record.id.clone());
        if let Some(failure) = &mut record.failure {
            failure.command = Some((self.options.rerun)(&running.case));
            failure.case_text = Some(running.case.text.clone());
        }
        self.finish(record);
    }

    fn finish(&mut self, mut record: CaseRecord) {
        if let Some(waiving) = &mut self.waiving {
            waiving.apply(&mut record);
        }
        self.summary.count_case(&record);
        self.number += 1;
        let why = self.deadline.finished(&record);
        self.check_limits();
        self.emit(Event::Finished {
            number: self.number,
            total: self.summary.planned,
            record: Box::new(record),
        });
        self.note(why);
    }

    fn note(&mut self, note: Option<String>) {
        if let Some(note) = note {
            self.emit(Event::Note(note));
        }
    }

    /// Ends the run when more has gone wrong than it is to bear.
    fn check_limits(&mut self) {
        let Summary { failed, errors, timeouts, .. } = self.summary;
        let cases = |n: usize| match n {
            1 => "1 case has".to_string(),
            n => format!("{n} cases have"),
        };
        if timeouts >= self.options.max_timeouts {
            self.abort(format!("{} timed out; --max-timeouts allows for more", cases(timeouts)));
        }
        let failures = failed + errors + timeouts;
        if self.options.max_fail.is_some_and(|most| failures >= most) {
            self.abort(format!("{} failed; --max-fail allows for more", cases(failures)));
        }
    }

    /// Ends the workers, counts what is left, and says so.
    fn end(&mut self, since: Instant) -> Summary {
        let mut left = Vec::new();
        for slot in std::mem::take(&mut self.slots) {
            left.extend(slot.running.as_ref().map(|running| running.case.id.clone()));
            if slot.running.is_none() {
                if let Some(what) = slot.worker.dismiss() {
                    let after = slot.before.as_deref().unwrap_or("its start");
                    self.emit(Event::Note(format!("worker {what} after {after}")));
                }
                continue;
            }
            let mut worker = slot.worker;
            if let Death::Stuck(place) = worker.kill() {
                self.emit(Event::Note(format!(
                    "worker {} cannot be killed: it is stuck in the kernel at {place}",
                    worker.pid()
                )));
            }
        }
        left.extend(self.queue.drain(..).map(|case| case.id));
        // Dead workers took their VMs with them, and a kernel may complain only then.
        if let Some(damage) = self.watch.as_mut().map(KernelWatch::look)
            && !damage.is_empty()
        {
            self.broken = true;
            let mut lines = Vec::new();
            lines.extend(kernel_log::known_first(&damage.log));
            lines.extend(damage.counters);
            let ids: Vec<&str> = self.recent.iter().map(String::as_str).collect();
            let text = format!(
                "after the last case, the kernel reported: {}\nperhaps late: the last cases were {}",
                lines.join("\n"),
                ids.join(" ")
            );
            self.emit(Event::Note(text));
        }
        if let Some(waiving) = self.waiving.take() {
            for record in waiving.records() {
                self.broken |= waiving.is_strict() && record.problem.is_some();
                self.emit(Event::Waiver(Box::new(record)));
            }
        }
        match self.stop.take() {
            Some(AbortReason::Because(reason)) => {
                self.broken = true;
                self.emit(Event::Aborted(reason));
            }
            Some(AbortReason::Quietly) => self.broken = true,
            None => {}
        }
        for id in left {
            self.emit(Event::NotRun(id));
        }
        self.summary.not_run = self.summary.planned - self.number;
        self.summary.elapsed_ms += u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.summary.exit_status = self.exit_status();
        self.emit(Event::Ended(self.summary));
        self.summary
    }

    fn exit_status(&self) -> u8 {
        let Summary { planned, passed, failed, errors, timeouts, skipped, waived, not_run, .. } =
            self.summary;
        let unwell = self.broken || self.sink.failed() || not_run > 0;
        if unwell || failed + errors + timeouts > 0 {
            exit::FAILED
        } else if passed + waived > 0 {
            exit::PASSED
        } else if skipped > 0 || planned == 0 {
            exit::SKIPPED
        } else {
            exit::FAILED
        }
    }
}
