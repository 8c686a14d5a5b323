// SPDX-License-Identifier: GPL-2.0-only
//! Options and commands, as clap sees them. The help texts are part of the contract: a test compares them.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::case::layouts::Tier;
use crate::dialect::Dialect;
use crate::machine::MachineKind;
use crate::platform::Platform;
use crate::results::{Blame, Shard};
use crate::run::MAX_TIMEOUTS;

/// Conformance suite for in-place conversion of guest_memfd memory (KVM_SET_MEMORY_ATTRIBUTES2).
///
/// Without a command, runs the cases whose ids contain one of the FILTERs, or all.
///
/// Exit status:
///   0  all that ran passed, and something ran
///   1  a failure, bad usage, or a run that did not come to its end
///   4  nothing ran, everything was skipped
#[derive(Debug, Parser)]
#[command(name = "gmem-conform", version, verbatim_doc_comment)]
pub struct Cli {
    /// What to do instead of running the built-in cases.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Which cases.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Which machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this machine offers, and why the rest is missing
    Probe,
    /// List the bugs that --plant puts into the model
    Faults,
    /// List the clauses: their cases, the bugs that break them, and what a run made of them
    Contract {
        /// Clauses whose id contains this
        #[arg(value_name = "CLAUSE")]
        clauses: Vec<String>,
        /// Results to read, as --json wrote them: each clause is kept, broken or not checked
        #[arg(long, value_name = "FILE")]
        results: Option<PathBuf>,
        /// List the ids of all cases
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show a case, its clauses and its needs
    Explain {
        /// The case's id, with or without the platform
        id: String,
    },
    /// Parse case files and run them
    Check {
        /// The case files
        #[arg(value_name = "FILE.case", required = true)]
        files: Vec<PathBuf>,
    },
    /// Compare two results files: what broke, what was fixed, what is new, what no longer ran
    ///
    /// Files that observe or bench wrote are compared as well, one of a kind with one of the same kind. The exit status is
    /// 1 when something broke, when two observations differ, or when something is slower.
    Diff {
        /// The results before
        base: PathBuf,
        /// The results after
        patched: PathBuf,
        /// List every case instead of the first few
        #[arg(long)]
        all: bool,
    },
    /// Write results that --json has written in other formats: --junit, --kcidb, --html, --format
    Report {
        /// The results
        #[arg(value_name = "RESULTS")]
        results: PathBuf,
    },
    /// Join results files, such as those of shards, to one
    Merge {
        /// The results files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where to write the joint results [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Go on with a run that was interrupted: by the machine that went down, or by who killed it
    ///
    /// The cases that were running when the machine went down are recorded as errors, or, where --console shows that the
    /// kernel broke, as its failures; they do not run again. Those of a run that was only killed do. The rest runs with the
    /// options that the run had, and the results are written behind those that are there.
    Resume(ResumeArgs),
    /// Put results, their environment, the kernel log and what was not tested into one tar file
    Bundle {
        /// The results
        #[arg(value_name = "RESULTS")]
        results: PathBuf,
        /// The bundle to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// A kernel log to put in, such as dmesg prints
        #[arg(long, value_name = "FILE")]
        kernel_log: Option<PathBuf>,
    },
    /// Check that a bundle is whole and unchanged, and print what was tested and what was not
    Verify {
        /// The bundle
        bundle: PathBuf,
    },
    /// Write a case file to start from
    New {
        /// The case's name; the file is cases/TOPIC/NAME.case, or NAME.case where there is no cases/
        #[arg(value_name = "TOPIC.NAME")]
        name: String,
    },
    /// Print completions of the command line for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a man page
    Man {
        /// Of this command instead of the program
        command: Option<String>,
    },
    /// Run random histories, and shrink one that fails to a case file
    Explore(ExploreArgs),
    /// Say what conversions really do to contents here, where nothing is promised, too; asserts nothing
    ///
    /// The exit status is 0 when something could be observed, and 4 when no platform can run. `diff` compares two files
    /// that --json wrote.
    Observe {
        /// Trials of each situation
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
        repeat: u32,
    },
    /// Measure what conversions cost here
    ///
    /// The exit status is 0 when something was measured, 1 when --compare finds a series to be slower, and 4 when no
    /// platform with private memory can run.
    Bench(BenchArgs),
}

/// How to go on with a run.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The results, as far as they got
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    /// Write what is new here instead of behind the results
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The kernel's console up to then, as a serial line or a netconsole has kept it
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// That the machine went down, and how [default: found out by the kernel's id of its boot]
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Whose fault it is, where the console does not tell
    #[arg(long, value_name = "NAME", default_value = "machine")]
    pub blame: BlameChoice,
    /// What to do when that is recorded
    #[arg(long, value_name = "NAME", default_value = "run")]
    pub then: Then,
    /// Print nothing about so many cases, which was printed before
    #[arg(long, value_name = "N", hide = true)]
    pub printed: Option<usize>,
}

/// Whose fault it can be that a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BlameChoice {
    /// The kernel's.
    Kernel,
    /// The machine's.
    Machine,
}

