// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the memory of encrypted guests.

use std::ops::Range;

use crate::machine::Result;
use crate::machine::model::encryption::{LARGE_PAGE, Owned};
use crate::machine::model::fault::Fault;
use crate::machine::model::folio::WORDS;
use crate::machine::model::inode::{Inode, State};

impl Inode {
    /// Whether a page is usable as soon as it is the guest's.
    pub fn hook_usable_at_once(&self) -> bool {
        self.planted(Fault::AcceptanceNotRequired)
    }

    /// A private page was pre-faulted.
    pub fn hook_pre_faulted(&self, state: &mut State, page: u64) {
        if self.planted(Fault::PreFaultAccepts) {
            state.owned.insert(page, Owned { usable: true });
        }
    }

    /// Whether a page that is accepted can be accepted once more.
    pub fn hook_accepted_again(&self) -> bool {
        self.planted(Fault::AcceptedAgain)
    }

    /// The words that ACCEPT clears.
    pub fn hook_accepted_words(&self, words: u64) -> u64 {
        match self.config.fault {
            Some(Fault::AcceptKeepsContents) => 0,
            Some(Fault::AcceptClearsHalf) => WORDS / 2,
            _ => words,
        }
    }

    /// Whether the launch takes a page, which is private or not.
    pub fn hook_launch_takes(&self, private: bool) -> bool {
        private || self.planted(Fault::LaunchTakesShared)
    }

    /// Whether a page is refused because it is part of the launch.
    pub fn hook_launched_before(&self, launched: bool) -> bool {
        launched && !self.planted(Fault::LaunchAgain)
    }

    /// The launch is about to take what a page holds.
    pub fn hook_launched_in_place(&self, page: u64) -> Result<()> {
        if self.planted(Fault::LaunchInPlaceCleared) { self.clear_folio(page) } else { Ok(()) }
    }

    /// The launch has encrypted a page.
    pub fn hook_launched(&self, page: u64) -> Result<()> {
        match self.config.fault {
            Some(Fault::LaunchLosesLastWord) => {
                self.store_word(page, WORDS - 1, self.protection.encrypt(page, WORDS - 1, 0))
            }
            _ => Ok(()),
        }
    }

    /// The guest's pages among `pages`, which are `owned`, become or stay private, so that they stay the guest's. `mixed`:
    /// not all pages of the range were private.
    pub fn hook_stays_owned(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        owned: &[u64],
        mixed: bool,
    ) -> Result<()> {
        match self.config.fault {
            Some(Fault::MixedRangeTakesBack | Fault::MixedRangeTakenBack) if mixed => {
                self.disown(state, pages.clone());
            }
            Some(Fault::NoopTakesBack) if !mixed => self.disown(state, pages.clone()),
            Some(Fault::MixedRangeLost) if mixed => {
                self.for_each(owned, |page| self.scramble(page))?;
            }
            Some(Fault::SharedAliasElsewhere) => {
                state.planted.stale.retain(|page| !pages.contains(page));
            }
            Some(Fault::SharedAliasStays) => {
                let folios = self.folios(pages.clone()).into_iter().flatten();
                state.planted.old_alias.extend(folios);
            }
            _ => {}
        }
        Ok(())
    }

    /// The pages that a conversion of `pages` to shared takes back from the guest, of which `owned` are the guest's.
    pub fn hook_taken_back(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        owned: &[u64],
    ) -> Result<Range<u64>> {
        state.planted.taken_back.extend(owned);
        let plain = |words: Range<u64>| {
            self.for_each(owned, |page| {
                for index in words.clone() {
                    let word = self.load_word(page, index)?;
                    self.store_word(page, index, self.protection.decrypt(page, index, word))?;
                }
                Ok(())
            })
        };
        match self.config.fault {
            Some(Fault::PlaintextLeftBehind) => plain(0..WORDS)?,
            Some(Fault::PlaintextInLastBlock) => plain(WORDS - 8..WORDS)?,
            Some(Fault::ReclaimedCleared) => self.for_each(owned, |page| self.clear_folio(page))?,
            Some(Fault::SharedAliasElsewhere) => state.planted.stale.extend(owned),
            Some(Fault::PrivateAliasStays) => state.planted.old_alias.extend(owned),
            _ => {}
        }
        Ok(match self.config.fault {
            Some(Fault::StaysUsable) => 0..0,
            Some(Fault::TakesBackFirstOnly) => pages.start..pages.start + 1,
            Some(Fault::TakesBackPageBefore) => pages.start.saturating_sub(1)..pages.end,
            Some(Fault::TakesBackLargePage) => {
                pages.start / LARGE_PAGE * LARGE_PAGE..pages.end.next_multiple_of(LARGE_PAGE)
            }
            _ => pages.clone(),
        })
    }
}
