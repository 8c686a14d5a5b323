// SPDX-License-Identifier: GPL-2.0-only
//! What a person reads when a case fails: which look finds a bug, at which step, where, and in which words; and what is
//! noted where nothing is promised. Cases are small, so that few looks can see the bug that is planted, if not one only.

use std::fs;
use std::process::{Command, Stdio};

use gmem_conform::results::Record;
use tempfile::TempDir;

/// Runs a case of these steps on the model with `fault` in it, and returns what is written for people, and with `more`
/// arguments.
fn check(fault: &str, dialect: &str, head: &str, steps: &str, more: &[&str]) -> String {
    let dir = TempDir::new().unwrap();
    let text = format!("case t.t\nclause convert.precise\n{head}\n\n{steps}\n");
    fs::write(dir.path().join("t.case"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gmem-conform"));
    command.args(["check", "--machine", "model", "--dialect", dialect]);
    command.args(["--format", "human"]).args(more);
    if !fault.is_empty() {
        command.args(["--plant", fault]);
    }
    let output = command.arg("t.case").current_dir(&dir).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const SHARED: &str = "pages 4\nstart shared\nneeds platform=sw-protected";
const PRIVATE: &str = "pages 4\nstart private\nneeds platform=sw-protected";
const AT_END: &str = "pages 4\naudit end\nstart shared\nneeds platform=sw-protected";
const PRIVATE_AT_END: &str = "pages 4\naudit end\nstart private\nneeds platform=sw-protected";
const LARGE: &str = "pages 200\naudit end\nstart shared\nneeds platform=sw-protected";
const FIXED: &str = "pages 4\nstart shared\nneeds platform=sw-protected\nfixes 0123456789ab";
const SNP: &str = "pages 6\nstart private\nneeds platform=snp";
const SNP_SHARED: &str = "pages 6\nstart shared\nneeds platform=snp";
const SNP_AT_END: &str = "pages 6\naudit end\nstart private\nneeds platform=snp";
const SNP_UNSEEN: &str = "pages 6\nmmap none\nstart private\nneeds platform=snp";
const SNP_V5: &str = "pages 6\nstart shared\nneeds platform=snp dialect=rfc-v5";
const TDX: &str = "pages 6\nstart private\nneeds platform=tdx";

/// A bug, a head, and steps after which the bug shows.
const FAILURES: &[(&str, &str, &str)] = &[
    // Results of calls.
    ("unspecified-rejected", SHARED, "convert 1..2 private unspecified"),
    ("success-writes-error-offset", SHARED, "convert 1..2 private unspecified"),
    ("in-use-converted", SHARED, "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1"),
    ("in-use-offset-is-start", SHARED, "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1"),
    ("in-use-offset-is-index", SHARED, "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1"),
    (
        "in-use-forever",
        SHARED,
        "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1\nunpin 1..2\nconvert 0..2 private unspecified",
    ),
    // The host at pages that it has never touched: at the step, not in the end.
    (
        "host-faults-private",
        SHARED,
        "convert 0..2 private unspecified\nconvert 2..4 private unspecified",
    ),
    // The pages beside a range, which nobody has touched, in the end.
    ("one-page-too-many", AT_END, "convert 1..2 private unspecified"),
    ("one-page-too-early", AT_END, "convert 2..3 private unspecified"),
    ("last-page-missed", AT_END, "convert 1..3 private unspecified"),
    ("first-page-missed", AT_END, "convert 1..3 private unspecified"),
    // What a refused call must not have done, until a later one has converted the same pages.
    (
        "refused-converts-anyway",
        AT_END,
        "convert 0..2 private zero -> EOPNOTSUPP @0\nconvert 2..3 private unspecified",
    ),
    (
        "refused-converts-anyway",
        AT_END,
        "convert 2..4 private zero -> EOPNOTSUPP @2\nconvert 0..2 private unspecified",
    ),
    (
        "host-faults-private",
        AT_END,
        "convert 0..2 private zero -> EOPNOTSUPP @0\nconvert 1..2 private unspecified",
    ),
    // The guest in the end, at memory and at holes.
    ("guest-private-refused", PRIVATE_AT_END, "allocate 1..2\nconvert 1..2 private unspecified"),
    ("fresh-not-zeroed", PRIVATE_AT_END, "convert 1..2 private unspecified"),
    ("fresh-not-zeroed", AT_END, "convert 1..2 shared unspecified"),
    // The host, through a mapping that was not there before.
    ("neighbour-recorded", AT_END, "host write 0..4 A\nconvert 1..2 private preserve"),
    // One side writes, the other reads.
    ("folio-replaced", PRIVATE_AT_END, "guest write 1..2 A\nconvert 1..2 shared preserve"),
    ("folio-replaced", PRIVATE_AT_END, "guest write 2..3 A\nconvert 2..3 shared preserve"),
    // Parts of pages.
    ("preserve-loses-last-word", SHARED, "host write 0..2 A\nconvert 1..2 private preserve"),
    ("zero-half-folio", SHARED, "guest write 0..2 A\nconvert 1..2 shared zero"),
    ("punch-keeps-contents", SHARED, "host write 0..2 A\npunch 1..2"),
    // Other files.
    ("other-file-converted", SHARED, "bystander shared\nconvert 1..2 private unspecified"),
    ("other-file-converted", PRIVATE, "bystander private\nconvert 1..2 shared unspecified"),
    (
        "other-file-converted",
        SHARED,
        "host write 1..2 A\nbystander shared\nbystander convert 1..2 private",
    ),
    // Other processes.
    (
        "child-not-zapped",
        SHARED,
        "host write 0..2 A\nchild fork\nchild read 0..2\nconvert 1..2 private unspecified",
    ),
    (
        "child-not-zapped",
        SHARED,
        "child fork\nchild write 1..2 A\nconvert 1..2 private unspecified",
    ),
    // The host at a private page of a fresh file, before the first step.
    ("missing-entry-is-shared", PRIVATE, "convert 0..4 private unspecified"),
    // The pages beside a range, which somebody has touched, at the step.
    ("one-page-too-many", SHARED, "host write 0..4 A\nconvert 1..2 private preserve"),
    ("zero-neighbour", SHARED, "host write 0..4 A\nconvert 1..2 shared zero"),
    // The guest, whose first look is not like the second.
    ("preserve-seen-late", SHARED, "guest write 0..2 A\nconvert 1..2 private preserve"),
    // The guest, although the child that looked as well is gone.
    (
        "preserve-loses-last-word",
        SHARED,
        "guest write 1..2 A\nchild fork\nchild exit\nconvert 1..2 private preserve",
    ),
    // What the guest reads has memory from then on, and nothing else has.
    ("fresh-not-zeroed", SHARED, "guest read 1..2\nhost expect 1..2 zero"),
    ("fresh-not-zeroed", SHARED, "guest read 1..2\nhost expect 2..3 zero"),
    ("fresh-not-zeroed", SHARED, "touch guest 1..2\nhost expect 1..2 zero"),
    ("allocate-loses-contents", SHARED, "host write 1..2 A\nallocate 1..2"),
    // The contents of other files.
    ("other-file-cleared", SHARED, "bystander shared\nconvert 1..2 shared zero"),
    // Memslots, and the addresses where there are none any more.
    ("bind-range-is-ebadf", SHARED, "slot 1 raw offset=0x3000 size=0x2000 at=8 -> EEXIST|EINVAL"),
    ("deleted-frees-memory", SHARED, "guest write 1..2 A\nslot 0 delete\nremap\nslot 0 map 0..4"),
    ("mmio-address-truncated", SHARED, "slot 0 delete\nguest expect 0..1 mmio"),
    (
        "deleted-is-memory-fault",
        SHARED,
        "slot 0 delete\nslot 1 map 1..3 at 5\nslot 1 delete\nguest expect 2..3 mmio",
    ),
    (
        "deleted-is-memory-fault",
        SHARED,
        "slot 0 delete\nslot 0 map 0..2 at 4\nguest expect 3..4 mmio",
    ),
    (
        "deleted-is-memory-fault",
        SHARED,
        "slot 0 delete\nslot 1 map 2..4 at 4\nslot 1 delete\nslot 1 map 0..2 at 6\nguest expect 2..3 mmio",
    ),
    (
        "deleted-is-memory-fault",
        SHARED,
        "slot 0 delete\nslot 1 map 0..4 at 4\nslot 1 delete\nslot 1 map 0..2 at 2\nguest expect 2..3 mmio",
    ),
    // Encrypted guests.
    ("plaintext-in-last-block", SNP, "guest write 0..2 A\nconvert 1..2 shared unspecified"),
    (
        "takes-back-page-before",
        SNP_AT_END,
        "guest write 0..4 A\nconvert 2..3 shared unspecified\nconvert 2..3 private unspecified\naccept 2..3\nconvert 0..4 shared unspecified",
    ),
    (
        "refused-converts-anyway",
        SNP_UNSEEN,
        "guest write 0..2 A\nconvert 0..1 shared preserve -> EOPNOTSUPP @0",
    ),
    ("early-preserve-refused", SNP_V5, "convert 0..1 private preserve -> OK\nfinalize"),
    ("request-direction-inverted", SNP_SHARED, "guest convert 1..3 private"),
    ("request-direction-inverted", SNP, "guest convert 1..3 shared"),
    ("request-retry-lost", TDX, "guest convert 1..3 shared -> EAGAIN"),
    ("request-refusal-retried", TDX, "guest convert 1..3 shared -> EINVAL"),
    // The part of a large file that is shown.
    ("unspecified-rejected", LARGE, "convert 100..102 private unspecified"),
    ("one-page-too-many", LARGE, "convert 190..191 private unspecified"),
    // What the case knows to be fixed.
    ("unspecified-rejected", FIXED, "convert 1..2 private unspecified"),
];

/// The bug whose bytes are others each time.
const RANDOM: &str = "fresh-not-zeroed";

/// The part of a line in front of `end`.
fn before<'a>(line: &'a str, end: &str) -> &'a str {
    line.split_once(end).map_or(line, |(before, _)| before)
}

/// Whether a line shows bytes.
fn is_dump(line: &str) -> bool {
    line.split_whitespace().filter(|word| word.len() == 2).count() == 16
}

/// The failure is the one that was reviewed.
#[test]
fn failures() {
    let mut all = String::new();
    for (fault, head, steps) in FAILURES {
        let dialect = if head.contains("rfc-v5") { "rfc-v5" } else { "rfc-v4" };
        let text = check(fault, dialect, head, steps, &[]);
        let failure: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with("FAIL"))
            .skip(1)
            .take_while(|line| !line.trim_start().starts_with("run "))
            .filter(|line| *fault != RANDOM || !is_dump(line))
            // Where the first of them is not the byte that was promised.
            .map(|line| if *fault == RANDOM { before(line, ", offset") } else { line })
            .collect();
        assert!(!failure.is_empty(), "{fault} is not found in\n{steps}\n{text}");
        all += &format!("{fault}: {}\n{}\n\n", steps.replace('\n', "; "), failure.join("\n"));
    }
    insta::assert_snapshot!(all);
}

