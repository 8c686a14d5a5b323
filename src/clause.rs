// SPDX-License-Identifier: GPL-2.0-only
//! The promises of the interface, from `cases/clauses.toml`.

use std::sync::LazyLock;

use serde::Deserialize;
use strum::VariantArray;

use crate::dialect::Dialect;

// build.rs writes the enum `ClauseId`: a variant for each clause, in the order of the file.
include!(concat!(env!("OUT_DIR"), "/clause_id.rs"));

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clause {
    /// `topic.name`.
    pub id: ClauseId,
    /// The promise, one sentence.
    pub text: String,
    /// Where it is made.
    pub source: String,
    /// The revisions that make it; empty for all.
    #[serde(default)]
    pub dialects: Vec<Dialect>,
    /// Commits or mails that dealt with a kernel which broke it.
    #[serde(default)]
    pub fixes: Vec<String>,
}

/// The form of `cases/clauses.toml`.
#[derive(Deserialize)]
struct ClauseList {
    clause: Vec<Clause>,
}

static CLAUSES: LazyLock<Vec<Clause>> = LazyLock::new(|| {
    // The file is part of the program, and a test parses it: it cannot be broken at run time.
    toml::from_str::<ClauseList>(include_str!("../cases/clauses.toml"))
        .expect("cases/clauses.toml is well-formed")
        .clause
});

/// Every clause, in the order of the file.
pub fn clauses() -> &'static [Clause] {
    &CLAUSES
}

/// The clause with this id, where the id comes from a file or a command line.
pub fn clause(id: &str) -> Option<&'static Clause> {
    id.parse().ok().map(ClauseId::clause)
}

impl ClauseId {
    /// Every id, in the order of the file.
    pub const ALL: &'static [ClauseId] = ClauseId::VARIANTS;

    /// The id, as cases and results files spell it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The clause with this id: its text, its source, its dialects.
    pub fn clause(self) -> &'static Clause {
        // The enum is made from the file, in its order, and a test compares both.
        &CLAUSES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each id leads to its own clause. That needs the same order in the enum and in the file.
    #[test]
    fn ids_lead_to_their_clauses() {
        let ids: Vec<ClauseId> = clauses().iter().map(|clause| clause.id).collect();
        assert_eq!(ids, ClauseId::ALL);
        for id in ids {
            assert_eq!(id.clause().id, id);
            assert_eq!(clause(id.name()), Some(id.clause()));
            assert_eq!(id.to_string(), id.name());
        }
        assert_eq!(clause("no.such-clause"), None);
    }
}
