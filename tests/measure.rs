// SPDX-License-Identifier: GPL-2.0-only
//! `observe` and `bench` as people and scripts see them. No time is asserted.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory of this test's own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("gmem-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    /// Runs the program in it; its status and what it wrote.
    fn run(&self, arguments: &str) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
            .args(arguments.split_whitespace())
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything but what says where it ran.
fn after_environment(text: &str) -> &str {
    text.split_once("\n\n").map_or(text, |(_, rest)| rest)
}

/// What the model does is known, so this is what the table says about it: a maintainer reads the meaning of each mode off it.
#[test]
fn observations_of_the_model() {
    let dir = Dir::new("observe");
    for dialect in ["rfc-v4", "upstream"] {
        let (status, table, said) =
            dir.run(&format!("observe --machine model --dialect {dialect} --repeat 4"));
        assert_eq!((status, said.as_str()), (Some(0), ""));
        insta::assert_snapshot!(format!("observe_{dialect}"), after_environment(&table));
    }
}

/// A mode that is not applied where the range is in the wanted state already shows when two observations are compared, and
/// an observation does not differ from another of the same machine.
#[test]
fn a_bug_shows_in_the_comparison() {
    let dir = Dir::new("observe-diff");
    let model = "observe --machine model --dialect rfc-v4";
    for (file, more) in
        [("a", "--repeat 2"), ("b", "--repeat 4"), ("c", "--repeat 2 --plant mode-skipped-on-noop")]
    {
        let (status, ..) = dir.run(&format!("{model} {more} --json {file}.jsonl"));
        assert_eq!(status, Some(0));
    }
    let (status, same, _) = dir.run("diff a.jsonl b.jsonl");
    assert_eq!(status, Some(0), "{same}");
    let (status, differs, _) = dir.run("diff a.jsonl c.jsonl");
    assert_eq!(status, Some(1));
    let (_, differs) = differs.split_once("\ndiffer\n").unwrap();
    insta::assert_snapshot!("observe_diff", differs);
}

/// What is measured can be shown, drawn and compared again from its file; a measurement is not slower than itself.
#[test]
fn measurements_are_kept() {
    let dir = Dir::new("bench");
    let model = "bench --machine model --platform sw-protected --pages 4 --fragments 16 --repeat 2";
    let (status, table, said) = dir.run(&format!("{model} .allocated --json a.jsonl --plot a.svg"));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert!(table.contains("\nsw-protected.to-shared.zero.allocated  "), "{table}");
    assert!(!table.contains(".hole"), "{table}");
    let (status, again, _) = dir.run("bench --from a.jsonl --plot b.svg");
    assert_eq!((status, &again), (Some(0), &table));
    let read = |file| fs::read_to_string(dir.0.join(file)).unwrap();
    assert_eq!(read("a.svg"), read("b.svg"));
    for command in ["bench --from a.jsonl --compare a.jsonl", "diff a.jsonl a.jsonl"] {
        let (status, compared, _) = dir.run(command);
        assert_eq!(status, Some(0), "{compared}");
        assert!(compared.contains("\n0 slower, 0 faster, "), "{compared}");
    }
}

/// Encrypted guests are measured in what only they do; a launch in place only where the machine takes it.
#[test]
fn encrypted_guests_are_measured() {
    let dir = Dir::new("bench-encrypted");
    for (platform, dialect, in_place) in [("snp", "rfc-v5", true), ("tdx", "rfc-v4", false)] {
        let sizes = "--pages 4 --fragments 4 --repeat 1";
        let model = format!("bench --machine model --platform {platform} --dialect {dialect}");
        let series = ["round-trip", "guest-request", "launch", "guest-mapped", "guest-touch"];
        let (status, table, said) = dir.run(&format!("{model} {sizes} {}", series.join(" ")));
        assert_eq!((status, said.as_str()), (Some(0), ""), "{table}");
        for series in [
            "to-shared.unspecified.allocated.guest-mapped.round-trip",
            "to-shared.zero.allocated.guest-mapped.round-trip",
            "to-shared.zero.allocated.guest-mapped.guest-request",
            "to-private.unspecified.allocated.guest-mapped.guest-request",
            "to-private.unspecified.hole.launch-copied",
            "to-private.unspecified.hole.guest-touch",
        ] {
            assert!(table.contains(&format!("\n{platform}.{series}  ")), "{series}: {table}");
        }
        let preserved = format!("{platform}.to-private.preserve.allocated.launch-in-place");
        assert_eq!(table.contains(&preserved), in_place, "{table}");
        assert!(!table.contains("failed to"), "{table}");
    }
}

