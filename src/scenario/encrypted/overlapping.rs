// SPDX-License-Identifier: GPL-2.0-only
//! Conversions of an encrypted guest's memory that overlap in time and range.

use std::sync::atomic::AtomicBool;

use crate::case::Attribute::{self, Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, GuestSide, rounds};
use crate::scenario::memory::{Memory, describe};
use crate::scenario::race::{Call, ORDERS, ROUNDS, all_at_once, calls};

/// What a page is, and whether it must hold zeros; otherwise nobody knows what it holds.
#[derive(Clone, Copy, Debug)]
struct Page {
    attribute: Attribute,
    zero: bool,
}

pub(in crate::scenario) fn overlapping(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    let never = AtomicBool::new(false);
    for round in rounds(ROUNDS, &never) {
        let tag = pattern::tag(b'O', round as u16);
        memory.fill(&all, tag)?;
        let calls = calls(round, memory);
        all_at_once(memory, &calls)?;
        let found = look(memory);
        let allowed = ORDERS.map(|order| {
            let mut pages = vec![Page { attribute: Shared, zero: false }; all.end as usize];
            order.iter().for_each(|call| apply(&calls[*call], &mut pages));
            pages
        });
        if !allowed.iter().any(|allowed| agree(allowed, &found)) {
            let stop = CaseEnd::broken(
                ClauseId::ConvertRange,
                "pages are not what three conversions at a time make of them in any order",
            );
            let detail = calls.iter().map(|call| {
                let zero = if call.zero { " with ZERO" } else { "" };
                format!("{}{zero}", describe(&call.pages, call.to))
            });
            return Err(stop.but(map(&allowed[0]), map(&found)).detail(detail.collect()));
        }
        used_by_both(guest, memory, &found, tag)?;
        memory.convert(&all, Shared, memory.keep())?;
    }
    Ok(())
}

fn apply(call: &Call, pages: &mut [Page]) {
    for number in call.pages.clone() {
        // Within the file, see `calls`.
        pages[number as usize] = Page { attribute: call.to, zero: call.zero };
    }
}

/// Whether pages are as they may be.
fn agree(allowed: &[Page], found: &[Page]) -> bool {
    allowed.iter().zip(found).all(|(allowed, found)| {
        allowed.attribute == found.attribute && (!allowed.zero || found.zero)
    })
}

/// What every page is, and whether there are zeros in it, as the host sees it.
fn look(memory: &Memory) -> Vec<Page> {
    let zeros = |page| {
        (0..pattern::WORDS_PER_PAGE).all(|index| memory.read(page, index as usize) == Some(0))
    };
    let page = |page| match memory.read(page, 0) {
        Some(_) => Page { attribute: Shared, zero: zeros(page) },
        None => Page { attribute: Private, zero: false },
    };
    (0..memory.pages).map(page).collect()
}

/// The guest can use every page as what it is.
fn used_by_both(
    guest: &mut GuestSide,
    memory: &Memory,
    pages: &[Page],
    tag: u64,
) -> Result<(), CaseEnd> {
    for (number, page) in (0..).zip(pages) {
        let this = number..number + 1;
        match page.attribute {
            Private => {
                guest.accept(memory, &this)?;
                guest.fill_private(memory, &this, tag)?;
                guest.check_private(memory, &this, tag, ClauseId::CocoAcceptance)?;
                // Not given up: whatever the guest does, a conversion takes back what it has accepted.
            }
            Shared => {
                guest.fill(memory, &this, tag)?;
                memory.must_hold(number, tag)?;
            }
        }
    }
    Ok(())
}

/// A letter a page, and another for what it must hold.
fn map(pages: &[Page]) -> String {
    let page = |page: &Page| {
        let attribute = if page.attribute == Shared { 'S' } else { 'P' };
        [attribute, if page.zero { '0' } else { '.' }]
    };
    pages.iter().flat_map(page).collect()
}
