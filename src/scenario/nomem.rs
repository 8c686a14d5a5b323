// SPDX-License-Identifier: GPL-2.0-only
//! Conversions that run out of memory.

use std::io;
use std::ops::Range;

use super::arena::{Arena, GuestSide};
use super::fail_nth::FailNth;
use super::memory::{Memory, Returned, describe};
use crate::case::Attribute::{self, Private, Shared};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::exec::{CaseEnd, failed};
use crate::payload::pattern;
use crate::results::Blame;
use crate::uapi::{MODE_PRESERVE, MODE_ZERO, PAGE_SIZE};

/// Allocations of one conversion that are made to fail, at most; it makes a handful.
const ALLOCATIONS: u32 = 200;
/// Tries of a call that was refused because a page was in flight.
const TRIES: usize = 100;
/// In a large file the host looks at every such page, besides the ends of the range.
const SAMPLE: usize = 16;

/// A conversion, and the attributes before it.
struct Shape {
    before: Vec<Attribute>,
    pages: Range<u64>,
    to: Attribute,
    flags: u64,
}

/// How much was tested, which depends on what the kernel has at hand.
#[derive(Default)]
struct Counts {
    /// Allocations that were made to fail.
    failed: u32,
    /// Of these: without the call failing.
    absorbed: u32,
}

impl Counts {
    fn observe(&self, arena: &mut Arena) {
        arena.observe("allocations-failed", self.failed);
        arena.observe("allocations-done-without", self.absorbed);
    }
}

pub(super) fn few_pages(arena: &mut Arena) -> Result<(), CaseEnd> {
    let count = arena.memory.pages;
    let mut counts = Counts::default();
    for to in [Private, Shared] {
        for flags in modes(&arena.memory, to) {
            // A page among others, one beside a boundary, and ranges of one kind and of both. The mode makes no difference
            // to the store of attributes, so for the others one range is enough.
            let ranges = [2..6, 3..4, 0..1, 0..count];
            let used = if flags == arena.memory.keep() { ranges.len() } else { 1 };
            for pages in &ranges[..used] {
                for mixed in [false, true] {
                    let before = (0..count)
                        .map(|page| if mixed && page % 2 == 0 { to } else { other(to) })
                        .collect();
                    exhaust(
                        arena,
                        &Shape { before, pages: pages.clone(), to, flags },
                        &mut counts,
                    )?;
                }
            }
        }
    }
    counts.observe(arena);
    Ok(())
}

pub(super) fn alternating(arena: &mut Arena) -> Result<(), CaseEnd> {
    let count = arena.memory.pages;
    let mut counts = Counts::default();
    let before: Vec<Attribute> =
        (0..count).map(|page| if page % 2 == 0 { Shared } else { Private }).collect();
    let flags = arena.memory.keep();
    for (pages, to) in [
        (count / 2..count / 2 + 1, Private),
        (count / 2 + 1..count / 2 + 2, Shared),
        (0..count, Private),
        (1..count, Shared),
    ] {
        exhaust(arena, &Shape { before: before.clone(), pages, to, flags }, &mut counts)?;
    }
    counts.observe(arena);
    Ok(())
}

fn other(attribute: Attribute) -> Attribute {
    match attribute {
        Shared => Private,
        Private => Shared,
    }
}

/// The flags that are offered for a direction.
fn modes(memory: &Memory, to: Attribute) -> Vec<u64> {
    match to {
        _ if !memory.dialect.has_content_modes() => vec![0],
        Private if memory.encrypted() => vec![0],
        Shared if memory.encrypted() => vec![0, MODE_ZERO],
        Private => vec![0, MODE_PRESERVE],
        Shared => vec![0, MODE_PRESERVE, MODE_ZERO],
    }
}

/// Makes the first allocation of a conversion fail, then the second, and so on until it does without.
fn exhaust(arena: &mut Arena, shape: &Shape, counts: &mut Counts) -> Result<(), CaseEnd> {
    let broken_fail_nth =
        |error: io::Error| failed("fail-nth", Errno(error.raw_os_error().unwrap_or(libc::EIO)));
    let fail = FailNth::open().map_err(|e| failed("opening fail-nth", e))?;
    let Shape { before, pages, to, flags } = shape;
    let all = 0..arena.memory.pages;
    let mut after = before.clone();
    after[pages.start as usize..pages.end as usize].fill(*to);
    for n in 1..=ALLOCATIONS {
        let Arena { guest, memory, .. } = &mut *arena;
        let tag = pattern::tag(b'N', n as u16);
        prepare(guest, memory, before, tag)?;
        let mut tries = 0;
        let (returned, hit) = loop {
            let issue = || memory.issue(pages, *to, *flags);
            let (returned, hit) = fail.during(n, issue).map_err(broken_fail_nth)?;
            tries += 1;
            if returned.result != Err(Errno::EAGAIN) || *to == Shared || tries == TRIES {
                break (returned, hit);
            }
        };
        counts.failed += u32::from(hit);
        counts.absorbed += u32::from(hit && returned.result.is_ok());
        if judge(shape, &fail, &returned, hit)? {
            look(memory, before, shape, n, true)?;
            check(guest, memory, before, &all, tag, ClauseId::NoMemoryNoEffect)?;
            memory.convert(pages, *to, *flags).map_err(|stop| {
                let what = stop.failure.summary;
                let summary = format!("{what}, after allocation {n} of a first call had failed");
                CaseEnd::broken(ClauseId::NoMemoryRetry, summary)
            })?;
        }
        look(memory, &after, shape, n, false)?;
        // What the range itself holds then is for other cases.
        for outside in [0..pages.start, pages.end..all.end] {
            if !outside.is_empty() {
                check(guest, memory, before, &outside, tag, ClauseId::ConvertPrecise)?;
            }
        }
        if !hit {
            return memory.convert(&all, Shared, memory.keep());
        }
    }
    let what = describe(pages, *to);
    Err(CaseEnd::error(Blame::Suite, format!("{what} makes more than {ALLOCATIONS} allocations")))
}

