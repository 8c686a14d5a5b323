// SPDX-License-Identifier: GPL-2.0-only
//! Random numbers that are the same everywhere: a seed in a report must make the same history on any machine, with any
//! version of any library.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): good enough to choose
/// steps by, and short enough to be written down.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// Stream `number` of `seed`. Streams of neighbouring seeds have nothing in common.
    pub fn new(seed: u64, number: u64) -> Rng {
        Rng { state: mix(seed).wrapping_add(mix(!number)) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`, which is not 0. The bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One of `choices`, each with its weight; not all weights are 0.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let total = choices.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(total);
        for (weight, choice) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        // `at` is below the sum of the weights.
        unreachable!("the weights add up to {total}")
    }
}

/// The output function of SplitMix64: a bijection that spreads every bit over all.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published sequence for the state 1234567, so that no seed ever means something else.
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut rng = Rng { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([rng.bits(), rng.bits()], expected);
    }

    /// Every value of a small range comes up, and nothing outside it.
    #[test]
    fn below_covers_its_range() {
        let mut rng = Rng::new(1, 2);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
    }

    /// What has no weight is never chosen, and the rest by its weight.
    #[test]
    fn weights_count() {
        let mut rng = Rng::new(3, 4);
        let mut count = [0; 3];
        for _ in 0..4000 {
            count[rng.weighted(&[(0, 0), (1, 1), (3, 2)])] += 1;
        }
        assert_eq!(count[0], 0);
        assert!((800..1200).contains(&count[1]), "{count:?}");
    }
}
