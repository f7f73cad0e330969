//! Super-blocks of 256 elements, those of Q2_K to Q6_K: a scale (and a minimum) is searched for each group, then one
//! scale for all of these, and then every element is rounded with what was really stored. Layouts as in
//! [`crate::k_quants`].

use minke_kernels::half::{f16_from_f32, f32_from_f16};

use super::search;
use crate::blocks::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, SUPER};

type Elements = [f32; SUPER];

/// 16 groups, their scales and minima of 4 bits.
pub(super) fn q2_k(x: &Elements, importance: Option<&Elements>, out: &mut [u8; Q2_K]) {
    let block = affine::<16>(x, &search::weights(x, importance, 1.0, |x, _| x.abs()), 3.0, 15.0);
    let (groups, rest) = out.split_at_mut(16);
    for (out, (d, m)) in groups.iter_mut().zip(block.scales.into_iter().zip(block.minima)) {
        *out = d | m << 4;
    }
    pairs(&block.q, &mut rest[..64]);
    rest[64..66].copy_from_slice(&block.scale);
    rest[66..].copy_from_slice(&block.minimum);
}

/// 16 groups, their scales of 6 bits with a sign.
pub(super) fn q3_k(x: &Elements, importance: Option<&Elements>, out: &mut [u8; Q3_K]) {
    let block = symmetric(x, &search::weights(x, importance, 2.0, |x, _| x * x), 4.0, 32.0);
    out.fill(0);
    let (high, rest) = out.split_at_mut(32);
    let (low, rest) = rest.split_at_mut(64);
    for (i, q) in block.q.iter().enumerate() {
        high[i % 32] |= (q >> 2) << (i / 32);
    }
    pairs(&block.q.map(|q| q & 3), low);
    for (group, scale) in block.scales.into_iter().enumerate() {
        let scale = (scale + 32) as u8;
        rest[group % 8] |= (scale & 15) << (4 * (group / 8));
        rest[8 + group % 4] |= (scale >> 4) << (2 * (group / 4));
    }
    rest[12..].copy_from_slice(&block.scale);
}

/// 8 groups, their scales and minima of 6 bits.
pub(super) fn q4_k(x: &Elements, importance: Option<&Elements>, out: &mut [u8; Q4_K]) {
    let block = affine::<8>(x, &search::weights(x, importance, 2.0, |x, rms| rms + x.abs()), 15.0, 63.0);
    block.write_scales(&mut out[..16]);
    nibbles(&block.q, &mut out[16..]);
}

/// As Q4_K, with fifth bits.
pub(super) fn q5_k(x: &Elements, importance: Option<&Elements>, out: &mut [u8; Q5_K]) {
    let block = affine::<8>(x, &search::weights(x, importance, 2.0, |x, rms| rms + x.abs()), 31.0, 63.0);
    block.write_scales(&mut out[..16]);
    let (high, low) = out[16..].split_at_mut(32);
    high.fill(0);
    for (i, q) in block.q.iter().enumerate() {
        high[i % 32] |= (q >> 4) << (i / 32);
    }
    nibbles(&block.q.map(|q| q & 15), low);
}

/// 16 groups, their scales of 8 bits with a sign.
pub(super) fn q6_k(x: &Elements, importance: Option<&Elements>, out: &mut [u8; Q6_K]) {
    let block = symmetric(x, &importance.copied().unwrap_or_else(|| x.map(|x| x * x)), 32.0, 128.0);
    out.fill(0);
    let (low, rest) = out.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    for (i, q) in block.q.iter().enumerate() {
        let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
        low[half * 64 + quarter % 2 * 32 + at] |= (q & 15) << (4 * (quarter / 2));
        high[half * 32 + at] |= (q >> 4) << (2 * quarter);
    }
    for (out, scale) in rest.iter_mut().zip(block.scales) {
        *out = scale as u8;
    }
    rest[16..].copy_from_slice(&block.scale);
}

/// `x ≈ d·q − m`, where `d` is `scale` times the group's integer and `m` `minimum` times its other.
struct Affine<const GROUPS: usize> {
    scale: [u8; 2],
    minimum: [u8; 2],
    scales: [u8; GROUPS],
    minima: [u8; GROUPS],
    q: [u8; SUPER],
}

