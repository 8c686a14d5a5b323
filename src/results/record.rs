// SPDX-License-Identifier: GPL-2.0-only
//! The records of a results file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::machine::MachineKind;

/// Version of the format, raised whenever a field is added or changed.
pub const SCHEMA_VERSION: u32 = 6;

/// One line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
#[derive(strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Record {
    /// The first line: what is going to run, and where.
    Run(Box<RunRecord>),
    /// A case has been given to a worker: one without a `case` later was running when the file ended. Since version 5.
    Started(StartedRecord),
    /// One case has ended.
    Case(Box<CaseRecord>),
    /// The run has been taken up again, in another process or after another boot. Since version 5.
    Resumed(Box<ResumedRecord>),
    /// What became of one waiver; after the last case. Since version 2.
    Waiver(Box<WaiverRecord>),
    /// Something to know that belongs to no case. Since version 5.
    Note(NoteRecord),
    /// The run ended before its plan, and why. Since version 5.
    Aborted(AbortedRecord),
    /// A case that was planned and has no verdict, after the last case. Since version 5.
    NotRun(NotRunRecord),
    /// The last line: the counts. Missing when the runner was killed.
    Summary(Summary),
}

/// Name and version of the program, with its commit where the build knew it.
pub fn suite() -> String {
    let version = concat!("gmem-conform ", env!("CARGO_PKG_VERSION"));
    match option_env!("GMEM_CONFORM_COMMIT") {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_string(),
    }
}

/// What is going to run, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// Name and version of the program, with its commit where it is known.
    pub suite: String,
    /// Number of cases that will be reported.
    pub planned: usize,
    /// The command line, without the program's name.
    pub arguments: Vec<String>,
    /// Where the run takes place.
    pub environment: Environment,
    /// When the run began, in milliseconds since 1970; 0 when it is not known. Since version 2.
    #[serde(default)]
    pub started_ms: u64,
    /// The part of the suite that ran here, if not all of it. Since version 2.
    #[serde(default)]
    pub shard: Option<Shard>,
    /// What one case was given, in seconds. Since version 3.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// For a file that `gmem-conform merge` wrote: the runs that it was made of. Since version 2.
    #[serde(default)]
    pub merged: Vec<MergedRun>,
}

/// A case has been given to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartedRecord {
    /// The case.
    pub id: String,
}

/// A run has been taken up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResumedRecord {
    /// How often the run has begun, this time included: 2 the first time.
    pub part: usize,
    /// Why it had ended: a sentence without its stop.
    pub reason: String,
    /// The cases that were running then.
    pub running: Vec<String>,
    /// When it was taken up, in milliseconds since 1970.
    pub started_ms: u64,
    /// The kernel's id of this boot, as [`Environment::boot_id`].
    pub boot_id: String,
}

/// Something to know that belongs to no case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NoteRecord {
    /// For people.
    pub text: String,
}

/// Why a run ended before its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AbortedRecord {
    /// For people.
    pub reason: String,
}

/// A case that was planned and has no verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NotRunRecord {
    /// The case.
    pub id: String,
}

/// A stable part of the cases: those whose ids fall into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shard {
    /// Which part, counted from 1.
    pub index: u32,
    /// How many parts there are.
    pub count: u32,
}

/// One of the runs that a merged file was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MergedRun {
    /// The file that it was read from.
    pub file: String,
    /// Its first record, word for word: of whatever version.
    pub run: serde_json::Value,
}

/// Where a run takes place: enough to tell why two runs differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Environment {
    /// `host` or `model`. Nothing that ran on the model says anything about a kernel.
    pub machine: String,
    /// The dialect that cases were judged by; absent when the machine could not be asked.
    pub dialect: Option<Dialect>,
    /// Whether the dialect was given on the command line instead of found by asking.
    pub dialect_forced: bool,
    /// `uname -r` of the kernel below, also when the machine is the model.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `/proc/cmdline`, where it may be read.
    pub kernel_command_line: String,
    /// CPU vendor and model.
    pub cpu: String,
    /// `/proc/sys/kernel/random/boot_id`: the same until the machine boots again. Since version 5.
    #[serde(default)]
    pub boot_id: String,
    /// `bare-metal`, or `nested` when the CPU says that a hypervisor is present, or, since version 4, the machine is
    /// emulated and does not say so.
    pub virtualization: String,
    /// What the machine is made of: `bare-metal`; `virtual`, which is under a hypervisor; or `emulated`, which is a program.
    /// Empty when it is not known. Of runs that were joined, the one that is the least real. Since version 4.
    #[serde(default)]
    pub host: String,
    /// The parameters of the kvm modules, `module.parameter` to value.
    pub kvm_parameters: BTreeMap<String, String>,
    /// What KVM_CHECK_EXTENSION answered on the system, by name; and for what else cases need of the kernel, such as
    /// `pin.io-uring` and `launch.in-place.snp`, 1 or the error number of the try as a negative number.
    pub capabilities: BTreeMap<String, i64>,
    /// The planted bug of the model, if any.
    pub planted_fault: Option<String>,
    /// Every platform that the suite knows, and why it cannot run here if it cannot.
    pub platforms: Vec<PlatformState>,
    /// Remarks about the environment that a reader must know, such as a forced dialect that the machine contradicts.
    pub remarks: Vec<String>,
}

