// SPDX-License-Identifier: GPL-2.0-only

use std::io::Write;

use tempfile::NamedTempFile;

use super::*;
use crate::results::*;

fn temporary(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn record(id: &str, verdict: Verdict) -> Record {
    let failure = Failure { clause: Some("fresh.zero".into()), ..Failure::default() };
    Record::Case(Box::new(CaseRecord {
        clauses: vec!["fresh.zero".into()],
        duration_us: 5,
        needs: match verdict {
            Verdict::Skip => vec![Need::new("no-luck", "there is none")],
            _ => Vec::new(),
        },
        failure: verdict.is_failure().then_some(failure),
        kernel_log: match verdict {
            Verdict::Fail => vec!["WARNING: a made-up one".into()],
            _ => Vec::new(),
        },
        ..CaseRecord::new(id, verdict)
    }))
}

fn records() -> Vec<Record> {
    let run = RunRecord {
        schema: SCHEMA_VERSION,
        suite: "gmem-conform 0.1.0".into(),
        planned: 4,
        arguments: vec!["--tier".into(), "full".into()],
        environment: Environment {
            machine: "host".into(),
            kernel_release: "7.3.4".into(),
            virtualization: "bare-metal".into(),
            platforms: vec![PlatformState {
                name: "snp".into(),
                missing: vec![Need::new("no-snp", "SEV-SNP is off")],
            }],
            ..Environment::default()
        },
        started_ms: 1_790_000_000_000,
        shard: Some(Shard { index: 1, count: 2 }),
        timeout_s: Some(30),
        merged: Vec::new(),
    };
    vec![
        Record::Run(Box::new(run)),
        record("sw-protected.a.b", Verdict::Pass),
        record("sw-protected.a.c", Verdict::Fail),
        record("snp.a.b", Verdict::Skip),
    ]
}

fn results() -> NamedTempFile {
    let lines =
        records().iter().map(|r| serde_json::to_string(r).unwrap() + "\n").collect::<String>();
    temporary(lines.as_bytes())
}

fn made() -> Vec<u8> {
    let log = temporary(b"[ 1.0] the whole log\n");
    let mut out = Vec::new();
    bundle(results().path(), Some(log.path()), &mut out).unwrap();
    out
}

/// The statement names everything that was not tested, and every clause.
#[test]
fn statements() {
    let text = statement(&records()).unwrap();
    for part in [
        "the run was killed: 3 of 4 cases have a result",
        "command line: --tier full",
        "platform snp: no-snp: SEV-SNP is off",
        "1 cases skipped: no-luck",
        "1 cases did not run",
        "all but shard 1 of 2",
        "fresh.zero                   snp            NOT TESTED: no-luck\n",
        "fresh.zero                   sw-protected   BROKEN in 1 cases\n",
        "punch.zero                   sw-protected   NOT TESTED: no case of it was run\n",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// What was bundled is verified, and the same files make the same bundle.
#[test]
fn a_bundle_is_whole() {
    let bytes = made();
    let file = temporary(&bytes);
    assert_eq!(verify(file.path()).unwrap(), statement(&records()).unwrap());
    assert!(bytes == made(), "the same bundle");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let expected = [RESULTS, ENVIRONMENT, KERNEL_LOG, STATEMENT, SUMS];
    assert_eq!(names, expected.map(|name| format!("{FOLDER}/{name}")));
}

/// No byte of a bundle can change unnoticed but in the tar's own padding; a bundle that ends early is no bundle.
#[test]
fn damage_is_found() {
    let bytes = made();
    let text_at = |needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    for (name, needle) in [
        ("results", &b"sw-protected.a.b"[..]),
        ("environment", b"\"kernel_release\": \"7.3.4\""),
        ("log", b"WARNING: a made-up one\n"),
        ("log given", b"the whole log"),
        ("statement", b"What was not tested"),
        ("sums", b"  statement.txt"),
        ("name", b"gmem-conform-bundle/environment.json"),
    ] {
        let mut damaged = bytes.clone();
        damaged[text_at(needle) + needle.len() - 2] ^= 1;
        let file = temporary(&damaged);
        assert!(verify(file.path()).is_err(), "{name}");
    }
    for length in [0, 511, 512, 2000, bytes.len() / 2] {
        let file = temporary(&bytes[..length]);
        assert!(verify(file.path()).is_err(), "{length} bytes");
    }
    let mut more = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    more.append_data(&mut header, format!("{FOLDER}/extra"), &b"x"[..]).unwrap();
    let mut appended = more.into_inner().unwrap();
    appended.truncate(1024);
    appended.extend_from_slice(&bytes);
    let error = verify(temporary(&appended).path()).unwrap_err().to_string();
    assert!(error.contains("extra is not listed"), "{error}");
}
