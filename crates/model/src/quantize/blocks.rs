//! Blocks of 32 elements, those of Q8_0, Q4_0 to Q5_1 and IQ4_NL. Without weights the formulas of gguf-py, bit for bit;
//! with them, or where levels are uneven, the scale that leaves the least error.

use minke_kernels::half::{f16_from_f32, f32_from_f16};
use minke_kernels::quantized::UNEVEN;

use super::search;

/// A scale and 32 signed bytes; ties go away from zero.
pub(super) fn q8_0(x: &[f32; 32], out: &mut [u8; 34]) {
    let d = search::farthest(x).abs() / 127.0;
    out[..2].copy_from_slice(&f16_from_f32(d).to_le_bytes());
    let inverse = inverse(d);
    for (out, x) in out[2..].iter_mut().zip(x) {
        *out = (x * inverse).round() as i8 as u8;
    }
}

/// A scale and 32 nibbles.
pub(super) fn q4_0(x: &[f32; 32], weights: Option<&[f32; 32]>, out: &mut [u8; 18]) {
    let (d, q) = scaled(x, weights, 8);
    out[..2].copy_from_slice(&d);
    nibbles(&q, &mut out[2..]);
}

/// A scale, fifth bits and 32 nibbles.
pub(super) fn q5_0(x: &[f32; 32], weights: Option<&[f32; 32]>, out: &mut [u8; 22]) {
    let (d, q) = scaled(x, weights, 16);
    out[..2].copy_from_slice(&d);
    fifth_bits(&q, &mut out[2..6]);
    nibbles(&q, &mut out[6..]);
}

/// A scale, a minimum and 32 nibbles.
pub(super) fn q4_1(x: &[f32; 32], weights: Option<&[f32; 32]>, out: &mut [u8; 20]) {
    let (d, m, q) = offset(x, weights, 15);
    out[..2].copy_from_slice(&d);
    out[2..4].copy_from_slice(&m);
    nibbles(&q, &mut out[4..]);
}

/// A scale, a minimum, fifth bits and 32 nibbles.
pub(super) fn q5_1(x: &[f32; 32], weights: Option<&[f32; 32]>, out: &mut [u8; 24]) {
    let (d, m, q) = offset(x, weights, 31);
    out[..2].copy_from_slice(&d);
    out[2..4].copy_from_slice(&m);
    fifth_bits(&q, &mut out[4..8]);
    nibbles(&q, &mut out[8..]);
}

/// A scale and 32 nibbles that stand for uneven levels.
pub(super) fn iq4_nl(x: &[f32; 32], importance: Option<&[f32; 32]>, out: &mut [u8; 18]) {
    let weights = search::weights(x, importance, 2.0, |x, _| x * x);
    // The farthest value at the last level of either side, or some steps around the longer one.
    let (low, high) = (f32::from(UNEVEN[0]), -f32::from(UNEVEN[0]));
    let ends = (-7_i8..=7).map(|step| low + f32::from(step)).chain([high]);
    let d = search::scale(x, &weights, ends, |x| f32::from(UNEVEN[uneven(x)]));
    let d = f16_from_f32(d);
    out[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(f32_from_f16(d));
    nibbles(&x.map(|x| uneven(x * inverse) as u8), &mut out[2..]);
}

/// Which uneven level is nearest.
fn uneven(x: f32) -> usize {
    UNEVEN.windows(2).filter(|pair| x > (f32::from(pair[0]) + f32::from(pair[1])) / 2.0).count()
}

/// `x ≈ d·(q − n)`: the bytes of `d`, and `q` from 0 to `2n - 1`.
fn scaled(x: &[f32; 32], weights: Option<&[f32; 32]>, n: u8) -> ([u8; 2], [u8; 32]) {
    let (levels, most) = (f32::from(n), 2 * n - 1);
    let Some(weights) = weights else {
        let d = search::farthest(x) / -levels;
        let inverse = inverse(d);
        return (f16_from_f32(d).to_le_bytes(), x.map(|x| ((x * inverse + (levels + 0.5)) as u8).min(most)));
    };
    let d = f16_from_f32(search::signed(x, weights, levels));
    let inverse = inverse(f32_from_f16(d));
    (d.to_le_bytes(), x.map(|x| (search::nearest(x * inverse, -levels, levels - 1.0) + levels) as u8))
}

/// `x ≈ d·q + m`: the bytes of `d` and `m`, and `q` from 0 to `most`.
fn offset(x: &[f32; 32], weights: Option<&[f32; 32]>, most: u8) -> ([u8; 2], [u8; 2], [u8; 32]) {
    let levels = f32::from(most);
    let Some(weights) = weights else {
        let low = x.iter().copied().fold(f32::INFINITY, f32::min);
        let d = (x.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low) / levels;
        let inverse = inverse(d);
        let q = x.map(|x| (((x - low) * inverse + 0.5) as u8).min(most));
        return (f16_from_f32(d).to_le_bytes(), f16_from_f32(low).to_le_bytes(), q);
    };
    let (d, m) = search::affine(x, weights, levels);
    let (d, m) = (f16_from_f32(d), f16_from_f32(-m));
    let (inverse, low) = (inverse(f32_from_f16(d)), f32_from_f16(m));
    (d.to_le_bytes(), m.to_le_bytes(), x.map(|x| search::nearest((x - low) * inverse, 0.0, levels) as u8))
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The first 16 in the low nibbles, the last 16 in the high ones.
fn nibbles(q: &[u8; 32], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = q[i] & 15 | q[i + 16] << 4;
    }
}

fn fifth_bits(q: &[u8; 32], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in q.iter().enumerate() {
        out[i / 8] |= (q >> 4) << (i % 8);
    }
}
