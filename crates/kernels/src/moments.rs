//! An optimiser's running means: in f32 or, at half the memory, in bf16.
//!
//! DeepSeek-V3 keeps both of AdamW's in bf16 (arXiv 2412.19437, section 3.3). Rounded to nearest, a mean that moves by less than
//! half a unit in the last place would stand still, as the second moments soon do. Here they are rounded up or down by chance, in
//! proportion to what is left over (arXiv 1502.02551), so that none is off on average. Chance is a hash of the step and of the
//! parameter's place: the same again, whatever the threads.

use std::ops::Range;

use crate::blocks::{chunks_mut_3, rows_per_task};
use crate::cpu::Cpu;
use crate::half::{bf16_from_f32, f32_from_bf16};
use crate::matrix::Dtype;
use crate::optimizer::{self, AdamW};

/// Numbers that are widened at a time: few enough to stay in the nearest cache.
const CHUNK: usize = 1024;

/// A running mean for each parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Moments {
    /// As they are computed.
    F32(Vec<f32>),
    /// Rounded after every step.
    Bf16(Vec<u16>),
}

impl Moments {
    /// `len` zeros.
    pub fn zeros(dtype: Dtype, len: usize) -> Moments {
        match dtype {
            Dtype::F32 => Moments::F32(vec![0.0; len]),
            Dtype::Bf16 => Moments::Bf16(vec![0; len]),
        }
    }

    /// The type that they are kept in.
    pub fn dtype(&self) -> Dtype {
        match self {
            Moments::F32(_) => Dtype::F32,
            Moments::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Moments::F32(moments) => moments.len(),
            Moments::Bf16(moments) => moments.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes them all zero.
    pub fn clear(&mut self) {
        match self {
            Moments::F32(moments) => moments.fill(0.0),
            Moments::Bf16(moments) => moments.fill(0),
        }
    }

    /// The same in another type, rounded to nearest even where it is the narrower one.
    pub fn cast(self, dtype: Dtype) -> Moments {
        match (self, dtype) {
            (Moments::F32(moments), Dtype::Bf16) => Moments::Bf16(moments.into_iter().map(bf16_from_f32).collect()),
            (Moments::Bf16(moments), Dtype::F32) => Moments::F32(moments.into_iter().map(f32_from_bf16).collect()),
            (same, _) => same,
        }
    }

    /// Has `change` see those of `range` as f32, and keeps what it makes of them at this step.
    pub fn change(&mut self, cpu: &Cpu, step: u64, range: Range<usize>, change: impl FnOnce(&mut [f32])) {
        let first = range.start;
        match self {
            Moments::F32(moments) => change(&mut moments[range]),
            Moments::Bf16(moments) => {
                let moments = &mut moments[range];
                let mut wide = cpu.scratch(moments.len());
                let chunk = CHUNK * rows_per_task(moments.len().div_ceil(CHUNK), CHUNK);
                cpu.pool().chunks_mut(&mut wide, chunk, |i, wide| widen(&moments[i * chunk..][..wide.len()], wide));
                change(&mut wide);
                cpu.pool().chunks_mut(moments, chunk, |i, moments| {
                    for (j, (kept, wide)) in moments.iter_mut().zip(&wide[i * chunk..]).enumerate() {
                        *kept = rounded(*wide, hash(step, first + i * chunk + j) & 0xffff);
                    }
                });
            }
        }
    }
}

/// [`optimizer::adamw`] on `parameters`, whose moments are those of `range` in `m` and `v`.
///
/// # Panics
/// If lengths disagree, or `m` and `v` are kept in two types.
pub fn adamw(
    cpu: &Cpu,
    settings: &AdamW,
    step: u64,
    scale: f32,
    gradient: &[f32],
    (m, v): (&mut Moments, &mut Moments),
    range: Range<usize>,
    parameters: &mut [f32],
) {
    let first = range.start;
    let (m, v) = match (m, v) {
        (Moments::F32(m), Moments::F32(v)) => {
            let (m, v) = (&mut m[range.clone()], &mut v[range]);
            return optimizer::adamw(cpu, settings, step, scale, gradient, m, v, parameters);
        }
        (Moments::Bf16(m), Moments::Bf16(v)) => (&mut m[range.clone()], &mut v[range]),
        (m, v) => panic!("first moments in {}, second ones in {}", m.dtype().name(), v.dtype().name()),
    };
    let n = parameters.len();
    assert_eq!((gradient.len(), m.len()), (n, n), "AdamW on {n} parameters");
    let numbers = settings.at(step, scale);
    let chunk = CHUNK * rows_per_task(n.div_ceil(CHUNK), CHUNK);
    chunks_mut_3(cpu.pool(), (parameters, chunk), (m, chunk), (v, chunk), |i, parameters, m, v| {
        let (mut wide_m, mut wide_v) = ([0.0; CHUNK], [0.0; CHUNK]);
        let parts = parameters.chunks_mut(CHUNK).zip(m.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)));
        for (part, (parameters, (m, v))) in parts.enumerate() {
            let start = i * chunk + part * CHUNK;
            let (wide_m, wide_v) = (&mut wide_m[..m.len()], &mut wide_v[..v.len()]);
            widen(m, wide_m);
            widen(v, wide_v);
            optimizer::adamw_part(cpu, numbers, &gradient[start..][..m.len()], wide_m, wide_v, parameters);
            for (j, ((m, v), (wide_m, wide_v))) in m.iter_mut().zip(v).zip(wide_m.iter().zip(wide_v.iter())).enumerate()
            {
                let chance = hash(step, first + start + j);
                (*m, *v) = (rounded(*wide_m, chance & 0xffff), rounded(*wide_v, chance >> 16));
            }
        }
    });
}

