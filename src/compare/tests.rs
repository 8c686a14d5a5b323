// SPDX-License-Identifier: GPL-2.0-only

use std::io::Write;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::results::for_each_record;
use crate::results::{Record, SCHEMA_VERSION, Verdict};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The first line as version 1 of the format had it.
fn run(planned: usize, kernel: &str) -> Value {
    json!({
        "type": "run", "schema": 1, "suite": "gmem-conform 0.1.0", "planned": planned, "arguments": [],
        "environment": {
            "machine": "host", "dialect": "rfc-v4", "dialect_forced": false, "kernel_release": kernel,
            "kernel_version": "#1", "kernel_command_line": "", "cpu": "a CPU", "virtualization": "bare-metal",
            "kvm_parameters": {}, "capabilities": {"KVM_CAP_GUEST_MEMFD": 1}, "planted_fault": null,
            "platforms": [{"name": "snp", "missing": [{"slug": "no-snp", "prose": "none"}]}], "remarks": []
        }
    })
}

/// A result as version 1 had it.
fn case(id: &str, verdict: &str) -> Value {
    let mut case = json!({
        "type": "case", "id": id, "verdict": verdict, "clauses": ["zero.to-shared"], "duration_us": 5, "needs": [],
        "failure": null, "observations": [], "kernel_log": [], "stray_output": ""
    });
    match verdict {
        "fail" | "error" | "timeout" | "waived" => {
            case["failure"] = json!({
                "summary": format!("{id} went wrong"), "clause": "zero.to-shared", "detail": [],
                "map_first_page": 0
            });
        }
        "skip" => case["needs"] = json!([{"slug": "no-luck", "prose": "there is none"}]),
        _ => {}
    }
    case
}

fn summary(not_run: usize, status: u8) -> Value {
    json!({
        "type": "summary", "planned": 0, "passed": 0, "failed": 0, "errors": 0, "timeouts": 0, "skipped": 0,
        "not_run": not_run, "elapsed_ms": 1000, "exit_status": status
    })
}