impl Environment {
    /// Whether the machine is the built-in model.
    pub fn is_model(&self) -> bool {
        self.machine == MachineKind::Model.name()
    }

    /// What the machine is made of, in words, as far as the version that wrote this knows.
    pub fn kind_of_host(&self) -> String {
        match self.host.as_str() {
            "" => self.virtualization.clone(),
            host => format!("{host} host"),
        }
    }
}

/// Whether a platform can run here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlatformState {
    /// The platform's name.
    pub name: String,
    /// Why it cannot run; empty when it can.
    pub missing: Vec<Need>,
}

/// Something that a case needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Need {
    /// Short and fixed, in `[a-z0-9_.-]`: what TAP's SKIP directive carries.
    pub slug: String,
    /// A sentence that says what is missing and, where there is one, the way out.
    pub prose: String,
}

impl Need {
    /// The slug of the need that a kernel without in-place conversion leaves unmet on every platform.
    pub const NO_CONVERSION: &str = "no-memory-attributes2";

    /// A need that is not met.
    pub fn new(slug: impl Into<String>, prose: impl Into<String>) -> Need {
        Need { slug: slug.into(), prose: prose.into() }
    }
}

/// How a case ended. Exhaustive on purpose: a new verdict must be given a meaning in every report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Verdict {
    /// Every step did what the clauses say.
    Pass,
    /// The kernel broke a clause.
    Fail,
    /// The suite could not decide: a crash, an unexpected signal, a setup that failed.
    Error,
    /// A deadline passed.
    Timeout,
    /// The case could not run here; its unmet needs say why.
    Skip,
    /// It failed as a waiver says that it will. Since version 2.
    Waived,
}

impl Verdict {
    /// Whether the verdict makes the run a failure.
    pub fn is_failure(self) -> bool {
        match self {
            Verdict::Fail | Verdict::Error | Verdict::Timeout => true,
            Verdict::Pass | Verdict::Skip | Verdict::Waived => false,
        }
    }

    /// Its name in a results file.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaseRecord {
    /// `platform.topic.name[.variant]`, with `model.` in front when the machine was the model.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// The clauses that the case tests.
    pub clauses: Vec<String>,
    /// Wall time of the case in microseconds; 0 for a skip.
    pub duration_us: u64,
    /// Every unmet need, for a skip.
    pub needs: Vec<Need>,
    /// What went wrong, for a failure, an error or a timeout.
    pub failure: Option<Failure>,
    /// What was seen where nothing is promised.
    pub observations: Vec<Observation>,
    /// New lines of the kernel log that are a warning or worse.
    pub kernel_log: Vec<String>,
    /// What the case's worker wrote to its standard output and error, which a case never does by itself.
    pub stray_output: String,
    /// The waiver that a failure of verdict `waived` falls under. Since version 2.
    #[serde(default)]
    pub waiver: Option<WaiverNote>,
}

impl CaseRecord {
    /// A record with nothing in it yet.
    pub fn new(id: impl Into<String>, verdict: Verdict) -> CaseRecord {
        CaseRecord {
            id: id.into(),
            verdict,
            clauses: Vec::new(),
            duration_us: 0,
            needs: Vec::new(),
            failure: None,
            observations: Vec::new(),
            kernel_log: Vec::new(),
            stray_output: String::new(),
            waiver: None,
        }
    }

    /// The name of the platform, which the id begins with.
    pub fn platform(&self) -> &str {
        platform_of(&self.id)
    }
}

/// The name of the platform, which an id begins with.
pub fn platform_of(id: &str) -> &str {
    let id = unmarked(id);
    id.split_once('.').map_or(id, |(platform, _)| platform)
}

/// An id without the mark of the built-in model.
pub fn unmarked(id: &str) -> &str {
    id.strip_prefix("model.").unwrap_or(id)
}

/// Why a failure does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WaiverNote {
    /// The waiver's pattern.
    pub id: String,
    /// Why the failure is known and borne.
    pub reason: String,
    /// Where it is being worked on.
    pub link: String,
    /// The last day of the waiver, `YYYY-MM-DD`.
    pub expires: String,
}

/// What became of one waiver in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WaiverRecord {
    /// The waiver.
    #[serde(flatten)]
    pub waiver: WaiverNote,
    /// What became of it.
    pub state: WaiverState,
    /// How many failures it waived.
    pub waived: usize,
    /// A sentence for people when something is wrong with it.
    pub problem: Option<String>,
}

