// SPDX-License-Identifier: GPL-2.0-only
//! References on pages, by whoever can take one.

use std::thread;
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::memory::{Memory, Returned, describe};
use super::{gup_test as gup, io_uring as ring};
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::exec::{CaseEnd, failed};
use crate::machine::{HostView, Pin, Result as CallResult};
use crate::payload::pattern;
use crate::uapi::PAGE_SIZE;

/// How long the kernel may take to give a reference back once it was asked to: some do it in a work queue. Arbitrary, but
/// not a matter of seconds.
const RELEASE: Duration = Duration::from_secs(2);
/// How often a conversion may find another page in flight before it finds the one that is pinned.
const TRIES: usize = 100;

/// Takes a reference on the page at this many bytes into the view.
type Take = fn(&dyn HostView, u64) -> CallResult<Box<dyn Pin>>;

pub(super) fn vmsplice(arena: &mut Arena) -> Result<(), CaseEnd> {
    pinned(arena, "vmsplice", |view, offset| view.pin(offset))?;
    several(arena, "vmsplice", |view, offset| view.pin(offset))
}

pub(super) fn io_uring(arena: &mut Arena) -> Result<(), CaseEnd> {
    pinned(arena, "io_uring", ring::pin)?;
    several(arena, "io_uring", ring::pin)
}

pub(super) fn gup_test(arena: &mut Arena) -> Result<(), CaseEnd> {
    pinned(arena, "GUP_TEST (fast)", |view, offset| gup::pin(view, offset, true))?;
    pinned(arena, "GUP_TEST", |view, offset| gup::pin(view, offset, false))
}

/// One reference, on the first page, the last, and one between.
fn pinned(arena: &mut Arena, kind: &str, take: Take) -> Result<(), CaseEnd> {
    let Arena { guest, memory, .. } = arena;
    let (all, keep) = (0..memory.pages, memory.keep());
    for page in [0, memory.pages / 2 - 1, memory.pages - 1] {
        let tag = pattern::tag(b'P', page as u16 + 1);
        guest.fill(memory, &all, tag)?;
        let pin = hold(memory, kind, take, page)?;
        for range in [all.clone(), page..page + 1] {
            refused(memory, &range, page, kind)?;
        }
        for page in all.clone() {
            if memory.read(page, 0).is_none() {
                let summary = format!("page {page} is private after a conversion that was refused");
                return Err(
                    CaseEnd::broken(ClauseId::InUseNoEffect, summary).but("a value", "SIGBUS")
                );
            }
        }
        guest.check(memory, &all, tag, ClauseId::InUseNoEffect)?;
        // The others are not in use.
        for range in [0..page, page + 1..all.end] {
            if !range.is_empty() {
                memory.convert_and_look(&range, Private, ClauseId::HostFaultPrivate)?;
            }
        }
        memory.must_read(page)?;
        memory.convert_and_look(&all, Shared, ClauseId::HostFaultPrivate)?;
        if !memory.encrypted() {
            guest.check(memory, &all, tag, memory.kept_clause(Shared))?;
        }

        drop(pin);
        released(memory, kind)?;
        for page in all.clone() {
            memory.must_fault(page, ClauseId::HostFaultPrivate)?;
        }
        match memory.encrypted() {
            false => guest.check(memory, &all, tag, memory.kept_clause(Private))?,
            // Now that nobody holds it, the guest can use all of it.
            true => {
                guest.accept(memory, &all)?;
                guest.fill_private(memory, &all, tag)?;
                guest.check_private(memory, &all, tag, ClauseId::CocoAcceptance)?;
                guest.give_up(memory, &all)?;
            }
        }
        memory.convert(&all, Shared, keep)?;
    }
    Ok(())
}

/// Two references on a page, and one on a later page: each counts.
fn several(arena: &mut Arena, kind: &str, take: Take) -> Result<(), CaseEnd> {
    let memory = &arena.memory;
    let all = 0..memory.pages;
    let (low, high) = (1, memory.pages - 2);
    let (first, second) = (hold(memory, kind, take, low)?, hold(memory, kind, take, low)?);
    let other = hold(memory, kind, take, high)?;
    refused(memory, &all, low, kind)?;
    drop(first);
    refused(memory, &all, low, kind)?;
    drop(second);
    // How long the kernel takes to give it back is its own affair; then the other page is the one that is found.
    let start = Instant::now();
    while refused(memory, &all, high, kind).is_err() && start.elapsed() < RELEASE {
        thread::yield_now();
    }
    refused(memory, &all, high, kind)?;
    drop(other);
    released(memory, kind)?;
    memory.convert(&all, Shared, memory.keep())
}

fn hold(memory: &Memory, kind: &str, take: Take, page: u64) -> Result<Box<dyn Pin>, CaseEnd> {
    take(&*memory.view, page * PAGE_SIZE).map_err(|e| failed(&format!("a pin by {kind}"), e))
}

/// The conversion of `pages` must be refused because of `page`.
fn refused(
    memory: &Memory,
    pages: &std::ops::Range<u64>,
    page: u64,
    kind: &str,
) -> Result<(), CaseEnd> {
    let expected = format!("EAGAIN, error_offset {:#x}", page * PAGE_SIZE);
    let mut found = String::new();
    for _ in 0..TRIES {
        let Returned { result, error_offset } = memory.issue(pages, Private, memory.keep());
        let call = format!("{} while {kind} holds page {page}", describe(pages, Private));
        match result {
            Err(Errno::EAGAIN) if error_offset == page * PAGE_SIZE => return Ok(()),
            // Another page may have been in flight, for a moment.
            Err(Errno::EAGAIN) => found = format!("EAGAIN, error_offset {error_offset:#x}"),
            Ok(()) => {
                let summary = format!("{call} succeeded");
                return Err(
                    CaseEnd::broken(ClauseId::InUseRefused, summary).but(expected, "success")
                );
            }
            Err(errno) => {
                let summary = format!("{call} returned {errno}");
                let stop = CaseEnd::broken(ClauseId::InUseRefused, summary);
                return Err(stop.but(expected, errno.to_string()));
            }
        }
        thread::yield_now();
    }
    let summary = format!(
        "{} while {kind} holds page {page} returned {found}, in each of {TRIES} tries",
        describe(pages, Private)
    );
    Err(CaseEnd::broken(ClauseId::InUseErrorOffset, summary).but(expected, found))
}

/// Once the last reference is gone everything can be converted, if not at once.
fn released(memory: &Memory, kind: &str) -> Result<(), CaseEnd> {
    let all = 0..memory.pages;
    let start = Instant::now();
    while !memory.try_convert(&all, Private, memory.keep())? {
        if start.elapsed() >= RELEASE {
            let summary = format!(
                "{} is still refused {} s after the last reference of {kind} was given back",
                describe(&all, Private),
                RELEASE.as_secs()
            );
            return Err(CaseEnd::broken(ClauseId::InUseRetry, summary).but("success", "EAGAIN"));
        }
        thread::yield_now();
    }
    Ok(())
}
