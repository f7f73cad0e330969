//! A model on disk, whatever its format: its configuration, its tensors as f32, its tokenizer and chat template.

use std::path::Path;

use minke_kernels::Dtype;
use minke_kernels::random::fnv1a;

use crate::chat_template::ChatTemplate;
use crate::config::{Attention, Config};
use crate::dequantize::DataType;
use crate::error::{Error, Result};
use crate::families::gguf_tensors::Place;
use crate::families::{self, gguf_tensors};
use crate::gguf::Gguf;
use crate::huggingface::HuggingFace;
use crate::parameters::prediction_shapes;
use crate::stored::{Elements, Precision, Stored};
use crate::tokenizer::Tokenizer;

/// An open model. Tensors go by their Hugging Face names in every format.
#[derive(Debug)]
pub enum Checkpoint {
    /// A directory with `config.json` and safetensors.
    HuggingFace(HuggingFace),
    /// A `.gguf` file, and the configuration read from it.
    Gguf(Gguf, Config),
}

impl Checkpoint {
    /// Opens the model at `path`: a Hugging Face directory or a GGUF file.
    ///
    /// What the configuration asks for is all there when this returns: every tensor, in its shape and a type that is
    /// read. So the sizes in a [`Config`] from here are vouched for by the size of the files, except `max_positions`.
    ///
    /// # Errors
    /// One sentence that names the file, and the key or tensor at fault; it does not repeat `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(|e| Error::new(format!("the model can't be read ({e})")))?;
        if about.is_dir() {
            Self::HuggingFace(HuggingFace::open(path)?).complete()
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Gguf::open(path).and_then(Self::from_gguf).map_err(|e| e.at(name))
        }
    }

    /// Checks that a file has what its configuration asks for.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_gguf(file: Gguf) -> Result<Self> {
        let config = families::config_from_gguf(&file)?;
        Self::Gguf(file, config).complete()
    }

    fn complete(self) -> Result<Self> {
        families::tensor_shapes(self.config()).try_for_each(|(name, shape)| self.stored(&name, &shape).map(drop))?;
        Ok(self)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        match self {
            Self::HuggingFace(directory) => directory.config(),
            Self::Gguf(_, config) => config,
        }
    }

    /// The elements of the tensor called `name`, row-major, whatever the stored type.
    ///
    /// # Errors
    /// When there is no such tensor, or its shape is not `shape`, or its type is not one that is read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stored = self.stored(name, shape)?;
        let elements = stored.to_f32(shape);
        self.release(&stored);
        Ok(elements)
    }

    /// Shows the bytes of every tensor that the model uses, as they are stored, always in the same order.
    ///
    /// # Errors
    /// None that [`Self::open`] would not have found.
    pub fn show_bytes(&self, mut see: impl FnMut(&[u8])) -> Result<()> {
        families::tensor_shapes(self.config()).try_for_each(|(name, shape)| {
            let stored = self.stored(&name, &shape)?;
            stored.bytes().into_iter().for_each(&mut see);
            self.release(&stored);
            Ok(())
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When the model has none, or one that is damaged or not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match self {
            Self::HuggingFace(directory) => directory.tokenizer(),
            Self::Gguf(file, _) => Tokenizer::from_gguf(file),
        }?;
        Ok(tokenizer.limited_to(self.config().vocab_size))
    }

    /// The chat template, if the model has one.
    ///
    /// # Errors
    /// When it does not compile, or a file around it is damaged.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        match self {
            Self::HuggingFace(directory) => directory.chat_template(),
            Self::Gguf(file, _) => {
                let Some(source) = file.text("tokenizer.chat_template")? else { return Ok(None) };
                let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
                let text =
                    |key: &str| -> Result<Option<&str>> { Ok(file.size(key)?.and_then(|id| tokens.get(id).copied())) };
                let (bos, eos) = (text("tokenizer.ggml.bos_token_id")?, text("tokenizer.ggml.eos_token_id")?);
                ChatTemplate::new(source, bos, eos).map(Some)
            }
        }
    }

    /// Lines that say which files these are, and that are others once one is written to or replaced; none for models that
    /// are not in files.
    pub fn stamp(&self) -> Option<String> {
        match self {
            Self::HuggingFace(directory) => directory.stamp(),
            Self::Gguf(file, _) => file.map().stamp().map(str::to_string),
        }
    }

    /// A name for a file of the weights of the model at this place, packed in `precision`; none for models that are not in
    /// files.
    pub fn packed_name(&self, precision: Precision) -> Option<String> {
        let path = match self {
            Self::HuggingFace(directory) => directory.path().canonicalize().ok()?,
            Self::Gguf(file, _) => file.map().path()?.canonicalize().ok()?,
        };
        let bytes = path.as_os_str().as_encoded_bytes().iter().chain(precision.name().as_bytes());
        // Names need to differ; what is in the file is checked by itself.
        let hash = fnv1a(bytes.copied());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let short: String = stem.chars().take(40).collect();
        Some(format!("{short}-{hash:016x}.packed"))
    }

    /// Says that a tensor's bytes are not needed soon.
    pub(crate) fn release(&self, stored: &Stored<'_>) {
        for bytes in stored.bytes() {
            match self {
                Self::HuggingFace(directory) => directory.release(bytes),
                Self::Gguf(file, _) => file.map().release(bytes),
            }
        }
    }

    /// Finds a tensor, and checks that it has this shape and a type that is read.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        match self {
            Self::HuggingFace(directory) => directory.stored(name, shape),
            Self::Gguf(file, config) => in_gguf(file, config, name, shape),
        }
    }
}

pub(crate) fn missing(name: &str) -> Error {
    Error::new(format!("tensor {name} is missing; the configuration asks for it"))
}

