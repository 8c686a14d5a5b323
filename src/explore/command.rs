// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform explore`: histories until the time is over or one fails.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::batch::{self, Ground};
use super::finding::{self, Finding, Symptom};
use super::history::{Shape, history};
use crate::case::{Action, Case, Requirement, Step};
use crate::machine::{MachineConfig, MachineKind};
use crate::platform::Platform;
use crate::report::failure_lines;
use crate::results::{CaseRecord, Environment};
use crate::results::{exit, suite};
use crate::run::Options;
use crate::text::ascii;

/// Histories that are handed to the workers at once. Fewer would start workers needlessly often, more would say later
/// what a kernel complains about after its last VM is gone.
const BATCH: u64 = 64;

/// How often the heartbeat is written where lines are not overwritten.
const BEAT: Duration = Duration::from_secs(10);
/// How often it is written on a terminal.
const TERMINAL_BEAT: Duration = Duration::from_millis(200);

/// What to explore, and how long.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// Everything random follows from it.
    pub seed: u64,
    /// Steps of a history.
    pub steps: usize,
    /// Pages of each guest_memfd, if they are given.
    pub pages: Option<u64>,
    /// No history begins later.
    pub duration: Duration,
    /// Where case files go.
    pub output: PathBuf,
    /// Whether to go on after a failure.
    pub keep_going: bool,
    /// The platforms that were asked for; `None` for every one with private memory that needs no launch of its own. Encrypted
    /// guests have to be asked for: their launches are dear, and which platforms take turns decides what a seed means.
    pub platforms: Option<Vec<Platform>>,
    /// The options that say which machine it is, for commands in reports.
    pub machine_options: String,
}

/// Why nothing can be explored.
#[derive(Debug, Error)]
pub enum ExploreError {
    /// The standard output cannot be written.
    #[error("cannot write the standard output: {0}")]
    Output(#[source] io::Error),
    /// Nothing can be judged without a dialect.
    #[error("the machine does not say which dialect it speaks")]
    NoDialect,
    /// Case files cannot be written.
    #[error("cannot write case files into {}: {error}", .output.display())]
    CaseFiles {
        /// The directory.
        output: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The same, where a system call says so.
    #[error("cannot write case files into {}: {}", .output.display(), .errno.desc())]
    Access {
        /// The directory.
        output: PathBuf,
        /// Why.
        errno: nix::errno::Errno,
    },
}

/// Explores, and returns the exit status.
pub fn explore(
    exploration: &Exploration,
    config: &MachineConfig,
    environment: &Environment,
    options: Options,
) -> Result<u8, ExploreError> {
    let platforms = match platforms(exploration, environment) {
        Ok(platforms) => platforms,
        Err(reasons) => {
            let text: String = reasons
                .iter()
                .map(|reason| format!("cannot explore: {}\n", ascii(reason)))
                .collect();
            return Console::new().say(&text).map(|()| exit::SKIPPED).or_else(closed);
        }
    };
    let dialect = config.dialect.ok_or(ExploreError::NoDialect)?;
    prepare(&exploration.output)?;
    let mut explorer = Explorer {
        exploration,
        ground: Ground { config, environment, dialect },
        options,
        platforms,
        console: Console::new(),
        histories: 0,
        steps: 0,
        failed: 0,
        findings: Vec::new(),
        broken: false,
        interrupted: false,
        since: Instant::now(),
    };
    explorer.run().or_else(closed)
}

/// A reader that went away ends the program without a word.
fn closed(error: io::Error) -> Result<u8, ExploreError> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(exit::FAILED),
        _ => Err(ExploreError::Output(error)),
    }
}

