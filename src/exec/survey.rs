// SPDX-License-Identifier: GPL-2.0-only
//! What the host finds once a case has failed: nothing is left that a look could disturb.

use super::access;
use super::session::Session;
use crate::case::{Pages, View};
use crate::oracle::{Content, Sight};

impl Session<'_> {
    /// The state of `pages` as the host finds it, a letter a page: `S` can be read, `P` faults, `!` can be read and holds
    /// other contents than the clauses say. `None` where the host cannot look.
    pub fn survey(&self, pages: Pages) -> Option<String> {
        if !self.oracle.is_mappable() {
            return None;
        }
        let letter = |page| match access::read_page(&*self.view, page) {
            Err(_) => 'P',
            Ok(bytes) => match self.oracle.sight(View::Host, page) {
                Sight::Content(content) if differs(&content, page, &bytes) => '!',
                _ => 'S',
            },
        };
        Some(pages.map(letter).collect())
    }
}

fn differs(content: &Content, page: u64, found: &[u8]) -> bool {
    content.bytes(page).is_some_and(|expected| expected[..] != *found)
}
