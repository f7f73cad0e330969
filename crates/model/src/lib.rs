//! Files to logits, and gradients back: what a model is made of, how it is read from and written to disk, and what it
//! computes.

pub mod checkpoint;
pub mod config;
pub mod dequantize;
pub mod error;
pub mod families;
pub mod gguf;
pub mod huggingface;
pub mod mmap;
pub mod safetensors;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::{Error, Result};
