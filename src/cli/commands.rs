// SPDX-License-Identifier: GPL-2.0-only
//! What each command does.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;

use crate::bundle;
use crate::case;
use crate::compare;
use crate::contract;
use crate::explore::{self, Exploration};
use crate::init::RECORD_VARIABLE;
use crate::machine::model::Fault;
use crate::machine::{MachineConfig, MachineKind};
use crate::plan::{self, PlannedCase, Selection};
use crate::report::{self, Human, Json, Reports, Silence, Silenced, Tap};
use crate::results::Environment;
use crate::results::{Sink, exit};
use crate::run::{self, Options};
use crate::text::{nearest, word};
use crate::timings::{self, Part, spend};
use crate::waivers::Waivers;
use crate::worker;

use super::args::{
    Cli, Command, ExploreArgs, FileArgs, Format, MachineArgs, RunArgs, SelectionArgs,
};
use super::probe_text::probe_text;
use super::{formats, generate, measure, new_case, resume};

/// First argument of a worker process.
const WORKER: &str = "worker";
/// The second, of one that is to say where its time goes.
const WORKER_TIMINGS: &str = "--timings";

/// The shortest time between two progress lines: a model's case takes less than a millisecond.
const PROGRESS: Duration = Duration::from_millis(100);

/// What a person is told, whichever layer it comes from.
pub(super) type Message = Box<dyn Error>;

/// The exit status, or the sentence that explains a failure.
pub(super) type CommandResult = Result<u8, Message>;

/// Runs the program with these arguments, the program's name first. Never panics because the standard output or error is
/// closed.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let outcome = if arguments.get(1).is_some_and(|first| first == WORKER) {
        if arguments.get(2).is_some_and(|option| option == WORKER_TIMINGS) {
            timings::switch_on();
        }
        worker::serve().map(|()| exit::PASSED).map_err(Message::from)
    } else {
        match Cli::try_parse_from(&arguments) {
            Ok(cli) => command(cli, &arguments),
            Err(error) => Ok(usage(&error)),
        }
    };
    ExitCode::from(outcome.unwrap_or_else(|message| {
        // Nobody is left to tell when the standard error is closed.
        let _ = writeln!(io::stderr(), "gmem-conform: {message}");
        exit::FAILED
    }))
}

/// Prints what clap has to say. Help and version are no errors; clap's own status for errors, 2, means XFAIL to a
/// kselftest runner.
fn usage(error: &clap::Error) -> u8 {
    let printed = error.print();
    if error.use_stderr() || printed.is_err() { exit::FAILED } else { exit::PASSED }
}

fn command(cli: Cli, arguments: &[OsString]) -> CommandResult {
    if let (Some(_), Some(name)) = (&cli.command, cli.selection.given()) {
        return Err(
            format!("{name} selects built-in cases to run, which a command does not").into()
        );
    }
    let config = machine_config(&cli.machine)?;
    match &cli.command {
        Some(Command::Faults) => print(&faults()),
        Some(Command::Contract { clauses, results, verbose }) => {
            print(&contract(clauses, results.as_deref(), *verbose)?)
        }
        Some(Command::Explain { id }) => print(&plan::explain(id)?),
        Some(Command::Diff { base, patched, all }) => {
            let diff = compare::diff_any(base, patched, *all)?;
            let printed = print(&diff.text)?;
            Ok(if diff.broke { exit::FAILED } else { printed })
        }
        Some(Command::Bundle { results, output, kernel_log }) => {
            write_bundle(results, output, kernel_log.as_deref())
        }
        Some(Command::Verify { bundle }) => print(&bundle::verify(bundle)?),
        Some(Command::New { name }) => print(&new_case::write(name)?),
        Some(Command::Completions { shell }) => print(&generate::completions(*shell)?),
        Some(Command::Man { command }) => print(&generate::man(command.as_deref())?),
        Some(Command::Report { results }) => replay(&cli.run, results),
        Some(Command::Merge { files, output }) => merge(files, output.as_deref()),
        Some(Command::Resume(args)) => resume::resume(args, arguments),
        Some(Command::Probe) => {
            let options = options(&cli, arguments)?;
            print(&probe_text(&run::probe(&config, &options)?))
        }
        Some(Command::Check { .. }) => {
            let options = options(&cli, arguments)?;
            conform(&cli, config, options)
        }
        Some(Command::Explore(args)) => {
            let options = options(&cli, arguments)?;
            explore(&cli, config, options, args)
        }
        Some(Command::Observe { repeat }) => {
            let options = options(&cli, arguments)?;
            measure::observe(&cli, config, options, *repeat)
        }
        Some(Command::Bench(args)) => {
            let options = options(&cli, arguments)?;
            measure::bench(&cli, config, options, args)
        }
        None => {
            let options = options(&cli, arguments)?;
            conform(&cli, config, options)
        }
    }
}

