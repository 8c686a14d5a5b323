// SPDX-License-Identifier: GPL-2.0-only
//! The suite has teeth, and bites nobody who is innocent: it is run against a model with each planted bug, which it must
//! find, and against a model with each liberty, of which it must not complain.
//!
//! One test per bug, one per liberty and dialect, and one per clause. A clause whose bugs were all found by cases of other
//! clauses could be deleted unnoticed; so for each clause there must be a bug that only its own cases find.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode, Stdio};

use gmem_conform::case;
use gmem_conform::clause::ClauseId;
use gmem_conform::contract::{Promise, contract};
use gmem_conform::dialect::Dialect;
use gmem_conform::machine::model::Fault;
use gmem_conform::platform::Platform;
use gmem_conform::results::{CaseRecord, Record, RunRecord, Summary, Verdict};
use gmem_conform::uapi::KVM_X86_DEFAULT_VM;
use libtest_mimic::{Arguments, Failed, Trial};

/// Fewer bugs, liberties or cases than these would mean that something was lost.
const LEAST_BUGS: usize = 150;
const LEAST_ENCRYPTED_BUGS: usize = 40;
const LEAST_LIBERTIES: usize = 18;
const LEAST_CASES: usize = 400;

/// Leaves out the cases with hundreds of pages, the enumerated rows and the scenarios, which take most of the time. They
/// run against the clean model, against each liberty in its first dialect, and against the bugs that need them.
const QUICKER: &[&str] =
    &["--skip", ".large.", "--skip", ".layout.", "--skip", ".race.", "--skip", ".pin."];

/// Whether a bug of the clause can be planted: the model's allocations do not fail, so what happens when a kernel's do is
/// seen on kernels with fault injection only.
fn can_be_planted(clause: ClauseId) -> bool {
    !clause.name().starts_with("no-memory.")
}

/// Bugs that look like a breach of other clauses than their own, with the reason why nobody can tell the difference.
fn siblings(fault: Fault) -> &'static [ClauseId] {
    match fault {
        // A host that may access a private page: was the attribute not stored, or is it not looked at?
        Fault::HostFaultsPrivate => {
            &[ClauseId::ConvertRange, ClauseId::FreshAttribute, ClauseId::ConvertPrecise]
        }
        // A host that gets SIGBUS at a shared page: the same question.
        Fault::SharedNotMapped => &[ClauseId::ConvertRange],
        // Contents are lost when the memory behind a page is another after the conversion.
        Fault::SplitMemory => &[
            ClauseId::PreserveToPrivate,
            ClauseId::PreserveToShared,
            ClauseId::PreserveWholeRange,
            ClauseId::UpstreamContentsKept,
        ],
        // What a hole has behind it decides which promise of zeros is broken.
        Fault::FreshNotZeroed => &[
            ClauseId::ConvertHoles,
            ClauseId::ConvertPrecise,
            ClauseId::PunchZero,
            ClauseId::AllocateZero,
            ClauseId::ZeroToShared,
            ClauseId::ZeroWholeRange,
            ClauseId::UpstreamContentsKept,
        ],
        // Contents that change after somebody has written anew.
        Fault::UnspecifiedUnstable => &[ClauseId::MemorySame],
        // The wrong pages are converted, or seen by the guest: no page is where it should be.
        Fault::OffsetIsGuestAddress => &[ClauseId::ConvertRange],
        Fault::GuestIgnoresFileOffset => &[ClauseId::MemorySame],
        // The guest sees other contents than the host has seen before, or put there.
        Fault::SharedAliasElsewhere => &[ClauseId::UnspecifiedStable, ClauseId::ZeroToShared],
        _ => &[],
    }
}

/// Whether `record` is a failure that says what the bug does.
fn names(fault: Fault, record: &CaseRecord) -> bool {
    let clause = record.failure.as_ref().and_then(|f| f.clause.as_deref()?.parse().ok());
    record.verdict == Verdict::Fail
        && clause.is_some_and(|c| c == fault.clause() || siblings(fault).contains(&c))
}

