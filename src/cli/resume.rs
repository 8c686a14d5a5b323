// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform resume`: going on with a run that was interrupted, by the kernel that it tests or by anybody else.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{CommandFactory, Parser};

use crate::clock::now_ms;
use crate::plan::PlannedCase;
use crate::report::{self, Json, Replay, Reports, Silence};
use crate::results::{
    CaseRecord, Environment, Event, LeftResults, Record, ResumedRecord, Sink, exit, suite,
};
use crate::run::{self, Before, GoneDown};

use super::args::{Cli, Command, ResumeArgs, Then};
use super::commands::{
    CommandResult, Message, Run, add_files, add_text, ask, machine_config, options, prepare,
};

/// The kernel's id of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How often a case is started whose run was killed while the machine stayed up: it may be the one that kills it. Arbitrary:
/// somebody may kill a run, and then the one that resumes it, before a case is through.
const TRIES: usize = 3;

/// Goes on with the run whose results are in `args.results`.
pub(super) fn resume(args: &ResumeArgs, arguments: &[OsString]) -> CommandResult {
    refuse_others(arguments)?;
    let left = LeftResults::read(&args.results)?;
    if let Some(summary) = left.summary() {
        let mut reports = Reports::new();
        let cli = command_line(&left, args)?;
        add_text(&mut reports, &cli.run, "the standard output", io::stdout(), &Silence::default());
        report::replay(&args.results, &mut reports)?;
        return Ok(if reports.failed() { exit::FAILED } else { summary.exit_status });
    }
    let cli = command_line(&left, args)?;
    let mut config = machine_config(&cli.machine)?;
    let options = options(&cli, &[&[OsString::new()], &words(&left.run.arguments)[..]].concat())?;
    let environment = match args.then {
        Then::Run => same_machine(ask(&mut config, &options)?, &left, &args.results)?,
        Then::Wait | Then::End => {
            config.dialect = left.run.environment.dialect;
            left.run.environment.clone()
        }
    };
    let run = prepare(&cli, config, options, environment)?;
    if run.plan.len() != left.run.planned {
        return Err(format!(
            "{}: its run had {} cases, and here are {}; resume it where it ran, with the same program and files",
            args.results.display(),
            left.run.planned,
            run.plan.len()
        )
        .into());
    }
    go_on(args, &cli, &left, run)
}

/// The run's own options count. Others, which clap takes everywhere, would not, so they are refused.
fn refuse_others(arguments: &[OsString]) -> Result<(), Message> {
    const OWN: [&str; 7] = ["results", "output", "why", "blame", "console", "then", "printed"];
    let Ok(matches) = Cli::command().try_get_matches_from(arguments) else { return Ok(()) };
    let Some((_, matches)) = matches.subcommand() else { return Ok(()) };
    let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let ids = matches.ids().map(clap::Id::as_str).filter(|id| !OWN.contains(id));
    // Groups of options, which the derived types are, have names in capitals.
    let mut options = ids.filter(|id| !id.starts_with(char::is_uppercase)).filter(given);
    match options.next() {
        None => Ok(()),
        Some(id) => Err(format!(
            "--{} is none of resume's options: it goes on with those that the run had",
            id.replace('_', "-")
        )
        .into()),
    }
}

