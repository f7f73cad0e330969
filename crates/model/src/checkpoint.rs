//! A model on disk, whatever its format: its configuration, its tensors as f32, its tokenizer and chat template.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::families;
use crate::huggingface::HuggingFace;

/// An open model. Tensors go by their Hugging Face names in every format.
#[derive(Debug)]
pub enum Checkpoint {
    /// A directory with `config.json` and safetensors.
    HuggingFace(HuggingFace),
}

impl Checkpoint {
    /// Opens the model at `path`: a Hugging Face directory or a `.gguf` file.
    ///
    /// What the configuration asks for is all there when this returns: every tensor, in its shape and a type that is
    /// read. So the sizes in a [`Config`] from here are vouched for by the size of the files, except `max_positions`.
    ///
    /// # Errors
    /// One sentence that names the file, and the key or tensor at fault; it does not repeat `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(|e| Error::new(format!("the model can't be read ({e})")))?;
        let checkpoint = if about.is_dir() {
            Self::HuggingFace(HuggingFace::open(path)?)
        } else {
            return Err(Error::new("the model is neither a directory nor a GGUF file"));
        };
        for (name, shape) in families::tensor_shapes(checkpoint.config()) {
            checkpoint.check(&name, &shape)?;
        }
        Ok(checkpoint)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        match self {
            Self::HuggingFace(directory) => directory.config(),
        }
    }

    /// Whether there is a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::HuggingFace(directory) => directory.get(name).is_some(),
        }
    }

    /// Names of all tensors.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::HuggingFace(directory) => directory.names().map(str::to_string).collect(),
        }
    }

    /// The elements of the tensor called `name`, row-major, whatever the stored type.
    ///
    /// # Errors
    /// When there is no such tensor, or its shape is not `shape`, or its type is not one that is read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.check(name, shape)?;
        match self {
            Self::HuggingFace(directory) => {
                let stored = directory.get(name).ok_or_else(|| missing(name))?;
                let dtype = stored.dtype.map_err(|dtype| unread(name, dtype))?;
                Ok(dtype.to_f32(stored.bytes))
            }
        }
    }

    /// Checks that a tensor is there, in this shape and a type that is read.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self {
            Self::HuggingFace(directory) => {
                let stored = directory.get(name).ok_or_else(|| missing(name))?;
                if stored.shape != shape {
                    return Err(misshapen(name, shape, stored.shape));
                }
                stored.dtype.map(drop).map_err(|dtype| unread(name, dtype))
            }
        }
    }
}

fn missing(name: &str) -> Error {
    Error::new(format!("tensor {name} is missing; the configuration asks for it"))
}

fn misshapen(name: &str, expected: &[usize], actual: &[usize]) -> Error {
    Error::new(format!("tensor {name} has shape {actual:?}, but the configuration asks for {expected:?}"))
}

fn unread(name: &str, dtype: &str) -> Error {
    Error::new(format!("tensor {name} has type {}, which is not read; convert it to BF16", quoted(dtype)))
}