/// What a run has written.
struct Run {
    head: RunRecord,
    records: Vec<CaseRecord>,
    summary: Summary,
}

/// The platforms on which a bug or a liberty is looked for, in groups of which each must find it.
fn groups(fault: Fault) -> Vec<Vec<Platform>> {
    let shows = |platform: &Platform| {
        fault.vm_types().iter().any(|number| u64::from(*number) == platform.vm_type())
    };
    let platforms = Platform::ALL.into_iter().filter(shows);
    if fault.is_benign() || !is_encrypted(fault) {
        return vec![platforms.collect()];
    }
    platforms.map(|platform| vec![platform]).collect()
}

/// Whether only encrypted guests show a bug.
fn is_encrypted(fault: Fault) -> bool {
    let plain = |number| Some(number) == fault.vm_types().first();
    !fault.is_benign() && !plain(&KVM_X86_DEFAULT_VM)
}

/// Runs the program on a model with `fault` in it, on these platforms.
fn run(
    fault: Fault,
    dialect: Dialect,
    platforms: &[Platform],
    arguments: &[&str],
) -> Result<Run, Failed> {
    let platforms: Vec<&str> = platforms.iter().map(|platform| platform.name()).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
        .args(["--machine", "model", "--jobs", "1", "--json", "-"])
        .args(["--dialect", dialect.name(), "--plant", fault.name()])
        .args(["--platform", &platforms.join(",")])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let (mut head, mut records, mut summary) = (None, Vec::new(), None);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match serde_json::from_str(line)? {
            Record::Run(record) => head = Some(*record),
            Record::Case(record) => records.push(*record),
            Record::Summary(record) => summary = Some(record),
            _ => {}
        }
    }
    match (head, summary) {
        (Some(head), Some(summary)) => Ok(Run { head, records, summary }),
        _ => Err(format!("no results: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The contract, without results.
fn promises() -> Vec<Promise> {
    let cases = case::library().expect("the built-in cases parse");
    contract(&cases, None)
}

fn promise(clause: ClauseId) -> Promise {
    promises().into_iter().find(|p| p.clause.id == clause).expect("a bug breaks a clause")
}

/// The bug is found: a case fails, in the words of the clause that the bug breaks; if it is one of encrypted guests, on
/// each platform that has it.
fn caught(fault: Fault) -> Result<(), Failed> {
    groups(fault).iter().try_for_each(|platforms| caught_on(fault, platforms))
}

/// The bug is found on one of `platforms`. The cases of its clause are tried first, because that is quicker than trying all
/// of the quick tier, of which they are a part.
fn caught_on(fault: Fault, platforms: &[Platform]) -> Result<(), Failed> {
    let runs_here = |id: &&String| {
        let platform = id.split('.').next();
        platforms.iter().any(|p| Some(p.name()) == platform)
    };
    let promise = promise(fault.clause());
    let ids: Vec<String> =
        promise.cases.iter().filter(runs_here).map(|id| format!("model.{id}")).collect();
    let mut exact = vec!["--exact"];
    exact.extend(ids.iter().map(String::as_str));
    let mut seen = BTreeSet::new();
    for arguments in [exact.as_slice(), &[]] {
        for dialect in fault.dialects() {
            let run = run(fault, *dialect, platforms, arguments)?;
            if run.head.environment.planted_fault.as_deref() != Some(fault.name()) {
                return Err("the bug was not planted".into());
            }
            if run.records.iter().any(|record| names(fault, record)) {
                return Ok(());
            }
            seen.extend(
                run.records
                    .into_iter()
                    .filter(|r| r.verdict.is_failure())
                    .map(|r| (format!("{:?}", r.verdict), r.failure.and_then(|f| f.clause))),
            );
        }
    }
    let clause = fault.clause();
    Err(format!("no failure on {platforms:?} names {clause}; there was {seen:?}").into())
}

/// Nobody complains of a liberty, and the quick tier was asked: on every platform in its first dialect; in the others
/// those of encrypted guests only if it is about these.
fn tolerated(liberty: Fault, dialect: Dialect) -> Result<(), Failed> {
    let arguments = if liberty.dialects()[0] == dialect { &[] } else { QUICKER };
    let mut platforms = groups(liberty).concat();
    if liberty.dialects()[0] != dialect && platforms.contains(&Platform::Default) {
        platforms.retain(|platform| !platform.is_encrypted());
    }
    let run = run(liberty, dialect, &platforms, arguments)?;
    if let Some(record) = run.records.iter().find(|record| record.verdict.is_failure()) {
        return Err(format!("{}: {:#?}", record.id, record.failure).into());
    }
    let Summary { planned, passed, skipped, not_run, exit_status, .. } = run.summary;
    // A dialect leaves out the cases of the others.
    let all_ran = passed + skipped == planned && not_run == 0 && exit_status == 0;
    if planned < LEAST_CASES || passed < LEAST_CASES * 3 / 4 || !all_ran {
        return Err(format!("too few cases: {:?}", run.summary).into());
    }
    Ok(())
}

/// A bug of the clause is found by cases of the clause, and by no other: each other case passes, or fails saying that it
/// is this clause that was broken.
fn needed(clause: ClauseId) -> Result<(), Failed> {
    let promise = promise(clause);
    let mut why = Vec::new();
    // The narrow bugs mostly stand behind the obvious ones, and what one dialect does not show another seldom does.
    let faults = || promise.faults.iter().rev().copied();
    let first = faults().map(|fault| (fault, fault.dialects()[0]));
    let rest = faults().flat_map(|f| f.dialects()[1..].iter().map(move |dialect| (f, *dialect)));
    for (fault, dialect) in first.chain(rest) {
        let run = run(fault, dialect, &groups(fault).concat(), QUICKER)?;
        let failing = || run.records.iter().filter(|record| record.verdict.is_failure());
        let own = |record: &&CaseRecord| record.clauses.iter().any(|c| c == clause.name());
        if failing().filter(own).count() == 0 {
            why.push(format!("{fault:?} in {dialect}: no case of the clause finds it"));
            continue;
        }
        match failing().find(|record| !own(record) && !names(fault, record)) {
            None => return Ok(()),
            Some(record) => why.push(format!("{fault:?} in {dialect}: found by {}", record.id)),
        }
    }
    Err(why.join("\n").into())
}

/// There is enough to plant, and every clause has a bug: a test that plants nothing finds nothing wrong.
fn counts() -> Result<(), Failed> {
    let (bugs, liberties) = (Fault::ALL.len(), Fault::BENIGN.len());
    let clauses: BTreeSet<ClauseId> = Fault::ALL.iter().map(|fault| fault.clause()).collect();
    let all = ClauseId::ALL.iter().filter(|clause| can_be_planted(**clause)).count();
    let encrypted = Fault::ALL.iter().filter(|fault| is_encrypted(**fault)).count();
    let few = bugs < LEAST_BUGS
        || encrypted < LEAST_ENCRYPTED_BUGS
        || liberties < LEAST_LIBERTIES
        || clauses.len() != all;
    if few {
        let clauses = clauses.len();
        return Err(format!(
            "{bugs} bugs, {encrypted} of them of encrypted guests, of {clauses} of {all} clauses; {liberties} liberties"
        )
        .into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Each trial runs one process at a time.
    let mut trials = vec![Trial::test("counts", counts)];
    for fault in Fault::ALL {
        trials.push(Trial::test(format!("bug::{}", fault.name()), move || caught(*fault)));
    }
    for liberty in Fault::BENIGN {
        for dialect in liberty.dialects() {
            let name = format!("liberty::{}::{dialect}", liberty.name());
            trials.push(Trial::test(name, move || tolerated(*liberty, *dialect)));
        }
    }
    for clause in ClauseId::ALL.iter().copied().filter(|clause| can_be_planted(*clause)) {
        trials.push(Trial::test(format!("clause::{clause}"), move || needed(clause)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
