// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the refusal of conversions of pages that are in use.

use std::ops::Range;
use std::sync::Arc;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::convert::{BATCH, Conversion, Refused};
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::{Inode, State};
use crate::uapi::{ATTRIBUTE_PRIVATE, PAGE_SIZE};

impl Inode {
    /// Whether pages that are in use stand in the way of this conversion.
    pub fn hook_in_use_matters(&self, conversion: &Conversion) -> bool {
        conversion.to_private() || self.planted(Fault::InUseToShared)
    }

    /// The folios are about to be looked at.
    pub fn hook_before_in_use(&self, state: &mut State, conversion: &Conversion) -> Result<()> {
        match self.config.fault {
            Some(Fault::InUseContentsLost) => self.apply_content_mode(state, conversion),
            _ => Ok(()),
        }
    }

    /// Whether users are not seen at all.
    pub fn hook_users_missed(&self, state: &State, pages: &Range<u64>) -> bool {
        match self.config.fault {
            Some(Fault::InUseConverted) => true,
            Some(Fault::InUseTwiceMissed) => {
                let mut referenced = state.referenced.range(pages.clone());
                referenced.all(|(_, folio)| Arc::strong_count(folio) > 2)
            }
            _ => false,
        }
    }

    /// The page that is found to be in use. `lowest` is the one that is.
    pub fn hook_user(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        lowest: Option<u64>,
    ) -> Option<u64> {
        let mut looked_at = pages.clone();
        match self.config.fault {
            Some(Fault::InUseFirstFolioOnly) => looked_at.end = looked_at.start + 1,
            Some(Fault::InUseFirstBatchOnly) => {
                looked_at.end = looked_at.end.min(looked_at.start + BATCH);
            }
            Some(Fault::InUseOffByOne) => looked_at.end += 1,
            Some(Fault::InUseCountsBefore) => looked_at.start = looked_at.start.saturating_sub(1),
            Some(Fault::InUseOffsetHighest) => {
                return state.referenced.range(looked_at).next_back().map(|(page, _)| *page);
            }
            _ => return [lowest, self.transient_user(state, pages)].into_iter().flatten().min(),
        }
        state.referenced.range(looked_at).next().map(|(page, _)| *page)
    }

    /// A page of the range on which the kernel itself holds a reference for a moment, where one is planted.
    fn transient_user(&self, state: &mut State, pages: &Range<u64>) -> Option<u64> {
        let folios = || self.folios(pages.clone()).into_iter().flatten();
        match self.config.fault? {
            Fault::SpuriousEagain if !state.planted.refused_once => {
                state.planted.refused_once = true;
                Some(pages.start)
            }
            Fault::DrainedLate => {
                let page = folios().find(|page| state.planted.drained.get(*page) != Some(true));
                state.planted.drained.set(pages.clone(), true);
                page
            }
            Fault::LruBatchNotDrained => folios().next(),
            _ => None,
        }
    }

    /// A conversion of `pages` is refused because of `page`.
    pub fn hook_refused_in_use(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        page: u64,
        refused: Refused,
    ) -> Refused {
        match self.config.fault {
            Some(Fault::InUseForever) => {
                let leaked = state.referenced.get(&page).map(Arc::clone);
                state.planted.leaked.extend(leaked);
            }
            Some(Fault::InUsePartlyConverted) if page > pages.start => {
                let before = pages.start..page;
                let _ = self.store(state, before.clone(), ATTRIBUTE_PRIVATE);
                let _ = self.refault(state, before);
            }
            Some(Fault::InUseLeavesZapped) => {
                let _ = self.zap(state, pages.clone());
            }
            _ => {}
        }
        let offset = match self.config.fault {
            Some(Fault::InUseOffsetIsStart) => pages.start * PAGE_SIZE,
            Some(Fault::InUseOffsetRelative) => page.saturating_sub(pages.start) * PAGE_SIZE,
            Some(Fault::InUseOffsetIsIndex) => page,
            Some(Fault::InUseOffsetBehind) => (page + 1) * PAGE_SIZE,
            Some(Fault::InUseOffsetTruncated) => (page * PAGE_SIZE) & 0xffff_ffff,
            Some(Fault::InUseOffsetOfLargeFolio) => (page & !511) * PAGE_SIZE,
            _ => refused.offset,
        };
        Refused { error: Errno::EAGAIN, offset }
    }
}