/// What became of a waiver in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WaiverState {
    /// It waived something.
    Used,
    /// Its scope is another platform, kernel or dialect, or its cases did not run: nothing is known of it here.
    NotInScope,
    /// It has nothing left to waive: its cases pass, or there are none.
    Stale,
    /// Its last day is over, so it waived nothing.
    Expired,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The kernel under test broke a clause.
    Kernel,
    /// The guest's payload misbehaved.
    Payload,
    /// This program is wrong or could not go on.
    Suite,
    /// The machine: no memory, no permission, a device that does not answer.
    Machine,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// One line: what was expected and what happened instead.
    pub summary: String,
    /// Id of the clause that was broken.
    pub clause: Option<String>,
    /// The clause in words.
    pub clause_text: Option<String>,
    /// Where the clause comes from.
    pub clause_source: Option<String>,
    /// Line of the statement in the case's canonical text, counted from 1.
    pub line: Option<usize>,
    /// The statement.
    pub statement: Option<String>,
    /// Who looked: `host`, `guest`, `child`.
    pub view: Option<String>,
    /// Page of the guest_memfd.
    pub page: Option<u64>,
    /// Byte offset in that page.
    pub offset: Option<u64>,
    /// What was expected, in words or error names.
    pub expected: Option<String>,
    /// What was found, in words or error names.
    pub found: Option<String>,
    /// A hex diff, or further detail, line by line.
    pub detail: Vec<String>,
    /// First page that the two maps show.
    pub map_first_page: u64,
    /// Attribute and backing of the pages before the step as the oracle has them, a letter a page.
    pub map_before: Option<String>,
    /// The same, as they must be after the step.
    pub map_after: Option<String>,
    /// The same, as the host finds them once the case has failed: `S` can be read, `P` faults, `!` holds other contents
    /// than expected. Since version 2.
    #[serde(default)]
    pub map_found: Option<String>,
    /// The steps up to the one that failed, each with the pages as they must be after it. Since version 2.
    #[serde(default)]
    pub trail: Vec<TrailStep>,
    /// Who is to blame.
    pub blame: Option<Blame>,
    /// The case fails in company only: it has failed in a VM in which so many other cases had passed, and has then passed in
    /// a fresh one. What the others have left in the kernel shows in it, or a mistake of the suite. Since version 6.
    #[serde(default)]
    pub company: Option<usize>,
    /// Commits or mails that fixed what the clause or the case is about. Since version 2.
    #[serde(default)]
    pub fixes: Vec<String>,
    /// The command that runs just this case.
    pub command: Option<String>,
    /// The case in canonical text, to be pasted and run again.
    pub case_text: Option<String>,
}

impl Failure {
    /// Says that `clause` is broken, with all that there is to say about it.
    pub fn breaks(&mut self, clause: ClauseId) {
        let clause = clause.clause();
        self.clause = Some(clause.id.to_string());
        self.clause_text = Some(clause.text.clone());
        self.clause_source = Some(clause.source.clone());
        self.fixes = clause.fixes.clone();
    }
}

/// One step of a case that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrailStep {
    /// Line of the statement in the case's canonical text, counted from 1.
    pub line: usize,
    /// The statement.
    pub statement: String,
    /// The pages after it, from the failure's `map_first_page` on.
    pub map: String,
}

/// What was seen where nothing is promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Observation {
    /// Line of the statement in the case's canonical text, counted from 1.
    pub line: usize,
    /// What was observed, such as `contents-after-unspecified` or `transient-eagain`.
    pub what: String,
    /// What was seen, such as `kept`, `zero`, `other`, or a count.
    pub seen: String,
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// Cases that were to run, skips included.
    pub planned: usize,
    /// Verdict `pass`.
    pub passed: usize,
    /// Verdict `fail`.
    pub failed: usize,
    /// Verdict `error`.
    pub errors: usize,
    /// Verdict `timeout`.
    pub timeouts: usize,
    /// Verdict `skip`.
    pub skipped: usize,
    /// Verdict `waived`. Since version 2.
    #[serde(default)]
    pub waived: usize,
    /// Those of the errors that are failures in company only, see [`Failure::company`]. Since version 6.
    #[serde(default)]
    pub only_in_company: usize,
    /// Planned, but without a verdict when the run ended.
    pub not_run: usize,
    /// Launches of encrypted guests that the cases took. Since version 4.
    #[serde(default)]
    pub launches: u64,
    /// Wall time of the run in milliseconds; of runs that were joined, the time in which any of them went on.
    pub elapsed_ms: u64,
    /// The program's exit status.
    pub exit_status: u8,
}

impl Summary {
    /// Counts one more case.
    pub fn count_case(&mut self, record: &CaseRecord) {
        self.count(record.verdict);
        let company = record.failure.as_ref().and_then(|failure| failure.company);
        self.only_in_company += usize::from(record.verdict == Verdict::Error && company.is_some());
    }

    /// Counts one more verdict.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Error => self.errors += 1,
            Verdict::Timeout => self.timeouts += 1,
            Verdict::Skip => self.skipped += 1,
            Verdict::Waived => self.waived += 1,
        }
    }
}
