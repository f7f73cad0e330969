//! Super-blocks of 256 elements to f32, those of Q2_K to Q6_K: a value is a scale times an integer, less a minimum, each
//! product and difference rounded by itself. Layouts as in llama.cpp's `ggml-common.h`.

use crate::dequantize::half;

/// Elements of a super-block.
pub(crate) const SUPER: usize = 256;

/// Bytes of a super-block of each type.
pub(crate) const Q2_K: usize = 84;
pub(crate) const Q3_K: usize = 110;
pub(crate) const Q4_K: usize = 144;
pub(crate) const Q5_K: usize = 176;
pub(crate) const Q6_K: usize = 210;

/// 16 bytes of a 4-bit scale and a 4-bit minimum, 64 of 2-bit integers, and the scales' scale and the minima's.
pub(crate) fn q2_k(block: &[u8; Q2_K], out: &mut Vec<f32>) {
    let (groups, rest) = block.split_at(16);
    let (low, scale, minimum) = (&rest[..64], half(block, 80), half(block, 82));
    for group in 0..16 {
        let (d, m) = (scale * f32::from(groups[group] & 15), minimum * f32::from(groups[group] >> 4));
        out.extend(pairs(low, group).map(|q| d * f32::from(q) - m));
    }
}

/// 32 bytes of third bits, 64 of the two below, 12 of 6-bit scales less 32, and their scale.
pub(crate) fn q3_k(block: &[u8; Q3_K], out: &mut Vec<f32>) {
    let (high, rest) = block.split_at(32);
    let (low, rest) = rest.split_at(64);
    let (packed, scale) = (&rest[..12], half(block, 108));
    for group in 0..16 {
        // Four bits of two scales share one of the first 8 bytes; two bits of four scales one of the last 4.
        let four = packed[group % 8] >> (4 * (group / 8)) & 15;
        let two = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        let d = scale * f32::from((four | two << 4) as i8 - 32);
        let (bit, at) = (group / 2, group % 2 * 16);
        // The integer is from -4 to 3: less 4 where the third bit is not set.
        let integers = pairs(low, group).zip(&high[at..at + 16]);
        out.extend(integers.map(|(q, high)| d * f32::from((q | (high >> bit & 1) << 2) as i8 - 4)));
    }
}

/// The scales' scale and the minima's, 12 bytes of 6-bit scales and minima, and 128 of nibbles.
pub(crate) fn q4_k(block: &[u8; Q4_K], out: &mut Vec<f32>) {
    let low = &block[16..];
    for (part, (d, m)) in scales_and_minima(block).into_iter().enumerate() {
        out.extend(nibbles(low, part).map(|q| d * f32::from(q) - m));
    }
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles.
pub(crate) fn q5_k(block: &[u8; Q5_K], out: &mut Vec<f32>) {
    let (high, low) = block[16..].split_at(32);
    for (part, (d, m)) in scales_and_minima(block).into_iter().enumerate() {
        let integers = nibbles(low, part).zip(high);
        out.extend(integers.map(|(q, high)| d * f32::from(q | (high >> part & 1) << 4) - m));
    }
}

/// 128 bytes of nibbles, 64 of the two bits above them, 16 signed scales, and their scale.
pub(crate) fn q6_k(block: &[u8; Q6_K], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let scale = half(block, 208);
    for part in 0..8 {
        // Four parts of 32 share 64 bytes of nibbles: two the low ones, then two the high ones.
        let (half, quarter) = (part / 4, part % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        for (i, (low, high)) in low.iter().zip(high).enumerate() {
            let q = low >> (4 * (quarter / 2)) & 15 | (high >> (2 * quarter) & 3) << 4;
            let d = scale * f32::from(rest[2 * part + i / 16] as i8);
            out.push(d * f32::from(q as i8 - 32));
        }
    }
}

/// The 16 two-bit integers of a group: 32 bytes hold the low bits of 32 elements, above them those of the next 32, and so on.
fn pairs(bytes: &[u8], group: usize) -> impl Iterator<Item = u8> {
    let (part, at) = (group / 8 * 32 + group % 2 * 16, group / 2 % 4);
    bytes[part..part + 16].iter().map(move |b| b >> (2 * at) & 3)
}

/// The 32 nibbles of a part: 32 bytes hold those of two parts, the first in the low ones.
fn nibbles(bytes: &[u8], part: usize) -> impl Iterator<Item = u8> {
    bytes[part / 2 * 32..][..32].iter().map(move |b| b >> (4 * (part % 2)) & 15)
}

/// Of each of the eight parts of a Q4_K or Q5_K block, its scale and its minimum.
fn scales_and_minima(block: &[u8]) -> [(f32, f32); 8] {
    let (scale, minimum, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    std::array::from_fn(|part| {
        let i = part % 4;
        let (d, m) = if part < 4 {
            (packed[i] & 63, packed[4 + i] & 63)
        } else {
            // The last four's upper two bits stand above the first four's six.
            (packed[8 + i] & 15 | packed[i] >> 6 << 4, packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4)
        };
        (scale * f32::from(d), minimum * f32::from(m))
    })
}
