// SPDX-License-Identifier: GPL-2.0-only
//! A case in words.

use super::{nearest, platforms_of};
use crate::case::{self, Case};

/// A case, its clauses and its needs, for people; `id` with or without machine and platform. The error names the nearest
/// ids.
pub fn explain(id: &str) -> Result<String, String> {
    let cases = case::library().map_err(|error| format!("a built-in case is broken: {error}"))?;
    let ids = |case: &Case| -> Vec<String> {
        platforms_of(case).into_iter().map(|platform| format!("{platform}.{}", case.name)).collect()
    };
    let wanted = id.strip_prefix("model.").unwrap_or(id);
    let found = cases.iter().find(|c| c.name == wanted || ids(c).iter().any(|i| i == wanted));
    let Some(case) = found else {
        let all: Vec<String> = cases.iter().flat_map(ids).collect();
        let near = nearest(all.iter().map(String::as_str), wanted).join("\n  ");
        return Err(format!("there is no case `{id}`; the nearest ids are\n  {near}"));
    };
    let mut out = format!("{case}\nclauses\n");
    for id in &case.clauses {
        // The parser has checked that the clause exists.
        let Some(clause) = case::clause(id) else {
            continue;
        };
        out += &format!("  {}\n    {}\n    source: {}\n", clause.id, clause.text, clause.source);
    }
    out += "runs as\n";
    for id in ids(case) {
        out += &format!("  {id}\n");
    }
    Ok(out)
}