impl From<BlameChoice> for Blame {
    fn from(choice: BlameChoice) -> Blame {
        match choice {
            BlameChoice::Kernel => Blame::Kernel,
            BlameChoice::Machine => Blame::Machine,
        }
    }
}

/// What becomes of a run that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// What is left runs
    Run,
    /// Nothing: the run can still be resumed
    Wait,
    /// The results are ended; what is left did not run
    End,
}

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only series whose name contains this; any of several may match
    #[arg(value_name = "SERIES", conflicts_with = "from")]
    pub series: Vec<String>,
    /// Small sizes and few rounds: seconds instead of minutes
    #[arg(long, conflicts_with = "from")]
    pub quick: bool,
    /// Rounds; all sizes of all series take turns in each [default: 15, quick 5]
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: Option<u32>,
    /// Pages of the largest range, which is also limited by the machine's memory [default: 262144, quick 1024]
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u64).range(1..=MOST_PAGES))]
    pub pages: Option<u64>,
    /// Fragments of the most fragmented file [default: 1048576, quick 4096]
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u64).range(4..=MOST_PAGES))]
    pub fragments: Option<u64>,
    /// Leave out what is larger than a size of which one round takes longer than this, in milliseconds [default: 2000, quick
    /// 200]
    #[arg(long, value_name = "MS", conflicts_with = "from", value_parser = clap::value_parser!(u32).range(1..=25_000))]
    pub longest: Option<u32>,
    /// Measure nothing, and show what --json has written here
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Compare with what --json has written here
    #[arg(long, value_name = "BASE")]
    pub compare: Option<PathBuf>,
    /// A difference in percent that counts as one
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub least: u16,
    /// Have this program, made of benches/bare-loop.c, make the same conversions in turn, and compare
    #[arg(long, value_name = "PROGRAM", conflicts_with = "from", hide = true)]
    pub bare_loop: Option<PathBuf>,
    /// Draw the measurements, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// What to explore.
#[derive(Debug, Args)]
pub struct ExploreArgs {
    /// Everything random follows from it [default: from the clock]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Steps of a history
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub steps: u16,
    /// No history begins after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub duration: u32,
    /// Pages of each guest_memfd [default: all sizes, mostly small ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_PAGES))]
    pub pages: Option<u64>,
    /// Where to write the case files of failures; made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// Go on after a failure
    #[arg(long)]
    pub keep_going: bool,
}

/// Pages of an explored guest_memfd: beyond 4 GiB, and no more than the guest's page tables have room for.
const MOST_PAGES: u64 = 2 << 20;

