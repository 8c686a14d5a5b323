// SPDX-License-Identifier: GPL-2.0-only
//! Which of the built-in cases a command line selects.

use std::collections::BTreeSet;

use super::*;
use crate::plan::{PlanError, PlannedCase, Selection, build, in_shard};
use crate::results::Shard;
use crate::scenario::Scenario;

const ZERO: &str = "sw-protected.zero.after-zero";

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_string()).collect()
}

fn filtered(filters: &[&str]) -> Selection {
    Selection { filters: strings(filters), ..Selection::default() }
}

fn planned(selection: &Selection) -> Result<Vec<PlannedCase>, PlanError> {
    build(&config(MachineKind::Host), &offers_all(Dialect::RfcV5), selection)
}

fn ids(selection: &Selection) -> Vec<String> {
    let plan = planned(selection).unwrap_or_else(|e| panic!("{e}"));
    plan.into_iter().map(|case| case.id).collect()
}

/// Ids are a contract: `platform.topic.name[.variant]` in `[a-z0-9_.-]`, unique, and on the model with `model.` in front, so
/// that nobody takes them for a kernel's.
#[test]
fn ids_are_well_formed() {
    for (kind, prefix) in [(MachineKind::Host, ""), (MachineKind::Model, "model.")] {
        let environment = offers_all(Dialect::RfcV5);
        let plan = build(&config(kind), &environment, &Selection::default()).expect("a plan");
        let mut seen = BTreeSet::new();
        for case in &plan {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
            assert!(case.id.bytes().all(good), "{}", case.id);
            let (name, clauses) = match case.text.strip_prefix("scenario ") {
                Some(name) => {
                    let scenario = Scenario::named(name.trim_end()).expect("a scenario");
                    (scenario.name.to_string(), scenario.clauses.to_vec())
                }
                None => {
                    let parsed = case::parse("planned.case", &case.text).expect("it parses");
                    (parsed[0].name.clone(), parsed[0].clauses.clone())
                }
            };
            assert_eq!(case.id, format!("{prefix}{}.{name}", case.platform));
            assert_eq!(case.clauses, clauses);
            assert!(seen.insert(&case.id), "two cases {}", case.id);
        }
        let platforms: BTreeSet<&str> = plan.iter().map(|c| c.platform.name()).collect();
        assert_eq!(platforms, BTreeSet::from(["default", "sw-protected", "snp", "tdx"]));
    }
}

/// A filter is any part of an id, and any of several may match.
#[test]
fn filters() {
    let all = ids(&Selection::default());
    let matching = |part: &str| -> Vec<String> {
        all.iter().filter(|id| id.contains(part)).cloned().collect()
    };
    assert_eq!(ids(&filtered(&["preserve."])), matching("preserve."));
    assert!(matching("preserve.").len() > 10);
    assert_eq!(
        ids(&filtered(&["zero.after-zero", "sw-protected.zero.after"])),
        matching("zero.after")
    );
    let both = ids(&filtered(&["sw-protected.zero.after-zero", "no-private-memory.same"]));
    assert_eq!(both, ["default.no-private-memory.same-memory", ZERO]);
}

/// With --exact a filter is a whole id.
#[test]
fn exact() {
    let exact = |id| Selection { exact: true, ..filtered(&[id]) };
    assert_eq!(ids(&exact(ZERO)), [ZERO]);
    let error = planned(&exact("zero.after-zero")).expect_err("not a whole id").to_string();
    assert!(
        error.starts_with("no case matches `zero.after-zero`; the nearest ids are\n"),
        "{error}"
    );
    assert!(error.contains(ZERO), "{error}");
}

/// --skip leaves out what filters have chosen, and nothing else.
#[test]
fn skip() {
    let selection = Selection {
        skips: strings(&["zero.holes", "refused", "sw-protected.zero.p"]),
        ..filtered(&[".zero."])
    };
    let found = ids(&selection);
    let want: Vec<String> = ids(&filtered(&[".zero."]))
        .into_iter()
        .filter(|id| !["zero.holes", "refused", "zero.partly"].iter().any(|s| id.contains(s)))
        .collect();
    assert_eq!(found, want);
    assert!(!found.is_empty());
}

