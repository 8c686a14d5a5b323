// SPDX-License-Identifier: GPL-2.0-only
//! Which pages a case must look at, and through which views.

use std::collections::BTreeSet;

use crate::case::{Case, Pages, View};

/// Cases that share a file are thousands of the same kind. One in so many ends with looks that the others do without:
/// writes to private pages besides reads, and the proof that host and guest see the same memory. Arbitrary.
const THOROUGH_ONE_IN: u16 = 8;

/// What a case has touched, and what else it looks at in the end.
pub(super) struct Coverage {
    touched: BTreeSet<(u64, View)>,
    /// The ends of ranges and their neighbours.
    edges: BTreeSet<u64>,
    /// The last page of the file.
    last_page: u64,
    /// Whether the case ends with all the looks that there are.
    pub thorough: bool,
}

impl Coverage {
    /// At the start of `case`, whose patterns have this salt.
    pub fn new(case: &Case, salt: u16) -> Coverage {
        Coverage {
            touched: BTreeSet::new(),
            edges: BTreeSet::from([0, case.pages - 1]),
            last_page: case.pages - 1,
            thorough: !case.file_reused || salt.is_multiple_of(THOROUGH_ONE_IN),
        }
    }

    /// `view` has accessed `page`.
    pub fn touch(&mut self, page: u64, view: View) {
        self.touched.insert((page, view));
    }

    /// Whether `view` has accessed `page`.
    pub fn has_touched(&self, page: u64, view: View) -> bool {
        self.touched.contains(&(page, view))
    }

    /// The pages that `view` has accessed.
    pub fn touched_by(&self, view: View) -> Vec<u64> {
        self.touched.iter().filter(|(_, by)| *by == view).map(|(page, _)| *page).collect()
    }

    /// `page` is no longer mapped for `view`.
    pub fn forget(&mut self, page: u64, view: View) {
        self.touched.remove(&(page, view));
    }

    /// Nothing is mapped for `view` any more.
    pub fn forget_view(&mut self, view: View) {
        self.touched.retain(|(_, by)| *by != view);
    }

    /// The file is another one.
    pub fn clear(&mut self) {
        self.touched.clear();
        self.edges.clear();
    }

    /// Pages are looked at in the end, whoever touches them.
    pub fn watch(&mut self, pages: impl IntoIterator<Item = u64>) {
        self.edges.extend(pages);
    }

    /// The ends of a range and the pages beside it are looked at in the end, where the file has them.
    pub fn watch_ends(&mut self, start: u64, end: u64) {
        let pages = [start.wrapping_sub(1), start, end.wrapping_sub(1), end];
        let last = self.last_page;
        self.watch(pages.into_iter().filter(|page| *page <= last));
    }

    /// Pages were punched out. They are holes again, and a look at a hole allocates it: that can wait until the end.
    pub fn punch(&mut self, pages: &Pages) {
        let (punched, touched): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.touched).into_iter().partition(|(p, _)| pages.contains(p));
        self.touched = touched.into_iter().collect();
        self.watch(punched.into_iter().map(|(page, _)| page));
        self.watch_ends(pages.start, pages.end);
    }

    /// Every page to look at.
    pub fn pages(&self) -> BTreeSet<u64> {
        self.touched.iter().map(|(page, _)| *page).chain(self.edges.iter().copied()).collect()
    }
}
