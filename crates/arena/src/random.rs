//! Random numbers from a seed: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

/// A stream of random numbers, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A multiple of 2^-53 in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// The index of the part of `cumulative` (sums of weights up to and with each) that a random point falls into.
    pub fn pick(&mut self, cumulative: &[f64]) -> usize {
        let point = self.uniform() * cumulative.last().copied().unwrap_or(0.0);
        cumulative.partition_point(|&sum| sum <= point).min(cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the reference implementation (splitmix64.c by Vigna) for the seed 1234567.
    #[test]
    fn known_answers() {
        let mut random = Random::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!([(); 5].map(|()| random.next_u64()), expected);
    }

    #[test]
    fn parts_are_picked_by_their_weights() {
        let mut random = Random::new(1);
        let mut picked = [0_u32; 4];
        for _ in 0..40_000 {
            picked[random.pick(&[1.0, 1.0, 3.0, 4.0])] += 1;
        }
        // Six standard deviations of a count of 20 000.
        let near = |count: u32, expected: u32| count.abs_diff(expected) < 600;
        assert!(near(picked[0], 10_000) && near(picked[2], 20_000) && near(picked[3], 10_000), "{picked:?}");
        assert_eq!(picked[1], 0, "it has no weight");
    }
}
