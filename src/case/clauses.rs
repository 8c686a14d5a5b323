// SPDX-License-Identifier: GPL-2.0-only
//! The promises of the interface, from `cases/clauses.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::dialect::Dialect;

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clause {
    /// `topic.name`.
    pub id: String,
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

#[derive(Deserialize)]
struct File {
    clause: Vec<Clause>,
}

static CLAUSES: LazyLock<Vec<Clause>> = LazyLock::new(|| {
    // The file is part of the program, and a test parses it: it cannot be broken at run time.
    toml::from_str::<File>(include_str!("../../cases/clauses.toml"))
        .expect("cases/clauses.toml is well-formed")
        .clause
});

/// Every clause, in the order of the file.
pub fn clauses() -> &'static [Clause] {
    &CLAUSES
}

/// The clause with this id.
pub fn clause(id: &str) -> Option<&'static Clause> {
    static BY_ID: LazyLock<BTreeMap<&str, &Clause>> =
        LazyLock::new(|| clauses().iter().map(|c| (c.id.as_str(), c)).collect());
    BY_ID.get(id).copied()
}