/// Writes to the standard output; a reader that has gone away ends the program without a word.
pub(super) fn print(text: &str) -> CommandResult {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(exit::PASSED),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::FAILED),
        Err(error) => Err(format!("cannot write the standard output: {error}").into()),
    }
}

pub(super) fn machine_config(args: &MachineArgs) -> Result<MachineConfig, Message> {
    let fault = args.plant.as_deref().map(planted).transpose()?;
    if fault.is_some() && args.machine != MachineKind::Model {
        return Err("--plant needs --machine model: no bug is planted in a kernel".into());
    }
    let numbers = args.kernel_headers.as_deref();
    Ok(MachineConfig {
        kind: args.machine,
        // A planted bug may hide the dialect from whoever asks, so the model is told one in which it makes a difference.
        dialect: args.dialect.0.or(fault.and_then(|fault| fault.dialects().first().copied())),
        fault,
        capability_numbers: numbers.map(run::capability_numbers).transpose()?,
    })
}

/// The planted bug with this name.
fn planted(name: &str) -> Result<Fault, Message> {
    Fault::from_name(name).ok_or_else(|| {
        let names = Fault::ALL.iter().chain(Fault::BENIGN).map(|fault| fault.name());
        let near = nearest(names, name).join("\n  ");
        format!("the model has no planted bug `{name}`; the nearest are\n  {near}").into()
    })
}

/// Every bug and liberty that can be planted.
fn faults() -> String {
    let mut out = String::new();
    let parts = [
        ("bugs: each breaks its clause", Fault::ALL),
        ("liberties: these break none", Fault::BENIGN),
    ];
    for (title, faults) in parts {
        out += &format!("{title}\n");
        for fault in faults {
            let dialects: Vec<&str> = fault.dialects().iter().map(|d| d.name()).collect();
            let (name, doc, clause) = (fault.name(), fault.doc(), fault.clause());
            out += &format!("  {name}\n    {doc}\n    clause {clause}; {}\n", dialects.join(", "));
        }
    }
    out
}

/// The clauses, and what the run behind a results file made of them.
fn contract(filters: &[String], results: Option<&Path>, verbose: bool) -> Result<String, Message> {
    let cases = case::library()?;
    let records = results.map(contract::read_results).transpose()?;
    let contract = contract::contract(&cases, records.as_deref());
    Ok(contract::contract_text(&contract, filters, verbose)?)
}

/// Joins results files; what is to be said about them goes to the standard error, since the results may go to the
/// standard output.
fn merge(files: &[PathBuf], output: Option<&Path>) -> CommandResult {
    let mut out: Box<dyn Write> = match output {
        None => Box::new(io::BufWriter::new(io::stdout().lock())),
        Some(path) => {
            if files.iter().any(|file| is_same_file(file, path)) {
                return Err(
                    format!("--output {} is one of the files to join", path.display()).into()
                );
            }
            let file =
                File::create(path).map_err(|e| format!("--output {}: {e}", path.display()))?;
            Box::new(io::BufWriter::new(file))
        }
    };
    let merged = compare::merge(files, &mut out)?;
    out.flush().map_err(|error| format!("cannot write the merged results: {error}"))?;
    // Nobody is left to tell when the standard error is closed.
    let _ = io::stderr().write_all(merged.text.as_bytes());
    Ok(merged.exit_status)
}

/// Writes a bundle; one that could not be finished is removed.
fn write_bundle(results: &Path, output: &Path, kernel_log: Option<&Path>) -> CommandResult {
    let say = |error: io::Error| format!("--output {}: {error}", output.display());
    // Never over a file that is there, which may be the only copy of something.
    let file = File::create_new(output).map_err(say)?;
    let mut out = io::BufWriter::new(file);
    let written = bundle::bundle(results, kernel_log, &mut out)
        .map_err(Message::from)
        .and_then(|()| Ok(out.flush().map_err(say)?));
    if let Err(error) = written {
        let _ = std::fs::remove_file(output);
        return Err(error);
    }
    Ok(exit::PASSED)
}

pub(super) fn options(cli: &Cli, arguments: &[OsString]) -> Result<Options, Message> {
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
    let interrupts = run::interrupts().map_err(|error| format!("cannot catch signals: {error}"))?;
    let mut options = Options {
        jobs: match (cli.run.jobs, cli.machine.machine) {
            (Some(jobs), _) => usize::from(jobs),
            (None, MachineKind::Host) => 1,
            (None, MachineKind::Model) => cpus(),
        },
        interrupt: Some(interrupts),
        arguments: arguments[1..]
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        max_timeouts: cli.run.max_timeouts as usize,
        max_fail: if cli.run.fail_fast { Some(1) } else { cli.run.max_fail.map(|n| n as usize) },
        ..Options::new(Duration::from_secs(cli.run.timeout.into()))
    };
    if cli.run.timings.is_some() {
        timings::switch_on();
        options.worker.push(WORKER_TIMINGS.into());
    }
    Ok(options)
}