pub(crate) fn misshapen(name: &str, actual: &[usize], wanted: &[usize]) -> Error {
    Error::new(format!("tensor {name} has shape {actual:?}, but the configuration asks for {wanted:?}"))
}

fn in_gguf<'a>(file: &'a Gguf, config: &Config, name: &str, shape: &[usize]) -> Result<Stored<'a>> {
    match gguf_tensors::place(file, name).ok_or_else(|| missing(name))? {
        Place::Whole(ours) => {
            let elements = elements_in_gguf(file, &ours, shape)?;
            Ok(match gguf_tensors::interleaved_heads(config, name) {
                Some(heads) => Stored::Interleaved(elements, heads),
                None => Stored::Plain(elements),
            })
        }
        Place::Expert { stack, expert } => {
            let experts = config.experts.as_ref().map_or(0, |experts| experts.routed);
            if expert >= experts {
                return Err(missing(name));
            }
            let stacked = elements_in_gguf(file, &stack, &[&[experts], shape].concat())?;
            let size = stacked.bytes.len() / experts;
            Ok(Stored::Plain(Elements { bytes: &stacked.bytes[expert * size..][..size], ..stacked }))
        }
        Place::KeysAndValues { keys, values } => {
            let Attention::Latent { kv_lora_rank: latent, nope_dim, value_dim, .. } = config.attention else {
                return Err(missing(name));
            };
            let (heads, whole) = (config.heads, [config.heads * (nope_dim + value_dim), latent]);
            if shape != whole {
                return Err(misshapen(name, &whole, shape));
            }
            Ok(Stored::KeysAndValues {
                keys: elements_in_gguf(file, &keys, &[heads, latent, nope_dim])?,
                values: elements_in_gguf(file, &values, &[heads, value_dim, latent])?,
                heads,
                latent,
            })
        }
    }
}

fn elements_in_gguf<'a>(file: &'a Gguf, name: &str, shape: &[usize]) -> Result<Elements<'a>> {
    let tensor = file.tensor(name).ok_or_else(|| missing(name))?;
    if tensor.shape != shape {
        return Err(misshapen(name, &tensor.shape, shape));
    }
    let dtype = tensor.dtype.map_err(|_| {
        Error::new(format!(
            "tensor {name} has type {}, which is not read; the types that are read are {}",
            tensor.type_name(),
            DataType::names()
        ))
    })?;
    Ok(Elements { dtype, bytes: file.bytes(tensor) })
}

/// What `minke models` says of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The family's name, as `config.json` has it.
    pub family: &'static str,
    /// Parameters, tied embeddings counted once.
    pub parameters: u64,
    /// The type that most parameters are stored in.
    pub dtype: DataType,
    /// Bytes of all the tensors that the model uses.
    pub bytes: u64,
}

impl Description {
    /// Bytes that the model's weights take in memory.
    pub fn bytes_in(&self, precision: Precision) -> u64 {
        match precision {
            Precision::Stored => self.bytes,
            Precision::In(Dtype::F32) => self.parameters.saturating_mul(4),
            Precision::In(Dtype::Bf16) => self.parameters.saturating_mul(2),
        }
    }
}

/// A tensor of a model: its Hugging Face name, and how it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As Hugging Face has it, whatever the file.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// The type of most of it.
    pub dtype: DataType,
    /// Bytes that it takes in the file.
    pub bytes: u64,
}

impl Tensor {
    /// Numbers in it.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }
}

impl Checkpoint {
    /// Every tensor that the model uses, in the order of [`families::tensor_shapes`].
    ///
    /// # Errors
    /// None that [`Self::open`] would not have found.
    pub fn tensors(&self) -> Result<Vec<Tensor>> {
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let stored = self.stored(&name, &shape)?;
            let (dtype, bytes) = (stored.dtype(), stored.len() as u64);
            Ok(Tensor { name, shape, dtype, bytes })
        };
        families::tensor_shapes(self.config()).map(tensor).collect()
    }

    /// Whether there is a block for multi-token prediction ([`crate::Predictor`]), by the first of its tensors.
    pub fn predicts(&self) -> bool {
        prediction_shapes(self.config()).next().is_some_and(|(name, shape)| self.stored(&name, &shape).is_ok())
    }

    /// Bytes that the block for multi-token prediction takes in memory.
    ///
    /// # Errors
    /// The first of its tensors that is missing or can't be: most published models have no such block.
    pub fn prediction_bytes(&self, precision: Precision) -> Result<u64> {
        let bytes = |(name, shape): (String, Vec<usize>)| {
            let (stored, elements) = (self.stored(&name, &shape)?, shape.iter().product::<usize>());
            Ok(match precision {
                Precision::Stored => stored.len() as u64,
                Precision::In(Dtype::F32) => 4 * elements as u64,
                Precision::In(Dtype::Bf16) => 2 * elements as u64,
            })
        };
        prediction_shapes(self.config()).map(bytes).sum()
    }

    /// Counts what the model is made of.
    ///
    /// # Errors
    /// None that [`Self::open`] would not have found.
    pub fn describe(&self) -> Result<Description> {
        let (mut parameters, mut bytes) = (0, 0);
        let mut types: Vec<(DataType, u64)> = Vec::new();
        for tensor in self.tensors()? {
            let elements = tensor.elements();
            parameters += elements;
            bytes += tensor.bytes;
            match types.iter_mut().find(|(dtype, _)| *dtype == tensor.dtype) {
                Some((_, count)) => *count += elements,
                None => types.push((tensor.dtype, elements)),
            }
        }
        let most = types.into_iter().max_by_key(|&(_, count)| count);
        Ok(Description {
            family: self.config().family.name(),
            parameters,
            dtype: most.map_or(DataType::F32, |(dtype, _)| dtype),
            bytes,
        })
    }
}
