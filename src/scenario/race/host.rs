// SPDX-License-Identifier: GPL-2.0-only
//! Threads of the host that touch memory while it is converted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::{ROUNDS, range};
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::{CaseEnd, access};
use crate::payload::pattern;
use crate::scenario::arena::{Arena, Racer, is_over, race, rounds};
use crate::scenario::memory::Memory;

/// Threads that touch. More would only wait for each other on small machines.
pub(in crate::scenario) const THREADS: usize = 2;
/// Conversions to private in a round, each right after one to shared, so that the threads have faults to take.
const BURST: usize = 4;
/// Sweeps over all pages that each thread has to make before it is believed that no write is still under way.
const SWEEPS: u64 = 2;

pub(in crate::scenario) fn host_reads(arena: &mut Arena) -> Result<(), CaseEnd> {
    let tag = pattern::tag(b'R', 0);
    arena.guest.fill(&arena.memory, &(0..arena.memory.pages), tag)?;
    reads(arena, tag, false)
}

pub(in crate::scenario) fn first_touch(arena: &mut Arena) -> Result<(), CaseEnd> {
    reads(arena, pattern::ZERO, true)
}

/// Converts under the reads of others, who find the pattern `tag` or nothing; with `fresh`, the pages are holes before each
/// conversion.
fn reads(arena: &mut Arena, tag: u64, fresh: bool) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let all = 0..memory.pages;
    let clause = |to| if fresh { ClauseId::FreshZero } else { memory.kept_clause(to) };
    let others = (0..THREADS).map(|_| {
        Box::new(|over: &AtomicBool| read_until(over, memory, tag, clause(Shared))) as Racer<'_>
    });
    race(others.collect(), |over| {
        for round in rounds(ROUNDS, over) {
            let pages = range(round, memory.pages);
            for _ in 0..BURST {
                memory.convert(&pages, Shared, memory.keep())?;
                if fresh {
                    memory.punch(&all)?;
                }
                memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
            }
            guest.check(memory, &pages, tag, clause(Private))?;
            memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)?;
        }
        Ok(())
    })
}

/// Reads every page, another word in each sweep: it is the pattern's, or a SIGBUS.
fn read_until(
    over: &AtomicBool,
    memory: &Memory,
    tag: u64,
    clause: ClauseId,
) -> Result<(), CaseEnd> {
    for sweep in 0u64.. {
        for page in 0..memory.pages {
            let index = (sweep + page) % pattern::WORDS_PER_PAGE;
            let word = {
                let _pass = memory.pass();
                memory.read(page, index as usize)
            };
            let expected = pattern::word(tag, page, index);
            if let Some(word) = word
                && word != expected
            {
                let summary = format!("host finds another word in page {page} during conversions");
                return Err(CaseEnd::broken(clause, summary)
                    .but(format!("{expected:#018x}, or SIGBUS"), format!("{word:#018x}"))
                    .at("host", page, Some(index * 8)));
            }
        }
        if is_over(over) {
            break;
        }
    }
    Ok(())
}

pub(in crate::scenario) fn host_writes(arena: &mut Arena) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let memory = &*memory;
    let sweeps: [AtomicU64; THREADS] = Default::default();
    race(writers(memory, &sweeps), |over| {
        for round in rounds(ROUNDS, over) {
            let pages = range(round, memory.pages);
            for _ in 0..BURST {
                memory.convert(&pages, Shared, memory.keep())?;
                memory.convert_and_look(&pages, Private, ClauseId::HostFaultPrivate)?;
            }
            let before: Vec<_> =
                pages.clone().map(|page| guest.copy(memory, page)).collect::<Result<_, _>>()?;
            wait_for_sweeps(over, &sweeps);
            for (page, before) in pages.clone().zip(before) {
                let after = guest.copy(memory, page)?;
                if let Some(offset) = (0..after.len()).find(|i| before[*i] != after[*i]) {
                    let summary =
                        format!("a write of the host has reached page {page}, which is private");
                    return Err(CaseEnd::broken(ClauseId::HostFaultPrivate, summary)
                        .but(format!("{:#04x}", before[offset]), format!("{:#04x}", after[offset]))
                        .at("guest", page, Some(offset as u64)));
                }
            }
            memory.convert_and_look(&pages, Shared, ClauseId::HostFaultPrivate)?;
        }
        Ok(())
    })
}

/// Waits until each of the threads that [`write_until`] has been over all pages since.
pub(in crate::scenario) fn wait_for_sweeps(over: &AtomicBool, sweeps: &[AtomicU64; THREADS]) {
    let targets = sweeps.each_ref().map(|n| n.load(Ordering::Relaxed) + SWEEPS);
    while sweeps.iter().zip(targets).any(|(n, target)| n.load(Ordering::Relaxed) < target)
        && !is_over(over)
    {
        thread::yield_now();
    }
}

/// The threads that write to pages without a pause; each counts its sweeps over all pages.
pub(in crate::scenario) fn writers<'a>(
    memory: &'a Memory,
    sweeps: &'a [AtomicU64; THREADS],
) -> Vec<Racer<'a>> {
    let writer = |(index, sweeps): (usize, &'a AtomicU64)| {
        Box::new(move |over: &AtomicBool| {
            write_until(over, memory, index, sweeps);
            Ok(())
        }) as Racer<'a>
    };
    sweeps.iter().enumerate().map(writer).collect()
}

/// Writes a growing number into word `index` of every page, if it can, and counts the sweeps.
fn write_until(over: &AtomicBool, memory: &Memory, index: usize, sweeps: &AtomicU64) {
    for sweep in 1u64.. {
        for page in 0..memory.pages {
            let _pass = memory.pass();
            // A SIGBUS says that the page is private, which it may be at any time.
            let _ = access::write_word(&*memory.view, page, index, sweep);
        }
        sweeps.store(sweep, Ordering::Relaxed);
        if is_over(over) {
            break;
        }
    }
}
