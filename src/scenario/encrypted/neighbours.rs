// SPDX-License-Identifier: GPL-2.0-only
//! A guest that uses its pages in turns while those beside them are converted and punched out.

use std::sync::atomic::AtomicBool;

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, is_over, race, rounds};
use crate::scenario::memory::Memory;
use crate::scenario::race::{ROUNDS, range};

/// Looks at the private pages in a round.
const LOOKS: usize = 4;

pub(in crate::scenario) fn neighbours(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    // The guest's pages are in the middle, so that they have neighbours on both sides.
    let (third, pages) = (memory.pages / 3, memory.pages);
    let own = third..pages - third;
    race(vec![Box::new(|over| convert_until(over, memory, &own))], |over| {
        for round in rounds(ROUNDS, over) {
            let (secret, tag) =
                (pattern::tag(b'N', round as u16), pattern::tag(b'M', round as u16));
            guest.request(memory, &own, Private)?;
            guest.accept(memory, &own)?;
            guest.fill_private(memory, &own, secret)?;
            for _ in 0..LOOKS {
                guest.check_private(memory, &own, secret, ClauseId::ConvertPrecise)?;
            }
            guest.give_up(memory, &own)?;
            guest.request(memory, &own, Shared)?;
            guest.fill(memory, &own, tag)?;
            own.clone().try_for_each(|page| memory.must_hold(page, tag))?;
        }
        Ok(())
    })?;
    usable(guest, memory, 0)
}

/// Converts and punches the pages on both sides of `own`.
fn convert_until(
    over: &AtomicBool,
    memory: &Memory,
    own: &std::ops::Range<u64>,
) -> Result<(), CaseEnd> {
    for round in 0.. {
        let below = range(round, own.start);
        let above = range(round, memory.pages - own.end);
        for pages in [below, own.end + above.start..own.end + above.end] {
            memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
            memory.punch(&pages)?;
            memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)?;
        }
        if is_over(over) {
            break;
        }
    }
    Ok(())
}
