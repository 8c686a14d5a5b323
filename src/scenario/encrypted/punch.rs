// SPDX-License-Identifier: GPL-2.0-only
//! Hole punching and allocation of an encrypted guest's pages during conversions.

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::scenario::arena::{Arena, is_over, race, rounds};
use crate::scenario::race::{ROUNDS, range};

pub(in crate::scenario) fn punch(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    for salt in 0..2 {
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
                    memory.convert_and_look(&pages, Private, ClauseId::PunchAttribute)?;
                    memory.convert_and_look(&pages, Shared, ClauseId::PunchAttribute)?;
                }
                Ok(())
            },
        )?;
        // Nothing else goes on now.
        usable(guest, memory, salt)?;
        memory.convert(&all, Private, 0)?;
        guest.accept(memory, &all)?;
        let middle = memory.pages / 4..memory.pages / 2;
        memory.punch(&middle)?;
        all.clone().try_for_each(|page| memory.must_fault(page, ClauseId::PunchAttribute))?;
        guest.accept(memory, &middle)?;
        // The next race begins with pages that have been the guest's.
        memory.convert_and_look(&all, Shared, ClauseId::HostFaultPrivate)?;
    }
    Ok(())
}
