//! Blocks of quantised elements as GGUF stores them, taken apart into codes and scales. Layouts as in llama.cpp's
//! `ggml-common.h`.

use minke_kernels::quantized::{Format, Row};

/// Elements of a super-block.
pub(crate) const SUPER: usize = 256;

/// Bytes of a super-block of each type.
pub(crate) const Q2_K: usize = 84;
pub(crate) const Q3_K: usize = 110;
pub(crate) const Q4_K: usize = 144;
pub(crate) const Q5_K: usize = 176;
pub(crate) const Q6_K: usize = 210;

/// Takes whole blocks apart; `row` has room for their elements.
pub(crate) fn read(format: Format, bytes: &[u8], row: &mut Row) {
    let elements = format.block();
    let size = bytes.len() / (row.codes.len() / elements).max(1);
    let groups = (elements / format.layout().group).min(row.groups.len());
    let mut groups = row.groups.chunks_exact_mut(groups.max(1));
    let blocks = bytes.chunks_exact(size.max(1)).zip(row.codes.chunks_exact_mut(elements)).zip(&mut row.halves);
    for ((bytes, codes), halves) in blocks {
        let groups = groups.next().unwrap_or_default();
        match format {
            Format::Q8_0 => {
                *halves = [half(bytes, 0), 0];
                codes.iter_mut().zip(&bytes[2..]).for_each(|(code, q)| *code = q ^ 128);
            }
            Format::Q4_0 | Format::Iq4Nl => {
                *halves = [half(bytes, 0), 0];
                nibbles(&bytes[2..], codes);
            }
            Format::Q4_1 => {
                *halves = [half(bytes, 0), half(bytes, 2)];
                nibbles(&bytes[4..], codes);
            }
            Format::Q5_0 => {
                *halves = [half(bytes, 0), 0];
                five_bits(&bytes[2..], codes);
            }
            Format::Q5_1 => {
                *halves = [half(bytes, 0), half(bytes, 2)];
                five_bits(&bytes[4..], codes);
            }
            Format::Q2K => q2_k(bytes, codes, halves, groups),
            Format::Q3K => q3_k(bytes, codes, halves, groups),
            Format::Q4K => {
                *halves = [half(bytes, 0), half(bytes, 2)];
                scales_and_minima(&bytes[4..16], groups);
                parts(&bytes[16..], codes);
            }
            Format::Q5K => {
                *halves = [half(bytes, 0), half(bytes, 2)];
                scales_and_minima(&bytes[4..16], groups);
                let (high, low) = bytes[16..].split_at(32);
                parts(low, codes);
                for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                    codes.iter_mut().zip(high).for_each(|(code, high)| *code |= (high >> part & 1) << 4);
                }
            }
            Format::Q6K => q6_k(bytes, codes, halves, groups),
        }
    }
}

fn half(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// A block's first 16 elements are the low nibbles, its last 16 the high ones.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// The fifth bits of 32 elements in 4 bytes, then their nibbles.
fn five_bits(bytes: &[u8], codes: &mut [u8]) {
    let (high, low) = bytes.split_at(4);
    nibbles(low, codes);
    codes.iter_mut().enumerate().for_each(|(i, code)| *code |= (high[i / 8] >> (i % 8) & 1) << 4);
}

/// 16 bytes of a 4-bit scale and a 4-bit minimum, 64 of 2-bit integers, and the scales' scale and the minima's.
fn q2_k(bytes: &[u8], codes: &mut [u8], halves: &mut [u16; 2], groups: &mut [[u8; 2]]) {
    *halves = [half(bytes, 80), half(bytes, 82)];
    groups.iter_mut().zip(bytes).for_each(|(group, byte)| *group = [byte & 15, byte >> 4]);
    pairs(&bytes[16..80], codes);
}

/// 32 bytes of third bits, 64 of the two below, 12 of 6-bit scales less 32, and their scale.
fn q3_k(bytes: &[u8], codes: &mut [u8], halves: &mut [u16; 2], groups: &mut [[u8; 2]]) {
    let (high, packed) = (&bytes[..32], &bytes[96..108]);
    *halves = [half(bytes, 108), 0];
    for (i, group) in groups.iter_mut().enumerate() {
        // Four bits of two scales share one of the first 8 bytes; two bits of four scales one of the last 4.
        let four = packed[i % 8] >> (4 * (i / 8)) & 15;
        let two = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        *group = [(four | two << 4).wrapping_sub(32), 0];
    }
    pairs(&bytes[32..96], codes);
    codes.iter_mut().enumerate().for_each(|(i, code)| *code |= (high[i % 32] >> (i / 32) & 1) << 2);
}

/// 128 bytes of nibbles, 64 of the two bits above them, 16 signed scales, and their scale.
fn q6_k(bytes: &[u8], codes: &mut [u8], halves: &mut [u16; 2], groups: &mut [[u8; 2]]) {
    let (low, rest) = bytes.split_at(128);
    *halves = [half(bytes, 208), 0];
    groups.iter_mut().zip(&rest[64..]).for_each(|(group, &scale)| *group = [scale, 0]);
    for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
        // Four parts of 32 share 64 bytes of nibbles: two the low ones, then two the high ones.
        let (half, quarter) = (part / 4, part % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &rest[half * 32..][..32];
        for ((low, high), code) in low.iter().zip(high).zip(codes) {
            *code = low >> (4 * (quarter / 2)) & 15 | (high >> (2 * quarter) & 3) << 4;
        }
    }
}

/// Two-bit integers: 32 bytes hold the low bits of 32 elements, above them those of the next 32, and so on.
fn pairs(bytes: &[u8], codes: &mut [u8]) {
    for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
        let bytes = &bytes[part / 4 * 32..][..32];
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> (2 * (part % 4)) & 3);
    }
}

/// Nibbles: 32 bytes hold those of two parts of 32, the first in the low ones.
fn parts(bytes: &[u8], codes: &mut [u8]) {
    for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
        let bytes = &bytes[part / 2 * 32..][..32];
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> (4 * (part % 2)) & 15);
    }
}

/// Of each of the eight parts of a Q4_K or Q5_K block, its 6-bit scale and minimum.
fn scales_and_minima(packed: &[u8], groups: &mut [[u8; 2]]) {
    for (part, group) in groups.iter_mut().enumerate() {
        let i = part % 4;
        *group = if part < 4 {
            [packed[i] & 63, packed[4 + i] & 63]
        } else {
            // The last four's upper two bits stand above the first four's six.
            [packed[8 + i] & 15 | packed[i] >> 6 << 4, packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4]
        };
    }
}