/// `--timings` says where the time went, on the standard error and in either form.
#[test]
fn timings_are_told() {
    let dir = Dir::new("timings");
    let (status, _, said) = dir.run("--machine model --timings sw-protected.documentation");
    assert_eq!(status, Some(0), "{said}");
    for part in ["planning", "guest entries", "checking", "workers and waiting"] {
        assert!(said.contains(part), "{said}");
    }
    let (_, _, said) = dir.run("--machine model --timings=json sw-protected.documentation");
    let parts: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(parts["cases_s"].as_f64().unwrap() > 0.0, "{parts}");
}

/// With no platform to run on the status is 4, as for a run in which everything was skipped, and the reason is named.
#[test]
fn nothing_to_observe_is_status_4() {
    let dir = Dir::new("observe-none");
    let (status, text, _) =
        dir.run("observe --machine model --dialect upstream --platform default --repeat 1 --plant no-such-fault");
    assert_eq!((status, text.as_str()), (Some(1), ""));
    // The one machine without the interface that there is everywhere: a directory in place of /dev/kvm cannot be had, but
    // a host without it can, and one that has it observes.
    let (status, text, _) = dir.run("observe --repeat 1");
    match text.contains("cannot run: ") && !text.contains("-> ") {
        true => assert_eq!(status, Some(4), "{text}"),
        false => assert_eq!(status, Some(0), "{text}"),
    }
}

/// Options that are about cases are refused, files that cannot be written are named, and a file that was cut short is not
/// compared as if it were whole.
#[test]
fn bad_use_is_status_1() {
    let dir = Dir::new("measure-bad");
    fs::write(dir.0.join("no.jsonl"), "{\"type\":\"observe\"}\n").unwrap();
    fs::write(dir.0.join("run.jsonl"), "{\"type\":\"run\"}\n").unwrap();
    let (_, whole, _) = dir.run("observe --machine model --repeat 1 --json -");
    let lines: Vec<&str> = whole.lines().collect();
    fs::write(dir.0.join("cut.jsonl"), lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    for (arguments, message) in [
        ("observe --machine model --junit x", "--junit is about cases"),
        ("observe --machine model --repeat 0", "--repeat"),
        ("bench --machine model --html x", "--html is about cases"),
        ("bench --machine model --pages 0", "--pages"),
        ("bench --machine model --from x --quick", "cannot be used with"),
        ("bench --machine model --compare /nonexistent", "/nonexistent: "),
        ("bench --machine model --compare run.jsonl", "begins with a record of type `bench`"),
        ("bench --machine model --plot /nonexistent/x", "--plot /nonexistent/x"),
        ("bench --machine model to-privte", "no series matches `to-privte`; the nearest are"),
        ("observe --machine model --json /nonexistent/x", "/nonexistent/x"),
        ("diff no.jsonl no.jsonl", "no.jsonl:1: "),
        ("diff run.jsonl no.jsonl", "run.jsonl is of the kind `run`"),
        ("diff cut.jsonl cut.jsonl", "has no last line"),
    ] {
        let (status, _, said) = dir.run(arguments);
        assert_eq!(status, Some(1), "{arguments}");
        assert!(said.contains(message), "{arguments}: {said}");
    }
}
