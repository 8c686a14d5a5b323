// SPDX-License-Identifier: GPL-2.0-only
//! Patterns: what is written into pages and looked for.
//!
//! Every word of every page of every pattern is different, so that a swapped page, a shifted page or a stale page cannot
//! pass, and a word found in the wrong place says where it came from:
//!
//! ```text
//!   63    56 55      44 43                     12 11       9 8         0
//!  +--------+----------+-------------------------+----------+-----------+
//!  | letter | salt     | page of the guest_memfd |  0b101   | word      |
//!  +--------+----------+-------------------------+----------+-----------+
//! ```

/// Words in a page.
pub const WORDS_PER_PAGE: u64 = 512;

/// The tag of the pattern that is zero everywhere.
pub const ZERO: u64 = 0;

/// A mark in every word, so that word 0 of page 0 is not an even number of a round address.
const MARK: u64 = 0b101 << 9;

/// The tag of a pattern: an upper-case `letter`, and a `salt` (12 bits) that tells this use of the letter from earlier ones
/// whose bytes may still lie about in memory.
pub const fn tag(letter: u8, salt: u16) -> u64 {
    (letter as u64) << 56 | ((salt & 0xfff) as u64) << 44
}

/// Word `index` (0 to 511) of page `page` (32 bits) in the pattern with `tag`. Within a page, each word is as much more than
/// the one before: 1, and 0 in the pattern that is zero everywhere.
pub const fn word(tag: u64, page: u64, index: u64) -> u64 {
    if tag == ZERO {
        return 0;
    }
    tag | (page & 0xffff_ffff) << 12 | MARK | (index & 0x1ff)
}

/// What a word of a pattern says about itself: letter, salt, page and index; `None` for a word that is of no pattern.
pub const fn parse(word: u64) -> Option<(u8, u16, u64, u64)> {
    let letter = (word >> 56) as u8;
    if !letter.is_ascii_uppercase() || word & (0b111 << 9) != MARK {
        return None;
    }
    Some((letter, (word >> 44 & 0xfff) as u16, word >> 12 & 0xffff_ffff, word & 0x1ff))
}
