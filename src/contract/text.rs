// SPDX-License-Identifier: GPL-2.0-only
//! The contract for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use thiserror::Error;

use super::state::{Promise, State};
use crate::text::nearest;

/// Ids that are listed when not all are asked for.
const SHOWN: usize = 3;

/// A filter that no clause matches.
#[derive(Debug, Error)]
#[error("no clause matches `{filter}`; the nearest are\n  {near}")]
pub struct NoClause {
    filter: String,
    /// The nearest ids, one a line.
    near: String,
}

/// The text of `gmem-conform contract`: the clauses whose id contains one of `filters`, or all of them; with `verbose`,
/// the ids of every case.
pub fn contract_text(
    contract: &[Promise],
    filters: &[String],
    verbose: bool,
) -> Result<String, NoClause> {
    let ids = || contract.iter().map(|promise| promise.clause.id.name());
    if let Some(filter) = filters.iter().find(|f| !ids().any(|id| id.contains(f.as_str()))) {
        let near = nearest(ids(), filter).join("\n  ");
        return Err(NoClause { filter: filter.clone(), near });
    }
    let mut out = String::new();
    for promise in contract {
        let wanted = |f: &String| promise.clause.id.name().contains(f.as_str());
        if filters.is_empty() || filters.iter().any(wanted) {
            one(&mut out, promise, verbose);
        }
    }
    Ok(out)
}

fn one(out: &mut String, promise: &Promise, verbose: bool) {
    let clause = promise.clause;
    let _ = writeln!(out, "{}\n  {}", clause.id, clause.text);
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    row("source", &clause.source);
    for fix in &clause.fixes {
        row("see", fix);
    }
    if !clause.dialects.is_empty() {
        let names: Vec<&str> = clause.dialects.iter().map(|d| d.name()).collect();
        row("dialects", &names.join(", "));
    }
    let mut per_platform: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &promise.cases {
        *per_platform.entry(id.split('.').next().unwrap_or(id)).or_default() += 1;
    }
    let counts: Vec<String> = per_platform.iter().map(|(p, n)| format!("{p} {n}")).collect();
    row("cases", &format!("{} ({})", promise.cases.len(), counts.join(", ")));
    if verbose {
        for id in &promise.cases {
            row("", id);
        }
    }
    let faults: Vec<&str> = promise.faults.iter().map(|fault| fault.name()).collect();
    row("broken by", &faults.join(", "));
    for (platform, state) in &promise.states {
        row("state", &format!("{platform}: {}", describe(state, verbose)));
    }
}

fn describe(state: &State, verbose: bool) -> String {
    let list = |ids: &[String]| {
        let shown = if verbose { ids.len() } else { ids.len().min(SHOWN) };
        let mut text = ids[..shown].join(", ");
        if shown < ids.len() {
            text += &format!(" and {} more", ids.len() - shown);
        }
        text
    };
    if !state.broken.is_empty() {
        return format!("BROKEN in {}", list(&state.broken));
    }
    let undecided = match state.undecided.as_slice() {
        [] => String::new(),
        ids => format!("; undecided in {}", list(ids)),
    };
    let mut why: Vec<&str> = state.skipped.iter().map(String::as_str).collect();
    if state.passed > 0 {
        let skipped = match why.as_slice() {
            [] => String::new(),
            why => format!(", others skipped: {}", why.join(", ")),
        };
        return format!("kept ({} passed{skipped}){undecided}", state.passed);
    }
    if why.is_empty() && state.undecided.is_empty() {
        why.push("no case of it was run");
    }
    format!("not checked ({}){undecided}", why.join(", ")).replace(" ()", "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::library;
    use crate::clause::clauses;
    use crate::contract::contract;

    fn text(filters: &[&str], verbose: bool) -> Result<String, NoClause> {
        let cases = library().expect("built-in cases parse");
        let filters: Vec<String> = filters.iter().map(|f| f.to_string()).collect();
        contract_text(&contract(&cases, None), &filters, verbose)
    }

    /// A filter shows its clauses only, in full; a filter that matches none is a mistake with a way out.
    #[test]
    fn filters() {
        let all = text(&[], false).expect("no filter");
        assert_eq!(all.lines().filter(|l| l.starts_with("  source ")).count(), clauses().len());
        let some = text(&["fork.view"], true).expect("a clause");
        assert!(some.starts_with("fork.view\n  a conversion acts"), "{some}");
        assert!(some.contains("sw-protected.fork.to-private\n"), "{some}");
        assert!(some.contains("  broken by child-not-zapped\n"), "{some}");
        assert!(!some.contains("convert.range\n"), "{some}");
        let error = text(&["fork.veiw"], false).expect_err("no such clause").to_string();
        assert!(error.contains("fork.view"), "{error}");
    }

    /// Broken outweighs everything, and a clause without a verdict says why.
    #[test]
    fn states_in_words() {
        let mut state = State::default();
        assert_eq!(describe(&state, false), "not checked (no case of it was run)");
        state.skipped = BTreeSet::from(["no-content-modes".to_string()]);
        assert_eq!(describe(&state, false), "not checked (no-content-modes)");
        state.passed = 1;
        assert_eq!(describe(&state, false), "kept (1 passed, others skipped: no-content-modes)");
        state.passed = 0;
        state.skipped.clear();
        state.undecided = vec!["a".into()];
        assert_eq!(describe(&state, false), "not checked; undecided in a");
        state.passed = 2;
        assert_eq!(describe(&state, false), "kept (2 passed); undecided in a");
        state.broken = ["b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(describe(&state, false), "BROKEN in b, c, d and 1 more");
        assert_eq!(describe(&state, true), "BROKEN in b, c, d, e");
    }
}
