//! A tensor as it is stored, in one piece or two, and what it says in f32.

use crate::dequantize::DataType;
use crate::families::gguf_tensors::{deinterleave_rows, join_keys_and_values};

/// Elements of one type, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a> {
    pub dtype: DataType,
    pub bytes: &'a [u8],
}

impl Elements<'_> {
    fn to_f32(self) -> Vec<f32> {
        self.dtype.to_f32(self.bytes)
    }
}

/// A tensor as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    /// As it is asked for.
    Plain(Elements<'a>),
    /// With the rows of each of so many heads interleaved: llama.cpp's Llama.
    Interleaved(Elements<'a>, usize),
    /// In two parts, of so many heads and columns: llama.cpp's latent attention.
    KeysAndValues { keys: Elements<'a>, values: Elements<'a>, heads: usize, latent: usize },
    /// With a factor for each block of `block[0]` rows by `block[1]` columns: DeepSeek-V3's FP8.
    Scaled { elements: Elements<'a>, factors: Elements<'a>, block: [usize; 2] },
}

impl Stored<'_> {
    /// The type of most of it.
    pub fn dtype(&self) -> DataType {
        match self {
            Self::Plain(elements) | Self::Interleaved(elements, _) | Self::Scaled { elements, .. } => elements.dtype,
            Self::KeysAndValues { keys, .. } => keys.dtype,
        }
    }

    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(elements) | Self::Interleaved(elements, _) => elements.bytes.len(),
            Self::KeysAndValues { keys, values, .. } => keys.bytes.len() + values.bytes.len(),
            Self::Scaled { elements, factors, .. } => elements.bytes.len() + factors.bytes.len(),
        }
    }

    /// Its elements, row-major in `shape`, the one that it was found with.
    pub fn to_f32(self, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::Plain(elements) => elements.to_f32(),
            Self::Interleaved(elements, heads) => deinterleave_rows(&elements.to_f32(), heads, shape[0]),
            Self::KeysAndValues { keys, values, heads, latent } => {
                join_keys_and_values(&keys.to_f32(), &values.to_f32(), heads, latent)
            }
            Self::Scaled { elements, factors, block: [rows, columns] } => {
                let (mut values, factors) = (elements.to_f32(), factors.to_f32());
                let across = shape[1].div_ceil(columns);
                for (row, values) in values.chunks_exact_mut(shape[1]).enumerate() {
                    let factors = &factors[row / rows * across..][..across];
                    for (values, factor) in values.chunks_mut(columns).zip(factors) {
                        values.iter_mut().for_each(|x| *x *= factor);
                    }
                }
                values
            }
        }
    }
}
