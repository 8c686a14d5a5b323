// SPDX-License-Identifier: GPL-2.0-only
//! A guest that accesses memory while it is converted.

use super::{ROUNDS, range};
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, is_over, race, rounds};

pub(in crate::scenario) fn guest_access(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    // The direction in which contents were lost cannot be told.
    let kept = memory.kept_clause(Private);
    let mut tag = pattern::tag(b'A', 0);
    guest.fill(memory, &all, tag)?;
    race(
        vec![Box::new(|over| {
            rounds(ROUNDS, over).try_for_each(|round| {
                let pages = range(round, memory.pages);
                memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
                memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)
            })
        })],
        |over| {
            for salt in 1.. {
                guest.check(memory, &all, tag, kept)?;
                tag = pattern::tag(b'A', salt);
                guest.fill(memory, &all, tag)?;
                guest.check(memory, &all, tag, kept)?;
                if is_over(over) {
                    break;
                }
            }
            Ok(())
        },
    )?;
    guest.check(memory, &all, tag, kept)?;
    for page in all {
        let (word, expected) = (memory.must_read(page)?, pattern::word(tag, page, 0));
        if word != expected {
            let summary =
                format!("host finds another word in page {page} than the guest has written");
            return Err(CaseEnd::broken(ClauseId::MemorySame, summary)
                .but(format!("{expected:#018x}"), format!("{word:#018x}"))
                .at("host", page, Some(0)));
        }
    }
    Ok(())
}
