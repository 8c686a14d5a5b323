// SPDX-License-Identifier: GPL-2.0-only
//! Every built-in case on the model, in every dialect, as one test each: the suite and the model, which were written from
//! the same promises but share no code that decides them, must agree.
//!
//! One run of the program per dialect yields the results of all its cases. When a single test is asked for by its exact
//! name, as nextest does, only that case is run.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, OnceLock};

use gmem_conform::dialect::Dialect;
use gmem_conform::results::{CaseRecord, Record, Verdict};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

type Records = BTreeMap<String, CaseRecord>;

fn program(dialect: Dialect) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gmem-conform"));
    command.args(["--machine", "model", "--dialect", dialect.name()]).stdin(Stdio::null());
    command
}

/// The ids of every case.
fn ids(dialect: Dialect) -> Vec<String> {
    let output = program(dialect).arg("--list").output().expect("the program starts");
    let ids = String::from_utf8(output.stdout).expect("ids are ASCII");
    ids.lines().map(str::to_string).collect()
}

/// Runs what the arguments select.
fn records(dialect: Dialect, arguments: &[&str]) -> Result<Records, String> {
    let output = program(dialect)
        .args(["--json", "-"])
        .args(arguments)
        .output()
        .map_err(|e| format!("the program does not start: {e}"))?;
    let mut records = Records::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record = serde_json::from_str(line).map_err(|e| format!("{e} in the line {line}"))?;
        if let Record::Case(record) = record {
            records.insert(record.id.clone(), *record);
        }
    }
    Ok(records)
}

fn judge(record: Option<&CaseRecord>) -> Result<Completion, Failed> {
    let record = record.ok_or("the case has no result")?;
    match record.verdict {
        Verdict::Pass => Ok(Completion::Completed),
        Verdict::Skip => {
            let slugs: Vec<&str> = record.needs.iter().map(|need| need.slug.as_str()).collect();
            Ok(Completion::ignored_with(slugs.join(",")))
        }
        Verdict::Fail | Verdict::Error | Verdict::Timeout | Verdict::Waived => {
            Err(format!("{:?}\n{:#?}", record.verdict, record.failure).into())
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for dialect in Dialect::ALL {
        let all: Arc<OnceLock<Result<Records, String>>> = Arc::default();
        let ids = ids(dialect);
        assert!(ids.len() > 400, "only {} cases are planned in {dialect}", ids.len());
        for id in ids {
            let (all, alone) = (all.clone(), arguments.exact);
            trials.push(Trial::ignorable_test(format!("{dialect}::{id}"), move || {
                if alone {
                    return judge(records(dialect, &["--exact", &id])?.get(&id));
                }
                let all = all.get_or_init(|| records(dialect, &[]));
                judge(all.as_ref().map_err(String::clone)?.get(&id))
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
