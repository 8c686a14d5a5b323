// SPDX-License-Identifier: GPL-2.0-only
//! `gmem-conform explore` as people use it: on the model, with and without planted bugs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use gmem_conform::case;

/// Bugs of different kinds: attributes, neighbours, arguments, modes, pages in use, punching, other mappings, memslots.
const BUGS: [&str; 12] = [
    "host-faults-private",
    "one-page-too-many",
    "last-page-missed",
    "reserved-not-checked",
    "noop-mode-not-checked",
    "mode-skips-settled-pages",
    "preserve-loses-long-ranges",
    "upstream-scrambles",
    "in-use-offset-highest",
    "punch-resets-attribute",
    "child-not-zapped",
    "recreated-resets-attributes",
];

/// Bugs of encrypted guests of different kinds: acceptance, mixed ranges, contents, aliases, requests. Each with a platform
/// and a dialect in which its path exists.
const ENCRYPTED_BUGS: [(&str, &str, &str); 9] = [
    ("takes-back-first-only", "snp", "rfc-v4"),
    ("punch-stays-owned", "tdx", "rfc-v5"),
    ("mixed-range-lost", "snp", "upstream"),
    ("accept-clears-half", "tdx", "rfc-v4"),
    ("plaintext-left-behind", "snp", "rfc-v5"),
    ("private-alias-stays", "tdx", "upstream"),
    ("fault-flag-missing", "snp", "upstream"),
    ("request-by-msr-dropped", "snp", "rfc-v4"),
    ("request-retry-lost", "tdx", "upstream"),
];

/// Steps that a shrunk history may have.
const MOST_STEPS: usize = 8;

