// SPDX-License-Identifier: GPL-2.0-only
//! Runs of pages against a plain list.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::oracle::runs::Runs;

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    /// Whatever ranges are set, in whatever order, every page has the value that it was last given, and a page far behind
    /// them the first. An empty range gives nobody anything.
    #[test]
    fn runs_are_a_list(sets in vec((0..24usize, 0..24usize, 0..4u8), 0..24)) {
        let mut runs = Runs::new(9);
        let mut list = [9; 24];
        for (a, b, value) in sets {
            let range = a.min(b)..a.max(b);
            list[range.clone()].fill(value);
            runs.set(range.start as u64..range.end as u64, value);
            let found: Vec<u8> = (0..24).map(|page| *runs.get(page)).collect();
            prop_assert_eq!(found, list.to_vec());
            prop_assert_eq!(*runs.get(u64::MAX), 9);
        }
    }
}
