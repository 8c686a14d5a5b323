// SPDX-License-Identifier: GPL-2.0-only
//! A value per page, stored by range: what the kernel uses a maple tree for.

use std::collections::BTreeMap;
use std::ops::Range;

/// A value for every page of `0..end`. Takes memory in proportion to the number of ranges, never of pages.
#[derive(Clone, Debug)]
pub(super) struct RangeMap<T> {
    /// The first page of each run, and the value until the next run. Neighbouring runs differ; page 0 has an entry.
    runs: BTreeMap<u64, T>,
    end: u64,
}

impl<T: Copy + PartialEq> RangeMap<T> {
    /// A map in which every page of `0..end` has `value`.
    pub(super) fn new(end: u64, value: T) -> RangeMap<T> {
        RangeMap { runs: BTreeMap::from([(0, value)]), end }
    }

    /// The value of `page`; of a page past the end, the last page's.
    pub(super) fn get(&self, page: u64) -> Option<T> {
        self.runs.range(..=page).next_back().map(|(_, v)| *v)
    }

    /// Gives every page of `pages` the value; what lies past the end is ignored.
    pub(super) fn set(&mut self, pages: Range<u64>, value: T) {
        let (start, end) = (pages.start, pages.end.min(self.end));
        if start >= end {
            return;
        }
        let before = start.checked_sub(1).and_then(|page| self.get(page));
        let after = if end < self.end { self.get(end) } else { None };
        let covered: Vec<u64> = self.runs.range(start..=end).map(|(k, _)| *k).collect();
        for key in covered {
            self.runs.remove(&key);
        }
        if before != Some(value) {
            self.runs.insert(start, value);
        }
        if let Some(after) = after
            && after != value
        {
            self.runs.insert(end, after);
        }
    }

    /// The runs of equal value that `pages` consists of, from the lowest; what lies past the end is left out.
    pub(super) fn runs(&self, pages: Range<u64>) -> Vec<(Range<u64>, T)> {
        let (mut start, end) = (pages.start, pages.end.min(self.end));
        let mut runs = Vec::new();
        while start < end {
            let Some(value) = self.get(start) else { break };
            let next = self.runs.range(start + 1..).next();
            let stop = next.map_or(end, |(key, _)| (*key).min(end));
            runs.push((start..stop, value));
            start = stop;
        }
        runs
    }

    /// Where the value changes: the value of page 0, and the first page of every later run.
    pub(super) fn boundaries(&self) -> impl ExactSizeIterator<Item = (u64, T)> {
        self.runs.iter().map(|(k, v)| (*k, *v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The map agrees with a plain array over every sequence of two stores, and neighbouring runs are always merged.
    #[test]
    fn agrees_with_an_array() {
        const END: u64 = 5;
        let ranges = || (0..END).flat_map(|a| (a..=END + 1).map(move |b| a..b));
        for first in ranges() {
            for second in ranges() {
                for value in [false, true] {
                    let mut map = RangeMap::new(END, false);
                    let mut array = [false; END as usize];
                    for (range, value) in [(&first, true), (&second, value)] {
                        map.set(range.clone(), value);
                        for page in range.clone().filter(|page| *page < END) {
                            array[page as usize] = value;
                        }
                    }
                    for page in 0..END {
                        assert_eq!(map.get(page), Some(array[page as usize]));
                    }
                    let runs = map.runs(0..END + 7);
                    assert_eq!(runs.first().map(|r| r.0.start), Some(0));
                    assert_eq!(runs.last().map(|r| r.0.end), Some(END));
                    assert!(runs.windows(2).all(|w| w[0].1 != w[1].1));
                    assert_eq!(runs.len(), map.boundaries().len());
                }
            }
        }
    }

    /// A range in the middle of a run is cut out of it.
    #[test]
    fn runs_are_clipped() {
        let mut map = RangeMap::new(10, 0);
        map.set(3..6, 8);
        assert_eq!(map.runs(2..5), [(2..3, 0), (3..5, 8)]);
        assert_eq!(map.runs(6..6), []);
    }
}
