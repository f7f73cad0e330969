//! Models in other types: tensor after tensor is read, rounded row by row, and written to a GGUF file.

mod blocks;
mod importance;
mod mixture;
mod search;
mod super_blocks;

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::half::{bf16_from_f32, f16_from_f32};
use minke_kernels::pool::Pool;

use crate::checkpoint;
use crate::config::{Attention, Config};
use crate::dequantize::DataType;
use crate::error::{Error, Result};
use crate::families::{self, gguf_tensors};
use crate::gguf::Gguf;
use crate::gguf_writer::{Metadata, Row, header};

pub use importance::Importance;
pub(crate) use mixture::Facts;
pub use mixture::FileType;
use mixture::{Asked, layer};

/// Bytes of a tensor that are made before they are written.
const SLAB: usize = 32 << 20;

/// Elements that one task rounds.
const TASK: usize = 1 << 15;

/// Beyond this a block's scale or minimum, or an F16 itself, could leave half precision.
const HALF_LIMIT: f32 = 32_768.0;

/// ggml's number for the blocks that it has now (`GGML_QNT_VERSION`).
const BLOCKS_VERSION: u32 = 2;

/// A model on its way into a GGUF file.
#[derive(Debug)]
pub struct Model<'a> {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<Tensor<'a>>,
    pub(crate) facts: Facts,
}

/// One tensor as it is stored, under its name in GGUF.
#[derive(Debug)]
pub(crate) struct Tensor<'a> {
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    pub dtype: DataType,
    pub bytes: Cow<'a, [u8]>,
    /// Heads whose rows lie in halves and are to be interleaved.
    pub heads: Option<usize>,
}

impl<'a> Model<'a> {
    /// A GGUF file of any architecture; its metadata is carried over.
    ///
    /// # Errors
    /// When the file is no model, a part of one, or has a tensor of a type that isn't read.
    pub fn from_gguf(file: &'a Gguf) -> Result<Self> {
        let architecture = file.text("general.architecture")?;
        let architecture = architecture.ok_or_else(|| Error::new("general.architecture is missing"))?;
        if let Some(parts @ 2..) = file.size("split.count")? {
            return Err(Error::new(format!("split.count is {parts}; merge the parts with llama-gguf-split first")));
        }
        let size = |name: &str| file.size(&format!("{architecture}.{name}"));
        let layers = size("block_count")?
            .ok_or_else(|| Error::new(format!("{architecture}.block_count is missing; the file is not a model")))?;
        // Where a list has a number for each block, nothing is known to be shared.
        let heads = |name: &str| size(name).ok().flatten().filter(|&heads| heads > 0);
        let (queries, keys) = (heads("attention.head_count"), heads("attention.head_count_kv"));
        let heads_per_kv = queries.zip(keys).map_or(1, |(queries, keys)| queries / keys);
        let facts = Facts {
            layers,
            heads_per_kv,
            experts: size("expert_count")?.unwrap_or(0),
            is_llama_70b: architecture == "llama" && layers == 80 && heads_per_kv > 1,
        };
        let mut tensors = Vec::new();
        for name in file.names() {
            let Some(tensor) = file.tensor(name) else { continue };
            let dtype = tensor.dtype.map_err(|_| {
                Error::new(format!(
                    "tensor {name} has type {}, which is not read; the types that are read are {}",
                    tensor.type_name(),
                    DataType::names()
                ))
            })?;
            let bytes = Cow::Borrowed(file.bytes(tensor));
            tensors.push(Tensor { name: name.into(), shape: tensor.shape.clone(), dtype, bytes, heads: None });
        }
        Ok(Self { metadata: Metadata::of(file), tensors, facts })
    }

    /// The type that most elements are stored in.
    pub fn dtype(&self) -> Option<DataType> {
        let elements = |dtype: DataType| -> usize {
            self.tensors.iter().filter(|tensor| tensor.dtype == dtype).map(Tensor::elements).sum()
        };
        self.tensors.iter().map(|tensor| tensor.dtype).max_by_key(|&dtype| elements(dtype))
    }

    /// Elements of all tensors.
    pub fn elements(&self) -> usize {
        self.tensors.iter().map(Tensor::elements).sum()
    }

