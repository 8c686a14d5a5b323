// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the content modes.

use std::ops::Range;

use crate::machine::Result;
use crate::machine::model::convert::{BATCH, Conversion};
use crate::machine::model::fault::Fault;
use crate::machine::model::folio::{SHORT, WORDS};
use crate::machine::model::inode::{Inode, State};
use crate::uapi::{MODE_PRESERVE, MODE_ZERO};

impl Inode {
    /// Whether a content mode is offered.
    pub fn hook_mode_supported(&self, mode: u64, to_private: bool, supported: bool) -> bool {
        if mode == 0 {
            return !self.planted(Fault::UnspecifiedRejected);
        }
        let launched = self.protection.is_launched();
        let accepted = match self.config.fault {
            Some(Fault::DefaultModesAccepted) => !self.vm_type.has_private_memory,
            Some(Fault::ZeroToPrivateAccepted) => to_private && mode == MODE_ZERO,
            Some(Fault::EarlyZeroAccepted) => to_private && mode == MODE_ZERO && !launched,
            Some(Fault::PreserveAtRunTime) => to_private && mode == MODE_PRESERVE && launched,
            Some(Fault::PreserveToSharedAccepted) => !to_private && mode == MODE_PRESERVE,
            Some(Fault::EarlyPreserveRefused) if to_private && !launched => return false,
            _ => false,
        };
        supported || accepted
    }

    /// The folios that the mode acts on.
    pub fn hook_folios(&self, state: &mut State, conversion: &Conversion, folios: &mut Vec<u64>) {
        let settled = |page: &u64| state.attributes.get(*page) == Some(conversion.attributes);
        let taken_back = |page: &u64| state.planted.taken_back.contains(page);
        let zero = self.config.dialect.has_content_modes() && conversion.mode == MODE_ZERO;
        match self.config.fault {
            Some(Fault::ModeSkipsSettledPages) => folios.retain(|page| !settled(page)),
            Some(Fault::ZeroForgottenForOwned) if zero => folios.retain(|page| !taken_back(page)),
            Some(Fault::ZeroOnlyForOwned) if zero => {
                folios.retain(|page| taken_back(page) || settled(page));
            }
            Some(Fault::ZeroSkipsConverted) if zero => folios.retain(settled),
            _ => {}
        }
        if conversion.mode != 0 {
            // What was put off is overtaken.
            state.planted.scramble_later.retain(|page| !folios.contains(page));
        }
    }

    /// Where there are no modes, contents stay as they are.
    pub fn hook_without_modes(
        &self,
        state: &State,
        conversion: &Conversion,
        folios: &[u64],
    ) -> Result<()> {
        let Conversion { pages, attributes, .. } = conversion;
        let to_private = conversion.to_private();
        match self.config.fault {
            Some(Fault::UpstreamScrambles) => self.for_each(folios, |page| self.scramble(page)),
            Some(Fault::TeardownHookOnConversion) if !to_private => {
                self.for_each(folios, |page| self.clear_folio(page))
            }
            Some(Fault::MixedRangeTornDown)
                if to_private && state.attributes.runs(pages.clone()).len() > 1 =>
            {
                let settled = |page: &&u64| state.attributes.get(**page) == Some(*attributes);
                let settled: Vec<u64> = folios.iter().filter(settled).copied().collect();
                self.for_each(&settled, |page| self.clear_folio(page))
            }
            _ => Ok(()),
        }
    }

