//! Stored elements to f32, bit for bit as gguf-py has them. Blocks as in llama.cpp's `ggml-common.h`.

use minke_kernels::half::f32_from_f16;

use crate::k_quants;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Blocks of 32 signed bytes times a half-precision scale.
    Q8_0,
    /// Blocks of 32 nibbles, less 8, times a half-precision scale.
    Q4_0,
    /// Blocks of 32 nibbles times a half-precision scale, plus a half-precision minimum.
    Q4_1,
    /// As Q4_0 with a fifth bit, less 16.
    Q5_0,
    /// As Q4_1 with a fifth bit.
    Q5_1,
    /// As Q4_0, but the nibbles stand for 16 uneven steps.
    Iq4Nl,
    /// Blocks of 256 of 2 bits, with a scale and a minimum of 4 bits for each 16.
    Q2K,
    /// Of 3 bits, with a scale of 6 bits for each 16.
    Q3K,
    /// Of 4 bits, with a scale and a minimum of 6 bits for each 32.
    Q4K,
    /// Of 5 bits, with the same.
    Q5K,
    /// Of 6 bits, with a scale of 8 bits for each 16.
    Q6K,
    /// Eight-bit floats of 4 bits of exponent and 3 of mantissa, without infinities (arXiv 2209.05433); not in GGUF.
    F8E4m3,
}

/// Types with their number in ggml (`enum ggml_type` in `ggml.h`) if they have one, their name, and the elements and bytes
/// of a block.
const TYPES: [(Option<u32>, DataType, &str, usize, usize); 15] = [
    (Some(0), DataType::F32, "F32", 1, 4),
    (Some(1), DataType::F16, "F16", 1, 2),
    (Some(30), DataType::Bf16, "BF16", 1, 2),
    (Some(8), DataType::Q8_0, "Q8_0", 32, 34),
    (Some(2), DataType::Q4_0, "Q4_0", 32, 18),
    (Some(3), DataType::Q4_1, "Q4_1", 32, 20),
    (Some(6), DataType::Q5_0, "Q5_0", 32, 22),
    (Some(7), DataType::Q5_1, "Q5_1", 32, 24),
    (Some(20), DataType::Iq4Nl, "IQ4_NL", 32, 18),
    (Some(10), DataType::Q2K, "Q2_K", k_quants::SUPER, k_quants::Q2_K),
    (Some(11), DataType::Q3K, "Q3_K", k_quants::SUPER, k_quants::Q3_K),
    (Some(12), DataType::Q4K, "Q4_K", k_quants::SUPER, k_quants::Q4_K),
    (Some(13), DataType::Q5K, "Q5_K", k_quants::SUPER, k_quants::Q5_K),
    (Some(14), DataType::Q6K, "Q6_K", k_quants::SUPER, k_quants::Q6_K),
    (None, DataType::F8E4m3, "F8_E4M3", 1, 1),
];

/// What the nibbles of IQ4_NL stand for (`kvalues_iq4nl` in `ggml-common.h`).
pub(crate) const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl DataType {
    /// The name that files and people use.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The type that ggml numbers `number`, or the number itself.
    pub fn from_ggml(number: u32) -> Result<Self, u32> {
        TYPES.iter().find(|row| row.0 == Some(number)).map(|row| row.1).ok_or(number)
    }

    /// The number that ggml has for it, if it has one.
    pub fn ggml_number(self) -> Option<u32> {
        self.row().0
    }

    /// The names of all types of GGUF, for a sentence.
    pub fn names() -> String {
        let names: Vec<_> = TYPES.iter().filter(|row| row.0.is_some()).map(|row| row.2).collect();
        format!("{} and {}", names[..names.len() - 1].join(", "), names[names.len() - 1])
    }

    /// Elements in a block, and bytes that a block takes.
    pub fn block(self) -> (usize, usize) {
        let (.., elements, bytes) = self.row();
        (elements, bytes)
    }

    fn row(self) -> (Option<u32>, Self, &'static str, usize, usize) {
        // The test below holds the table to the order of the types.
        TYPES[self as usize]
    }

    /// Bytes that `elements` take, unless they don't fill whole blocks or the number overflows.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let (per_block, size) = self.block();
        if !elements.is_multiple_of(per_block) {
            return None;
        }
        (elements / per_block).checked_mul(size)
    }

    /// The elements that `bytes` (whole blocks) hold.
    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        let (per_block, size) = self.block();
        let mut out = Vec::with_capacity(bytes.len() / size * per_block);
        match self {
            Self::F8E4m3 => out.extend(bytes.iter().map(|&b| f32_from_f8_e4m3(b))),
            Self::F32 => {
                let (elements, _) = bytes.as_chunks::<4>();
                out.extend(elements.iter().map(|&b| f32::from_le_bytes(b)));
            }
            Self::F16 => {
                let (elements, _) = bytes.as_chunks::<2>();
                out.extend(elements.iter().map(|&b| f32_from_f16(u16::from_le_bytes(b))));
            }
            Self::Bf16 => {
                let (elements, _) = bytes.as_chunks::<2>();
                out.extend(elements.iter().map(|&b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16)));
            }
            Self::Q8_0 => {
                let (blocks, _) = bytes.as_chunks::<34>();
                for block in blocks {
                    let scale = half(block, 0);
                    out.extend(block[2..].iter().map(|&q| q as i8 as f32 * scale));
                }
            }
            Self::Q4_0 => {
                let (blocks, _) = bytes.as_chunks::<18>();
                for block in blocks {
                    let scale = half(block, 0);
                    nibbles(&block[2..], &mut out, |q| (q as f32 - 8.0) * scale);
                }
            }
            Self::Q4_1 => {
                let (blocks, _) = bytes.as_chunks::<20>();
                for block in blocks {
                    let (scale, minimum) = (half(block, 0), half(block, 2));
                    nibbles(&block[4..], &mut out, |q| q as f32 * scale + minimum);
                }
            }
            Self::Q5_0 => {
                let (blocks, _) = bytes.as_chunks::<22>();
                for block in blocks {
                    let scale = half(block, 0);
                    out.extend(five_bits(&block[2..]).map(|q| (q as f32 - 16.0) * scale));
                }
            }
            Self::Q5_1 => {
                let (blocks, _) = bytes.as_chunks::<24>();
                for block in blocks {
                    let (scale, minimum) = (half(block, 0), half(block, 2));
                    out.extend(five_bits(&block[4..]).map(|q| q as f32 * scale + minimum));
                }
            }
            Self::Iq4Nl => {
                let (blocks, _) = bytes.as_chunks::<18>();
                for block in blocks {
                    let scale = half(block, 0);
                    nibbles(&block[2..], &mut out, |q| f32::from(UNEVEN[usize::from(q)]) * scale);
                }
            }
            Self::Q2K => bytes.as_chunks().0.iter().for_each(|block| k_quants::q2_k(block, &mut out)),
            Self::Q3K => bytes.as_chunks().0.iter().for_each(|block| k_quants::q3_k(block, &mut out)),
            Self::Q4K => bytes.as_chunks().0.iter().for_each(|block| k_quants::q4_k(block, &mut out)),
            Self::Q5K => bytes.as_chunks().0.iter().for_each(|block| k_quants::q5_k(block, &mut out)),
            Self::Q6K => bytes.as_chunks().0.iter().for_each(|block| k_quants::q6_k(block, &mut out)),
        }
        out
    }
}

