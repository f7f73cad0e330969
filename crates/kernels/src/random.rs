//! Random numbers as counters: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

use crate::math;

/// Four random words for a key and a counter.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], [mut a, mut b, mut c, mut d]) = (key, counter);
    for _ in 0..10 {
        let (left, right) = (u64::from(a) * 0xd251_1f53, u64::from(c) * 0xcd9e_8d57);
        [a, b, c, d] = [(right >> 32) as u32 ^ b ^ k0, right as u32, (left >> 32) as u32 ^ d ^ k1, left as u32];
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// A number that some bytes always have and others hardly ever: FNV-1a (draft-eastlake-fnv). Nobody is kept from finding
/// bytes of the same number.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// A multiple of 2^-24 in [0, 1): the same for the same seed and place, whenever and wherever it is asked for.
pub fn uniform(seed: u64, at: [u32; 4]) -> f32 {
    unit(philox(key(seed), at)[0])
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / 16_777_216.0
}

/// A stream of random numbers: the blocks at (0, stream), (1, stream), … one after the other.
pub struct Random {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    /// Words of `block` that are still to be given.
    left: usize,
    /// The second of a pair of normal numbers.
    spare: Option<f32>,
}

impl Random {
    /// The start of a stream; streams of different names or seeds are independent. A stream has 2^34 words.
    pub fn new(seed: u64, stream: [u32; 3]) -> Random {
        let [x, y, z] = stream;
        Random { key: key(seed), counter: [0, x, y, z], block: [0; 4], left: 0, spare: None }
    }

    /// Any of 2^32 numbers.
    pub fn next_u32(&mut self) -> u32 {
        if self.left == 0 {
            self.block = philox(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        self.block[3 - self.left]
    }

    /// A whole number in 0..n, each equally likely (Lemire, arXiv 1805.10941).
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "a number below zero");
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            // The lowest 2^32 mod n products of each result would make it likelier than the others.
            if product as u32 >= n.wrapping_neg() % n {
                return (product >> 32) as u32;
            }
        }
    }

    /// A multiple of 2^-24 in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        unit(self.next_u32())
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        const UNIT: f64 = 1.0 / 4_294_967_296.0;
        let radius = (-2.0 * math::ln((f64::from(self.next_u32()) + 1.0) * UNIT)).sqrt();
        let (sin, cos) = math::sin_cos(std::f64::consts::TAU * f64::from(self.next_u32()) * UNIT);
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// Puts `items` in random order, each order equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        assert!(items.len() <= u32::MAX as usize, "{} items to shuffle", items.len());
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors published with Random123 (`kat_vectors`).
    #[test]
    fn known_answers() {
        let zeros = philox([0; 2], [0; 4]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 2], [u32::MAX; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn a_stream_is_its_counters() {
        let mut stream = Random::new(0x1234_5678_9abc, [1, 2, 3]);
        for n in 0..3 {
            for word in philox([0x5678_9abc, 0x1234], [n, 1, 2, 3]) {
                assert_eq!(stream.next_u32(), word);
            }
        }
        assert_eq!(uniform(7, [0, 1, 2, 3]), Random::new(7, [1, 2, 3]).uniform());
        assert_eq!((unit(0), unit(u32::MAX)), (0.0, 1.0 - 1.0 / 16_777_216.0));
    }

    #[test]
    fn below_is_even() {
        let mut random = Random::new(5, [0; 3]);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        // Six standard deviations of a count of 10 000.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 560), "{counts:?}");
        // With three quarters of 2^32 as the bound, a plain product would make every third result twice as likely.
        let third = (0..60_000).filter(|_| random.below(3 << 30).is_multiple_of(3)).count();
        assert!(third.abs_diff(20_000) < 700, "{third}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn normals_have_their_moments() {
        let mut random = Random::new(6, [0; 3]);
        let sample: Vec<f64> = (0..200_000).map(|_| f64::from(random.normal())).collect();
        let moment = |k: i32| sample.iter().map(|x| x.powi(k)).sum::<f64>() / sample.len() as f64;
        for (k, expected, tolerance) in [(1, 0.0, 0.015), (2, 1.0, 0.02), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((moment(k) - expected).abs() < tolerance, "moment {k}: {}", moment(k));
        }
        let neighbours: f64 = sample.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / sample.len() as f64;
        assert!(neighbours.abs() < 0.015, "correlation {neighbours}");
    }

    #[test]
    fn shuffles_are_even() {
        let mut random = Random::new(8, [0; 3]);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            random.shuffle(&mut items);
            *counts.entry(items).or_insert(0_u32) += 1;
        }
        assert!(counts.len() == 24 && counts.values().all(|c| c.abs_diff(1000) < 200), "{counts:?}");
    }
}