/// A run that is ready to begin.
pub(super) struct Run {
    pub(super) plan: Vec<PlannedCase>,
    pub(super) config: MachineConfig,
    pub(super) options: Options,
    pub(super) environment: Environment,
}

/// Runs a selection of the built-in cases, or case files.
fn conform(cli: &Cli, mut config: MachineConfig, options: Options) -> CommandResult {
    let since = Instant::now();
    let run = spend(Part::Planning, || {
        let environment = ask(&mut config, &options)?;
        prepare(cli, config, options, environment)
    })?;
    if cli.selection.list {
        let ids: String = run.plan.iter().map(|case| format!("{}\n", case.id)).collect();
        return print(&ids);
    }
    let jobs = run.options.jobs;
    let status = report(&cli.run, run)?;
    if let Some(format) = cli.run.timings {
        measure::tell_timings(format, since.elapsed(), jobs);
    }
    Ok(status)
}

/// The run that the command line asks for in this environment.
pub(super) fn prepare(
    cli: &Cli,
    config: MachineConfig,
    mut options: Options,
    environment: Environment,
) -> Result<Run, Message> {
    let machine = machine_options(&cli.machine);
    let plan = match &cli.command {
        Some(Command::Check { files }) => {
            let (plan, commands) = check(cli, &config, &environment, files)?;
            options.rerun =
                Box::new(move |case| commands.get(&case.id).cloned().unwrap_or_default());
            plan
        }
        _ => {
            let selection = selection(&cli.selection, &cli.machine);
            options.shard = cli.selection.shard;
            options.rerun =
                Box::new(move |case| format!("gmem-conform{machine} --exact {}", word(&case.id)));
            plan::build(&config, &environment, &selection)?
        }
    };
    options.waivers = waivers(&cli.run, || {
        let mut ids = plan::all_ids(&config, &environment)?;
        ids.extend(plan.iter().map(|case| case.id.clone()));
        Ok(ids)
    })?;
    Ok(Run { plan, config, options, environment })
}

/// The plan of case files, and the command that runs each case again, by its id.
fn check(
    cli: &Cli,
    config: &MachineConfig,
    environment: &Environment,
    files: &[PathBuf],
) -> Result<(Vec<PlannedCase>, HashMap<String, String>), Message> {
    let platforms = cli.machine.platform.as_deref();
    let plan = plan::from_files(config, environment, files, platforms)?;
    let machine = machine_options(&cli.machine);
    let commands = plan
        .iter()
        .map(|(file, case)| {
            let (platform, file) = (case.platform, word(&file.to_string_lossy()));
            let command = format!("gmem-conform check{machine} --platform {platform} {file}");
            (case.id.clone(), command)
        })
        .collect();
    Ok((plan.into_iter().map(|(_, case)| case).collect(), commands))
}

/// The suite's own waivers and those that were asked for; `ids` are those of all cases that a waiver can be about.
fn waivers(
    args: &RunArgs,
    ids: impl Fn() -> Result<Vec<String>, Message>,
) -> Result<Option<Waivers>, Message> {
    let mut waivers = Waivers::built_in()?;
    if let Some(path) = &args.waivers {
        waivers.add(Waivers::read(path, args.strict_waivers)?);
    }
    waivers.check_ids(ids()?.iter().map(String::as_str));
    Ok(Some(waivers))
}

/// Runs random histories.
fn explore(
    cli: &Cli,
    mut config: MachineConfig,
    options: Options,
    args: &ExploreArgs,
) -> CommandResult {
    let name = measure::about_cases(&cli.run).or(cli.run.json.is_some().then_some("--json"));
    if let Some(name) = name {
        return Err(format!("{name} is about cases; explore writes text and case files").into());
    }
    let environment = ask(&mut config, &options)?;
    let exploration = Exploration {
        seed: args.seed.unwrap_or_else(seed_from_clock),
        steps: usize::from(args.steps),
        pages: args.pages,
        duration: Duration::from_secs(args.duration.into()),
        output: args.output.clone(),
        keep_going: args.keep_going,
        platforms: cli.machine.platform.clone(),
        machine_options: machine_options(&cli.machine),
    };
    Ok(explore::explore(&exploration, &config, &environment, options)?)
}

/// A seed that is short enough to be typed again.
fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64 % 100_000_000
}

/// Asks the machine what it offers. From then on cases are judged by the dialect that was found, unless one is forced.
pub(super) fn ask(config: &mut MachineConfig, options: &Options) -> Result<Environment, Message> {
    let environment = run::probe(config, options)?;
    config.dialect = config.dialect.or(environment.dialect);
    Ok(environment)
}

