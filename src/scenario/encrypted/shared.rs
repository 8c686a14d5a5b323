// SPDX-License-Identifier: GPL-2.0-only
//! A guest that uses shared pages while they become private and shared again.

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, is_over, race, rounds};
use crate::scenario::race::{ROUNDS, range};
use crate::uapi::MODE_ZERO;

pub(in crate::scenario) fn shared_access(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    let tag = pattern::tag(b'S', 0);
    let clear = if memory.dialect.has_content_modes() { MODE_ZERO } else { 0 };
    // What the guest cannot do says less than what the conversions did.
    let mut access = Ok(());
    race(
        vec![Box::new(|over| {
            rounds(ROUNDS, over).try_for_each(|round| {
                let pages = range(round, memory.pages);
                memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
                memory.convert(&pages, Shared, clear)?;
                pages.clone().try_for_each(|page| memory.must_read(page).map(drop))?;
                match clear {
                    0 => Ok(()),
                    // Since then the guest may have written again.
                    _ => pages
                        .clone()
                        .try_for_each(|p| memory.written_or_zero(p, tag, ClauseId::ZeroToShared)),
                }
            })
        })],
        |over| {
            while access.is_ok() && !is_over(over) {
                access = guest.use_shared(memory, &all, tag, over);
            }
            Ok(())
        },
    )?;
    access?;
    guest.fill(memory, &all, tag)?;
    all.clone().try_for_each(|page| memory.must_hold(page, tag))?;
    usable(guest, memory, 0)
}
