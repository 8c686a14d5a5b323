// SPDX-License-Identifier: GPL-2.0-only
//! Encrypted guests on real KVM code: the suite on an emulated SEV-SNP host and on an emulated TDX host.
//!
//! `GMEM_CONFORM_EMULATED_HOSTS` names a folder with `qemu-system-x86_64`, which emulates the hosts, and a `bzImage` with
//! in-place conversion in which bugs can be switched on with `kvm.gmem_mutant=N`. Without it the tests are ignored; with it,
//! whatever is missing fails them.

mod accounting;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use gmem_conform::clause::ClauseId;
use gmem_conform::results::{Blame, CaseRecord, LeftResults, Record, Summary, Verdict};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;

const HOSTS_VARIABLE: &str = "GMEM_CONFORM_EMULATED_HOSTS";

/// The enumerated rows take most of the time; `.ci/run` has them.
const WITHOUT_ROWS: [&str; 2] = ["--skip", ".layout."];

/// A bug of the kernel's, and in which dialect and with which cases it shows.
struct Bug {
    host: &'static str,
    number: u32,
    dialect: u32,
    filter: &'static str,
    /// A clause that it breaks, or several that it looks like a breach of.
    clauses: &'static [ClauseId],
}

/// The public bugs, each in a dialect in which its path exists. 205 is not among them: with it nearly every case hangs, in
/// an access that never ends.
const BUGS: [Bug; 13] = [
    bug("snp", 202, 4, "zero.", &[ClauseId::ZeroToShared, ClauseId::ZeroWholeRange]),
    bug("snp", 212, 5, "coco.", &[ClauseId::ModeRefused]),
    bug("snp", 217, 4, "coco.", &[ClauseId::CocoAcceptance]),
    bug("snp", 219, 4, "coco.", &[ClauseId::CocoMemoryFault]),
    bug("snp", 223, 4, "coco.", &[ClauseId::CocoLaunchRefused]),
    bug("tdx", 202, 4, "zero.", &[ClauseId::ZeroToShared, ClauseId::ZeroWholeRange]),
    bug("tdx", 212, 5, "coco.", &[ClauseId::ModeRefused]),
    bug("tdx", 219, 4, "coco.", &[ClauseId::CocoMemoryFault]),
    bug("tdx", 223, 4, "coco.", &[ClauseId::CocoLaunchRefused]),
    bug("tdx", 301, 4, "coco.", &[ClauseId::CocoGuestConverts]),
    bug("tdx", 315, 4, "coco.", &[ClauseId::CocoMemoryFault]),
    bug("tdx", 304, 4, "coco.", &[ClauseId::CocoGuestConverts]),
    bug("tdx", 309, 8, "coco.", &[ClauseId::CocoLaunchInPlace]),
];

/// What a correct host may do as well, as variables that the emulator knows: refuse an access once for a reason that is
/// none of the guest's, have an ASID for one guest only, be busy, show zeros in place of a TD's data.
const UNUSUAL: [(&str, &str, &str); 4] = [
    ("snp", "SNP_SPURIOUS", "50"),
    ("snp", "SNP_ASIDS", "1"),
    ("tdx", "TDX_BUSY", "7"),
    ("tdx", "TDX_HOST_VIEW", "zero"),
];

/// A bug of each host's that histories find at once.
const EXPLORED: [(&str, u32); 2] = [("snp", 219), ("tdx", 304)];

