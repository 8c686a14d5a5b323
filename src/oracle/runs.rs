// SPDX-License-Identifier: GPL-2.0-only
//! A value for every page of a file, stored as runs: a guest_memfd may have a billion pages.

use std::collections::BTreeMap;
use std::ops::Range;

/// Values of pages `0..`, as runs: each key starts a run that ends at the next key.
#[derive(Clone, Debug)]
pub(super) struct Runs<T> {
    starts: BTreeMap<u64, T>,
}

impl<T: Clone + PartialEq> Runs<T> {
    /// Every page has `value`.
    pub fn new(value: T) -> Runs<T> {
        Runs { starts: BTreeMap::from([(0, value)]) }
    }

    /// The value of `page`.
    pub fn get(&self, page: u64) -> &T {
        // Page 0 always starts a run.
        self.starts.range(..=page).next_back().map(|(_, v)| v).expect("a run starts at page 0")
    }

    /// Gives every page of `range` the value.
    pub fn set(&mut self, range: Range<u64>, value: T) {
        let after = self.get(range.end).clone();
        let inside: Vec<u64> = self.starts.range(range.clone()).map(|(k, _)| *k).collect();
        for key in inside {
            self.starts.remove(&key);
        }
        self.starts.insert(range.start, value);
        self.starts.insert(range.end, after);
    }
}
