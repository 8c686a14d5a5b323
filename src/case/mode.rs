// SPDX-License-Identifier: GPL-2.0-only
//! Content modes, and the flags of the call that say them.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use crate::uapi::{MODE_PRESERVE, MODE_ZERO};

/// The content mode of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Mode {
    /// Nothing is promised.
    Unspecified,
    /// Whoever may read then reads zeros.
    Zero,
    /// What was last written survives.
    Preserve,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; Mode::VARIANTS.len()] = *Mode::VARIANTS.first_chunk().unwrap();

    /// The bits of all modes in `kvm_memory_attributes2::flags`.
    pub const BITS: u64 = {
        let (mut bits, mut index) = (0, 0);
        while index < Mode::ALL.len() {
            bits |= Mode::ALL[index].bits();
            index += 1;
        }
        bits
    };

    /// The lowest bit of `kvm_memory_attributes2::flags` that no mode has.
    pub const UNKNOWN_BIT: u64 = 1 << Mode::BITS.trailing_ones();

    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The bits in `kvm_memory_attributes2::flags`.
    pub const fn bits(self) -> u64 {
        match self {
            Mode::Unspecified => 0,
            Mode::Zero => MODE_ZERO,
            Mode::Preserve => MODE_PRESERVE,
        }
    }

    /// The mode that these flags ask for; `None` if they ask for several, or have bits that no mode has.
    pub fn of_flags(flags: u64) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.bits() == flags)
    }

    /// The word in a case for flags that ask for one mode or several, such as `zero+preserve`.
    pub fn word(flags: u64) -> Option<String> {
        if flags == 0 || flags & !Mode::BITS != 0 {
            return None;
        }
        let asked = Mode::ALL.into_iter().filter(|mode| mode.bits() & flags != 0);
        Some(asked.map(Mode::name).collect::<Vec<_>>().join("+"))
    }

    /// The flags for such a word.
    pub fn flags(word: &str) -> Option<u64> {
        let named = |name: &str| Mode::ALL.into_iter().find(|mode| mode.name() == name);
        let flags = word.split('+').try_fold(0, |flags, name| Some(flags | named(name)?.bits()))?;
        (Mode::word(flags)? == word).then_some(flags)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each combination of modes has one word, which reads back; other flags and words have none.
    #[test]
    fn words_and_flags() {
        for flags in 1..=Mode::BITS {
            let word = Mode::word(flags).expect("a word");
            assert_eq!(Mode::flags(&word), Some(flags), "{word}");
        }
        assert_eq!(Mode::word(MODE_ZERO | MODE_PRESERVE).as_deref(), Some("zero+preserve"));
        for flags in [0, Mode::UNKNOWN_BIT, Mode::BITS | 1 << 63] {
            assert_eq!(Mode::word(flags), None, "{flags:#x}");
        }
        for word in ["", "unspecified", "zero+", "preserve+zero", "zero+zero", "scramble"] {
            assert_eq!(Mode::flags(word), None, "{word}");
        }
        assert_eq!(Mode::of_flags(Mode::BITS), None);
    }
}
