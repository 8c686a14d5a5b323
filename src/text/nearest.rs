// SPDX-License-Identifier: GPL-2.0-only
//! Ids that a mistyped filter may have meant.

/// How many ids are proposed.
const PROPOSALS: usize = 5;

/// The ids nearest to `filter`, best first, five at most: those that contain the filter without regard to case, then
/// those in which the filter, or its longest segment, costs the fewest changes of a letter.
pub fn nearest<'a>(ids: impl IntoIterator<Item = &'a str>, filter: &str) -> Vec<String> {
    let filter = filter.to_ascii_lowercase();
    let mut ranked: Vec<(usize, usize, &str)> =
        ids.into_iter().map(|id| (distance_within(id, &filter), id.len(), id)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(PROPOSALS).map(|(_, _, id)| id.to_string()).collect()
}

/// The fewest insertions, deletions and replacements that turn `pattern` into some part of `text`.
fn distance_within(text: &str, pattern: &str) -> usize {
    // Sellers' algorithm: as Levenshtein's, but a match may begin and end anywhere in the text.
    let text = text.as_bytes();
    let mut previous = vec![0; text.len() + 1];
    for (row, letter) in pattern.bytes().enumerate() {
        let mut current = Vec::with_capacity(previous.len());
        current.push(row + 1);
        for (column, other) in text.iter().enumerate() {
            let replaced = previous[column] + usize::from(letter != *other);
            let shorter = previous[column + 1].min(current[column]) + 1;
            current.push(replaced.min(shorter));
        }
        previous = current;
    }
    previous.into_iter().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 4] = [
        "sw-protected.preserve.both-ways",
        "sw-protected.zero.to-shared",
        "snp.preserve.both-ways",
        "default.errors.unaligned",
    ];

    /// A typing error finds what was meant, whichever part of the id it is in.
    #[test]
    fn typing_errors_find_their_ids() {
        assert_eq!(nearest(IDS, "presrve")[..2], [IDS[2], IDS[0]]);
        assert_eq!(nearest(IDS, "sw-protcted.zero")[0], IDS[1]);
        assert_eq!(nearest(IDS, "UNALIGNED")[0], IDS[3]);
        assert_eq!(nearest(IDS, "snp.preserve.both_ways.at-end")[0], IDS[2]);
    }

    /// The list stays short, and a set without ids has no neighbours.
    #[test]
    fn bounds() {
        let many: Vec<String> = (0..100).map(|n| format!("a.b.{n}")).collect();
        assert_eq!(nearest(many.iter().map(String::as_str), "x").len(), PROPOSALS);
        assert!(nearest([], "x").is_empty());
    }

    /// Distances count changes of one letter.
    #[test]
    fn distances() {
        assert_eq!(distance_within("preserve", "serv"), 0);
        assert_eq!(distance_within("preserve", "sarv"), 1);
        assert_eq!(distance_within("", "abc"), 3);
    }
}