/// Which of the built-in cases.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Run cases whose id contains this; any of several may match
    #[arg(value_name = "FILTER", help_heading = "Arguments")]
    pub filters: Vec<String>,
    /// The same as FILTER
    #[arg(long = "filter", value_name = "S")]
    pub more_filters: Vec<String>,
    /// Filters are whole ids
    #[arg(long)]
    pub exact: bool,
    /// Leave out cases whose id contains this
    #[arg(long, value_name = "S")]
    pub skip: Vec<String>,
    /// How many of the enumerated layouts of pages: quick takes seconds, full minutes
    #[arg(long, value_name = "NAME", default_value = "quick")]
    pub tier: Tier,
    /// Print the ids of the selected cases, one a line, and run nothing
    #[arg(long)]
    pub list: bool,
    /// Only the I-th of N parts of the selected cases, by their ids; `merge` joins the results
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<Shard>,
    /// Platforms that must run: the absence of one is a failure, not a skip
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = platform_parser())]
    pub require: Vec<Platform>,
}

impl SelectionArgs {
    /// The name of an option of these that was given, if one was.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("FILTER", !self.filters.is_empty()),
            ("--filter", !self.more_filters.is_empty()),
            ("--exact", self.exact),
            ("--skip", !self.skip.is_empty()),
            ("--list", self.list),
            ("--require", !self.require.is_empty()),
            ("--shard", self.shard.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

/// Which machine, and what it is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// What answers the KVM calls
    #[arg(long, global = true, value_name = "NAME", default_value = "host")]
    pub machine: MachineKind,
    /// The platforms to run on [default: every one]
    #[arg(long, global = true, value_name = "NAME,...", value_delimiter = ',', value_parser = platform_parser())]
    pub platform: Option<Vec<Platform>>,
    /// The revision of the interface to judge by; auto finds it by asking the machine
    #[arg(long, global = true, value_name = "NAME", default_value = "auto", value_parser = dialect_parser())]
    pub dialect: DialectChoice,
    /// Take capability numbers from this kernel tree's uapi headers, or from this kvm.h
    #[arg(long, global = true, value_name = "DIR")]
    pub kernel_headers: Option<PathBuf>,
    /// Run against a model with this bug; needs --machine model
    #[arg(long, global = true, value_name = "FAULT")]
    pub plant: Option<String>,
}

/// How to run, and what to write.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running and reporting")]
pub struct RunArgs {
    /// Number of cases that run at the same time [default: host 1, model the number of CPUs]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Time that one case may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: u32,
    /// End the run when so many cases have timed out
    #[arg(long, global = true, value_name = "N", default_value_t = MAX_TIMEOUTS as u32, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_timeouts: u32,
    /// End the run when so many cases have failed, in whatever way
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_fail: Option<u32>,
    /// End the run at the first failure: the same as --max-fail 1
    #[arg(long, global = true, conflicts_with = "max_fail")]
    pub fail_fast: bool,
    /// The text report [default: human on a terminal, tap otherwise]
    #[arg(long, global = true, value_name = "NAME")]
    pub format: Option<Format>,
    /// Write results as JSON Lines; "-": to standard output, and the text to standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What else to write.
    #[command(flatten)]
    pub files: FileArgs,
    /// Known failures, a TOML file: they are shown, but do not fail the run
    #[arg(long, global = true, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
    /// Fail when a waiver has expired or has nothing left to waive
    #[arg(long, global = true, requires = "waivers")]
    pub strict_waivers: bool,
    /// Say on the standard error where the time went
    #[arg(long, global = true, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    pub timings: Option<TimingsFormat>,
    /// Do not show on a terminal how far the run is
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Also print the ids of cases that passed (format human)
    #[arg(long, global = true)]
    pub print_passed: bool,
    /// Also print the ids of cases that were skipped, which are otherwise counted by reason (format human)
    #[arg(long, global = true)]
    pub print_skipped: bool,
}

/// The other formats.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running and reporting")]
pub struct FileArgs {
    /// Write JUnit XML when the run has ended
    #[arg(long, global = true, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a KCIDB 5.3 report when the run has ended
    #[arg(long, global = true, value_name = "FILE")]
    pub kcidb: Option<PathBuf>,
    /// The laboratory that submits the KCIDB report
    #[arg(long, global = true, value_name = "NAME", default_value = "gmem_conform", value_parser = origin)]
    pub kcidb_origin: String,
    /// The build that was tested, as the laboratory has submitted it [default: the report describes one]
    #[arg(long, global = true, value_name = "ORIGIN:ID", value_parser = kcidb_id)]
    pub kcidb_build: Option<String>,
    /// Write an HTML page when the run has ended
    #[arg(long, global = true, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// The text reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Failures in full, the rest as counts
    Human,
    /// TAP version 13
    Tap,
}

/// `--timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimingsFormat {
    /// For people.
    Table,
    /// An object of seconds.
    Json,
}