    /// The folios that ZERO clears.
    pub fn hook_zeroed<'a>(&self, folios: &'a [u64]) -> &'a [u64] {
        match self.config.fault {
            Some(Fault::ZeroFirstFolioOnly) => folios.get(..1).unwrap_or_default(),
            Some(Fault::ZeroFirstBatchOnly) => folios.get(..BATCH as usize).unwrap_or(folios),
            _ => folios,
        }
    }

    /// The words of a folio that ZERO clears.
    pub fn hook_zeroed_words(&self, words: Range<u64>) -> Range<u64> {
        match self.config.fault {
            Some(Fault::ZeroHalfFolio) => 0..WORDS / 2,
            Some(Fault::ZeroMissing) => 0..0,
            _ => words,
        }
    }

    /// PRESERVE leaves memory that is not encrypted as it is.
    pub fn hook_preserved(
        &self,
        state: &mut State,
        conversion: &Conversion,
        folios: &[u64],
    ) -> Result<()> {
        let (pages, to_private) = (&conversion.pages, conversion.to_private());
        let settled = |page: &&u64| state.attributes.get(**page) == Some(conversion.attributes);
        let (settled, changing): (Vec<u64>, Vec<u64>) =
            folios.iter().partition(|page| settled(page));
        match self.config.fault {
            Some(Fault::PreserveLosesLongRanges) if pages.end - pages.start > 1 => {
                self.for_each(folios, |page| self.scramble(page))
            }
            Some(Fault::PreserveScrambles) if !to_private => {
                self.for_each(folios, |page| self.scramble(page))
            }
            Some(Fault::PreserveLosesLastWord | Fault::EarlyPreserveLosesLastWord)
                if to_private =>
            {
                self.for_each(&changing, |page| self.clear(page, WORDS - 1..WORDS))
            }
            Some(Fault::PreserveSeenLate) if to_private => {
                state.planted.seen_late.extend(&changing);
                Ok(())
            }
            Some(Fault::PreserveSwapsFolios) if !to_private => match changing.as_slice() {
                [first, second, ..] => self.exchange(*first, *second),
                _ => Ok(()),
            },
            Some(Fault::MixedRangeScrubsPrivate) if to_private && !changing.is_empty() => {
                self.for_each(&settled, |page| self.scramble(page))
            }
            Some(Fault::FolioReplaced) if !to_private => self.keep_for_guest(state, pages.clone()),
            _ => Ok(()),
        }
    }

    /// Copies the contents of one folio to another.
    fn copy_folio(&self, from: u64, to: u64) -> Result<()> {
        for index in 0..WORDS {
            self.store_word(to, index, self.load_word(from, index)?)?;
        }
        Ok(())
    }

    /// Exchanges the contents of two folios.
    fn exchange(&self, a: u64, b: u64) -> Result<()> {
        for index in 0..WORDS {
            let (word_a, word_b) = (self.load_word(a, index)?, self.load_word(b, index)?);
            self.store_word(a, index, word_b)?;
            self.store_word(b, index, word_a)?;
        }
        Ok(())
    }

    /// The folios that a conversion without a mode fills with random bytes.
    pub fn hook_scrambled(
        &self,
        state: &mut State,
        conversion: &Conversion,
        mut folios: Vec<u64>,
    ) -> Result<Vec<u64>> {
        let Conversion { pages, attributes, .. } = conversion;
        let settled = |page: &u64| state.attributes.get(*page) == Some(*attributes);
        match self.config.fault {
            Some(Fault::ScrambleFillsHoles) if pages.end - pages.start <= SHORT => {
                for page in pages.clone() {
                    let hole = state.allocated.get(page) != Some(true) && !self.is_up_to_date(page);
                    if hole {
                        self.scramble(page)?;
                    }
                }
            }
            Some(Fault::AllocatedScrambled) => {
                for (run, allocated) in state.allocated.runs(pages.clone()) {
                    for page in run.take(SHORT as usize).take_while(|_| allocated) {
                        self.scramble(page)?;
                    }
                }
            }
            Some(Fault::ScrambleNeighbour)
                if pages.end < self.pages() && self.is_up_to_date(pages.end) =>
            {
                self.scramble(pages.end)?;
            }
            Some(Fault::UnspecifiedKeeps) => folios.clear(),
            Some(Fault::UnspecifiedOneWay) if !conversion.to_private() => folios.clear(),
            Some(Fault::UnspecifiedUnstable) => {
                state.planted.scramble_later.extend(folios.drain(..))
            }
            Some(Fault::UnspecifiedChangedOnly) => folios.retain(|page| !settled(page)),
            // With these liberties a folio can be up to date before its first user has come.
            Some(Fault::AllocateClears | Fault::HolesAllocated) => {
                folios.retain(|page| state.allocated.get(*page) != Some(true));
            }
            Some(Fault::UnspecifiedZeroes) => {
                folios.drain(..).try_for_each(|page| self.clear_folio(page))?;
            }
            Some(Fault::UnspecifiedFirstWord) => {
                folios.drain(..).try_for_each(|page| self.clear(page, 0..1))?;
            }
            _ => {}
        }
        Ok(folios)
    }

    /// The mode has been applied.
    pub fn hook_mode_applied(&self, state: &mut State, conversion: &Conversion) -> Result<()> {
        let pages = &conversion.pages;
        let zero = self.config.dialect.has_content_modes() && conversion.mode == MODE_ZERO;
        match self.config.fault {
            Some(Fault::ZeroNeighbour)
                if zero && pages.end < self.pages() && self.is_up_to_date(pages.end) =>
            {
                self.clear_folio(pages.end)
            }
            Some(Fault::HoleShowsOtherPage) if pages.end - pages.start <= SHORT => {
                let other = self.folios(0..self.pages().min(SHORT)).first().map(|run| run.start);
                let hole = pages.clone().find(|page| !self.is_up_to_date(*page));
                match (hole, other) {
                    (Some(hole), Some(other)) => self.copy_folio(other, hole),
                    _ => Ok(()),
                }
            }
            Some(Fault::HolesAllocated) if pages.end - pages.start <= SHORT => {
                for page in pages.clone().filter(|page| !self.is_up_to_date(*page)) {
                    self.touch(page)?;
                    state.allocated.set(page..page + 1, true);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
