// SPDX-License-Identifier: GPL-2.0-only
//! Hole punching and allocation during conversions.

use super::{ROUNDS, range};
use crate::case::Attribute::{Private, Shared};
use crate::exec::Stop;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, is_over, race, rounds};
use crate::scenario::memory::Memory;

pub(in crate::scenario) fn punch(arena: &mut Arena) -> Result<(), Stop> {
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
                memory.convert_and_look(&pages, Private, "punch.attribute")?;
                memory.convert_and_look(&pages, Shared, "punch.attribute")?;
                pages.clone().try_for_each(|page| written_or_zero(memory, page, tag))?;
            }
            Ok(())
        },
    )?;
    // Nothing else goes on now.
    memory.convert_and_look(&all, Private, "host.fault-private")?;
    let middle = memory.pages / 4..memory.pages / 2;
    memory.punch(&middle)?;
    for page in all.clone() {
        memory.must_fault(page, "punch.attribute")?;
    }
    guest.check(memory, &middle, pattern::ZERO, "punch.zero")?;
    memory.convert_and_look(&all, Shared, "host.fault-private")?;
    all.into_iter().try_for_each(|page| written_or_zero(memory, page, tag))
}

/// Each word of a shared page is the pattern's or zero. They may be mixed: the page may have been punched out while it was
/// being written.
fn written_or_zero(memory: &Memory, page: u64, tag: u64) -> Result<(), Stop> {
    for index in 0..pattern::WORDS_PER_PAGE {
        let expected = pattern::word(tag, page, index);
        match memory.read(page, index as usize) {
            Some(word) if word == 0 || word == expected => {}
            found => {
                let found = found.map_or("SIGBUS".to_string(), |word| format!("{word:#018x}"));
                let clause = if found == "SIGBUS" { "host.access-shared" } else { "allocate.zero" };
                let summary = format!("page {page} is neither as it was written nor zero");
                return Err(Stop::broken(clause, summary)
                    .but(format!("{expected:#018x} or 0"), found)
                    .at("host", page, Some(index * 8)));
            }
        }
    }
    Ok(())
}
