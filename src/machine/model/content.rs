// SPDX-License-Identifier: GPL-2.0-only
//! What a conversion does to the contents of folios.

use super::convert::Conversion;
use super::folio::WORDS;
use super::inode::{Inode, State};
use crate::machine::Result;
use crate::uapi::{MODE_PRESERVE, MODE_ZERO};

impl Inode {
    /// `kvm_gmem_content_mode_supported()`.
    pub(super) fn content_mode_supported(&self, mode: u64, to_private: bool) -> bool {
        if !self.config.dialect.has_content_modes() {
            return true;
        }
        let launched = self.protection.is_launched();
        let offered = match to_private {
            true => self.vm_type.modes_to_private(self.config.dialect, launched),
            false => self.vm_type.modes_to_shared,
        };
        let supported = mode == 0 || offered & mode != 0;
        self.hook_mode_supported(mode, to_private, supported)
    }

    /// `kvm_gmem_apply_content_mode()`, before the attributes are stored. It covers the whole range, also the pages that
    /// are in the wanted state already, and never a hole.
    pub(super) fn apply_content_mode(
        &self,
        state: &mut State,
        conversion: &Conversion,
    ) -> Result<()> {
        let runs = self.folios(conversion.pages.clone());
        let mut folios: Vec<u64> = runs.into_iter().flatten().collect();
        self.hook_folios(state, conversion, &mut folios);
        match conversion.mode {
            _ if !self.config.dialect.has_content_modes() => {
                self.hook_without_modes(state, conversion, &folios)?;
            }
            // Whoever may look next sees zeros.
            MODE_ZERO => {
                let words = self.hook_zeroed_words(0..WORDS);
                let zeroed = self.hook_zeroed(&folios);
                self.for_each(zeroed, |page| self.clear(page, words.clone()))?;
            }
            // Nothing to do for memory that is not encrypted.
            MODE_PRESERVE => self.hook_preserved(state, conversion, &folios)?,
            // Nothing was promised, and random bytes make sure that nobody comes to rely on what was there.
            _ if self.vm_type.scrambles => {
                let scrambled = self.hook_scrambled(state, conversion, folios)?;
                self.for_each(&scrambled, |page| self.scramble(page))?;
            }
            _ => {}
        }
        self.hook_mode_applied(state, conversion)
    }

    /// Does something to each of these folios.
    pub(super) fn for_each(&self, folios: &[u64], f: impl Fn(u64) -> Result<()>) -> Result<()> {
        folios.iter().copied().try_for_each(f)
    }
}