/// The runs of `pages` that have the same attribute.
fn runs<'a>(
    attributes: &'a [Attribute],
    pages: &Range<u64>,
) -> impl Iterator<Item = (Range<u64>, Attribute)> + 'a {
    let mut start = pages.start;
    let part = &attributes[pages.start as usize..pages.end as usize];
    part.chunk_by(|a, b| a == b).map(move |run| {
        let pages = start..start + run.len() as u64;
        start = pages.end;
        (pages, run[0])
    })
}

/// Gives every page its attribute, run by run, and the pattern `tag`. What an encrypted guest has in private is its own to
/// write, once it has accepted it.
fn prepare(
    guest: &mut GuestSide,
    memory: &Memory,
    attributes: &[Attribute],
    tag: u64,
) -> Result<(), CaseEnd> {
    let all = 0..memory.pages;
    if memory.encrypted() {
        memory.convert(&all, Shared, memory.keep())?;
    }
    for (pages, attribute) in runs(attributes, &all) {
        memory.convert(&pages, attribute, memory.keep())?;
        match attribute {
            Private if memory.encrypted() => {
                guest.accept(memory, &pages)?;
                guest.fill_private(memory, &pages, tag)?;
            }
            _ => guest.fill(memory, &pages, tag)?,
        }
    }
    Ok(())
}

/// The guest must find the pattern `tag` in `pages`, which have these attributes; `clause` says so.
fn check(
    guest: &mut GuestSide,
    memory: &Memory,
    attributes: &[Attribute],
    pages: &Range<u64>,
    tag: u64,
    clause: ClauseId,
) -> Result<(), CaseEnd> {
    if !memory.encrypted() {
        return guest.check(memory, pages, tag, clause);
    }
    runs(attributes, pages).try_for_each(|(pages, attribute)| match attribute {
        Private => guest.check_private(memory, &pages, tag, clause),
        Shared => guest.check(memory, &pages, tag, clause),
    })
}

/// Whether the call has failed, as it may, for want of memory; `hit` says whether an allocation was made to fail.
fn judge(shape: &Shape, fail: &FailNth, returned: &Returned, hit: bool) -> Result<bool, CaseEnd> {
    let start = shape.pages.start * PAGE_SIZE;
    let expected = match hit {
        true => format!("success, or ENOMEM with error_offset {start:#x}"),
        false => "success".to_string(),
    };
    let errno = match returned.result {
        Ok(()) => return Ok(false),
        Err(errno) => errno,
    };
    let no_memory = errno == Errno::ENOMEM && returned.error_offset == start;
    let no_copy = errno == Errno::EFAULT && fail.copies_fail;
    if hit && (no_memory || no_copy) {
        return Ok(true);
    }
    let found = format!("{errno}, error_offset {:#x}", returned.error_offset);
    let which = if hit { "while an allocation failed" } else { "although no allocation failed" };
    let summary = format!("{} returned {found} {which}", describe(&shape.pages, shape.to));
    Err(CaseEnd::broken(ClauseId::NoMemoryRefused, summary).but(expected, found))
}

/// The host must see these attributes, after allocation `n` of the conversion was to fail.
fn look(
    memory: &Memory,
    attributes: &[Attribute],
    shape: &Shape,
    n: u32,
    call_failed: bool,
) -> Result<(), CaseEnd> {
    let (start, end) = (shape.pages.start as usize, shape.pages.end as usize);
    let step = attributes.len().div_ceil(SAMPLE);
    let near = [start.saturating_sub(1), start, end - 1, end.min(attributes.len() - 1)];
    for page in (0..attributes.len()).step_by(step).chain(near) {
        let found = if memory.read(page as u64, 0).is_some() { Shared } else { Private };
        let wanted = attributes[page];
        if found != wanted {
            let (clause, result) = match call_failed {
                true => (ClauseId::NoMemoryNoEffect, "failed"),
                false if (start..end).contains(&page) => (ClauseId::ConvertRange, "succeeded"),
                false => (ClauseId::ConvertPrecise, "succeeded"),
            };
            let call = describe(&shape.pages, shape.to);
            let summary = format!(
                "page {page} is {found} instead of {wanted}: {call} {result}, of which allocation {n} was to fail"
            );
            return Err(CaseEnd::broken(clause, summary)
                .but(wanted.to_string(), found.to_string())
                .at("host", page as u64, None));
        }
    }
    Ok(())
}