/// The 32 integers of a block whose fifth bits come first, in 4 bytes, and then its nibbles.
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let (high, low) = bytes.split_at(4);
    (0..32).map(move |i| low[i % 16] >> (i / 16 * 4) & 15 | (high[i / 8] >> (i % 8) & 1) << 4)
}

/// A block's first 16 elements are the low nibbles, its last 16 the high ones.
fn nibbles(bytes: &[u8], out: &mut Vec<f32>, value: impl Fn(u8) -> f32) {
    out.extend(bytes.iter().map(|b| value(b & 15)));
    out.extend(bytes.iter().map(|b| value(b >> 4)));
}

pub(crate) fn half(block: &[u8], at: usize) -> f32 {
    f32_from_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The value of an eight-bit float of 4 bits of exponent and 3 of mantissa: exact, and NaN where all of them are set.
fn f32_from_f8_e4m3(byte: u8) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(byte >> 7), u32::from(byte >> 3 & 15), u32::from(byte & 7));
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        // The exponents' biases are 7 and 127.
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    f32::from_bits(magnitude.to_bits() | sign << 31)
}

/// Single precision to its upper half, to nearest even; what is not a number stays so.
pub fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Names of ggml's types that aren't read, so that a refusal can name them.
pub fn ggml_type_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_goes_to_the_nearest_and_ties_to_even() {
        for (bits, expected) in [
            (0x3f80_0000, 0x3f80),
            (0x3f80_8000, 0x3f80),
            (0x3f80_8001, 0x3f81),
            (0x3f81_8000, 0x3f82),
            (0x7f7f_ffff, 0x7f80),
            (0xff80_0000, 0xff80),
        ] {
            assert_eq!(bf16_from_f32(f32::from_bits(bits)), expected, "{bits:#x}");
        }
        assert!(f32::from_bits((bf16_from_f32(f32::from_bits(0x7f80_0001)) as u32) << 16).is_nan());
    }

    #[test]
    fn the_table_has_every_type_in_its_place() {
        for (i, row) in TYPES.into_iter().enumerate() {
            assert_eq!(row.1 as usize, i);
            assert!(row.0.is_none_or(|number| DataType::from_ggml(number) == Ok(row.1)));
        }
    }

    #[test]
    fn blocks_hold_low_nibbles_first() {
        // scale 0.5, minimum -1
        let mut block = vec![0x00, 0x38, 0x00, 0xbc];
        block.extend([0x21; 16]);
        let values = DataType::Q4_1.to_f32(&block);
        assert_eq!(values, [[-0.5f32; 16], [0.0; 16]].concat());
        block.drain(2..4);
        assert_eq!(DataType::Q4_0.to_f32(&block), [[-3.5f32; 16], [-3.0; 16]].concat());
        let mut block = vec![0x00, 0x38];
        block.extend((0..32).map(|i| (i - 16) as u8));
        let expected: Vec<f32> = (0..32).map(|i| (i - 16) as f32 / 2.0).collect();
        assert_eq!(DataType::Q8_0.to_f32(&block), expected);
        assert_eq!(DataType::Q4_0.bytes(33), None);
        assert_eq!(DataType::Q4_0.bytes(64), Some(36));
    }
}
