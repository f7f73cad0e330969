//! A tensor as it is stored, in one piece or two: what it says in f32, and packed for products.

use minke_kernels::quantized::Format;
use minke_kernels::{Cpu, Dtype, Matrix, Packing};

use crate::blocks;
use crate::dequantize::DataType;
use crate::families::gguf_tensors::{deinterleave_rows, interleaved_row, join_keys_and_values};

/// How a model's matrices are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In the bits that they are stored in; those in half precision and in eight-bit floats as bf16.
    Stored,
    /// All in one type.
    In(Dtype),
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Precision {
        Precision::In(dtype)
    }
}

impl Precision {
    /// Where numbers stored as `dtype` are not kept in their own bits.
    pub fn dtype(self, stored: DataType) -> Dtype {
        match self {
            Precision::In(dtype) => dtype,
            Precision::Stored if stored == DataType::F32 => Dtype::F32,
            Precision::Stored => Dtype::Bf16,
        }
    }

    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Stored => "stored",
            Precision::In(dtype) => dtype.name(),
        }
    }
}

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

    /// Its bytes, in a file's order.
    pub fn bytes(&self) -> [&[u8]; 2] {
        match self {
            Self::Plain(elements) | Self::Interleaved(elements, _) => [elements.bytes, &[]],
            Self::KeysAndValues { keys, values, .. } => [keys.bytes, values.bytes],
            Self::Scaled { elements, factors, .. } => [elements.bytes, factors.bytes],
        }
    }

    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        self.bytes().map(<[u8]>::len).iter().sum()
    }

    /// The format of its rows, where they can be kept in their own bits, and the row that each of `rows` is stored as.
    fn quantised(&self, rows: usize) -> Option<(Format, &[u8], impl Fn(usize) -> usize)> {
        let (elements, heads) = match self {
            Self::Plain(elements) => (elements, 0),
            Self::Interleaved(elements, heads) => (elements, *heads),
            Self::KeysAndValues { .. } | Self::Scaled { .. } => return None,
        };
        let width = rows.checked_div(heads).unwrap_or(rows);
        let place = move |row: usize| match heads {
            0 => row,
            _ => interleaved_row(row, width),
        };
        Some((elements.dtype.format()?, elements.bytes, place))
    }

    /// Whether its rows can be kept in their own bits.
    pub fn is_quantised(&self) -> bool {
        self.quantised(0).is_some()
    }

    /// How it is packed.
    pub fn packing(&self, precision: Precision) -> Packing {
        match self.quantised(0) {
            Some((format, ..)) if precision == Precision::Stored => Packing::Quantized(format),
            _ => Packing::Dense(precision.dtype(self.dtype())),
        }
    }

    /// Packed for products; `shape` is (outputs, inputs).
    pub fn matrix(self, cpu: &Cpu, shape: &[usize], precision: Precision) -> Matrix {
        let (outputs, inputs) = (shape[0], shape[1]);
        match self.quantised(outputs) {
            Some((format, bytes, place)) if precision == Precision::Stored => {
                let size = bytes.len() / outputs.max(1);
                Matrix::quantized(cpu, format, outputs, inputs, &|i, row| {
                    blocks::read(format, &bytes[place(i) * size..][..size], row);
                })
            }
            _ => side_by_side(cpu, precision.dtype(self.dtype()), &[(self, shape)]),
        }
    }

    /// Row `row` of a tensor that is a matrix of this shape.
    fn row(self, row: usize, shape: &[usize], out: &mut [f32]) {
        let mut put = |elements: Elements<'_>, row: usize| {
            let size = elements.bytes.len() / shape[0];
            let bytes = &elements.bytes[row * size..][..size];
            out.copy_from_slice(&elements.dtype.to_f32(bytes));
        };
        match self {
            Self::Plain(elements) => put(elements, row),
            Self::Interleaved(elements, heads) => put(elements, interleaved_row(row, shape[0] / heads)),
            Self::Scaled { elements, factors, block: [rows, columns] } => {
                put(elements, row);
                let across = shape[1].div_ceil(columns);
                let size = factors.bytes.len() / shape[0].div_ceil(rows);
                let factors = factors.dtype.to_f32(&factors.bytes[row / rows * size..][..size]);
                for (values, factor) in out.chunks_mut(columns).zip(&factors[..across]) {
                    values.iter_mut().for_each(|x| *x *= factor);
                }
            }
            // Its rows are put together from columns of the file.
            Self::KeysAndValues { .. } => out.copy_from_slice(&self.to_f32(shape)[row * shape[1]..][..shape[1]]),
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

/// Tensors of these shapes, whose rows are as long, one below the other and packed for products.
pub(crate) fn side_by_side(cpu: &Cpu, dtype: Dtype, parts: &[(Stored<'_>, &[usize])]) -> Matrix {
    let (outputs, inputs) = (parts.iter().map(|(_, shape)| shape[0]).sum(), parts[0].1[1]);
    Matrix::dense(cpu, dtype, outputs, inputs, &|mut row, out| {
        for (part, shape) in parts {
            if row < shape[0] {
                return part.row(row, shape, out);
            }
            row -= shape[0];
        }
    })
}
