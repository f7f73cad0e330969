//! Seeded numbers, comparison with exact ones, and finite differences.

use minke_kernels::random::Random;

/// Widths that fill no vector, fill one, and leave every kind of rest.
pub const WIDTHS: [usize; 16] = [1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257];

/// What one rounding may cost: half a unit in the last place of an `f32`.
pub const EPSILON: f64 = f32::EPSILON as f64 / 2.0;

/// Numbers for one check.
pub struct Data(Random);

impl Data {
    pub fn new(seed: u64) -> Data {
        Data(Random::new(seed, [0; 3]))
    }

    /// A whole number in low..=high.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + self.0.below((high - low + 1) as u32) as usize
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.size(0, items.len() - 1)]
    }

    pub fn flip(&mut self) -> bool {
        self.0.below(2) == 1
    }

    /// Normal numbers with a standard deviation of `scale`.
    pub fn normal(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.0.normal() * scale).collect()
    }

    /// Numbers of many sizes and signs: some zero, some tiny, some large.
    pub fn hostile(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| self.0.normal() * [0.0, -0.0, 1e-30, 1e-6, 1.0, 1.0, 1e3, 1e6][self.0.below(8) as usize])
            .collect()
    }

    pub fn ids(&mut self, n: usize, below: usize) -> Vec<u32> {
        (0..n).map(|_| self.0.below(below as u32)).collect()
    }

    /// 0..n in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..n as u32).collect();
        self.0.shuffle(&mut ids);
        ids
    }
}

/// The exact value of a result, and how far a computed one may be from it.
pub type Exact = (f64, f64);

/// A sum whose computed value may lose a rounding of its absolute terms for each of them, and for `more` operations.
pub fn sum(terms: impl Iterator<Item = f64>, more: usize) -> Exact {
    let (mut total, mut size, mut n) = (0.0, 0.0, more);
    for term in terms {
        total += term;
        size += f64::abs(term);
        n += 1;
    }
    (total, n as f64 * EPSILON * size)
}

/// Panics where a result is further from its exact value than allowed.
#[track_caller]
pub fn assert_near(what: &str, got: &[f32], want: impl IntoIterator<Item = Exact>) {
    let want: Vec<Exact> = want.into_iter().collect();
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&got, (value, allowed))) in got.iter().zip(want).enumerate() {
        // Below the smallest normal number, what is left is absolute.
        let allowed = allowed + f64::from(f32::MIN_POSITIVE);
        assert!((f64::from(got) - value).abs() <= allowed, "{what}: element {i} is {got}, not {value} ± {allowed:.1e}");
    }
}

#[track_caller]
pub fn assert_same(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got.to_bits() == want.to_bits(), "{what}: element {i} is {got:e}, not {want:e}");
    }
}

pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Sum of x * y.
pub fn dot(x: &[f64], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, &y)| x * f64::from(y)).sum()
}

/// Compares `gradient` with central differences of `loss` at `x`, in up to 50 places: within 1e-5 of the largest of
/// them, and a few roundings of 1, the size of what goes in.
#[track_caller]
pub fn assert_gradient(what: &str, data: &mut Data, x: &[f32], gradient: &[f32], mut loss: impl FnMut(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "{what}: length");
    let mut x = widen(x);
    let places: Vec<u32> = data.permutation(x.len()).into_iter().take(50).collect();
    let differences = places.iter().map(|&i| {
        let (i, at) = (i as usize, x[i as usize]);
        let step = 1e-5 * at.abs().max(1.0);
        let [above, below] = [at + step, at - step].map(|moved| {
            x[i] = moved;
            loss(&x)
        });
        x[i] = at;
        (i, (above - below) / (2.0 * step))
    });
    let differences: Vec<(usize, f64)> = differences.collect();
    let largest = gradient.iter().fold(0.0_f64, |m, &g| m.max(f64::from(g).abs()));
    for (i, difference) in differences {
        let got = f64::from(gradient[i]);
        assert!(
            (got - difference).abs() < 1e-5 * largest + 16.0 * EPSILON,
            "{what}: gradient {i} is {got}, not {difference}"
        );
    }
}