    /// Writes the model to `out` as a file of type `file_type`. Where `importance` knows a tensor, it says how much an
    /// error in each of its columns counts. `progress` gets the elements that are done.
    ///
    /// Memory holds 32 MiB of one tensor, or a row of it where that is more.
    ///
    /// # Errors
    /// When a tensor has values that the type can't have, the importance is another model's, or `out` fails.
    pub fn write(
        mut self,
        pool: &Pool,
        file_type: FileType,
        importance: Option<&Importance>,
        out: &mut impl Write,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        self.tensors.sort_by(|a, b| (layer(&a.name), &a.name).cmp(&(layer(&b.name), &b.name)));
        let asked: Vec<Asked<'_>> = self.tensors.iter().map(Tensor::asked).collect();
        if let Some(importance) = importance
            && !importance.names().any(|name| asked.iter().any(|tensor| tensor.name == name))
        {
            return Err(Error::new("the importance matrix knows none of the model's tensors; it is another model's"));
        }
        let types = mixture::types(file_type, &self.facts, importance.is_some(), &asked);
        self.metadata.set_u32("general.quantization_version", BLOCKS_VERSION);
        self.metadata.set_u32("general.file_type", file_type.number);
        let rows: Vec<Row<'_>> = (self.tensors.iter().zip(&types))
            .map(|(tensor, &dtype)| Row { name: &tensor.name, shape: &tensor.shape, dtype })
            .collect();
        let unwritable = |e: io::Error| Error::new(format!("the file can't be written ({e})"));
        out.write_all(&header(&self.metadata, &rows)).map_err(unwritable)?;
        let mut done = 0;
        for (tensor, row) in self.tensors.iter().zip(&rows) {
            let columns = tensor.columns();
            let (size, count) = (row.dtype.block().1 * (columns / row.dtype.block().0), tensor.elements() / columns);
            let importance = importance.map(|known| known.of(&tensor.name, &tensor.shape)).transpose()?.flatten();
            let slab = (SLAB / size).max(1);
            let mut bytes = vec![0; slab.min(count) * size];
            for first in (0..count).step_by(slab) {
                let part = &mut bytes[..slab.min(count - first) * size];
                tensor.convert(pool, row.dtype, importance, first, part)?;
                out.write_all(part).map_err(unwritable)?;
                done += part.len() / size * columns;
                progress(done);
            }
            let padding = row.bytes().next_multiple_of(self.metadata.alignment()) - row.bytes();
            io::copy(&mut io::Read::take(io::repeat(0), padding as u64), out).map_err(unwritable)?;
        }
        Ok(())
    }
}

/// The tensors that a file of type `file_type` would have of a model, though nobody has made it.
pub fn planned(config: &Config, file_type: FileType) -> Vec<checkpoint::Tensor> {
    let heads_per_kv = match config.attention {
        Attention::Grouped { kv_heads, .. } => config.heads / kv_heads,
        Attention::Latent { .. } => 1,
    };
    let is_llama_70b = config.layers == 80 && heads_per_kv > 1;
    let facts = Facts { layers: config.layers, heads_per_kv, experts: 0, is_llama_70b };
    let shapes: Vec<(String, Vec<usize>)> = families::tensor_shapes(config).collect();
    let in_gguf = |(name, _): &(String, Vec<usize>)| {
        let stack = gguf_tensors::stack_name(name).map(|(stack, _)| stack);
        stack.or_else(|| gguf_tensors::tensor_name(name)).unwrap_or_default()
    };
    let names: Vec<String> = shapes.iter().map(in_gguf).collect();
    let asked: Vec<Asked<'_>> =
        (names.iter().zip(&shapes)).map(|(name, (_, shape))| Asked { name, shape, dtype: DataType::F32 }).collect();
    let types = mixture::types(file_type, &facts, false, &asked);
    let tensor = |((name, shape), dtype): ((String, Vec<usize>), DataType)| {
        let elements: usize = shape.iter().product();
        let bytes = dtype.bytes(elements).unwrap_or(4 * elements) as u64;
        checkpoint::Tensor { name, shape, dtype, bytes }
    };
    shapes.into_iter().zip(types).map(tensor).collect()
}