fn words(arguments: &[String]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

/// The command line of the run that is to be resumed.
fn command_line(left: &LeftResults, args: &ResumeArgs) -> Result<Cli, Message> {
    let name = args.results.display();
    if !left.run.merged.is_empty() {
        return Err(format!("{name}: it was joined from several runs; resume each of them").into());
    }
    let arguments = std::iter::once(OsString::from("gmem-conform"));
    let cli = Cli::try_parse_from(arguments.chain(words(&left.run.arguments)));
    let cli = cli.map_err(|error| format!("{name}: its command line: {error}"))?;
    match cli.command {
        None | Some(Command::Check { .. }) => Ok(cli),
        Some(_) => Err(format!("{name}: it is not from a run of cases").into()),
    }
}

/// `now`, if it is the machine of the run, as far as that matters for its results.
fn same_machine(now: Environment, left: &LeftResults, name: &Path) -> Result<Environment, Message> {
    let (then, here) = (&left.run.environment, suite());
    let dialect = |environment: &Environment| {
        environment.dialect.map_or(String::new(), |dialect| dialect.to_string())
    };
    for (what, before, now) in [
        ("program", &left.run.suite, &here),
        ("machine", &then.machine, &now.machine),
        ("kernel", &then.kernel_release, &now.kernel_release),
        ("kernel's build", &then.kernel_version, &now.kernel_version),
        ("cpu", &then.cpu, &now.cpu),
        ("dialect", &dialect(then), &dialect(&now)),
    ] {
        if before != now {
            return Err(format!(
                "{}: its {what} was `{before}`, and here it is `{now}`; the results of both together would be those of \
                 neither",
                name.display()
            )
            .into());
        }
    }
    Ok(now)
}

/// How the run ended before, and which cases ended with it.
struct Interruption {
    gone: GoneDown,
    /// The cases that were running and do not run again.
    lost: Vec<CaseRecord>,
    /// The cases that were running.
    running: Vec<String>,
}

fn interruption(args: &ResumeArgs, left: &LeftResults, run: &Run) -> Result<Interruption, Message> {
    let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let running = left.running();
    // Whoever gives a reason knows that the machine went down.
    let still_up = args.why.is_none() && !boot_id.is_empty() && boot_id.trim() == left.boot_id();
    let default = if still_up { "the run was killed" } else { "the machine went down" };
    let console = args.console.as_deref().map(console).transpose()?;
    let gone = GoneDown {
        why: args.why.clone().unwrap_or_else(|| default.to_string()),
        blame: args.blame.into(),
        console: console.unwrap_or_default(),
    };
    let ends = |case: &&PlannedCase| {
        running.get(&case.id).is_some_and(|tries| !still_up || *tries >= TRIES)
    };
    let cases: Vec<&PlannedCase> = run.plan.iter().filter(ends).collect();
    let before: Vec<CaseRecord> = left.cases().cloned().collect();
    let lost = run::lost(&cases, &before, &gone, &run.options.rerun);
    Ok(Interruption { gone, lost, running: running.into_keys().collect() })
}

/// The lines of a kernel's console. What is no text in it is no report either.
fn console(path: &Path) -> Result<Vec<String>, Message> {
    let bytes = fs::read(path).map_err(|error| format!("--console {}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_string).collect())
}

/// The results file, in which only what is new is written, and the other reports, which are told everything.
struct Resumed {
    results: Reports,
    told: Reports,
}

impl Sink for Resumed {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        let kept = self.results.event(event);
        // Of "wait" there are no others.
        if self.told.is_empty() {
            return kept;
        }
        match (kept, self.told.event(event)) {
            (ControlFlow::Continue(()), ControlFlow::Continue(())) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn failed(&self) -> bool {
        self.results.failed() || self.told.failed()
    }
}

fn go_on(args: &ResumeArgs, cli: &Cli, left: &LeftResults, run: Run) -> CommandResult {
    let Interruption { gone, lost, running } = interruption(args, left, &run)?;
    let silence = Silence::default();
    let mut told = Reports::new();
    if args.then != Then::Wait {
        add_told(args, cli, &mut told, &silence)?;
    }
    let mut replay = Replay::new();
    silence.set(args.printed.is_some());
    for record in
        std::iter::once(Record::Run(Box::new(left.run.clone()))).chain(left.records.iter().cloned())
    {
        let Some(event) = replay.event(record) else { continue };
        if !told.is_empty() && told.event(&event).is_break() {
            return Ok(exit::FAILED);
        }
        // What follows the last result that was printed was not.
        let number = match event {
            Event::Started(_) => 0,
            Event::Finished { number, .. } => number,
            _ => continue,
        };
        silence.set(args.printed.is_some_and(|printed| number < printed));
    }
    silence.set(false);

    let durable = !run.environment.is_model();
    let json = match &args.output {
        Some(path) => Json::create(path)?,
        None => Json::append(&args.results, durable)?,
    };
    let mut results = Reports::new();
    results.add(args.output.as_ref().unwrap_or(&args.results).display().to_string(), json);
    let mut sink = Resumed { results, told };

    let cases: Vec<CaseRecord> = left.cases().cloned().collect();
    let ended: HashSet<&str> = cases.iter().chain(&lost).map(|case| case.id.as_str()).collect();
    let is_left = |case: &&PlannedCase| !ended.contains(case.id.as_str());
    let rest: Vec<PlannedCase> = run.plan.iter().filter(is_left).cloned().collect();
    let announced = left.is_announced();
    let resumed = (args.then != Then::End && !announced).then(|| ResumedRecord {
        part: left.parts() + 1,
        reason: gone.why.clone(),
        running,
        started_ms: now_ms(),
        boot_id: match args.then {
            Then::Run => run.environment.boot_id.clone(),
            // Whoever runs the rest does so in another boot.
            Then::Wait | Then::End => String::new(),
        },
    });
    let before = Before { summary: left.so_far(), cases, lost, resumed };
    let next = match args.then {
        Then::Run => run::Next::Run,
        Then::Wait => run::Next::Wait,
        Then::End => run::Next::End(gone.why),
    };
    let Run { config, options, environment, .. } = &run;
    let summary = run::resume(rest, before, next, config, options, environment, &mut sink);
    Ok(match args.then {
        _ if sink.failed() => exit::FAILED,
        Then::Wait => exit::PASSED,
        Then::Run | Then::End => summary.exit_status,
    })
}

/// Adds the reports that the run had.
fn add_told(
    args: &ResumeArgs,
    cli: &Cli,
    told: &mut Reports,
    silence: &Silence,
) -> Result<(), Message> {
    if cli.run.json.as_deref() == Some(Path::new("-")) {
        told.add("the standard output", Json::stdout_unless(silence.clone()));
        add_text(told, &cli.run, "the standard error", io::stderr(), silence);
    } else {
        add_text(told, &cli.run, "the standard output", io::stdout(), silence);
    }
    // Where the text before has been printed, whoever did that has them made.
    if args.printed.is_none() {
        add_files(told, &cli.run.files)?;
    }
    Ok(())
}
