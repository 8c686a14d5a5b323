// SPDX-License-Identifier: GPL-2.0-only
//! How two pages differ, in a few lines that fit into a mail.

use crate::payload::pattern;

/// Differing 16-byte rows that are shown.
const ROWS: usize = 4;

/// The first rows in which `found` differs from `expected`, and what the found words say about themselves.
pub(super) fn hexdiff(expected: &[u8], found: &[u8]) -> Vec<String> {
    let rows = || expected.chunks(16).zip(found.chunks(16)).enumerate();
    let mut lines = Vec::new();
    for (row, (want, have)) in rows().filter(|(_, (w, h))| w != h).take(ROWS) {
        lines.push(format!("{:03x}  -{}", row * 16, hex(want)));
        lines.push(format!("     +{}", hex(have)));
    }
    let differ = rows().filter(|(_, (w, h))| w != h).count();
    if differ > ROWS {
        let total = expected.len() / 16;
        lines.push(format!("     ... {differ} of {total} rows differ"));
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!(" {b:02x}")).collect()
}

/// Offset of the first byte that differs.
pub(super) fn first_difference(expected: &[u8], found: &[u8]) -> Option<usize> {
    // Nearly always they are the same, which one comparison of memory says.
    if expected == found {
        return None;
    }
    expected.iter().zip(found).position(|(w, h)| w != h)
}

/// The first place at which `bytes` hold what somebody has written: two words in a row of one pattern, which chance does not
/// make. The byte offset, with the letter of the pattern and the page that it belongs to.
pub(super) fn data_in(bytes: &[u8]) -> Option<(usize, char, u64)> {
    let words = || bytes.chunks_exact(8).map(|c| c.try_into().map_or(0, u64::from_le_bytes));
    words().zip(words().skip(1)).enumerate().find_map(|(index, (word, next))| {
        let (letter, _, page, _) = pattern::parse(word)?;
        let follows = next.wrapping_sub(word) == 1 && pattern::parse(next).is_some();
        follows.then_some((index * 8, letter as char, page))
    })
}

/// The bytes of a page in words: a pattern with the page that it belongs to, zeros, or bytes that mean nothing to us.
pub(super) fn describe(bytes: &[u8], page: u64) -> String {
    if bytes.iter().all(|b| *b == 0) {
        return "zeros".into();
    }
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect();
    // One word that looks like one of a pattern may be chance, where memory was scrambled.
    let known = pattern::parse(words[0])
        .map(|(letter, salt, of_page, _)| {
            let tag = pattern::tag(letter, salt);
            let fits = |(word, index): &(&u64, u64)| **word == pattern::word(tag, of_page, *index);
            (letter, of_page, words.iter().zip(0..).filter(fits).count())
        })
        .filter(|(.., matching)| *matching > 1);
    let Some((letter, of_page, matching)) = known else {
        let zeros = words.iter().filter(|w| **w == 0).count();
        return match zeros {
            0 => "bytes of no pattern".into(),
            _ => format!("bytes of no pattern, {zeros} of {} words zero", words.len()),
        };
    };
    let part = if matching == words.len() { "" } else { "in part " };
    match of_page == page & 0xffff_ffff {
        true => format!("{part}pattern {}", letter as char),
        false => format!("{part}pattern {} of page {of_page}", letter as char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Content;

    /// A page that holds another page's pattern is named as that page.
    #[test]
    fn a_swapped_page_says_so() {
        let tag = pattern::tag(b'A', 7);
        let bytes = Content::Pattern(tag).bytes(3).unwrap();
        assert_eq!(describe(&bytes, 3), "pattern A");
        assert_eq!(describe(&bytes, 2), "pattern A of page 3");
        assert_eq!(describe(&[0; 4096], 2), "zeros");
        let mut torn = bytes;
        torn[4000] ^= 1;
        assert_eq!(describe(&torn, 3), "in part pattern A");
        let mut chance = [0x99; 4096];
        chance[..8].copy_from_slice(&bytes[..8]);
        assert_eq!(describe(&chance, 3), "bytes of no pattern");
    }

    /// At most four rows are shown, and the rest is counted.
    #[test]
    fn a_diff_is_short() {
        let diff = hexdiff(&[0; 4096], &[1; 4096]);
        assert_eq!(diff.len(), 9);
        assert_eq!(diff[8], "     ... 256 of 256 rows differ");
        assert_eq!(diff[0], format!("000  -{}", " 00".repeat(16)));
        assert_eq!(hexdiff(&[0; 64], &[1; 64]).len(), 8);
    }
}
