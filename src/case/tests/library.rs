// SPDX-License-Identifier: GPL-2.0-only
//! The built-in cases and the clauses agree with each other.

use std::collections::BTreeSet;

use crate::case::library::CASES;
use crate::case::{library, parse};
use crate::clause::{ClauseId, clauses};

/// A case is found by its name: `topic.name` is in `cases/TOPIC/NAME.case`, and nowhere else.
#[test]
fn names_follow_paths() {
    let mut names = BTreeSet::new();
    for (path, text) in CASES {
        let cases = parse(path, text).unwrap_or_else(|e| panic!("{e}"));
        for case in cases {
            let mut parts = case.name.splitn(3, '.');
            let (topic, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            assert_eq!(*path, format!("cases/{topic}/{name}.case"));
            assert!(names.insert(case.name.clone()), "two cases {}", case.name);
        }
    }
    assert!(names.len() > 400, "only {} cases were built in", names.len());
}

/// A case says what it is about.
#[test]
fn every_case_is_described() {
    for (path, text) in CASES {
        assert!(text.starts_with("# SPDX-License-Identifier: GPL-2.0-only\n"), "{path}");
        for case in parse(path, text).unwrap_or_else(|e| panic!("{e}")) {
            assert!(case.about.iter().any(|line| !line.is_empty()), "{path}");
        }
    }
}

/// Every promise is tested, and every case names each of its promises once.
#[test]
fn clauses_and_cases_agree() {
    let cases = library().expect("built-in cases parse");
    let mut untested: BTreeSet<ClauseId> = clauses().iter().map(|c| c.id).collect();
    for case in &cases {
        let named: BTreeSet<ClauseId> = case.clauses.iter().copied().collect();
        assert_eq!(named.len(), case.clauses.len(), "{} repeats a clause", case.name);
        untested.retain(|id| !named.contains(id));
    }
    for scenario in crate::scenario::SCENARIOS {
        untested.retain(|id| !scenario.clauses.contains(id));
    }
    assert!(untested.is_empty(), "no case tests {untested:?}");
}

/// A clause can be quoted: one id, a text, a source.
#[test]
fn clauses_are_complete() {
    for clause in clauses() {
        let id = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        assert!(
            clause.id.name().contains('.') && clause.id.name().bytes().all(id),
            "{}",
            clause.id
        );
        assert!(!clause.text.trim().is_empty(), "{} says nothing", clause.id);
        assert!(!clause.source.trim().is_empty(), "{} has no source", clause.id);
    }
}
