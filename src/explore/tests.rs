// SPDX-License-Identifier: GPL-2.0-only
//! Histories are the same everywhere, and make sense.

use proptest::prelude::*;

use super::rules::is_valid;
use super::{Shape, history};
use crate::case::{self, Action, Step, View};
use crate::dialect::Dialect;
use crate::platform::Platform;

const SHAPE: Shape = Shape {
    platform: Platform::SwProtected,
    dialect: Dialect::RfcV4,
    steps: 12,
    pages: None,
    in_place: true,
};

/// A seed in a report means the same history for whoever reads it. A change here is a change of what every seed means.
#[test]
fn a_seed_is_a_history() {
    let texts: Vec<String> = (0..3).map(|n| history(1, n, &SHAPE).to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

/// A longer history begins as the shorter one.
#[test]
fn steps_are_appended() {
    for number in 0..50 {
        let short = history(5, number, &SHAPE);
        let long = history(5, number, &Shape { steps: 60, ..SHAPE });
        assert_eq!(long.steps[..12], short.steps);
    }
}

/// Some histories of an encrypted guest begin in its launch, which they finish once. Until then the guest does nothing; launch
/// calls are copied, in place and, where they are to be refused, of shared pages.
#[test]
fn launches_are_explored() {
    let shape = Shape { platform: Platform::Snp, dialect: Dialect::RfcV5, steps: 40, ..SHAPE };
    let (mut launched, mut copied, mut in_place, mut refused) = (0, 0, 0, 0);
    for number in 0..200 {
        let case = history(9, number, &shape);
        let finalize = |step: &Step| step.action == Action::Finalize;
        let Some(end) = case.steps.iter().position(finalize) else {
            assert!(!case.steps.iter().any(|step| matches!(step.action, Action::Launch { .. })));
            continue;
        };
        launched += 1;
        assert!(!case.steps[end + 1..].iter().any(finalize), "{case}");
        for step in &case.steps[..end] {
            match &step.action {
                Action::Launch { .. } if step.expect.is_some() => refused += 1,
                Action::Launch { from: Some(_), .. } => copied += 1,
                Action::Launch { from: None, .. } => in_place += 1,
                Action::Write { view, .. } | Action::Read { view, .. } => {
                    assert_ne!(*view, View::Guest, "{case}");
                }
                _ => {}
            }
        }
    }
    assert!((20..80).contains(&launched), "{launched}");
    assert!(copied > 10 && in_place > 10 && refused > 3, "{copied} {in_place} {refused}");
    // Where the kernel takes no pages in place, none are tried.
    let shape = Shape { in_place: false, ..shape };
    let in_place = |step: &Step| matches!(step.action, Action::Launch { from: None, .. });
    assert!((0..50).all(|number| !history(9, number, &shape).steps.iter().any(in_place)));
}

proptest! {
    /// Whatever the seed, a history has the steps that were asked for, each makes sense where it stands, and its text
    /// parses back to it, as a case of this platform.
    #[test]
    fn histories_are_valid(
        seed: u64,
        number in 0u64..1000,
        dialect in prop::sample::select(Dialect::ALL.to_vec()),
        platform in prop::sample::select(Platform::ALL.to_vec()),
        pages in prop::option::of(prop_oneof![1u64..20, 500u64..600, (1u64 << 20)..(2 << 20)]),
    ) {
        let shape = Shape { platform, dialect, steps: 50, pages, in_place: true };
        let case = history(seed, number, &shape);
        prop_assert_eq!(case.steps.len(), 50);
        prop_assert!(pages.is_none_or(|pages| case.pages == pages));
        prop_assert!(is_valid(platform, dialect, &case));
        prop_assert!(platform == Platform::SwProtected || !case.needs.is_empty());
        let parsed = case::parse("history", &case.to_string()).unwrap();
        prop_assert_eq!(parsed, vec![case.canonical()]);
    }
}
