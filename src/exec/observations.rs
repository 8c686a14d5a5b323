// SPDX-License-Identifier: GPL-2.0-only
//! What a case sees where nothing is promised.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::{Attribute, Pages};
use crate::oracle::{Content, PageBytes};
use crate::results::Observation;

/// What a page held before a conversion that promises nothing about contents.
struct Before {
    content: Content,
    /// The line of the conversion.
    line: usize,
    to: Attribute,
}

/// What a case has seen where nothing is promised.
#[derive(Default)]
pub(super) struct Observations {
    seen: BTreeSet<(usize, String, String)>,
    /// By page, until somebody looks.
    before: BTreeMap<u64, Before>,
}

impl Observations {
    /// The statement at `line` has shown `seen`.
    pub fn add(&mut self, line: usize, what: impl Into<String>, seen: impl Into<String>) {
        self.seen.insert((line, what.into(), seen.into()));
    }

    /// The conversion at `line`, which promises nothing about contents, takes `page` with this content.
    pub fn remember(&mut self, page: u64, content: Content, line: usize, to: Attribute) {
        self.before.insert(page, Before { content, line, to });
    }

    /// Somebody has seen `bytes` in `page`, for the first time since such a conversion if there was one.
    pub fn look(&mut self, page: u64, bytes: &PageBytes) {
        let Some(Before { content, line, to }) = self.before.remove(&page) else { return };
        let seen = match content.bytes(page) {
            Some(before) if before == *bytes => "kept",
            _ if bytes.iter().all(|b| *b == 0) => "zero",
            _ => "other",
        };
        self.add(line, format!("contents-after-unspecified-to-{to}"), seen);
    }

    /// `page` was written to: what a conversion did to it cannot be seen any more.
    pub fn forget(&mut self, page: u64) {
        self.before.remove(&page);
    }

    /// The same of pages that were punched out.
    pub fn forget_all(&mut self, pages: &Pages) {
        self.before.retain(|page, _| !pages.contains(page));
    }

    /// The file is another one.
    pub fn clear(&mut self) {
        self.before.clear();
    }

    /// What was observed, in the order of the case.
    pub fn take(&mut self) -> Vec<Observation> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.map(|(line, what, seen)| Observation { line, what, seen }).collect()
    }
}
