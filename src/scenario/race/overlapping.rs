// SPDX-License-Identifier: GPL-2.0-only
//! Conversions that overlap in time and range.

use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::ROUNDS;
use crate::case::Attribute::{self, Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::results::Blame;
use crate::scenario::arena::{Arena, GuestSide, rounds};
use crate::scenario::memory::{Memory, describe};
use crate::uapi::MODE_ZERO;

/// Calls at a time.
pub(in crate::scenario) const CALLS: usize = 3;
/// The orders in which three calls may take effect.
pub(in crate::scenario) const ORDERS: [[usize; CALLS]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A conversion.
#[derive(Clone, Debug)]
pub(in crate::scenario) struct Call {
    pub pages: Range<u64>,
    pub to: Attribute,
    /// Whether the mode is ZERO; otherwise the contents are kept, where they can be.
    pub zero: bool,
}

impl Call {
    fn flags(&self, memory: &Memory) -> u64 {
        if self.zero { MODE_ZERO } else { memory.keep() }
    }

    fn apply(&self, pages: &mut [Page]) {
        for number in self.pages.clone() {
            // Within the file, see `calls`.
            let page = &mut pages[number as usize];
            page.attribute = self.to;
            page.zero |= self.zero;
        }
    }
}

/// What a page is, and whether it holds zeros instead of the round's pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    attribute: Attribute,
    zero: bool,
}

pub(in crate::scenario) fn overlapping(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let never = AtomicBool::new(false);
    let mut pages = vec![Page { attribute: Shared, zero: false }; memory.pages as usize];
    for round in rounds(ROUNDS, &never) {
        let tag = pattern::tag(b'O', round as u16);
        guest.fill(memory, &(0..memory.pages), tag)?;
        pages.iter_mut().for_each(|page| page.zero = false);
        let calls = calls(round, memory);
        all_at_once(memory, &calls)?;
        let found = look(guest, memory, tag)?;
        let allowed = ORDERS.map(|order| {
            let mut pages = pages.clone();
            order.iter().for_each(|call| calls[*call].apply(&mut pages));
            pages
        });
        if !allowed.contains(&found) {
            let stop = CaseEnd::broken(
                ClauseId::ConvertRange,
                "pages are not what three conversions at a time make of them in any order",
            );
            let mut detail = vec![format!("before   {}", map(&pages))];
            detail.extend(calls.iter().map(|call| {
                let zero = if call.zero { " with ZERO" } else { "" };
                format!("{}{zero}", describe(&call.pages, call.to))
            }));
            return Err(stop.but(map(&allowed[0]), map(&found)).detail(detail));
        }
        pages = found;
    }
    memory.convert(&(0..memory.pages), Shared, memory.keep())
}

/// The calls of a round: ranges that overlap over the file's middle, both directions, and ZERO where there is such a mode.
pub(in crate::scenario) fn calls(round: u64, memory: &Memory) -> [Call; CALLS] {
    let (middle, end) = (memory.pages / 2, memory.pages);
    std::array::from_fn(|n| {
        let turn = round + n as u64;
        let start = turn * 3 % middle;
        let to = if (round >> n) & 1 == 0 { Private } else { Shared };
        Call {
            pages: start..middle + 1 + turn * 5 % (end - middle),
            to,
            zero: to == Shared && turn.is_multiple_of(2) && memory.dialect.has_content_modes(),
        }
    })
}

/// Makes each call in a thread of its own; none starts before all are ready.
pub(in crate::scenario) fn all_at_once(
    memory: &Memory,
    calls: &[Call; CALLS],
) -> Result<(), CaseEnd> {
    let ready = Barrier::new(CALLS);
    let ready = &ready;
    thread::scope(|scope| {
        let threads = calls.each_ref().map(|call| {
            scope.spawn(move || {
                ready.wait();
                memory.convert(&call.pages, call.to, call.flags(memory))
            })
        });
        let mut result = Ok(());
        for thread in threads {
            result = result.and(thread.join().unwrap_or_else(|_| {
                Err(CaseEnd::error(Blame::Suite, "a thread of the scenario panicked"))
            }));
        }
        result
    })
}

/// What every page is, as the host sees it, and what it holds, as the guest does.
fn look(guest: &mut GuestSide, memory: &Memory, tag: u64) -> Result<Vec<Page>, CaseEnd> {
    let mut pages = Vec::new();
    for number in 0..memory.pages {
        let attribute = if memory.read(number, 0).is_some() { Shared } else { Private };
        let this = number..number + 1;
        let zero = match guest.finds(memory, &this, tag)? {
            Ok(()) => false,
            Err(_) => {
                guest.check(memory, &this, pattern::ZERO, memory.kept_clause(attribute))?;
                true
            }
        };
        pages.push(Page { attribute, zero });
    }
    Ok(pages)
}

/// A letter a page, and another for what it holds.
fn map(pages: &[Page]) -> String {
    let page = |page: &Page| {
        let attribute = if page.attribute == Shared { 'S' } else { 'P' };
        [attribute, if page.zero { '0' } else { '.' }]
    };
    pages.iter().flat_map(page).collect()
}
