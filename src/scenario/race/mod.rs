// SPDX-License-Identifier: GPL-2.0-only
//! Who may get into a conversion's way: the guest, the host's faults, other conversions, hole punching.

mod guest;
mod host;
mod overlapping;
mod punch;

pub(super) use guest::guest_access;
pub(super) use host::{THREADS, wait_for_sweeps, writers};
pub(super) use host::{first_touch, host_reads, host_writes};
pub(super) use overlapping::{Call, ORDERS, all_at_once, calls, overlapping};
pub(super) use punch::punch;

use std::ops::Range;

/// How many rounds a race has at most.
pub(super) const ROUNDS: u64 = 100;

/// A range of a file of `pages` pages: over the rounds all of it, single pages, and others of every length.
pub(super) fn range(round: u64, pages: u64) -> Range<u64> {
    match round % 3 {
        0 => 0..pages,
        1 => {
            let page = round / 3 % pages;
            page..page + 1
        }
        _ => {
            let start = round / 3 % pages;
            let length = 1 + round / 3 * 5 % (pages - start);
            start..start + length
        }
    }
}