/// What is done, and that it is done in time, shows in that these pass, where otherwise they would not.
#[test]
fn no_failures() {
    for (fault, head, steps) in [
        // A page that is in flight elsewhere does not hide the one that is in use.
        ("spurious-eagain", SHARED, "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1"),
        // Nor is it taken for one that is in use.
        ("spurious-eagain", SHARED, "pin 0..1\nconvert 1..3 private unspecified"),
        // An SNP guest gives up what becomes shared, so that it cannot tell whether KVM has taken it back.
        (
            "stays-usable",
            SNP,
            "guest write 1..3 A\nconvert 1..3 shared unspecified\nconvert 1..3 private unspecified\nguest write 1..3 B",
        ),
        (
            "stays-usable",
            SNP,
            "guest write 1..3 A\nguest convert 1..3 shared\nguest convert 1..3 private\nguest write 1..3 B",
        ),
        // Unless it cannot go on.
        ("", SNP, "guest write 0..2 A\nguest wrong-alias 2..3\nconvert 0..2 shared unspecified"),
        // The userspace_addr of a memslot is that of its part of the file.
        (
            "shared-from-userspace-address",
            SHARED,
            "slot 0 delete\nslot 1 map 1..3 at 8\nhost write 0..4 A\nguest expect 1..3 A",
        ),
        // That a statement succeeds can always be said.
        ("", SHARED, "host write 0..1 A -> OK"),
    ] {
        let text = check(fault, "rfc-v4", head, steps, &[]);
        assert!(text.contains("1 passed"), "{fault}: {steps}\n{text}");
    }
}