/// The platforms that histories run on, or why there is none.
fn platforms(
    exploration: &Exploration,
    environment: &Environment,
) -> Result<Vec<Platform>, Vec<String>> {
    let wanted = |platform: &Platform| match &exploration.platforms {
        Some(wanted) => wanted.contains(platform),
        None => platform.has_private_memory() && !platform.is_encrypted(),
    };
    let mut reasons = Vec::new();
    let mut platforms = Vec::new();
    for platform in Platform::ALL.into_iter().filter(wanted) {
        let state = environment.platforms.iter().find(|state| state.name == platform.name());
        match state {
            Some(state) if state.missing.is_empty() => platforms.push(platform),
            Some(state) => reasons
                .extend(state.missing.iter().map(|need| format!("{platform}: {}", need.prose))),
            None => reasons.push(format!("{platform}: nothing is known of it here")),
        }
    }
    if platforms.is_empty() { Err(reasons) } else { Ok(platforms) }
}

/// Makes the directory for case files now, rather than find out that it cannot be written when one is found.
fn prepare(output: &Path) -> Result<(), ExploreError> {
    fs::create_dir_all(output)
        .map_err(|error| ExploreError::CaseFiles { output: output.into(), error })?;
    nix::unistd::access(output, nix::unistd::AccessFlags::W_OK)
        .map_err(|errno| ExploreError::Access { output: output.into(), errno })
}

struct Explorer<'a> {
    exploration: &'a Exploration,
    ground: Ground<'a>,
    options: Options,
    platforms: Vec<Platform>,
    console: Console,
    /// Histories that have run, and their steps.
    histories: usize,
    steps: usize,
    /// Histories that failed.
    failed: usize,
    /// The ways in which they failed, and the file that shows each.
    findings: Vec<(Symptom, String)>,
    /// Whether something went wrong that is no history's fault: a worker that died between two, a kernel that
    /// complained after the last.
    broken: bool,
    /// Whether the user wants to end the program.
    interrupted: bool,
    since: Instant,
}

