// SPDX-License-Identifier: GPL-2.0-only
//! What a page looks like through one view.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::oracle::PageBytes;

/// Bits of entropy per byte, by the frequency of the byte values, from which on a page looks like ciphertext. A page of
/// random bytes has 7.95 give or take 0.01; text and machine code have less than 6.5.
const CIPHERTEXT_BITS: f64 = 7.8;

/// What a view found in a page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// What was there before the conversion, which was not zeros.
    Kept,
    /// Zeros.
    Zeros,
    /// High entropy, as ciphertext and random bytes have; the two cannot be told apart.
    CiphertextLike,
    /// Anything else.
    Scrambled,
    /// The access was a SIGBUS.
    Sigbus,
    /// The guest could not access the page; what stopped it.
    NoAccess(String),
}

impl Seen {
    /// What `found` is, in a page that held `before`.
    fn of(found: &PageBytes, before: &PageBytes) -> Seen {
        if found.iter().all(|byte| *byte == 0) {
            Seen::Zeros
        } else if found == before {
            Seen::Kept
        } else if entropy(found) >= CIPHERTEXT_BITS {
            Seen::CiphertextLike
        } else {
            Seen::Scrambled
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Kept => f.write_str("kept"),
            Seen::Zeros => f.write_str("zeros"),
            Seen::CiphertextLike => f.write_str("ciphertext-like"),
            Seen::Scrambled => f.write_str("scrambled"),
            Seen::Sigbus => f.write_str("SIGBUS"),
            Seen::NoAccess(why) => write!(f, "no access: {why}"),
        }
    }
}

/// What a view found in a page, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSight {
    /// What it is.
    pub seen: Seen,
    /// A hash of the bytes, to tell whether they are the same each time; 0 where there are none.
    pub fingerprint: u64,
}

impl PageSight {
    /// Of a page that could be read and had held `before`.
    pub fn of(found: &PageBytes, before: &PageBytes) -> PageSight {
        let mut hasher = DefaultHasher::new();
        found.hash(&mut hasher);
        PageSight { seen: Seen::of(found, before), fingerprint: hasher.finish() }
    }

    /// Of a page that could not be read.
    pub fn none(seen: Seen) -> PageSight {
        PageSight { seen, fingerprint: 0 }
    }
}

/// Shannon entropy of the byte values, in bits per byte.
fn entropy(bytes: &PageBytes) -> f64 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let share = |count: u32| f64::from(count) / total;
    -counts.into_iter().filter(|n| *n > 0).map(|n| share(n) * share(n).log2()).sum::<f64>()
}

/// What one conversion did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// `success`, the name of the error, or `success after EAGAIN`.
    pub conversion: String,
    /// What the host found in each page.
    pub host: Vec<PageSight>,
    /// What the guest found in each page.
    pub guest: Vec<PageSight>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::pattern_bytes;
    use crate::payload::pattern;
    use crate::rng::Rng;

    /// Each kind of contents is told from the others; a pattern never looks like ciphertext, random bytes always do.
    #[test]
    fn contents_are_told_apart() {
        let before = pattern_bytes(pattern::tag(b'A', 7), 3);
        assert_eq!(Seen::of(&before, &before), Seen::Kept);
        assert_eq!(Seen::of(&[0; 4096], &before), Seen::Zeros);
        // Zeros that were there before are zeros, not kept: nothing can be said about them.
        assert_eq!(Seen::of(&[0; 4096], &[0; 4096]), Seen::Zeros);
        assert_eq!(Seen::of(&pattern_bytes(pattern::tag(b'B', 7), 3), &before), Seen::Scrambled);
        let mut rng = Rng::new(1, 0);
        for _ in 0..1000 {
            let mut random = [0; 4096];
            for chunk in random.chunks_exact_mut(8) {
                chunk.copy_from_slice(&rng.bits().to_le_bytes());
            }
            assert_eq!(Seen::of(&random, &before), Seen::CiphertextLike);
        }
    }
}