/// What mode unspecified did, and that a conversion had to be tried again, is noted. Nothing else is.
#[test]
fn observations() {
    let steps = "guest write 0..3 A\nhost write 2..3 B\nconvert 0..4 private unspecified\n\
                 convert 0..1 shared unspecified\nconvert 1..2 shared preserve\n\
                 convert 2..3 shared unspecified";
    let without_modes = steps.replace("convert 1..2 shared preserve\n", "");
    let mut all = String::new();
    for (fault, dialect, head, steps) in [
        ("unspecified-keeps", "rfc-v4", SHARED, steps),
        ("unspecified-zeroes", "rfc-v4", SHARED, steps),
        ("", "rfc-v4", SHARED, steps),
        ("spurious-eagain", "rfc-v4", SHARED, steps),
        ("", "upstream", SHARED, &without_modes),
        // What is behind the range is no page of it in flight.
        (
            "in-use-offset-behind",
            "rfc-v4",
            SHARED,
            "pin 1..2\nconvert 0..2 private unspecified -> EAGAIN @1",
        ),
        // Of the range, not of what is before it; and not of what has been punched out since.
        ("", "rfc-v4", SHARED, "host write 0..4 B\nconvert 2..4 private unspecified"),
        (
            "",
            "rfc-v4",
            PRIVATE_AT_END,
            "guest write 0..2 A\nconvert 0..2 shared unspecified\npunch 0..1",
        ),
    ] {
        let text = check(fault, dialect, head, steps, &["--json", "-"]);
        let record = text.lines().find(|line| line.starts_with("{\"type\":\"case\"")).unwrap();
        let Record::Case(record) = serde_json::from_str(record).unwrap() else {
            panic!("not a case: {record}")
        };
        let name = if fault.is_empty() { "-" } else { fault };
        all += &format!("{dialect} {name}: {}\n", record.verdict.name());
        for seen in &record.observations {
            all += &format!("  line {}: {} {}\n", seen.line, seen.what, seen.seen);
        }
    }
    insta::assert_snapshot!(all);
}

