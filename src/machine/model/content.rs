// SPDX-License-Identifier: GPL-2.0-only
//! What a conversion does to the contents of folios.

use std::ops::Range;

use super::convert::BATCH;
use super::fault::Fault;
use super::folio::{SHORT, WORDS};
use super::inode::{Inode, State};
use crate::machine::Result;
use crate::uapi::{MODE_PRESERVE, MODE_ZERO};

impl Inode {
    /// `kvm_gmem_content_mode_supported()`.
    pub(super) fn content_mode_supported(&self, mode: u64, to_private: bool) -> bool {
        if !self.config.dialect.has_content_modes() {
            return true;
        }
        if mode == 0 {
            return !self.planted(Fault::UnspecifiedRejected);
        }
        if self.planted(Fault::DefaultModesAccepted) && !self.vm_type.has_private_memory {
            return true;
        }
        let launched = self.protection.is_launched();
        let accepted = match self.config.fault {
            Some(Fault::ZeroToPrivateAccepted) => to_private && mode == MODE_ZERO,
            Some(Fault::EarlyZeroAccepted) => to_private && mode == MODE_ZERO && !launched,
            Some(Fault::PreserveAtRunTime) => to_private && mode == MODE_PRESERVE && launched,
            Some(Fault::PreserveToSharedAccepted) => !to_private && mode == MODE_PRESERVE,
            _ => false,
        };
        let refused = self.planted(Fault::EarlyPreserveRefused) && to_private && !launched;
        let offered = match to_private {
            true => self.vm_type.modes_to_private(self.config.dialect, launched),
            false => self.vm_type.modes_to_shared,
        };
        accepted || !refused && offered & mode != 0
    }

    /// `kvm_gmem_apply_content_mode()`, before the attributes are stored. It covers the whole range, also the pages that
    /// are in the wanted state already, and never a hole.
    pub(super) fn apply_content_mode(
        &self,
        state: &mut State,
        pages: Range<u64>,
        attributes: u64,
        mode: u64,
        to_private: bool,
    ) -> Result<()> {
        let mut folios = Vec::new();
        for run in self.folios(pages.clone()) {
            folios.extend(run);
        }
        if self.planted(Fault::ModeSkipsSettledPages) {
            folios.retain(|page| state.attributes.get(*page) != Some(attributes));
        }
        if mode != 0 {
            // What was put off is overtaken.
            state.scramble_later.retain(|page| !folios.contains(page));
        }
        if !self.config.dialect.has_content_modes() {
            if self.planted(Fault::UpstreamScrambles) {
                self.for_each(&folios, |page| self.scramble(page))?;
            } else if self.planted(Fault::TeardownHookOnConversion) && !to_private {
                self.for_each(&folios, |page| self.clear_folio(page))?;
            } else if self.planted(Fault::MixedRangeTornDown) && to_private {
                let settled = |page: &&u64| state.attributes.get(**page) == Some(attributes);
                if state.attributes.runs(pages.clone()).len() > 1 {
                    let settled: Vec<u64> = folios.iter().filter(settled).copied().collect();
                    self.for_each(&settled, |page| self.clear_folio(page))?;
                }
            }
        } else if mode == MODE_ZERO {
            if self.planted(Fault::ZeroForgottenForOwned) {
                folios.retain(|page| !state.taken_back.contains(page));
            }
            if self.planted(Fault::ZeroOnlyForOwned) {
                let settled = |page: &u64| state.attributes.get(*page) == Some(attributes);
                folios.retain(|page| state.taken_back.contains(page) || settled(page));
            }
            if self.planted(Fault::ZeroSkipsConverted) {
                folios.retain(|page| state.attributes.get(*page) == Some(attributes));
            }
            self.zero(&folios)?;
            if self.planted(Fault::ZeroNeighbour)
                && pages.end < self.pages()
                && self.is_up_to_date(pages.end)
            {
                self.clear_folio(pages.end)?;
            }
        } else if mode == MODE_PRESERVE {
            self.preserve(state, &folios, &pages, attributes, to_private)?;
        } else if self.vm_type.scrambles {
            self.unspecified(state, &folios, &pages, attributes, to_private)?;
        }
        if self.planted(Fault::HoleShowsOtherPage) && pages.end - pages.start <= SHORT {
            let other = self.folios(0..self.pages().min(SHORT)).first().map(|run| run.start);
            let hole = pages.clone().find(|page| !self.is_up_to_date(*page));
            if let (Some(hole), Some(other)) = (hole, other) {
                for index in 0..WORDS {
                    self.store_word(hole, index, self.load_word(other, index)?)?;
                }
            }
        }
        if self.planted(Fault::HolesAllocated) && pages.end - pages.start <= SHORT {
            for page in pages {
                if !self.is_up_to_date(page) {
                    self.touch(page)?;
                    state.allocated.set(page..page + 1, true);
                }
            }
        }
        Ok(())
    }