/// A directory that the program makes, removed at the end.
struct Directory(TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("made")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Explores the model until something fails, or, if nothing else is said, for a minute.
fn explore(directory: &Directory, more: &[&str]) -> Output {
    let output = directory.path();
    let output = output.to_str().unwrap();
    let all = ["explore", "--machine", "model", "--seed", "1", "--jobs", "1", "--output", output];
    program(&[&all, more].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Every bug is found, and what is left of the history is short, names the clause, and fails with the bug only.
#[test]
fn planted_bugs_are_found_and_shrunk() {
    for bug in BUGS {
        let directory = Directory::new();
        let output = explore(&directory, &["--plant", bug, "--duration", "600"]);
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{bug}: {said}");
        let [file] = directory.files().try_into().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let cases = case::parse("shrunk", &text).unwrap();
        assert_eq!(cases.len(), 1, "{bug}");
        assert!(cases[0].steps.len() <= MOST_STEPS, "{bug}: {text}");
        let clause = &cases[0].clauses[0];
        assert!(said.contains(&format!("clause    {clause}: ")), "{bug}: {said}");
        // The whole case is on the standard output as well, for machines whose files are lost.
        let lines = text.lines().map(|line| format!("    {line}").trim_end().to_string() + "\n");
        let indented: String = lines.collect();
        assert!(said.contains(&indented), "{bug}: {said}");
        assert_eq!(check(&file, &["--plant", bug]), Some(1), "{bug}: {text}");
        let dialect = if bug.starts_with("upstream") { "upstream" } else { "rfc-v4" };
        assert_eq!(check(&file, &["--dialect", dialect]), Some(0), "{bug}: {text}");
    }
}

/// So is every bug of encrypted guests. What is left runs on that platform, in that dialect, and fails with the bug only.
#[test]
fn bugs_of_encrypted_guests_are_found_and_shrunk() {
    for (bug, platform, dialect) in ENCRYPTED_BUGS {
        let directory = Directory::new();
        let ground = ["--platform", platform, "--dialect", dialect];
        let planted = [&ground[..], &["--plant", bug]].concat();
        let output = explore(&directory, &[&planted[..], &["--duration", "600"]].concat());
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{bug}: {said}");
        let [file] = directory.files().try_into().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let cases = case::parse("shrunk", &text).unwrap();
        assert!(cases[0].steps.len() <= MOST_STEPS, "{bug}: {text}");
        assert!(text.contains(&format!("needs   platform={platform}")), "{bug}: {text}");
        // The platform is the file's to say.
        assert_eq!(check(&file, &planted[2..]), Some(1), "{bug}: {text}");
        assert_eq!(check(&file, &ground[2..]), Some(0), "{bug}: {text}");
    }
}

fn check(file: &Path, more: &[&str]) -> Option<i32> {
    let all = ["check", "--machine", "model", file.to_str().unwrap()];
    program(&[&all, more].concat()).status.code()
}

/// The same seed finds the same failure and writes the same file.
#[test]
fn the_same_seed_writes_the_same_file() {
    let read = || {
        let directory = Directory::new();
        explore(&directory, &["--plant", "in-use-offset-is-start", "--duration", "600"]);
        let [file] = directory.files().try_into().unwrap();
        (file.file_name().unwrap().to_owned(), fs::read_to_string(&file).unwrap())
    };
    assert_eq!(read(), read());
}

/// Without a bug nothing fails, in any dialect; what ran is counted, and no file is written.
#[test]
fn a_correct_machine_passes() {
    for (platform, dialect) in [
        ("sw-protected", "rfc-v4"),
        ("sw-protected", "rfc-v5"),
        ("sw-protected", "upstream"),
        ("snp", "rfc-v4"),
        ("snp", "upstream"),
        ("tdx", "rfc-v5"),
        ("tdx", "upstream"),
    ] {
        let directory = Directory::new();
        let ground = ["--platform", platform, "--dialect", dialect];
        let output = explore(&directory, &[&ground[..], &["--duration", "2"]].concat());
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(" steps, 0 failures in ") && said.contains(", seed 1\n"), "{said}");
        assert!(said.contains("machine model: nothing here is about a kernel"), "{said}");
        assert!(directory.files().is_empty());
    }
}

/// After a failure others are looked for, but each way to fail is shown once.
#[test]
fn keep_going_shows_each_way_to_fail_once() {
    let directory = Directory::new();
    let bug = ["--plant", "one-page-too-many", "--pages", "4"];
    let output = explore(&directory, &[&bug[..], &["--keep-going", "--duration", "3"]].concat());
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let shown = said.matches("; shrinking it").count();
    assert_eq!(directory.files().len(), shown, "{said}");
    assert_eq!(said.matches("\nfailure: ").count(), shown, "{said}");
    // The bug shows in every history, in the few ways in which a page too many can be seen.
    assert!((1..40).contains(&shown), "{said}");
}

/// A platform that cannot run is a skip, with the reason.
#[test]
fn a_platform_that_cannot_run_is_status_4() {
    let root = Directory::new();
    let output =
        program(&["explore", "--output", root.path().to_str().unwrap(), "--duration", "1"]);
    if Path::new("/dev/kvm").exists() {
        eprintln!("skipped: there is a /dev/kvm here");
        return;
    }
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stdout(&output).contains("cannot explore: sw-protected: there is no /dev/kvm"));
}

/// What cannot be done is said before anything runs, with status 1.
#[test]
fn bad_usage_is_status_1() {
    let cases: &[(&[&str], &str)] = &[
        (&["--steps", "0"], "--steps"),
        (&["--duration", "0"], "--duration"),
        (&["--pages", "0"], "--pages"),
        (&["--pages", "2097153"], "--pages"),
        (&["--seed", "-1"], "-1"),
        (&["--json", "x.jsonl"], "--json is about cases"),
        (&["--format", "tap"], "--format is about cases"),
        (&["--output", "/proc/nowhere"], "cannot write case files into /proc/nowhere"),
        (&["--plant", "no-such-bug"], "no-such-bug"),
    ];
    for (arguments, message) in cases {
        let all = [&["explore", "--machine", "model"], *arguments].concat();
        let output = program(&all);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
