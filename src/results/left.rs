// SPDX-License-Identifier: GPL-2.0-only
//! A results file as it was left, to go on with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::file::for_each_record;
use super::{CaseRecord, ReadError, Record, RunRecord, Summary};

/// What a results file holds of a run, whether or not that came to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftResults {
    /// Its head.
    pub run: RunRecord,
    /// All that follows, in order.
    pub records: Vec<Record>,
}

impl LeftResults {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<LeftResults, ReadError> {
        let mut all = Vec::new();
        for_each_record(path, |record| all.push(record))?;
        let mut records = all.into_iter();
        match records.next() {
            Some(Record::Run(run)) => Ok(LeftResults { run: *run, records: records.collect() }),
            _ => Err(ReadError::Empty { file: path.display().to_string() }),
        }
    }

    /// The counts at its end, if it has come there.
    pub fn summary(&self) -> Option<&Summary> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Summary(summary) => Some(summary),
            _ => None,
        })
    }

    /// The cases that have a verdict, in the order in which they ended.
    pub fn cases(&self) -> impl Iterator<Item = &CaseRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Case(case) => Some(&**case),
            _ => None,
        })
    }

    /// The cases that were running when the file ended, each with how often it has been started.
    pub fn running(&self) -> BTreeMap<String, usize> {
        let mut running = BTreeMap::new();
        for record in &self.records {
            if let Record::Started(started) = record {
                *running.entry(started.id.clone()).or_default() += 1;
            }
        }
        let ended: BTreeSet<&str> = self.cases().map(|case| case.id.as_str()).collect();
        running.retain(|id, _| !ended.contains(id.as_str()));
        running
    }

    /// How often the run has begun.
    pub fn parts(&self) -> usize {
        1 + self.records.iter().filter(|record| matches!(record, Record::Resumed(_))).count()
    }

    /// The kernel's id of the boot in which it last ran.
    pub fn boot_id(&self) -> &str {
        let resumed = self.records.iter().rev().find_map(|record| match record {
            Record::Resumed(resumed) => Some(resumed.boot_id.as_str()),
            _ => None,
        });
        resumed.unwrap_or(&self.run.environment.boot_id)
    }

    /// Whether the file says already that the run goes on, and nothing has run since.
    pub fn is_announced(&self) -> bool {
        let last = self.records.iter().rev().find(|record| !matches!(record, Record::Case(_)));
        matches!(last, Some(Record::Resumed(_)))
    }

    /// The counts of the cases that have a verdict. What is not in the file, the launches and the time between cases, is not
    /// in the counts.
    pub fn so_far(&self) -> Summary {
        let mut so_far = Summary { planned: self.run.planned, ..Summary::default() };
        let mut time_us = 0;
        for case in self.cases() {
            so_far.count_case(case);
            time_us += case.duration_us;
        }
        so_far.elapsed_ms = time_us / 1000;
        so_far
    }
}