fn results(kernel: &str, cases: &[(&str, &str)]) -> NamedTempFile {
    let mut lines = vec![run(cases.len(), kernel)];
    lines.extend(cases.iter().map(|(id, verdict)| case(id, verdict)));
    lines.push(summary(0, 0));
    file(&text(&lines))
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Every way in which a case can change lands in its section, and what differs in the environment comes first.
#[test]
fn every_change_has_its_place() {
    let base = results(
        "7.3.4",
        &[
            ("a.breaks", "pass"),
            ("a.breaks-late", "skip"),
            ("a.fixed", "fail"),
            ("a.as-before", "fail"),
            ("a.otherwise", "fail"),
            ("a.runs-now", "skip"),
            ("a.skipped-now", "pass"),
            ("a.gone", "pass"),
            ("a.gone-skip", "skip"),
            ("a.fixed-waived", "waived"),
        ],
    );
    let patched = results(
        "7.3.5",
        &[
            ("a.breaks", "fail"),
            ("a.breaks-late", "timeout"),
            ("a.fixed", "pass"),
            ("a.as-before", "fail"),
            ("a.otherwise", "error"),
            ("a.runs-now", "pass"),
            ("a.skipped-now", "skip"),
            ("a.new", "pass"),
            ("a.new-fails", "fail"),
            ("a.fixed-waived", "pass"),
        ],
    );
    let diff = diff(base.path(), patched.path(), false).unwrap();
    assert!(diff.broke);
    let names = [(&base, "BASE"), (&patched, "PATCHED")];
    let text = names.iter().fold(diff.text, |text, (file, name)| {
        text.replace(&file.path().display().to_string(), name)
    });
    insta::assert_snapshot!(text);
}

/// The same results are no alarm; the time that a run took and began at is no difference.
#[test]
fn no_difference() {
    let cases = [("a.b", "pass"), ("a.c", "fail"), ("a.d", "skip"), ("a.e", "waived")];
    let (base, patched) = (results("7.3.4", &cases), results("7.3.4", &cases));
    let diff = diff(base.path(), patched.path(), false).unwrap();
    assert!(!diff.broke, "{}", diff.text);
    assert!(diff.text.contains("environment: no difference"), "{}", diff.text);
    assert!(
        diff.text
            .ends_with("0 broke, 0 fail otherwise, 0 fixed, 0 new, 0 no longer ran, 4 as before\n")
    );
}

/// Where results are written is no difference; what was run is.
#[test]
fn only_telling_arguments_differ() {
    let with = |arguments: &[&str]| {
        let mut head = run(1, "7.3.4");
        head["arguments"] = json!(arguments);
        file(&text(&[head, case("a.b", "pass"), summary(0, 0)]))
    };
    let base = with(&["--json", "base.jsonl", "--html=a.html"]);
    let patched = with(&["--json=patched.jsonl"]);
    let zero = with(&["--json", "patched.jsonl", "zero"]);
    let found = diff(base.path(), patched.path(), false).unwrap();
    assert!(found.text.contains("environment: no difference"), "{}", found.text);
    let found = diff(base.path(), zero.path(), false).unwrap();
    assert!(found.text.contains("\n  arguments: (none) -> zero\n"), "{}", found.text);
}

/// A patched kernel that took the runner down is an alarm, although no result says so; nor do files about different
/// machines pass for equal.
#[test]
fn a_run_that_ended_early_is_an_alarm() {
    let base = results("7.3.4", &[("a.b", "pass"), ("a.c", "pass")]);
    let mut cut = text(&[run(2, "7.3.4"), case("a.b", "pass")]);
    cut += "{\"type\":\"case\",\"id\":\"a.c";
    let cut = file(&cut);
    let found = diff(base.path(), cut.path(), false).unwrap();
    assert!(found.broke);
    assert!(found.text.contains("did not come to its end: 1 cases did not run"), "{}", found.text);
    assert!(found.text.contains("NONE    a.c  (was pass)"), "{}", found.text);
    let other = results("7.3.4", &[("model.a.b", "pass")]);
    let found = diff(base.path(), other.path(), false).unwrap();
    assert!(found.broke && found.text.contains("no case in common"), "{}", found.text);
}

/// A file of a newer version: fields, record types and a verdict that nobody knows yet.
fn newer() -> NamedTempFile {
    let mut head = run(3, "7.3.4");
    head["schema"] = 99.into();
    head["environment"]["hypervisor"] = json!({"name": "a new field"});
    let mut pass = case("a.pass", "pass");
    pass["weather"] = json!("fine");
    let lines = [
        head,
        json!({"type": "weather", "rain": true}),
        pass,
        case("a.flaky", "flaky"),
        case("a.fails", "fail"),
        summary(0, 1),
    ];
    file(&text(&lines))
}

/// Results of an older and of a newer version of the format can be compared, in both directions.
#[test]
fn diff_reads_other_versions() {
    let newer = newer();
    let older = results("7.3.4", &[("a.pass", "pass"), ("a.flaky", "pass"), ("a.fails", "pass")]);
    let forth = diff(older.path(), newer.path(), false).unwrap();
    assert!(forth.text.contains("schema: 1 -> 99"), "{}", forth.text);
    assert!(
        forth.text.contains("hypervisor.name: (not recorded) -> a new field"),
        "{}",
        forth.text
    );
    assert!(forth.text.contains("FLAKY   a.flaky  (was pass)"), "{}", forth.text);
    assert!(forth.text.contains("FAIL    a.fails  (was pass)"), "{}", forth.text);
    assert!(forth.text.contains("1 broke, 1 fail otherwise, 0 fixed"), "{}", forth.text);
    let back = diff(newer.path(), older.path(), false).unwrap();
    assert!(!back.broke && back.text.contains("PASS    a.fails  (was fail)"), "{}", back.text);
}

/// A run on an emulated host is told from one on silicon when they are compared, and what is made of both is worth no more
/// than the emulated one, for readers of every version.
#[test]
fn an_emulated_host_is_never_lost() {
    let on = |host: Option<&str>, virtualization: &str, id: &str| {
        let mut head = run(1, "7.3.4");
        head["schema"] = host.map_or(3, |_| 4).into();
        head["environment"]["virtualization"] = virtualization.into();
        if let Some(host) = host {
            head["environment"]["host"] = host.into();
        }
        file(&text(&[head, case(id, "pass"), summary(0, 0)]))
    };
    let silicon = || on(Some("bare-metal"), "bare-metal", "a.b");
    let emulated = || on(Some("emulated"), "nested", "a.c");
    let old = || on(None, "bare-metal", "a.d");
    let found = diff(silicon().path(), emulated().path(), false).unwrap();
    assert!(found.text.contains("  host: bare-metal -> emulated\n"), "{}", found.text);
    assert!(found.text.contains("machine host, emulated host, Linux"), "{}", found.text);
    for (files, host, virtualization) in [
        ([silicon(), silicon()], "bare-metal", "bare-metal"),
        ([silicon(), emulated()], "emulated", "nested"),
        ([emulated(), silicon()], "emulated", "nested"),
        ([emulated(), old()], "emulated", "nested"),
        // What the old file says of itself is not known.
        ([silicon(), old()], "", "bare-metal"),
        ([on(Some("virtual"), "nested", "a.e"), old()], "virtual", "nested"),
        ([on(Some("simulated"), "nested", "a.f"), silicon()], "simulated", "nested"),
    ] {
        let paths = files.each_ref().map(|file| file.path().to_path_buf());
        let mut out = Vec::new();
        merge(&paths, &mut out).unwrap();
        let head: Value =
            serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
        let environment = &head["environment"];
        assert_eq!(environment["host"], host, "{head}");
        assert_eq!(environment["virtualization"], virtualization, "{head}");
        if paths.iter().any(|p| std::fs::read_to_string(p).unwrap().contains("emulated")) {
            let remarks = environment["remarks"].to_string();
            assert!(host == "emulated" && remarks.contains("host is `"), "{head}");
        }
    }
}

/// A merged file keeps what a newer version wrote word for word, and can be merged and compared again.
#[test]
fn merge_keeps_other_versions() {
    let newer = newer();
    let older = results("7.3.5", &[("a.old", "skip")]);
    let mut out = Vec::new();
    let merged =
        merge(&[older.path().to_path_buf(), newer.path().to_path_buf()], &mut out).unwrap();
    assert_eq!(merged.exit_status, 1, "{}", merged.text);
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["schema"], 99);
    assert_eq!(lines[0]["planned"], 4);
    assert_eq!(lines[0]["merged"][1]["run"]["environment"]["hypervisor"]["name"], "a new field");
    let remark = lines[0]["environment"]["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("kernel_release is `7.3.5` in "), "{remark}");
    assert!(lines.contains(&json!({"type": "weather", "rain": true})));
    assert!(lines.iter().any(|line| line["weather"] == "fine"));
    let again = file(&text);
    let mut out = Vec::new();
    merge(&[again.path().to_path_buf()], &mut out).unwrap();
    let head: Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(head["merged"].as_array().unwrap().len(), 2, "the first two, not the merged one");
}

/// A failure hides behind no pass of another machine, and a result behind no skip.
#[test]
fn the_stronger_result_wins() {
    let one = results("7.3.4", &[("a.x", "pass"), ("a.y", "skip"), ("a.z", "fail")]);
    let two = results("7.3.4", &[("a.x", "fail"), ("a.y", "pass"), ("a.z", "pass")]);
    for files in [[&one, &two], [&two, &one]] {
        let mut out = Vec::new();
        let merged = merge(&files.map(|f| f.path().to_path_buf()), &mut out).unwrap();
        assert_eq!(merged.exit_status, 1);
        assert!(
            merged.text.contains("3 results of cases that another file has as well"),
            "{}",
            merged.text
        );
        assert!(merged.text.contains("3 planned: 1 passed, 2 failed"), "{}", merged.text);
        let merged = file(&String::from_utf8(out).unwrap());
        let mut verdicts = Vec::new();
        for_each_record(merged.path(), |record| {
            if let Record::Case(case) = record {
                verdicts.push((case.id, case.verdict));
            }
        })
        .unwrap();
        verdicts.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("a.x", Verdict::Fail), ("a.y", Verdict::Pass), ("a.z", Verdict::Fail)];
        assert_eq!(verdicts, expected.map(|(id, verdict)| (id.to_string(), verdict)));
    }
}