impl Tensor<'_> {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn asked(&self) -> Asked<'_> {
        Asked { name: &self.name, shape: &self.shape, dtype: self.dtype }
    }

    /// Where row `row` of the file lies among those that are stored: rows of heads in halves are interleaved, as
    /// llama.cpp rotates them.
    fn stored_row(&self, row: usize) -> usize {
        let Some(heads) = self.heads else { return row };
        let width = self.shape[0] / heads;
        let (head, at) = (row / width, row % width);
        head * width + at % 2 * (width / 2) + at / 2
    }

    /// Makes rows from `first` on, as many as `out` has room for.
    fn convert(
        &self,
        pool: &Pool,
        dtype: DataType,
        importance: Option<&[f32]>,
        first: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let columns = self.columns();
        let stored = columns / self.dtype.block().0 * self.dtype.block().1;
        let made = columns / dtype.block().0 * dtype.block().1;
        // Rows of one matrix, where there are several behind each other.
        let rows = self.shape.iter().rev().nth(1).copied().unwrap_or(1);
        let task = (TASK / columns).max(1);
        let misfit = AtomicBool::new(false);
        pool.chunks_mut(out, task * made, |i, out| {
            for (at, out) in out.chunks_mut(made).enumerate() {
                let row = first + i * task + at;
                let bytes = &self.bytes[self.stored_row(row) * stored..][..stored];
                if self.dtype == dtype {
                    out.copy_from_slice(bytes);
                    continue;
                }
                let values = self.dtype.to_f32(bytes);
                if !values.iter().all(|x| x.abs() <= limit(dtype)) {
                    misfit.store(true, Ordering::Relaxed);
                }
                let importance = importance.map(|known| &known[row / rows * columns..][..columns]);
                quantize_row(dtype, &values, importance, out);
            }
        });
        match misfit.into_inner() {
            false => Ok(()),
            true => Err(Error::new(format!(
                "tensor {} has values that are not finite, or too large for {}; choose BF16",
                self.name,
                dtype.name()
            ))),
        }
    }
}

/// The largest magnitude that a type is given.
fn limit(dtype: DataType) -> f32 {
    match dtype {
        DataType::F32 | DataType::Bf16 => f32::MAX,
        _ => HALF_LIMIT,
    }
}

/// Rounds one row (whole blocks of numbers up to 32768) to `dtype`. `importance` says how much an error in each column
/// counts, beside a mean of 1; F32, F16, BF16 and Q8_0 do without. `out` has as many bytes as the row takes.
///
/// Q8_0, and Q4_0 to Q5_1 without importance, are bit for bit what gguf-py makes; the others search for the scale that
/// leaves the least weighted squared error.
pub fn quantize_row(dtype: DataType, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let weights = importance.map(|importance| {
        let mean_square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        x.iter().zip(importance).map(|(x, w)| w * (mean_square + x * x).sqrt()).collect::<Vec<f32>>()
    });
    let weights = weights.as_deref();
    match dtype {
        DataType::F8E4m3 => panic!("GGUF has no F8_E4M3"),
        DataType::F32 => each(x, None, out, |x: &[f32; 1], _, out| *out = x[0].to_le_bytes()),
        DataType::F16 => each(x, None, out, |x: &[f32; 1], _, out| *out = f16_from_f32(x[0]).to_le_bytes()),
        DataType::Bf16 => each(x, None, out, |x: &[f32; 1], _, out| *out = bf16_from_f32(x[0]).to_le_bytes()),
        DataType::Q8_0 => each(x, None, out, |x, _, out| blocks::q8_0(x, out)),
        DataType::Q4_0 => each(x, weights, out, blocks::q4_0),
        DataType::Q4_1 => each(x, weights, out, blocks::q4_1),
        DataType::Q5_0 => each(x, weights, out, blocks::q5_0),
        DataType::Q5_1 => each(x, weights, out, blocks::q5_1),
        DataType::Iq4Nl => each(x, importance, out, blocks::iq4_nl),
        DataType::Q2K => each(x, importance, out, super_blocks::q2_k),
        DataType::Q3K => each(x, importance, out, super_blocks::q3_k),
        DataType::Q4K => each(x, importance, out, super_blocks::q4_k),
        DataType::Q5K => each(x, importance, out, super_blocks::q5_k),
        DataType::Q6K => each(x, importance, out, super_blocks::q6_k),
    }
}

/// Calls `round` for each block.
fn each<const ELEMENTS: usize, const BYTES: usize>(
    x: &[f32],
    weights: Option<&[f32]>,
    out: &mut [u8],
    round: impl Fn(&[f32; ELEMENTS], Option<&[f32; ELEMENTS]>, &mut [u8; BYTES]),
) {
    let weights = weights.map(|weights| weights.as_chunks().0);
    for (i, (x, out)) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0).enumerate() {
        round(x, weights.map(|weights| &weights[i]), out);
    }
}