const fn bug(
    host: &'static str,
    number: u32,
    dialect: u32,
    filter: &'static str,
    clauses: &'static [ClauseId],
) -> Bug {
    Bug { host, number, dialect, filter, clauses }
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for host in ["snp", "tdx"] {
        for dialect in [4, 8] {
            let name = format!("{host}::dialect_{dialect}_is_clean");
            trials.push(trial(name, move |hosts| {
                clean(run(hosts, host, (dialect, 0), &WITHOUT_ROWS)?)
            }));
        }
        // Correct, but of another make: contents are cleared where nothing is promised.
        let name = format!("{host}::correct_variant_261_passes");
        trials.push(trial(name, move |hosts| clean(run(hosts, host, (4, 261), &WITHOUT_ROWS)?)));
    }
    for (host, variable, value) in UNUSUAL {
        let name = format!("{host}::passes_with_{variable}");
        trials.push(trial(name, move |hosts| {
            let mut command = suite(hosts, host, (4, 0), &WITHOUT_ROWS);
            clean(records(&command.env(variable, value).output()?)?)
        }));
    }
    for (host, bug) in EXPLORED {
        let name = format!("{host}::histories_are_clean");
        trials.push(trial(name, move |hosts| explored(hosts, host, 0, " 0 failures in ")));
        let name = format!("{host}::histories_find_bug_{bug}");
        trials.push(trial(name, move |hosts| explored(hosts, host, bug, " 1 failure in ")));
    }
    trials.push(trial("snp::bug_205_ends_by_itself".into(), ends_by_itself));
    for bug in &BUGS {
        let name = format!("{}::bug_{}_is_found", bug.host, bug.number);
        trials.push(trial(name, move |hosts| found(hosts, bug)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: String, test: impl Fn(&Path) -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
        let Some(hosts) = env::var_os(HOSTS_VARIABLE) else {
            let reason = format!("{HOSTS_VARIABLE} names no folder with emulated hosts");
            println!("{name}: skipped: {reason}");
            return Ok(Completion::ignored_with(reason));
        };
        test(&std::path::absolute(PathBuf::from(hosts))?)?;
        Ok(Completion::Completed)
    })
}

/// Runs the program on an emulated host.
fn boot(hosts: &Path, host: &str, (dialect, mutant): (u32, u32), arguments: &[&str]) -> Command {
    let append =
        format!("kvm.vm_memory_attributes=0 kvm.gmem_dialect={dialect} kvm.gmem_mutant={mutant}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run-in-vm");
    let mut command = Command::new(script);
    command
        .args(["--host", host, "--append", &append, "--binary", env!("CARGO_BIN_EXE_gmem-conform")])
        .arg("--qemu")
        .arg(hosts.join("qemu-system-x86_64"))
        .arg(hosts.join("bzImage"))
        .arg("--")
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs the suite on an emulated host.
fn suite(hosts: &Path, host: &str, kernel: (u32, u32), arguments: &[&str]) -> Command {
    let all = ["--platform", host, "--require", host, "--json", "-", "--format", "tap"];
    boot(hosts, host, kernel, &[&all[..], arguments].concat())
}

/// What a run of the suite on an emulated host has found.
type Found = (Vec<CaseRecord>, Summary);

fn run(hosts: &Path, host: &str, kernel: (u32, u32), arguments: &[&str]) -> Result<Found, Failed> {
    records(&suite(hosts, host, kernel, arguments).output()?)
}

fn records(output: &Output) -> Result<Found, Failed> {
    let (mut records, mut summary) = (Vec::new(), None);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match serde_json::from_str(line) {
            Ok(Record::Case(record)) => records.push(*record),
            Ok(Record::Summary(found)) => summary = Some(found),
            Ok(_) | Err(_) => {}
        }
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = summary.ok_or_else(|| format!("no summary: {stderr}"))?;
    Ok((records, summary))
}

/// Nothing fails on a correct kernel, and most of the cases ran.
fn clean((records, summary): Found) -> Result<(), Failed> {
    let bad: Vec<&CaseRecord> = records
        .iter()
        .filter(|record| !matches!(record.verdict, Verdict::Pass | Verdict::Skip))
        .collect();
    if !bad.is_empty() || summary.not_run > 0 || summary.passed < 390 {
        return Err(format!("{summary:?}: {bad:#?}").into());
    }
    Ok(())
}

/// A kernel on which nearly every case hangs ends the run before long, with the reason; the kernel is to blame, for a clause,
/// and every case is accounted for.
fn ends_by_itself(hosts: &Path) -> Result<(), Failed> {
    const HANGS: u32 = 205;
    let folder = TempDir::new()?;
    let results = folder.path().join("results.jsonl");
    let json = results.to_str().ok_or("no UTF-8")?;
    let arguments = ["--platform", "snp", "--json", json, "--format", "human"];
    let output = boot(hosts, "snp", (4, HANGS), &arguments).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = accounting::holds(&results);
    let left = LeftResults::read(&results)?;
    let timeouts: Vec<&CaseRecord> =
        left.cases().filter(|record| record.verdict == Verdict::Timeout).collect();
    let blamed = |record: &&CaseRecord| {
        record
            .failure
            .as_ref()
            .is_some_and(|failure| failure.blame == Some(Blame::Kernel) && failure.clause.is_some())
    };
    let reason = "\nABORTED 10 cases have timed out; --max-timeouts allows for more\n";
    let ended = said.contains(reason) && summary.timeouts == 10 && summary.not_run > 0;
    if !ended || !timeouts.iter().all(blamed) || summary.errors > 0 {
        return Err(format!("{summary:?}: {said}").into());
    }
    Ok(())
}

/// Histories of a few seconds say `expected` of a kernel with this bug; one that fails is shrunk and printed.
fn explored(hosts: &Path, host: &str, mutant: u32, expected: &str) -> Result<(), Failed> {
    /// Histories that the slowest host makes in this time, and more.
    const FEWEST: usize = 10;
    let arguments = ["explore", "--platform", host, "--seed", "1", "--duration", "8"];
    let output = boot(hosts, host, (8, mutant), &arguments).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    let histories = last.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let printed = said.contains(&format!("needs   platform={host}\n"));
    let enough = if mutant == 0 { histories >= FEWEST } else { printed };
    if !last.contains(expected) || !enough {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{said}\n{errors}").into());
    }
    Ok(())
}

/// The kernel's bug is the kernel's failure, or a guest that hangs in it, with the clause that it breaks, and no case is an
/// error of the suite.
fn found(hosts: &Path, bug: &Bug) -> Result<(), Failed> {
    let limits = ["--timeout", "5", "--max-timeouts", "2"];
    let arguments = [&[bug.filter][..], &WITHOUT_ROWS, &limits].concat();
    let (records, summary) = run(hosts, bug.host, (bug.dialect, bug.number), &arguments)?;
    let failures: Vec<&CaseRecord> = records
        .iter()
        .filter(|record| matches!(record.verdict, Verdict::Fail | Verdict::Timeout))
        .collect();
    let breaks = |record: &&&CaseRecord| {
        record.failure.as_ref().is_some_and(|failure| {
            failure.blame == Some(Blame::Kernel)
                && bug.clauses.iter().any(|clause| failure.clause.as_deref() == Some(clause.name()))
        })
    };
    if !failures.iter().any(|record| breaks(&record)) || summary.errors > 0 {
        return Err(format!("{summary:?}: {failures:#?}").into());
    }
    Ok(())
}