fn widen(x: &[u16], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f32_from_bf16(x));
}

/// The upper half of a number's bits, one more in the last place where `chance`, below 2^16, and the lower half come to 2^16.
fn rounded(x: f32, chance: u32) -> u16 {
    let bits = x.to_bits();
    // Infinities stay what they are, and what is not a number does not become one.
    let kept = if x.is_finite() { bits + chance } else { bits | u32::from(x.is_nan()) << 22 };
    (kept >> 16) as u16
}

/// 32 bits that look random: the "lowbias32" of C. Wellons (nullprogram.com/blog/2018/07/31).
fn hash(step: u64, place: usize) -> u32 {
    // Places four billion apart share their chance, which harms nothing.
    let mut bits = place as u32 ^ (step as u32).wrapping_mul(0x9e37_79b9);
    bits = (bits ^ bits >> 16).wrapping_mul(0x7feb_352d);
    bits = (bits ^ bits >> 15).wrapping_mul(0x846c_a68b);
    bits ^ bits >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_fair_and_the_same_again() {
        let (below, above) = (1.0_f32, f32_from_bf16(0x3f81));
        for sign in [1.0, -1.0] {
            let x = sign * (below + 0.25 * (above - below));
            let draws = |shift: u32| (0..100_000).map(move |place| rounded(x, hash(3, place) >> shift & 0xffff));
            for shift in [0, 16] {
                let up = draws(shift).filter(|&kept| kept & 0x7fff == 0x3f81).count();
                assert!((24_500..25_500).contains(&up), "{up} of 100000 up");
            }
            // The two halves of a hash know nothing of each other, nor do two steps.
            let both = draws(0).zip(draws(16)).filter(|(m, v)| m & v & 0x7fff == 0x3f81).count();
            assert!((5_900..6_600).contains(&both), "{both} of 100000 both up");
            let next = (0..100_000).map(|place| rounded(x, hash(4, place) & 0xffff));
            let both = draws(0).zip(next).filter(|(then, now)| then & now & 0x7fff == 0x3f81).count();
            assert!((5_900..6_600).contains(&both), "{both} of 100000 up twice");
        }
    }

    #[test]
    fn what_bf16_holds_stays_and_what_is_no_number_too() {
        for kept in (0..=u16::MAX).filter(|&kept| f32_from_bf16(kept).is_finite()) {
            assert_eq!((rounded(f32_from_bf16(kept), 0), rounded(f32_from_bf16(kept), 0xffff)), (kept, kept));
        }
        for x in [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            assert!([0, 0xffff].iter().all(|&chance| f32_from_bf16(rounded(x, chance)).is_nan()));
        }
        assert_eq!(
            [f32::INFINITY, f32::NEG_INFINITY].map(|x| f32_from_bf16(rounded(x, 0xffff))),
            [f32::INFINITY, f32::NEG_INFINITY]
        );
    }

    #[test]
    fn moments_are_changed_cast_and_cleared() {
        let cpu = Cpu::detect().unwrap();
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut moments = Moments::zeros(dtype, 5);
            moments.change(&cpu, 1, 1..4, |x| x.copy_from_slice(&[0.5, 1.25, -3.0]));
            assert_eq!((moments.dtype(), moments.len(), moments.is_empty()), (dtype, 5, false));
            assert_eq!(moments.clone().cast(Dtype::F32), Moments::F32(vec![0.0, 0.5, 1.25, -3.0, 0.0]));
            assert_eq!(moments.clone().cast(Dtype::F32).cast(dtype), moments);
            moments.clear();
            assert_eq!(moments, Moments::zeros(dtype, 5));
        }
        let third = Moments::F32(vec![1.0 / 3.0, -1.0 / 3.0]).cast(Dtype::Bf16);
        assert_eq!(third, Moments::Bf16(vec![0x3eab, 0xbeab]), "0x3eaaaaab is nearer to the number above");
    }
}
