// SPDX-License-Identifier: GPL-2.0-only
//! Hole punching and allocation during conversions.

use super::{ROUNDS, range};
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, is_over, race, rounds};

pub(in crate::scenario) fn punch(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    let tag = pattern::tag(b'H', 0);
    race(
        vec![Box::new(|over| {
            for step in 0.. {
                let pages = range(step, memory.pages);
                memory.punch(&pages)?;
                memory.allocate(&pages)?;
                if is_over(over) {
                    break;
                }
            }
            Ok(())
        })],
        |over| {
            for round in rounds(ROUNDS, over) {
                let pages = range(round, memory.pages);
                guest.fill(memory, &all, tag)?;
                memory.convert_and_look(&pages, Private, ClauseId::PunchAttribute)?;
                memory.convert_and_look(&pages, Shared, ClauseId::PunchAttribute)?;
                pages.clone().try_for_each(|page| {
                    memory.written_or_zero(page, tag, ClauseId::AllocateZero)
                })?;
            }
            Ok(())
        },
    )?;
    // Nothing else goes on now.
    memory.convert_and_look(&all, Private, ClauseId::HostFaultPrivate)?;
    let middle = memory.pages / 4..memory.pages / 2;
    memory.punch(&middle)?;
    for page in all.clone() {
        memory.must_fault(page, ClauseId::PunchAttribute)?;
    }
    guest.check(memory, &middle, pattern::ZERO, ClauseId::PunchZero)?;
    memory.convert_and_look(&all, Shared, ClauseId::HostFaultPrivate)?;
    all.into_iter().try_for_each(|page| memory.written_or_zero(page, tag, ClauseId::AllocateZero))
}