    fn for_each(&self, folios: &[u64], f: impl Fn(u64) -> Result<()>) -> Result<()> {
        folios.iter().copied().try_for_each(f)
    }

    /// ZERO: whoever may look next sees zeros.
    fn zero(&self, folios: &[u64]) -> Result<()> {
        let words = if self.planted(Fault::ZeroHalfFolio) {
            0..WORDS / 2
        } else if self.planted(Fault::ZeroMissing) {
            0..0
        } else {
            0..WORDS
        };
        let folios = if self.planted(Fault::ZeroFirstFolioOnly) {
            folios.get(..1).unwrap_or_default()
        } else if self.planted(Fault::ZeroFirstBatchOnly) {
            folios.get(..BATCH as usize).unwrap_or(folios)
        } else {
            folios
        };
        self.for_each(folios, |page| self.clear(page, words.clone()))
    }

    /// PRESERVE: nothing to do for memory that is not encrypted.
    fn preserve(
        &self,
        state: &mut State,
        folios: &[u64],
        pages: &Range<u64>,
        attributes: u64,
        to_private: bool,
    ) -> Result<()> {
        let changes = |page: &&u64| state.attributes.get(**page) != Some(attributes);
        let changing: Vec<u64> = folios.iter().filter(changes).copied().collect();
        if self.planted(Fault::PreserveLosesLongRanges) && pages.end - pages.start > 1
            || self.planted(Fault::PreserveScrambles) && !to_private
        {
            self.for_each(folios, |page| self.scramble(page))?;
        }
        let loses_last_word = self.planted(Fault::PreserveLosesLastWord)
            || self.planted(Fault::EarlyPreserveLosesLastWord);
        if loses_last_word && to_private {
            self.for_each(&changing, |page| self.clear(page, WORDS - 1..WORDS))?;
        }
        if self.planted(Fault::PreserveSeenLate) && to_private {
            state.seen_late.extend(&changing);
        }
        if self.planted(Fault::PreserveSwapsFolios)
            && !to_private
            && let [first, second, ..] = changing.as_slice()
        {
            self.exchange(*first, *second)?;
        }
        if self.planted(Fault::MixedRangeScrubsPrivate) && to_private {
            let settled = |page: &&u64| state.attributes.get(**page) == Some(attributes);
            let mixed = folios.iter().filter(settled).count() < folios.len();
            if mixed {
                for page in folios.iter().filter(settled) {
                    self.scramble(*page)?;
                }
            }
        }
        if self.planted(Fault::FolioReplaced) && !to_private {
            self.keep_for_guest(state, pages.clone())?;
        }
        Ok(())
    }

    /// No mode: nothing was promised, and random bytes make sure that nobody comes to rely on what was there.
    fn unspecified(
        &self,
        state: &mut State,
        folios: &[u64],
        pages: &Range<u64>,
        attributes: u64,
        to_private: bool,
    ) -> Result<()> {
        if self.planted(Fault::ScrambleFillsHoles) && pages.end - pages.start <= SHORT {
            for page in pages.clone() {
                let hole = state.allocated.get(page) != Some(true) && !self.is_up_to_date(page);
                if hole {
                    self.scramble(page)?;
                }
            }
        }
        if self.planted(Fault::AllocatedScrambled) {
            for (run, allocated) in state.allocated.runs(pages.clone()) {
                for page in run.take(SHORT as usize).take_while(|_| allocated) {
                    self.scramble(page)?;
                }
            }
        }
        if self.planted(Fault::ScrambleNeighbour)
            && pages.end < self.pages()
            && self.is_up_to_date(pages.end)
        {
            self.scramble(pages.end)?;
        }
        if self.planted(Fault::UnspecifiedKeeps)
            || self.planted(Fault::UnspecifiedOneWay) && !to_private
        {
            return Ok(());
        }
        if self.planted(Fault::UnspecifiedUnstable) {
            state.scramble_later.extend(folios);
            return Ok(());
        }
        // With these liberties a folio can be up to date before its first user has come.
        let allocates_early =
            self.planted(Fault::AllocateClears) || self.planted(Fault::HolesAllocated);
        for page in folios.iter().copied() {
            let settled = state.attributes.get(page) == Some(attributes);
            let untouched = state.allocated.get(page) == Some(true);
            if self.planted(Fault::UnspecifiedChangedOnly) && settled
                || allocates_early && untouched
            {
                continue;
            }
            if self.planted(Fault::UnspecifiedZeroes) {
                self.clear_folio(page)?;
            } else if self.planted(Fault::UnspecifiedFirstWord) {
                self.clear(page, 0..1)?;
            } else {
                self.scramble(page)?;
            }
        }
        Ok(())
    }
}