/// What a case file says of a result must be what the clauses say.
#[test]
fn expectations_are_checked() {
    for (steps, wrong) in [
        ("convert 1..2 private zero -> EOPNOTSUPP @1", false),
        ("convert 1..2 private zero -> OK", true),
        ("convert 1..2 private zero -> EOPNOTSUPP @2", true),
        ("convert 1..2 private preserve -> OK", false),
        ("convert 1..2 private preserve -> EAGAIN", true),
    ] {
        let text = check("", "rfc-v4", SHARED, steps, &[]);
        assert_eq!(text.contains("1 errors"), wrong, "{steps}\n{text}");
        assert_eq!(text.contains("blame     suite"), wrong, "{steps}\n{text}");
    }
}

/// A case that asks for what cannot be is an error of the case, whatever the kernel does.
#[test]
fn mistakes_in_cases() {
    for (head, steps, mistake) in [
        (PRIVATE, "host write 0..1 A", "has host write page 0, which it must not access"),
        (PRIVATE, "host read 1..2", "has host read page 1, which it must not access"),
        (SHARED, "host write 0..1 A -> EINVAL", "can be expected to fail"),
        (SHARED, "child write 0..1 A", "uses a child that was not forked"),
        (SHARED, "remap", "remaps the host's view while a memslot still uses it"),
        (SHARED, "slot 1 raw offset=0 size=0x1000 at=8 -> EINVAL", "the clauses say EEXIST"),
        (
            SHARED,
            "slot 0 raw offset=0x3000 size=0x2000 at=8 -> EEXIST|EINVAL @3",
            "the case expects",
        ),
        (
            SHARED,
            "slot 0 delete\nslot 0 raw offset=0x3000 size=0x2000 -> EEXIST",
            "expects EEXIST, the clauses say EINVAL",
        ),
        (
            SHARED,
            "slot 0 delete\nslot 1 map 0..2 at 3\nguest expect 3..4 mmio",
            "page 3 has no address where there was a memslot",
        ),
        (PRIVATE, "accept 0..1", "accepts pages that cannot be accepted"),
        (SNP_SHARED, "accept 0..1", "accepts pages that cannot be accepted"),
        (SNP, "rescind 1..2", "rescinds page 1, which is not accepted"),
    ] {
        let text = check("", "rfc-v4", head, steps, &[]);
        assert!(text.contains("blame     suite") && text.contains(mistake), "{steps}\n{text}");
    }
}

/// A bystander is looked at after each step, so it is small.
#[test]
fn bystanders_are_small() {
    for (pages, text) in [(64, "1 passed"), (65, "a case with a bystander has at most 64 pages")] {
        let head = format!("pages {pages}\nstart shared\nneeds platform=sw-protected");
        let out = check("", "rfc-v4", &head, "bystander shared", &[]);
        assert!(out.contains(text), "{pages}: {out}");
    }
}