impl Explorer<'_> {
    fn run(&mut self) -> io::Result<u8> {
        self.console.say(&self.headline())?;
        let mut next = 0;
        while !self.is_over() {
            let failed = self.batch(next..next + BATCH)?;
            next += BATCH;
            for (number, record) in failed {
                self.failed += 1;
                // One history for each way to fail says it; the others are counted.
                let symptom = Symptom::of(&record);
                if self.findings.iter().all(|(known, _)| *known != symptom) {
                    let file = self.examine(number, record)?;
                    self.findings.push((symptom, file));
                }
                if !self.exploration.keep_going {
                    break;
                }
            }
        }
        self.console.say(&self.summary())?;
        Ok(match self.failed == 0 && !self.broken && !self.interrupted {
            true => exit::PASSED,
            false => exit::FAILED,
        })
    }

    fn is_over(&self) -> bool {
        self.is_late()
            || self.interrupted
            || (self.broken || self.failed > 0) && !self.exploration.keep_going
    }

    fn is_late(&self) -> bool {
        self.since.elapsed() >= self.exploration.duration
    }

    fn platform(&self, number: u64) -> Platform {
        // There is at least one; the remainder is below their number.
        self.platforms[(number % self.platforms.len() as u64) as usize]
    }

    fn history(&self, number: u64) -> Case {
        let platform = self.platform(number);
        let shape = Shape {
            platform,
            dialect: self.ground.dialect,
            steps: self.exploration.steps,
            pages: self.exploration.pages,
            in_place: platform.launches_in_place(&self.ground.environment.capabilities),
        };
        history(self.exploration.seed, number, &shape)
    }

    /// Runs the histories with these numbers, or as many as there is time for. Returns those that failed, by number.
    fn batch(&mut self, numbers: std::ops::Range<u64>) -> io::Result<Vec<(u64, CaseRecord)>> {
        let plan: Vec<_> = numbers
            .clone()
            .map(|n| batch::planned(&self.ground, self.platform(n), &self.history(n), None))
            .collect();
        let ids: Vec<String> = plan.iter().map(|case| case.id.clone()).collect();
        let mut failed = Vec::new();
        let before = self.failed;
        let mut written = Ok(());
        let (exploration, since) = (self.exploration, self.since);
        let (console, histories, steps) = (&mut self.console, &mut self.histories, &mut self.steps);
        let ended = batch::run(&self.ground, &self.options, plan, &mut |record| {
            *histories += 1;
            *steps += exploration.steps;
            let failures = before + failed.len();
            written = console.beat(|| progress(*histories, *steps, failures, since.elapsed()));
            if record.verdict.is_failure() {
                let number = ids.iter().position(|id| *id == record.id);
                failed.push((numbers.start + number.unwrap_or_default() as u64, record.clone()));
                if !exploration.keep_going {
                    return ControlFlow::Break(());
                }
            }
            match written.is_err() || since.elapsed() >= exploration.duration {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        written?;
        for note in &ended.notes {
            let text: String =
                note.lines().map(|line| format!("note: {}\n", ascii(line))).collect();
            self.console.say(&text)?;
        }
        // What belongs to no history is still a complaint of the kernel or the end of a worker.
        self.broken |= !ended.notes.is_empty();
        if let Some(reason) = ended.aborted {
            self.console.say(&format!("ended: {}\n", ascii(&reason)))?;
            self.interrupted = true;
        }
        failed.sort_by_key(|(number, _)| *number);
        Ok(failed)
    }

    /// Shrinks a failure, writes it down and reports it. Returns the name of the file.
    fn examine(&mut self, number: u64, record: CaseRecord) -> io::Result<String> {
        let id = ascii(&record.id);
        self.console.say(&format!("\nFAIL {id}, history {number}; shrinking it\n"))?;
        let platform = self.platform(number);
        let case = self.history(number);
        // One worker after the other, so that the same failure is always shrunk to the same history.
        let jobs = std::mem::replace(&mut self.options.jobs, 1);
        let mut written = Ok(());
        let console = &mut self.console;
        let mut progress = |runs: usize, steps: usize| {
            let beat = console.beat(|| format!("shrinking: {runs} runs, {steps} steps left"));
            written = std::mem::replace(&mut written, Ok(())).and(beat);
        };
        let mut finding = match self.interrupted {
            true => Finding::unshrunk(case, record),
            false => {
                finding::examine(&self.ground, &self.options, platform, case, record, &mut progress)
            }
        };
        written?;
        let file = PathBuf::from(format!("explore-{}-{number}.case", self.exploration.seed));
        let file = match self.exploration.output == Path::new(".") {
            true => file,
            false => self.exploration.output.join(file),
        };
        self.describe(&mut finding, platform, number);
        self.options.jobs = jobs;
        self.report(&finding, platform, &file)?;
        self.interrupted |= finding.interrupted;
        Ok(file.display().to_string())
    }

    /// Writes into the case what it is about, and runs it once more, so that the report fits its lines.
    fn describe(&mut self, finding: &mut Finding, platform: Platform, number: u64) {
        let failure = finding.record.failure.clone().unwrap_or_default();
        let Exploration { seed, steps, pages, .. } = self.exploration;
        let pages = pages.map_or(String::new(), |pages| format!(" --pages {pages}"));
        let mut about = vec![
            format!(
                "Found by gmem-conform explore --seed {seed} --steps {steps}{pages}, history {number};"
            ),
            format!("{}.", finding.remarks.join("; ")),
            format!("{}.", self.place()),
        ];
        if let Some(clause) = &failure.clause {
            about.push(format!("Broken: {clause}: {}", failure.clause_text.unwrap_or_default()));
            finding.case.clauses = clause.parse().into_iter().collect();
        }
        about.push(format!("Seen: {}", failure.summary.lines().next().unwrap_or_default()));
        let in_place = |step: &Step| matches!(step.action, Action::Launch { from: None, .. });
        if finding.case.steps.iter().any(in_place) {
            finding.case.needs.push(Requirement::LaunchInPlace);
        }
        finding.case.about = about.iter().map(|line| ascii(line)).collect();
        if finding.interrupted {
            return;
        }
        let planned = batch::planned(&self.ground, platform, &finding.case, None);
        batch::run(&self.ground, &self.options, vec![planned], &mut |record| {
            if record.verdict.is_failure() {
                finding.record = record.clone();
            }
            ControlFlow::Continue(())
        });
    }

    fn report(&mut self, finding: &Finding, platform: Platform, file: &Path) -> io::Result<()> {
        let text = finding.case.to_string();
        let mut record = finding.record.clone();
        let command = format!(
            "gmem-conform check{} --platform {platform} {}",
            self.exploration.machine_options,
            crate::text::word(&file.to_string_lossy())
        );
        if let Some(failure) = &mut record.failure {
            failure.command = Some(command);
        }
        let mut out = String::from("\n");
        let verdict = format!("{:?}", record.verdict).to_uppercase();
        let _ = writeln!(out, "{verdict} {}", ascii(&record.id));
        for line in failure_lines(&record) {
            let _ = writeln!(out, "  {line}");
        }
        let _ = match fs::write(file, &text) {
            Ok(()) => writeln!(out, "\nwritten to {}:\n", file.display()),
            Err(error) => writeln!(out, "\ncannot write {}: {error}; it is\n", file.display()),
        };
        for line in text.lines() {
            let _ = writeln!(out, "{}", format!("    {line}").trim_end());
        }
        self.console.say(&out)
    }

    /// Where this runs, in one line.
    fn place(&self) -> String {
        let Ground { config, environment, dialect } = &self.ground;
        let mut text = suite();
        let _ = write!(text, ", machine {}", config.kind.name());
        if let Some(fault) = config.fault {
            let _ = write!(text, ", planted fault {}", fault.name());
        }
        let forced = if environment.dialect_forced { " (forced)" } else { "" };
        let _ = write!(text, ", dialect {dialect}{forced}");
        if !environment.kernel_release.is_empty() {
            let _ = write!(text, ", Linux {}", environment.kernel_release);
        }
        text
    }

    fn headline(&self) -> String {
        let Exploration { seed, steps, duration, .. } = self.exploration;
        let names: Vec<&str> = self.platforms.iter().map(|platform| platform.name()).collect();
        let mut text = format!(
            "{}\nexploring {} for {} s with seed {seed}, {steps} steps a history\n",
            ascii(&self.place()),
            names.join(" and "),
            duration.as_secs()
        );
        for remark in &self.ground.environment.remarks {
            let _ = writeln!(text, "remark: {}", ascii(remark));
        }
        text
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for (_, file) in &self.findings {
            let _ = writeln!(text, "\nfailure: {}", ascii(file));
        }
        let seed = self.exploration.seed;
        let counts = progress(self.histories, self.steps, self.failed, self.since.elapsed());
        let _ = writeln!(text, "\n{counts}, seed {seed}");
        if self.ground.config.kind == MachineKind::Model {
            text += "machine model: nothing here is about a kernel\n";
        }
        text
    }
}

fn progress(histories: usize, steps: usize, failures: usize, elapsed: Duration) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    format!(
        "{}, {}, {} in {:.1} s",
        count(histories, "history", "histories"),
        count(steps, "step", "steps"),
        count(failures, "failure", "failures"),
        elapsed.as_secs_f64()
    )
}

/// The standard output, with a heartbeat: one line that is overwritten on a terminal, now and then a line elsewhere.
struct Console {
    terminal: bool,
    /// Whether the last line is the heartbeat.
    beating: bool,
    last_beat: Instant,
}

impl Console {
    fn new() -> Console {
        Console { terminal: io::stdout().is_terminal(), beating: false, last_beat: Instant::now() }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let clear = if self.beating { "\r\x1b[K" } else { "" };
        self.beating = false;
        let mut out = io::stdout().lock();
        write!(out, "{clear}{text}")?;
        out.flush()
    }

    fn beat(&mut self, text: impl FnOnce() -> String) -> io::Result<()> {
        let interval = if self.terminal { TERMINAL_BEAT } else { BEAT };
        if self.last_beat.elapsed() < interval {
            return Ok(());
        }
        self.last_beat = Instant::now();
        if !self.terminal {
            return self.say(&format!("{}\n", text()));
        }
        self.say(&format!("\r\x1b[K{:.79}", text()))?;
        self.beating = true;
        Ok(())
    }
}