/// Runs that went on side by side took no longer than together; those of different days took what all of them did.
#[test]
fn merged_runs_take_their_time() {
    let elapsed = |begun: &[Option<u64>]| {
        let files: Vec<NamedTempFile> = begun
            .iter()
            .enumerate()
            .map(|(number, begun)| {
                let mut head = run(1, "7.3.4");
                if let Some(begun) = begun {
                    head["started_ms"] = (*begun).into();
                }
                file(&text(&[head, case(&format!("a.{number}"), "pass"), summary(0, 0)]))
            })
            .collect();
        let paths: Vec<_> = files.iter().map(|file| file.path().to_path_buf()).collect();
        let mut out = Vec::new();
        merge(&paths, &mut out).unwrap();
        let last = String::from_utf8(out).unwrap().lines().last().unwrap().to_string();
        serde_json::from_str::<Value>(&last).unwrap()["elapsed_ms"].as_u64()
    };
    // Each takes a second.
    for (begun, together) in [
        (&[Some(5_000), Some(5_400)][..], 1_400),
        (&[Some(5_400), Some(5_000)], 1_400),
        (&[Some(5_000), Some(9_000)], 2_000),
        (&[Some(5_000), Some(5_900), Some(5_100)], 1_900),
        (&[None, Some(5_000), None], 3_000),
    ] {
        assert_eq!(elapsed(begun), Some(together), "{begun:?}");
    }
}

