// SPDX-License-Identifier: GPL-2.0-only
//! Threads of the host that write to pages while these change hands.

use std::sync::atomic::AtomicU64;

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::scenario::arena::{Arena, race, rounds};
use crate::scenario::race::{ROUNDS, THREADS, range, wait_for_sweeps, writers};

pub(in crate::scenario) fn host_writes(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let sweeps: [AtomicU64; THREADS] = Default::default();
    race(writers(memory, &sweeps), |over| {
        for round in rounds(ROUNDS, over) {
            let pages = range(round, memory.pages);
            let secret = pattern::tag(b'W', round as u16);
            memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
            guest.accept(memory, &pages)?;
            guest.fill_private(memory, &pages, secret)?;
            wait_for_sweeps(over, &sweeps);
            guest.check_private(memory, &pages, secret, ClauseId::HostFaultPrivate)?;
            guest.give_up(memory, &pages)?;
            memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)?;
        }
        Ok(())
    })?;
    usable(guest, memory, 0)
}
