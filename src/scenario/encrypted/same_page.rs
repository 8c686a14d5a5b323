// SPDX-License-Identifier: GPL-2.0-only
//! Two vCPUs that meet on the same private pages, and a vCPU that accepts what the host is punching out.

use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::usable;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;
use crate::platform::GuestCpu;
use crate::results::Blame;
use crate::scenario::arena::{Arena, GuestSide, is_over, race, rounds};
use crate::scenario::memory::Memory;
use crate::scenario::race::{ROUNDS, range};

/// Both vCPUs accept the same pages at once, and then use them by turns.
pub(in crate::scenario) fn same_pages(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let never = AtomicBool::new(false);
    let mut cpus = guest.cpus();
    for round in rounds(ROUNDS, &never) {
        let pages = range(round, memory.pages);
        memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
        accept_at_once(&mut cpus, memory, &pages)?;
        let secret = pattern::tag(b'S', round as u16);
        let (writer, others) = split(&mut cpus, round);
        writer.fill_private(memory, &pages, secret)?;
        for cpu in others {
            cpu.check_private(memory, &pages, secret, ClauseId::CocoAcceptance)?;
        }
        let (last, others) = split(&mut cpus, round + 1);
        last.give_up(memory, &pages)?;
        memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)?;
        let tag = pattern::tag(b'T', round as u16);
        last.fill(memory, &pages, tag)?;
        pages.clone().try_for_each(|page| memory.must_hold(page, tag))?;
        for cpu in others {
            cpu.check(memory, &pages, tag, ClauseId::MemorySame)?;
        }
    }
    drop(cpus);
    usable(guest, memory, 0)
}

/// The vCPU whose turn it is, and all others.
fn split<'a, 'b>(
    cpus: &'a mut [GuestSide<GuestCpu<'b>>],
    turn: u64,
) -> (&'a mut GuestSide<GuestCpu<'b>>, &'a mut [GuestSide<GuestCpu<'b>>]) {
    let turn = turn as usize % cpus.len();
    cpus.swap(0, turn);
    // There is at least one.
    let (first, others) = cpus.split_at_mut(1);
    (&mut first[0], others)
}

/// Every vCPU accepts `pages`: each page is accepted by exactly one of them, and the others are told so.
fn accept_at_once(
    cpus: &mut [GuestSide<GuestCpu<'_>>],
    memory: &Memory,
    pages: &Range<u64>,
) -> Result<(), CaseEnd> {
    let barrier = Barrier::new(cpus.len());
    let accepted = thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter_mut()
            .map(|cpu| {
                scope.spawn(|| {
                    barrier.wait();
                    cpu.accept_the_rest(memory, pages)
                })
            })
            .collect();
        let panicked = || CaseEnd::error(Blame::Suite, "a thread of the scenario panicked");
        let ends = threads.into_iter().map(|thread| thread.join().map_err(|_| panicked())?);
        ends.collect::<Result<Vec<_>, _>>()
    })?;
    let mut accepted: Vec<u64> = accepted.concat();
    accepted.sort_unstable();
    if accepted.iter().copied().eq(pages.clone()) {
        return Ok(());
    }
    let times = |page: &u64| accepted.iter().filter(|other| *other == page).count();
    let wrong = pages.clone().find(|page| times(page) != 1).unwrap_or(pages.start);
    let found = format!("{} times", times(&wrong));
    let summary =
        format!("vCPUs have accepted page {wrong} {found}, and it was private all the time");
    Err(CaseEnd::broken(ClauseId::CocoAcceptance, summary)
        .at("guest", wrong, None)
        .but("once", found))
}

/// The second vCPU accepts pages that the host punches out, while the first has pages of its own.
pub(in crate::scenario) fn accept_punched(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let third = memory.pages / 3;
    let (own, punched) = (0..third, third..memory.pages);
    let mut cpus = guest.cpus();
    let (owner, others) = split(&mut cpus, 0);
    memory.convert_and_look(&(0..memory.pages), Private, ClauseId::HostFaultPrivate)?;
    owner.accept(memory, &own)?;
    let secret = pattern::tag(b'Q', 0);
    owner.fill_private(memory, &own, secret)?;
    race(
        others
            .iter_mut()
            .map(|cpu| {
                let punched = punched.clone();
                // It touches none of them: what is punched out in between is not the guest's.
                Box::new(move |over: &AtomicBool| {
                    while !is_over(over) {
                        cpu.accept_the_rest(memory, &punched)?;
                    }
                    Ok(())
                }) as _
            })
            .collect(),
        |over| {
            for round in rounds(ROUNDS, over) {
                let pages = range(round, punched.end - punched.start);
                memory.punch(&(punched.start + pages.start..punched.start + pages.end))?;
                owner.check_private(memory, &own, secret, ClauseId::CocoAcceptance)?;
            }
            Ok(())
        },
    )?;
    // Nothing else goes on now.
    memory.punch(&punched)?;
    punched.clone().try_for_each(|page| memory.must_fault(page, ClauseId::PunchAttribute))?;
    for cpu in others {
        cpu.accept(memory, &punched)?;
        let tag = pattern::tag(b'R', 0);
        cpu.fill_private(memory, &punched, tag)?;
        owner.check_private(memory, &punched, tag, ClauseId::CocoAcceptance)?;
        cpu.give_up(memory, &punched)?;
    }
    owner.check_private(memory, &own, secret, ClauseId::CocoAcceptance)?;
    owner.give_up(memory, &own)?;
    drop(cpus);
    memory.convert_and_look(&(0..memory.pages), Shared, ClauseId::HostFaultPrivate)?;
    usable(guest, memory, 1)
}