/// Integers up to `n`, and for the groups up to `most`.
fn affine<const GROUPS: usize>(x: &Elements, weights: &Elements, n: f32, most: f32) -> Affine<GROUPS> {
    let width = SUPER / GROUPS;
    let (mut d, mut m, mut total) = ([0.0; GROUPS], [0.0; GROUPS], [0.0; GROUPS]);
    for (group, (x, w)) in x.chunks(width).zip(weights.chunks(width)).enumerate() {
        (d[group], m[group]) = search::affine(x, w, n);
        total[group] = w.iter().sum();
    }
    let (scale, scales) = integers(&d, search::positive(&d, &total, most), 0.0, most);
    // The minima make up for what the scales lost.
    for (group, (x, w)) in x.chunks(width).zip(weights.chunks(width)).enumerate() {
        m[group] = search::minimum(x, w, f32_from_f16(scale) * scales[group], m[group], n);
    }
    let (minimum, minima) = integers(&m, search::positive(&m, &total, most), 0.0, most);
    let mut q = [0; SUPER];
    for (group, (x, q)) in x.chunks(width).zip(q.chunks_mut(width)).enumerate() {
        let (d, m) = (f32_from_f16(scale) * scales[group], f32_from_f16(minimum) * minima[group]);
        if d > 0.0 {
            q.iter_mut().zip(x).for_each(|(q, x)| *q = search::nearest((x + m) / d, 0.0, n) as u8);
        }
    }
    Affine {
        scale: scale.to_le_bytes(),
        minimum: minimum.to_le_bytes(),
        scales: scales.map(|s| s as u8),
        minima: minima.map(|m| m as u8),
        q,
    }
}

impl Affine<8> {
    /// The scales' scale and the minima's, and 12 bytes of both in 6 bits each.
    fn write_scales(&self, out: &mut [u8]) {
        out[..2].copy_from_slice(&self.scale);
        out[2..4].copy_from_slice(&self.minimum);
        let packed = &mut out[4..];
        for i in 0..4 {
            // The last four's upper two bits stand above the first four's six.
            packed[i] = self.scales[i] | self.scales[i + 4] >> 4 << 6;
            packed[4 + i] = self.minima[i] | self.minima[i + 4] >> 4 << 6;
            packed[8 + i] = self.scales[i + 4] & 15 | self.minima[i + 4] << 4;
        }
    }
}

/// `x ≈ d·(q − n)`, where `d` is `scale` times the group's integer.
struct Symmetric {
    scale: [u8; 2],
    scales: [i8; 16],
    q: [u8; SUPER],
}

/// Integers from `-n` to `n - 1`, and for the 16 groups from `-most` to `most - 1`.
fn symmetric(x: &Elements, weights: &Elements, n: f32, most: f32) -> Symmetric {
    let (mut d, mut total) = ([0.0; 16], [0.0; 16]);
    for (group, (x, w)) in x.chunks(16).zip(weights.chunks(16)).enumerate() {
        d[group] = search::signed(x, w, n);
        total[group] = w.iter().sum();
    }
    let (scale, scales) = integers(&d, search::signed(&d, &total, most), -most, most - 1.0);
    let mut q = [n as u8; SUPER];
    for (group, (x, q)) in x.chunks(16).zip(q.chunks_mut(16)).enumerate() {
        let d = f32_from_f16(scale) * scales[group];
        if d != 0.0 {
            q.iter_mut().zip(x).for_each(|(q, x)| *q = (search::nearest(x / d, -n, n - 1.0) + n) as u8);
        }
    }
    Symmetric { scale: scale.to_le_bytes(), scales: scales.map(|s| s as i8), q }
}

/// `scale` as it is stored, and the integers that it makes of the groups' `values`.
fn integers<const N: usize>(values: &[f32; N], scale: f32, low: f32, high: f32) -> (u16, [f32; N]) {
    let half = f16_from_f32(scale);
    let stored = f32_from_f16(half);
    (half, values.map(|x| if stored == 0.0 { 0.0 } else { search::nearest(x / stored, low, high) }))
}

/// Two bits each: 32 bytes hold those of 128 elements, 32 after 32 from the low bits up.
fn pairs(q: &[u8; SUPER], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in q.iter().enumerate() {
        out[i / 128 * 32 + i % 32] |= q << (2 * (i % 128 / 32));
    }
}

/// Four bits each: 32 bytes hold those of 64 elements, the first 32 in the low ones.
fn nibbles(q: &[u8; SUPER], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in q.iter().enumerate() {
        out[i / 64 * 32 + i % 32] |= q << (4 * (i % 64 / 32));
    }
}