/// --platform plans the cases of these platforms only, also where they cannot run: those are skips.
#[test]
fn platforms() {
    let only = |wanted: &[Platform]| Selection {
        platforms: Some(wanted.to_vec()),
        ..Selection::default()
    };
    assert!(ids(&only(&[Platform::Default])).iter().all(|id| id.starts_with("default.")));
    let all = ids(&only(&[Platform::Tdx, Platform::Snp, Platform::SwProtected, Platform::Default]));
    assert_eq!(all, ids(&Selection::default()));
    let selection = only(&[Platform::SwProtected]);
    let plan = build(&config(MachineKind::Host), &lacks_protected(), &selection).expect("a plan");
    for case in plan {
        assert_eq!(case.platform, Platform::SwProtected);
        assert_eq!(case.unmet[0].slug, "no-vm-type-sw-protected", "{}", case.id);
    }
}

/// A filter that matches nothing is a mistake even where another one matches, and what was meant is named.
#[test]
fn nothing_selected() {
    let error = planned(&filtered(&["after-zero", "presrve.both"]))
        .expect_err("a typing error")
        .to_string();
    assert!(
        error.starts_with("no case matches `presrve.both`; the nearest ids are\n  "),
        "{error}"
    );
    assert!(error.contains("\n  sw-protected.preserve.both-ways"), "{error}");
    assert!(error.lines().count() <= 6, "{error}");
    let selection = Selection { skips: strings(&["zero"]), ..filtered(&["after-zero"]) };
    let error = planned(&selection).expect_err("all is skipped").to_string();
    assert_eq!(error, "no case is left to run: the options exclude every one");
}

/// A platform that must run is an error where it is missing, unknown, or left out, instead of a skip that nobody reads.
#[test]
fn required_platforms() {
    let require = |platform| Selection { required: vec![platform], ..Selection::default() };
    let on = |environment: &Environment, selection: &Selection| {
        build(&config(MachineKind::Host), environment, selection).map(|plan| plan.len())
    };
    let all = offers_all(Dialect::RfcV5);
    let count = |selection| on(&all, selection).expect("a plan");
    assert_eq!(count(&require(Platform::SwProtected)), count(&Selection::default()));
    assert!(on(&lacks_protected(), &require(Platform::Default)).is_ok());
    let error =
        on(&lacks_protected(), &require(Platform::SwProtected)).expect_err("missing").to_string();
    let want =
        "platform sw-protected is required but cannot run: there are no such VMs; there is no luck";
    assert_eq!(error, want);
    let without_tdx = Environment { platforms: all.platforms[..3].to_vec(), ..all.clone() };
    let error = on(&without_tdx, &require(Platform::Tdx)).expect_err("unknown").to_string();
    assert_eq!(error, "platform tdx is required but nothing is known of it here");
    let only_default = Some(vec![Platform::Default]);
    let selection = Selection { platforms: only_default, ..require(Platform::SwProtected) };
    let error = on(&all, &selection).expect_err("left out").to_string();
    let want = "platform sw-protected is required but the options exclude every case of it";
    assert_eq!(error, want);
}

/// Shards of all versions of the program cut the suite in the same places, and each case has one.
#[test]
fn shards_are_stable() {
    let shard_of = |id: &str| {
        let shards: Vec<u32> =
            (1..=4).filter(|index| in_shard(id, Shard { index: *index, count: 4 })).collect();
        assert_eq!(shards.len(), 1, "{id}");
        shards[0]
    };
    let ids = ["a.b.c", "sw-protected.zero.holes", "snp.preserve.both-ways", ""];
    assert_eq!(ids.map(shard_of), [2, 3, 3, 1]);
    assert!(in_shard("anything", Shard { index: 1, count: 1 }));
}
