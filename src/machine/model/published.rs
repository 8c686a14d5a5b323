// SPDX-License-Identifier: GPL-2.0-only
//! The attributes of an inode where a forked child can read them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::memory::Mapping;
use super::range_map::RangeMap;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::ATTRIBUTE_PRIVATE;

/// Word 0: incremented before and after each change, so odd while one is being made.
const SEQUENCE: u64 = 0;
/// Word 1: number of runs.
const COUNT: u64 = 1;
/// From this word on: the first page of each run, shifted left by one; bit 0: private.
const RUNS: u64 = 2;

/// Room for this many runs at most; virtual memory of the largest files, of which only what is used becomes real.
const MAX_RUNS: u64 = 1 << 28;

/// A copy of the attributes in memory that forked children share. A sequence lock: one writer, who holds the inode's lock;
/// a reader needs no lock and allocates nothing.
#[derive(Debug)]
pub(super) struct Published {
    words: Mapping,
    room: u64,
}

impl Published {
    /// Room for the attributes of a file of `pages` pages.
    pub(super) fn new(pages: u64) -> Result<Published> {
        let room = pages.min(MAX_RUNS);
        Ok(Published { words: Mapping::new((RUNS + room) * 8, None)?, room })
    }

    fn word(&self, index: u64) -> Result<&AtomicU64> {
        self.words.word(index * 8).ok_or(Errno::ENOMEM)
    }

    /// Replaces the copy.
    pub(super) fn store(&self, attributes: &RangeMap<u64>) -> Result<()> {
        let runs = attributes.boundaries();
        if runs.len() as u64 > self.room {
            return Err(Errno::ENOMEM);
        }
        let sequence = self.word(SEQUENCE)?;
        let count = self.word(COUNT)?;
        let before = sequence.load(Ordering::Relaxed);
        sequence.store(before | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        count.store(runs.len() as u64, Ordering::Relaxed);
        for (index, (page, value)) in (RUNS..).zip(runs) {
            let private = u64::from(value & ATTRIBUTE_PRIVATE != 0);
            self.word(index)?.store(page << 1 | private, Ordering::Relaxed);
        }
        sequence.store((before | 1) + 1, Ordering::Release);
        Ok(())
    }

    /// Calls `f` for each run of `pages` with whether it is private; again from the start if the attributes change
    /// meanwhile, so that the last calls are right.
    pub(super) fn for_each_run(&self, pages: Range<u64>, mut f: impl FnMut(Range<u64>, bool)) {
        let (Ok(sequence), Ok(count)) = (self.word(SEQUENCE), self.word(COUNT)) else {
            return;
        };
        loop {
            let before = sequence.load(Ordering::Acquire);
            if before & 1 != 0 {
                std::hint::spin_loop();
                continue;
            }
            let count = count.load(Ordering::Relaxed).min(self.room);
            for index in 0..count {
                let run = |index| self.word(RUNS + index).map(|w| w.load(Ordering::Relaxed));
                let Ok(this) = run(index) else { break };
                let next = if index + 1 < count {
                    run(index + 1).map_or(u64::MAX, |next| next >> 1)
                } else {
                    u64::MAX
                };
                let part = (this >> 1).max(pages.start)..next.min(pages.end);
                if part.start < part.end {
                    f(part, this & 1 != 0);
                }
            }
            fence(Ordering::Acquire);
            if sequence.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}