/// The shards of a partition make up a whole; when one is missing the merged results fail and say which.
#[test]
fn a_missing_shard_is_found() {
    let shard = |index: u32, id: &str| {
        let mut head = run(1, "7.3.4");
        head["shard"] = json!({"index": index, "count": 3});
        file(&text(&[head, case(id, "pass"), summary(0, 0)]))
    };
    let (one, two, three) = (shard(1, "a.x"), shard(2, "a.y"), shard(3, "a.z"));
    let all = [one.path().to_path_buf(), two.path().to_path_buf(), three.path().to_path_buf()];
    let merged = merge(&all, &mut Vec::new()).unwrap();
    assert_eq!(merged.exit_status, 0, "{}", merged.text);
    assert!(merged.text.starts_with("3 planned: 3 passed"), "{}", merged.text);
    let merged = merge(&all[..2], &mut Vec::new()).unwrap();
    assert_eq!(merged.exit_status, 1);
    assert!(merged.text.starts_with("missing shards: 3/3\n"), "{}", merged.text);
}

/// What is no results file is named with its line; a newer file that cannot be understood says that it is newer.
#[test]
fn bad_files_are_named() {
    let bad = |content: &str, message: &str| {
        let bad = file(content);
        let error = diff(bad.path(), bad.path(), false).unwrap_err().to_string();
        assert!(
            error.starts_with(&bad.path().display().to_string()) && error.contains(message),
            "{error}"
        );
    };
    bad("", "the file is empty");
    bad("TAP version 13\n", ":1: no result");
    bad(&text(&[case("a.b", "pass")]), ":1: a results file begins with");
    bad(&format!("{}\njunk\n{}\n", run(1, "x"), summary(0, 0)), ":2: no result");
    bad(&text(&[run(1, "x"), case("a.b", "pass"), case("a.b", "pass")]), ":3: a second result");
    bad(&text(&[run(1, "x"), run(1, "x")]), ":2: a second run");
    let newer = newer();
    let error = for_each_record(newer.path(), |_| {}).unwrap_err().to_string();
    let version =
        format!("the file has version 99 of the format, this program knows {SCHEMA_VERSION}");
    assert!(error.contains(":4: ") && error.contains(&version), "{error}");
}
