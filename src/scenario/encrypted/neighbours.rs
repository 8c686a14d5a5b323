// SPDX-License-Identifier: GPL-2.0-only
//! A guest that uses its pages in turns while those beside them are converted and punched out.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::platform::Commands;
use crate::scenario::arena::{Arena, GuestSide, Racer, is_over, race, rounds};
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
        rounds(ROUNDS, over).try_for_each(|round| take_turns(guest, memory, &own, round))
    })?;
    usable(guest, memory, 0)
}

/// Each vCPU has pages of its own, and the host the rest.
pub(in crate::scenario) fn several_vcpus(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let cpus = guest.cpus();
    let each = memory.pages / (cpus.len() as u64 + 1);
    let shares = (0..).step_by(each as usize).map(|start| start..start + each);
    let racers = cpus.into_iter().zip(shares).map(|(mut cpu, own)| {
        Box::new(move |over: &AtomicBool| {
            (0..)
                .take_while(|round| *round == 0 || !is_over(over))
                .try_for_each(|round| take_turns(&mut cpu, memory, &own, round))
        }) as Racer<'_>
    });
    let racers: Vec<_> = racers.collect();
    let rest = each * racers.len() as u64..memory.pages;
    race(racers, |over| {
        for round in rounds(ROUNDS, over) {
            let pages = range(round, rest.end - rest.start);
            convert_and_punch(memory, &(rest.start + pages.start..rest.start + pages.end))?;
        }
        Ok(())
    })?;
    usable(guest, memory, 0)
}

/// The guest asks for its pages, uses them in private, gives them back and uses them with the host.
fn take_turns<G: Commands>(
    guest: &mut GuestSide<G>,
    memory: &Memory,
    own: &Range<u64>,
    round: u64,
) -> Result<(), CaseEnd> {
    let (secret, tag) = (pattern::tag(b'N', round as u16), pattern::tag(b'M', round as u16));
    guest.request(memory, own, Private)?;
    guest.accept(memory, own)?;
    guest.fill_private(memory, own, secret)?;
    for _ in 0..LOOKS {
        guest.check_private(memory, own, secret, ClauseId::ConvertPrecise)?;
    }
    guest.give_up(memory, own)?;
    guest.request(memory, own, Shared)?;
    guest.fill(memory, own, tag)?;
    own.clone().try_for_each(|page| memory.must_hold(page, tag))
}

/// Converts and punches the pages on both sides of `own`.
fn convert_until(over: &AtomicBool, memory: &Memory, own: &Range<u64>) -> Result<(), CaseEnd> {
    for round in 0.. {
        let below = range(round, own.start);
        let above = range(round, memory.pages - own.end);
        for pages in [below, own.end + above.start..own.end + above.end] {
            convert_and_punch(memory, &pages)?;
        }
        if is_over(over) {
            break;
        }
    }
    Ok(())
}

/// To private, without memory, and back.
fn convert_and_punch(memory: &Memory, pages: &Range<u64>) -> Result<(), CaseEnd> {
    memory.convert_and_look(pages, Private, ClauseId::HostFaultPrivate)?;
    memory.punch(pages)?;
    memory.convert_and_look(pages, Shared, ClauseId::HostFaultPrivate)
}
