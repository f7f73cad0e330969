//! Stored elements to f32, bit for bit as gguf-py has them. Blocks as in llama.cpp's `ggml-common.h`.

use minke_kernels::half::{f32_from_bf16, f32_from_f16};
use minke_kernels::quantized::{Format, Row};

use crate::blocks;

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
    (Some(10), DataType::Q2K, "Q2_K", blocks::SUPER, blocks::Q2_K),
    (Some(11), DataType::Q3K, "Q3_K", blocks::SUPER, blocks::Q3_K),
    (Some(12), DataType::Q4K, "Q4_K", blocks::SUPER, blocks::Q4_K),
    (Some(13), DataType::Q5K, "Q5_K", blocks::SUPER, blocks::Q5_K),
    (Some(14), DataType::Q6K, "Q6_K", blocks::SUPER, blocks::Q6_K),
    (None, DataType::F8E4m3, "F8_E4M3", 1, 1),
];

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

    /// How kernels know it, if it is quantised.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            Self::Q8_0 => Format::Q8_0,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_1 => Format::Q4_1,
            Self::Q5_0 => Format::Q5_0,
            Self::Q5_1 => Format::Q5_1,
            Self::Iq4Nl => Format::Iq4Nl,
            Self::Q2K => Format::Q2K,
            Self::Q3K => Format::Q3K,
            Self::Q4K => Format::Q4K,
            Self::Q5K => Format::Q5K,
            Self::Q6K => Format::Q6K,
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8E4m3 => return None,
        })
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
                out.extend(elements.iter().map(|&b| f32_from_bf16(u16::from_le_bytes(b))));
            }
            _ => {
                let format = self.format().expect("every other type is quantised");
                // So few at a time that what lies between stays close by.
                for bytes in bytes.chunks(size * (4096 / per_block)) {
                    let (from, len) = (out.len(), bytes.len() / size * per_block);
                    let mut row = Row::new(format, len);
                    blocks::read(format, bytes, &mut row);
                    out.resize(from + len, 0.0);
                    row.to_f32(format, &mut out[from..]);
                }
            }
        }
        out
    }
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
