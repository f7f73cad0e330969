//! Files to logits, and gradients back: what a model is made of, how it is read from and written to disk, and what it
//! computes.

mod attention;
pub mod batch;
mod blocks;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod dequantize;
pub mod error;
pub mod families;
mod feed_forward;
pub mod gguf;
mod gguf_tokenizer;
mod gguf_tokenizer_writer;
pub mod gguf_writer;
pub mod huggingface;
pub mod lora;
pub mod mmap;
pub mod packed;
pub mod parameters;
pub mod predictor;
pub mod quantize;
mod rotary;
pub mod safetensors;
mod stored;
pub mod tokenizer;
mod tokenizer_checks;
pub mod transformer;
mod weight;

pub use batch::Batch;
pub use chat_template::{ChatTemplate, Message};
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::{Error, Result};
pub use lora::Lora;
pub use parameters::{Parameter, Parameters};
pub use predictor::{Predictions, Predictor};
pub use stored::Precision;
pub use tokenizer::{DecodeStream, Tokenizer};
pub use transformer::{Activations, Transformer};
pub use weight::Source;