fn selection(selection: &SelectionArgs, machine: &MachineArgs) -> Selection {
    let filters = selection.filters.iter().chain(&selection.more_filters);
    Selection {
        filters: filters.cloned().collect(),
        exact: selection.exact,
        skips: selection.skip.clone(),
        tier: selection.tier,
        platforms: machine.platform.clone(),
        required: selection.require.clone(),
        shard: selection.shard,
    }
}

/// The options without which a case would not run again as it did, each with a space before it.
fn machine_options(args: &MachineArgs) -> String {
    let mut text = String::new();
    if args.machine == MachineKind::Model {
        text += " --machine model";
    }
    if let Some(dialect) = args.dialect.0 {
        text += &format!(" --dialect {dialect}");
    }
    if let Some(dir) = &args.kernel_headers {
        text += &format!(" --kernel-headers {}", word(&dir.to_string_lossy()));
    }
    if let Some(fault) = &args.plant {
        text += &format!(" --plant {}", word(fault));
    }
    text
}

/// Runs a plan and writes the reports that were asked for.
fn report(args: &RunArgs, run: Run) -> CommandResult {
    let mut reports = Reports::new();
    let silence = Silence::default();
    let name = |file: &Path| file.display().to_string();
    // What is printed must be known to whoever resumes the run, so the results come first.
    if let Some(record) = env::var_os(RECORD_VARIABLE).map(PathBuf::from)
        && !args.json.as_deref().is_some_and(|json| is_same_file(json, &record))
    {
        reports.add(name(&record), Json::create(&record)?);
    }
    match args.json.as_deref() {
        Some(file) if file == Path::new("-") => {
            reports.add("the standard output", Json::stdout());
            add_text(&mut reports, args, "the standard error", io::stderr(), &silence);
        }
        Some(file) => {
            reports.add(name(file), Json::create(file)?);
            add_text(&mut reports, args, "the standard output", io::stdout(), &silence);
        }
        None => add_text(&mut reports, args, "the standard output", io::stdout(), &silence),
    }
    add_files(&mut reports, &args.files)?;
    let Run { plan, config, options, environment } = run;
    let summary = run::run(plan, &config, &options, environment, &mut reports);
    // The last lines may have failed after the summary was made.
    if reports.failed() {
        return Ok(exit::FAILED);
    }
    Ok(summary.exit_status)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Writes results once more, in the formats that were asked for.
fn replay(args: &RunArgs, results: &Path) -> CommandResult {
    let mut reports = Reports::new();
    let files = &args.files;
    let same = |file: &&Path| is_same_file(file, results);
    if let Some(file) = formats::wanted(files).map(|(_, path)| path).find(same) {
        return Err(format!("{} holds the results to report", file.display()).into());
    }
    let to_file = add_files(&mut reports, files)?;
    if !to_file || args.format.is_some() {
        add_text(&mut reports, args, "the standard output", io::stdout(), &Silence::default());
    }
    report::replay(results, &mut reports)?;
    Ok(if reports.failed() { exit::FAILED } else { exit::PASSED })
}

/// Adds the reports that are written when the run has ended; whether there are any.
pub(super) fn add_files(reports: &mut Reports, args: &FileArgs) -> Result<bool, Message> {
    for (format, path) in formats::wanted(args) {
        reports.add(path.display().to_string(), format.create(args, path)?);
    }
    Ok(formats::wanted(args).next().is_some())
}

pub(super) fn add_text<W>(
    reports: &mut Reports,
    args: &RunArgs,
    name: &str,
    out: W,
    silence: &Silence,
) where
    W: Write + IsTerminal + anstream::stream::RawStream + 'static,
{
    let terminal = IsTerminal::is_terminal(&out);
    let format = args.format.unwrap_or(match terminal {
        true => Format::Human,
        false => Format::Tap,
    });
    let colour = anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never;
    let out = Silenced::new(out, silence.clone());
    match format {
        Format::Human => {
            let progress = (terminal && !args.no_progress).then_some(PROGRESS);
            let human = Human::new(out).colour(colour).progress(progress);
            let human = human.print_passed(args.print_passed).print_skipped(args.print_skipped);
            reports.add(name, human);
        }
        Format::Tap => reports.add(name, Tap::new(out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What made a case run as it did is in the command that runs it again.
    #[test]
    fn rerun_keeps_the_machine() {
        let line = "gmem-conform --machine model --dialect rfc-v4 --plant zero-first --jobs 3";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(
            machine_options(&cli.machine),
            " --machine model --dialect rfc-v4 --plant zero-first"
        );
        let cli = Cli::try_parse_from(["gmem-conform"]).unwrap();
        assert_eq!(machine_options(&cli.machine), "");
    }
}
