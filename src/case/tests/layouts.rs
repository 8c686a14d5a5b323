// SPDX-License-Identifier: GPL-2.0-only
//! The rows are all there, and are cases.

use std::collections::BTreeSet;

use crate::case::layouts::{self, Tier};
use crate::case::{Case, parse};
use crate::dialect::Dialect;
use crate::plan::platforms_of;
use crate::platform::Platform;

/// The rows that run on a platform.
fn rows_on(platform: Platform, tier: Tier, dialect: Dialect) -> Vec<Case> {
    let mut rows = layouts::rows(tier, dialect);
    rows.retain(|case| platforms_of(case).contains(&platform));
    rows
}

/// The platforms that have rows: two of them have the same.
const PLATFORMS: [Platform; 3] = [Platform::SwProtected, Platform::Snp, Platform::Tdx];

/// The platforms of which the quick tier has more than a sample.
const ENCRYPTED: [Platform; 2] = [Platform::Snp, Platform::Tdx];

/// The quick tier of encrypted guests holds every layout, range, direction and mode of three pages.
#[test]
fn quick_rows_are_complete() {
    for (dialect, platform) in Dialect::ALL.into_iter().flat_map(|d| ENCRYPTED.map(|p| (d, p))) {
        let rows = rows_on(platform, Tier::Quick, dialect);
        assert_eq!(rows.len(), 64 * 6 * 2 * 3);
        let names: BTreeSet<String> = rows.into_iter().map(|case| case.name).collect();
        assert_eq!(names.len(), 64 * 6 * 2 * 3);
        let without_toucher: BTreeSet<&str> =
            names.iter().filter_map(|name| name.rsplit_once('-')).map(|(rest, _)| rest).collect();
        assert_eq!(without_toucher.len(), names.len(), "one toucher for each");
    }
}

/// In the quick tier each value of a column meets each value of every other column: who touched the pages and which bad
/// call came before are no exception.
#[test]
fn quick_rows_cover_all_pairs() {
    for platform in PLATFORMS {
        let rows = rows_on(platform, Tier::Quick, Dialect::RfcV4);
        cover_all_pairs(rows.iter());
    }
}

/// So does the sample that runs in VMs of its own, with fresh files, and it is a small part of the rows.
#[test]
fn rows_alone_cover_all_pairs() {
    for platform in PLATFORMS {
        let rows = rows_on(platform, Tier::Quick, Dialect::RfcV4);
        let alone: Vec<&Case> = rows.iter().filter(|row| row.vm_fresh).collect();
        assert!(alone.iter().all(|row| !row.file_reused));
        assert!(alone.len() < 64 * 6 * 2 * 3 / 10, "{} rows", alone.len());
        let all = rows.len() == alone.len();
        assert_eq!(all, platform == Platform::SwProtected, "{} of {}", alone.len(), rows.len());
        cover_all_pairs(alone.into_iter());
    }
}

fn cover_all_pairs<'a>(rows: impl Iterator<Item = &'a Case>) {
    let mut pairs = BTreeSet::new();
    for case in rows {
        let mut parts: Vec<String> =
            case.name.split(['.', '-']).skip(1).map(str::to_string).collect();
        // Start and end are one column: the range.
        let end = parts.remove(4);
        parts[3] += &end;
        let text = case.to_string();
        parts.push(match (text.contains("zero+preserve"), text.contains("flags=0x4")) {
            (true, false) => "both".into(),
            (false, true) => "unknown".into(),
            (false, false) => "none".into(),
            (true, true) => unreachable!("one bad call at most"),
        });
        for (a, left) in parts.iter().enumerate() {
            for (b, right) in parts.iter().enumerate().skip(a + 1) {
                pairs.insert((a, left.clone(), b, right.clone()));
            }
        }
    }
    // The pages' states, range, direction, mode, toucher, bad call.
    let values = [4, 4, 4, 6, 2, 3, 4, 3];
    let mut all = 0;
    for (a, left) in values.iter().enumerate() {
        all += values[a + 1..].iter().map(|right| left * right).sum::<usize>();
    }
    assert_eq!(pairs.len(), all);
}

/// The full tier holds the whole product of three pages, four pages, and three pages at four boundaries; a row that is
/// in both tiers reads the same in both.
#[test]
fn full_rows_are_complete() {
    for platform in PLATFORMS {
        full_rows_are_complete_on(platform);
    }
}

fn full_rows_are_complete_on(platform: Platform) {
    let full = rows_on(platform, Tier::Full, Dialect::RfcV5);
    let names: BTreeSet<&str> = full.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(full.len(), 64 * 6 * 2 * 5 * 4 + 256 * 10 * 2 * 3 + 4 * 64 * 6 * 2 * 3);
    assert_eq!(names.len(), full.len());
    for row in rows_on(platform, Tier::Quick, Dialect::RfcV5).iter().step_by(7) {
        let same = full.iter().find(|case| case.name == row.name);
        assert_eq!(same, Some(row));
    }
}

/// A row is a case like any other: it prints, parses back, and its text is short enough for a mail.
#[test]
fn rows_are_cases() {
    for dialect in Dialect::ALL {
        for row in layouts::rows(Tier::Full, dialect).iter().step_by(61) {
            let text = row.to_string();
            assert_eq!(parse("row", &text).as_deref(), Ok(&[row.clone()][..]), "{text}");
            assert!(text.lines().count() <= 20, "{text}");
        }
    }
}
