// SPDX-License-Identifier: GPL-2.0-only
//! `results-schema.json` is what the types say, and what is written is valid by it.

use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::results::*;
use crate::tests::schema;

const FILE: &str = "results-schema.json";

/// The committed schema is the one that the types give.
#[test]
fn schema_is_current() {
    schema::is_current(
        FILE,
        "One line of a gmem-conform results file",
        schemars::schema_for!(Record),
    );
}

fn is_valid(value: &Value) -> Result<(), schema::Invalid> {
    schema::is_valid(FILE, value)
}

fn note() -> WaiverNote {
    WaiverNote {
        id: "sw-protected.*".to_string(),
        reason: "known".to_string(),
        link: "https://example.org/1".to_string(),
        expires: "2027-01-31".to_string(),
    }
}

fn case(verdict: Verdict) -> CaseRecord {
    let failure = Failure {
        summary: "guest page 2 lost its contents".to_string(),
        clause: Some("preserve.to-private".to_string()),
        line: Some(8),
        page: Some(2),
        offset: Some(u64::MAX),
        detail: vec!["a line".to_string()],
        map_found: Some("S!P".to_string()),
        trail: vec![TrailStep {
            line: 8,
            statement: "punch 0..1".to_string(),
            map: "sSP".to_string(),
        }],
        fixes: vec!["a mail".to_string()],
        company: Some(3),
        blame: Some(Blame::Kernel),
        ..Failure::default()
    };
    CaseRecord {
        id: "model.sw-protected.preserve.both-ways".to_string(),
        verdict,
        clauses: vec!["preserve.to-private".to_string()],
        duration_us: 1500,
        needs: match verdict {
            Verdict::Skip => vec![Need::new("no-mode-preserve", "PRESERVE is not offered.")],
            _ => Vec::new(),
        },
        failure: (verdict.is_failure() || verdict == Verdict::Waived).then_some(failure),
        observations: vec![Observation {
            line: 8,
            what: "contents-after-unspecified".to_string(),
            seen: "kept".to_string(),
        }],
        kernel_log: Vec::new(),
        stray_output: String::new(),
        waiver: (verdict == Verdict::Waived).then(note),
    }
}

/// A record of every kind and of every verdict is valid.
#[test]
fn records_are_valid() {
    let environment = Environment {
        machine: "host".to_string(),
        dialect: Some(Dialect::RfcV5),
        platforms: vec![PlatformState {
            name: "snp".to_string(),
            missing: vec![Need::new("no-snp", "No SNP.")],
        }],
        capabilities: [("KVM_CAP_GUEST_MEMFD".to_string(), -1)].into(),
        ..Environment::default()
    };
    let mut records = vec![
        Record::Run(Box::new(RunRecord {
            schema: SCHEMA_VERSION,
            suite: "gmem-conform 0".to_string(),
            planned: 5,
            arguments: Vec::new(),
            environment,
            started_ms: 1_790_000_000_000,
            shard: Some(Shard { index: 1, count: 3 }),
            timeout_s: Some(30),
            merged: vec![MergedRun { file: "a.jsonl".to_string(), run: json!({ "schema": 1 }) }],
        })),
        Record::Waiver(Box::new(WaiverRecord {
            waiver: note(),
            state: WaiverState::NotInScope,
            waived: 0,
            problem: None,
        })),
        Record::Started(StartedRecord { id: "a.case".to_string() }),
        Record::Resumed(Box::new(ResumedRecord {
            part: 2,
            reason: "the machine went down".to_string(),
            running: vec!["a.case".to_string()],
            started_ms: 1_790_000_000_000,
            boot_id: "an-id".to_string(),
        })),
        Record::Note(NoteRecord { text: "a note".to_string() }),
        Record::Aborted(AbortedRecord { reason: "interrupted by SIGINT".to_string() }),
        Record::NotRun(NotRunRecord { id: "a.case".to_string() }),
        Record::Summary(Summary::default()),
    ];
    for verdict in [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Error,
        Verdict::Timeout,
        Verdict::Skip,
        Verdict::Waived,
    ] {
        records.push(Record::Case(Box::new(case(verdict))));
    }
    for record in records {
        let value = serde_json::to_value(&record).unwrap();
        is_valid(&value).unwrap_or_else(|error| panic!("{record:?}: {error}"));
        assert_eq!(serde_json::from_value::<Record>(value).unwrap(), record);
    }
}

/// The schema refuses what is no record: it does not merely accept everything.
#[test]
fn other_things_are_invalid() {
    let good = serde_json::to_value(Record::Case(Box::new(case(Verdict::Fail)))).unwrap();
    let change = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        bad
    };
    for bad in [
        json!({}),
        change("/verdict", json!("xpass")),
        change("/type", json!("case2")),
        change("/id", Value::Null),
        change("/duration_us", json!("1 s")),
        change("/failure/blame", json!("weather")),
    ] {
        assert!(is_valid(&bad).is_err(), "{bad}");
    }
}
