// SPDX-License-Identifier: GPL-2.0-only
//! Clauses, cases, bugs and results put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::case::Case;
use crate::clause::{Clause, clauses};
use crate::machine::model::Fault;
use crate::plan::platforms_of;
use crate::results::{CaseRecord, Record, Verdict};
use crate::results::{ReadError, for_each_record};

/// A clause and everything that there is to say about it.
#[derive(Clone, Debug)]
pub struct Promise {
    /// The clause.
    pub clause: &'static Clause,
    /// Ids of the cases that name it, `platform.topic.name[.variant]`.
    pub cases: Vec<String>,
    /// The planted bugs that break it.
    pub faults: Vec<Fault>,
    /// What a run made of it on each platform that has a case of it or a verdict about it; empty without results.
    pub states: BTreeMap<String, State>,
}

/// What a run says about a clause on one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Cases of the clause that passed.
    pub passed: usize,
    /// Ids of the cases in which it was broken, whether or not they name it.
    pub broken: Vec<String>,
    /// Ids of the cases of the clause that ended early for another reason: another clause, an error, a deadline.
    pub undecided: Vec<String>,
    /// Why cases of the clause were skipped: the slugs of their needs.
    pub skipped: BTreeSet<String>,
}

/// Every clause, in the order of `cases/clauses.toml`, with the cases among `cases` that name it. `results` are those of
/// one run, in any order.
pub fn contract(cases: &[Case], results: Option<&[CaseRecord]>) -> Vec<Promise> {
    let promise = |clause: &'static Clause| {
        let mut ids = Vec::new();
        let mut states = BTreeMap::new();
        for case in cases.iter().filter(|case| case.clauses.contains(&clause.id)) {
            for platform in platforms_of(case) {
                ids.push(format!("{platform}.{}", case.name));
                if results.is_some() {
                    states.entry(platform.to_string()).or_default();
                }
            }
        }
        for record in results.unwrap_or_default() {
            // A waiver makes a failure known, not right.
            let broken = matches!(record.verdict, Verdict::Fail | Verdict::Waived)
                && record
                    .failure
                    .as_ref()
                    .is_some_and(|f| f.clause.as_deref() == Some(clause.id.name()));
            if broken || record.clauses.iter().any(|id| id == clause.id.name()) {
                let state: &mut State = states.entry(record.platform().into()).or_default();
                state.count(record, broken);
            }
        }
        let faults = Fault::ALL.iter().copied().filter(|f| f.clause() == clause.id).collect();
        Promise { clause, cases: ids, faults, states }
    };
    clauses().iter().map(promise).collect()
}

impl State {
    fn count(&mut self, record: &CaseRecord, broken: bool) {
        match record.verdict {
            _ if broken => self.broken.push(record.id.clone()),
            Verdict::Pass => self.passed += 1,
            Verdict::Fail | Verdict::Error | Verdict::Timeout | Verdict::Waived => {
                self.undecided.push(record.id.clone());
            }
            Verdict::Skip => self.skipped.extend(record.needs.iter().map(|n| n.slug.clone())),
        }
    }
}

/// The case records of a results file. A last line that was cut short, because the runner was killed, is passed over.
pub fn read_results(file: &Path) -> Result<Vec<CaseRecord>, ReadError> {
    let mut records = Vec::new();
    for_each_record(file, |record| {
        if let Record::Case(record) = record {
            records.push(*record);
        }
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::library;
    use crate::results::{Failure, Need};

    fn record(id: &str, verdict: Verdict, clauses: &[&str], broken: Option<&str>) -> CaseRecord {
        let failure =
            broken.map(|clause| Failure { clause: Some(clause.to_string()), ..Failure::default() });
        CaseRecord {
            clauses: clauses.iter().map(|c| c.to_string()).collect(),
            duration_us: 1,
            needs: match verdict {
                Verdict::Skip => vec![Need::new("no-content-modes", "there are none")],
                _ => Vec::new(),
            },
            failure,
            ..CaseRecord::new(id, verdict)
        }
    }

    fn state(results: &[CaseRecord], clause: &str, platform: &str) -> State {
        let cases = library().expect("built-in cases parse");
        let contract = contract(&cases, Some(results));
        let promise = contract.iter().find(|p| p.clause.id.name() == clause).expect("a clause");
        promise.states[platform].clone()
    }

    /// No promise goes without a case that tests it and a bug that breaks it, and no bug breaks what nobody promised.
    #[test]
    fn every_clause_has_cases_and_bugs() {
        let cases = library().expect("built-in cases parse");
        let contract = contract(&cases, None);
        for promise in &contract {
            // Only a kernel can run out of memory: scenarios test it there, and the model has no such bug.
            if !promise.clause.id.name().starts_with("no-memory.") {
                assert!(!promise.cases.is_empty(), "no case tests {}", promise.clause.id);
                assert!(!promise.faults.is_empty(), "no bug breaks {}", promise.clause.id);
            }
            assert!(promise.states.is_empty());
        }
        let broken: usize = contract.iter().map(|p| p.faults.len()).sum();
        assert_eq!(broken, Fault::ALL.len(), "a bug breaks a clause that does not exist");
    }

    /// A clause is broken where a failure says so, also in a case that does not name it; a case that fails for another
    /// clause decides nothing; and a platform without a verdict says why.
    #[test]
    fn states() {
        let results = [
            record("model.sw-protected.a.b", Verdict::Pass, &["convert.range"], None),
            record("sw-protected.a.c", Verdict::Fail, &["fresh.zero"], Some("convert.range")),
            record(
                "sw-protected.a.d",
                Verdict::Fail,
                &["convert.range", "fresh.zero"],
                Some("fresh.zero"),
            ),
            record("sw-protected.a.e", Verdict::Timeout, &["convert.range"], None),
            record("sw-protected.a.f", Verdict::Skip, &["zero.to-shared"], None),
        ];
        let found = state(&results, "convert.range", "sw-protected");
        assert_eq!(found.passed, 1);
        assert_eq!(found.broken, ["sw-protected.a.c"]);
        assert_eq!(found.undecided, ["sw-protected.a.d", "sw-protected.a.e"]);
        let found = state(&results, "zero.to-shared", "sw-protected");
        assert_eq!(found.skipped, BTreeSet::from(["no-content-modes".to_string()]));
        assert_eq!((found.passed, found.broken.len()), (0, 0));
        // A case of it is built in, and the file says nothing of any.
        assert_eq!(state(&results, "capability.agrees", "default"), State::default());
    }
}
