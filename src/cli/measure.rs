// SPDX-License-Identifier: GPL-2.0-only
//! The commands that measure and judge nothing, and the time that a run takes.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::bench::{self, Benching, Measurement};
use crate::machine::MachineConfig;
use crate::observe::{self, Observing};
use crate::report::{self, Json, WriteError};
use crate::results::ResultsFile;
use crate::results::exit;
use crate::run::Options;
use crate::timings;

use super::args::{BenchArgs, Cli, RunArgs, TimingsFormat};
use super::commands::{CommandResult, Message, ask, print};
use super::formats;

/// What conversions do to contents.
pub(super) fn observe(
    cli: &Cli,
    mut config: MachineConfig,
    options: Options,
    repeat: u32,
) -> CommandResult {
    let mut lines = Lines::create(&cli.run, "observe")?;
    let environment = ask(&mut config, &options)?;
    let observing = Observing { repeat, platforms: cli.machine.platform.clone() };
    let mut sink = |record: &observe::ObserveRecord| lines.write(record);
    let (text, status) = observe::observe(&observing, &config, environment, &options, &mut sink)?;
    lines.print(&text)?;
    Ok(status)
}

/// What conversions cost.
pub(super) fn bench(
    cli: &Cli,
    mut config: MachineConfig,
    options: Options,
    args: &BenchArgs,
) -> CommandResult {
    // Whatever is wrong with the files is said before anything is measured.
    let base = args.compare.as_deref().map(read).transpose()?;
    let plot =
        args.plot.as_deref().map(|path| Ok::<_, Message>((path, report::create("--plot", path)?)));
    let plot = plot.transpose()?;
    let mut lines = Lines::create(&cli.run, "bench")?;
    let (measurement, mut text, mut status) = match &args.from {
        Some(_) if cli.run.json.is_some() => {
            return Err("--json has nothing to write when --from measures nothing".into());
        }
        Some(path) => (read(path)?, String::new(), exit::PASSED),
        None => {
            let environment = ask(&mut config, &options)?;
            let mut sink = |record: &bench::BenchRecord| lines.write(record);
            let terminal = io::stderr().is_terminal() && !cli.run.no_progress;
            let mut progress = |what: &str| {
                if terminal {
                    // Over the line before, which it erases.
                    let _ = write!(io::stderr(), "\r\x1b[K{what}");
                }
            };
            let benching = benching(cli, args);
            let done =
                bench::bench(&benching, &config, environment, &options, &mut sink, &mut progress)?;
            (done.measurement, done.text, done.exit_status)
        }
    };
    text = bench::table(&measurement) + &text;
    if let Some(base) = base {
        let comparison = bench::compare(&base, &measurement, f64::from(args.least) / 100.0);
        text += &format!("\ncompared with {}\n{}", base.head.line(), comparison.text);
        if comparison.slower && status == exit::PASSED {
            status = exit::FAILED;
        }
    }
    if let Some((path, mut file)) = plot {
        file.write_all(bench::svg(&measurement)?.as_bytes())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    lines.print(&text)?;
    Ok(status)
}

fn read(path: &Path) -> Result<Measurement, Message> {
    Ok(Measurement::read(&mut ResultsFile::open(path)?)?)
}

fn benching(cli: &Cli, args: &BenchArgs) -> Benching {
    let or = |given: Option<u64>, quick: u64, full: u64| {
        given.unwrap_or(if args.quick { quick } else { full })
    };
    Benching {
        repeat: or(args.repeat.map(u64::from), 5, 15) as u32,
        pages: or(args.pages, 1024, 1 << 18),
        fragments: or(args.fragments, 4096, 1 << 20),
        longest: Duration::from_millis(or(args.longest.map(u64::from), 200, 2000)),
        filters: args.series.clone(),
        platforms: cli.machine.platform.clone(),
        bare_loop: args.bare_loop.clone(),
    }
}

/// The name of an option that was given and means something for cases only.
pub(super) fn about_cases(args: &RunArgs) -> Option<&'static str> {
    let RunArgs { format, files, waivers, max_fail, fail_fast, .. } = args;
    let mut given = vec![("--format", format.is_some())];
    given.extend(formats::wanted(files).map(|(format, _)| (format.option, true)));
    given.extend([
        ("--waivers", waivers.is_some()),
        ("--max-fail", max_fail.is_some()),
        ("--fail-fast", *fail_fast),
    ]);
    given.into_iter().find_map(|(name, given)| given.then_some(name))
}

/// Says where the time of a run went.
pub(super) fn tell_timings(format: TimingsFormat, wall: Duration, jobs: usize) {
    let spent = timings::take();
    let text = match format {
        TimingsFormat::Table => timings::table(&spent, wall, jobs),
        TimingsFormat::Json => timings::json(&spent, wall, jobs),
    };
    // Nobody is left to tell when the standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The file given with `--json`, and the text beside it.
struct Lines {
    json: Option<(String, Json)>,
    to_stdout: bool,
}

impl Lines {
    fn create(args: &RunArgs, command: &str) -> Result<Lines, Message> {
        if let Some(name) = about_cases(args) {
            return Err(format!("{name} is about cases; {command} writes text and --json").into());
        }
        let to_stdout = args.json.as_deref() == Some(Path::new("-"));
        let json = match &args.json {
            None => None,
            Some(_) if to_stdout => Some(("the standard output".to_string(), Json::stdout())),
            Some(path) => Some((path.display().to_string(), Json::create(path)?)),
        };
        Ok(Lines { json, to_stdout })
    }

    fn write(&mut self, record: &impl Serialize) -> Result<(), WriteError> {
        let Some((name, json)) = &mut self.json else { return Ok(()) };
        json.write(record).map_err(|error| WriteError { name: name.clone(), error })
    }

    /// Text goes to the standard output, unless the records do.
    fn print(&self, text: &str) -> CommandResult {
        if !self.to_stdout {
            return print(text);
        }
        // Nobody is left to tell when the standard error is closed.
        let _ = io::stderr().write_all(text.as_bytes());
        Ok(exit::PASSED)
    }
}
