// SPDX-License-Identifier: GPL-2.0-only
//! The command line as scripts see it: help, exit statuses, streams.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use tempfile::NamedTempFile;

/// A case that passes wherever guest_memfd exists, and on the model.
const CASE: &str = "case check.write-and-read\nclause memory.same\npages 1\nstart shared\n\n\
                    host write 0..1 A\nhost expect 0..1 A\n";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gmem-conform"));
    command.env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A case file, removed at the end.
struct CaseFile(NamedTempFile);

impl CaseFile {
    fn new() -> CaseFile {
        let file = tempfile::Builder::new().suffix(".case").tempfile().unwrap();
        fs::write(&file, CASE).unwrap();
        CaseFile(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

/// The help text is a contract: scripts and people rely on its names.
#[test]
fn help() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(text(&output.stdout));
}

/// Help and version are no errors and go to the standard output.
#[test]
fn help_and_version_are_status_0() {
    for arguments in [["--version"], ["-h"], ["help"]] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// Bad usage is status 1, never clap's 2, and says on the standard error what is wrong.
#[test]
fn bad_usage_is_status_1() {
    let cases: &[(&[&str], &str)] = &[
        (&["--no-such-option"], "--no-such-option"),
        (&["--jobs", "0"], "--jobs"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--format", "xml"], "possible values: human, tap"),
        (&["--platform", "sev"], "possible values: default, sw-protected, snp, tdx]"),
        (&["--dialect", "none"], "possible values: auto, rfc-v4, rfc-v5, upstream"),
        (&["--plant", "one-page-too-many"], "--plant needs --machine model"),
        (&["--machine", "model", "--plant", "one-page-to-many"], "one-page-too-many"),
        (&["--kernel-headers", "/nonexistent"], "/nonexistent: no such file"),
        (&["check"], "FILE.case"),
        (&["check", "/nonexistent.case", "--machine", "model"], "/nonexistent.case"),
        (&["check", "x.case", "--list"], "unexpected argument '--list'"),
        (&["--list", "check", "x.case"], "--list selects built-in cases"),
        (&["zero", "--filter", "x", "check", "x.case"], "FILTER selects built-in cases"),
        (&["worker"], "a worker is started by gmem-conform itself"),
    ];
    for (arguments, message) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// A case file that passes is status 0; with JSON on the standard output, the text goes to the standard error.
#[test]
fn check_runs_a_file() {
    let file = CaseFile::new();
    let arguments = ["check", "--machine", "model", "--platform", "sw-protected"];
    let output = program().args(arguments).arg(file.path()).output().unwrap();
    let tap = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(tap.starts_with("TAP version 13\n1.."), "{tap}");
    assert!(tap.contains("\nok 1 model."), "{tap}");
    let output = program().args(arguments).args(["--json", "-", file.path()]).output().unwrap();
    let json = text(&output.stdout);
    assert!(json.lines().count() >= 3);
    for line in json.lines() {
        serde_json::from_str::<gmem_conform::results::Record>(line).unwrap();
    }
    assert!(text(&output.stderr).starts_with("TAP version 13\n"));
}

/// A results file that cannot be written is named on the standard error; the text report is complete; status 1.
#[test]
fn a_full_disk_is_status_1() {
    let file = CaseFile::new();
    let arguments = ["check", "--machine", "model", "--json", "/dev/full"];
    let output = program().args(arguments).arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("gmem-conform: cannot write /dev/full: No space left"), "{said}");
    assert!(text(&output.stdout).contains(" 0 not run; "), "{output:?}");
}

/// A directory in place of the results file is refused before anything runs.
#[test]
fn a_directory_is_no_results_file() {
    let file = CaseFile::new();
    let arguments = ["check", "--machine", "model", "--json", "/tmp"];
    let output = program().args(arguments).arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("--json /tmp: is a directory"), "{output:?}");
}

/// A closed pipe in place of the standard output.
fn closed_pipe() -> OwnedFd {
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    write.into()
}

/// With the standard output closed, no command panics or complains, and the status is 1.
#[test]
fn a_closed_stdout_is_quiet() {
    let file = CaseFile::new();
    let commands: [&[&str]; 4] = [
        &["--help"],
        &["--version"],
        &["probe", "--machine", "model"],
        &["check", "--machine", "model", file.path()],
    ];
    for arguments in commands {
        let mut child =
            program().args(arguments).stdout(closed_pipe()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{arguments:?}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// With standard output and error both closed, errors are still statuses, not panics.
#[test]
fn closed_streams_do_not_panic() {
    for arguments in [&["--no-such-option"][..], &["--plant", "x"]] {
        let status =
            program().args(arguments).stdout(closed_pipe()).stderr(closed_pipe()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

/// The JSON file is complete although nobody reads the text report.
#[test]
fn a_closed_stdout_leaves_the_results() {
    let file = CaseFile::new();
    let results = NamedTempFile::new().unwrap();
    let status = program()
        .args(["check", "--machine", "model", "--json"])
        .arg(results.path())
        .arg(file.path())
        .stdout(closed_pipe())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let json = fs::read_to_string(&results).unwrap();
    let last = json.lines().last().unwrap();
    assert!(last.contains("\"summary\""), "{json}");
    assert!(json.ends_with('\n'));
}