/// `--dialect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialectChoice(
    /// The dialect that is forced; `None` to ask the machine.
    pub Option<Dialect>,
);

/// `--shard`.
fn shard(text: &str) -> Result<Shard, String> {
    let numbers = text.split_once('/').and_then(|(index, count)| {
        Some(Shard { index: index.parse().ok()?, count: count.parse().ok()? })
    });
    match numbers {
        Some(shard) if (1..=shard.count).contains(&shard.index) => Ok(shard),
        _ => Err("expected I/N, such as 1/4: the first of four parts".into()),
    }
}

/// A laboratory's name as KCIDB takes it.
fn origin(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    match !text.is_empty() && text.bytes().all(good) {
        true => Ok(text.to_string()),
        false => Err("expected a name in [a-z0-9_]".into()),
    }
}

/// The id of something that was submitted to KCIDB.
fn kcidb_id(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if origin(name).is_ok() => Ok(text.to_string()),
        _ => Err("expected ORIGIN:ID".into()),
    }
}

/// The names of the platforms.
fn platform_parser() -> impl TypedValueParser<Value = Platform> {
    PossibleValuesParser::new(Platform::ALL.map(Platform::name))
        .try_map(|name| name.parse::<Platform>())
}

fn dialect_parser() -> impl TypedValueParser<Value = DialectChoice> {
    let names = ["auto"].into_iter().chain(Dialect::ALL.into_iter().map(Dialect::name));
    PossibleValuesParser::new(names).map(|name| DialectChoice(Dialect::from_name(&name)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("gmem-conform").chain(line.split_whitespace()))
    }

    /// Clap finds no contradiction in the definitions.
    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    /// Options may stand before and after a command, and filters come both ways.
    #[test]
    fn options_stand_anywhere() {
        let cli = parse("preserve zero --filter errors --jobs 2").unwrap();
        assert_eq!(cli.selection.filters, ["preserve", "zero"]);
        assert_eq!(cli.selection.more_filters, ["errors"]);
        for line in ["probe --machine model", "--machine model probe"] {
            let cli = parse(line).unwrap();
            assert!(matches!(cli.command, Some(Command::Probe)), "{line}");
            assert_eq!(cli.machine.machine, MachineKind::Model, "{line}");
        }
    }

    /// Lists are split, names are checked, and `auto` forces nothing.
    #[test]
    fn values_are_checked() {
        let cli = parse("--platform sw-protected,default --dialect rfc-v5").unwrap();
        assert_eq!(cli.machine.platform.unwrap(), [Platform::SwProtected, Platform::Default]);
        assert_eq!(cli.machine.dialect.0, Some(Dialect::RfcV5));
        assert_eq!(parse("").unwrap().machine.dialect.0, None);
        for line in [
            "--platform sev",
            "--require default,",
            "--dialect none",
            "--jobs 0",
            "--timeout 0",
            "--timeout 1.5",
            "check",
            "explain",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
