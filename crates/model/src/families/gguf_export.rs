//! A Hugging Face model in GGUF's words: keys, tensors and tokenizer as llama.cpp's converter writes them.

use std::borrow::Cow;

use super::gguf_tensors::{interleaved_heads, tensor_name};
use crate::checkpoint::Checkpoint;
use crate::config::{Attention, Config, Family, RopeScaling};
use crate::dequantize::DataType;
use crate::error::{Error, Result};
use crate::gguf_tokenizer_writer;
use crate::gguf_writer::Metadata;
use crate::quantize::{Facts, Model, Tensor};
use crate::rotary::inverse_frequencies;
use crate::stored::Stored;

impl<'a> Model<'a> {
    /// A model of any format; a Hugging Face one gets the metadata that its configuration and tokenizer come to.
    ///
    /// # Errors
    /// When GGUF has no words for the family or the tokenizer, or the model has no tokenizer.
    pub fn from_checkpoint(checkpoint: &'a Checkpoint) -> Result<Self> {
        if let Checkpoint::Gguf(file, _) = checkpoint {
            return Self::from_gguf(file);
        }
        let config = checkpoint.config();
        let Attention::Grouped { kv_heads, head_dim, .. } = config.attention else { return Err(unspeakable(config)) };
        let mut metadata = keys(config, kv_heads, head_dim)?;
        gguf_tokenizer_writer::write(&checkpoint.tokenizer()?, config.vocab_size, &mut metadata)?;
        if let Some(template) = checkpoint.chat_template()? {
            metadata.set_text("tokenizer.chat_template", template.source());
        }
        let mut tensors = Vec::new();
        for (name, shape) in super::tensor_shapes(config) {
            let Stored::Plain(stored) = checkpoint.stored(&name, &shape)? else { return Err(unspeakable(config)) };
            if stored.dtype.ggml_number().is_none() {
                return Err(Error::new(format!("tensor {name} has type {}, which GGUF has not", stored.dtype.name())));
            }
            let heads = interleaved_heads(config, &name);
            let name = tensor_name(&name).ok_or_else(|| unspeakable(config))?;
            tensors.push(match shape.len() {
                // Vectors are read as F32 only.
                1 => vector(name, &stored.dtype.to_f32(stored.bytes)),
                _ => Tensor { name, shape, dtype: stored.dtype, bytes: Cow::Borrowed(stored.bytes), heads },
            });
        }
        if let RopeScaling::Llama3 { .. } = config.rope.scaling {
            let mut plain = config.clone();
            plain.rope.scaling = RopeScaling::None;
            let (plain, stretched) = (inverse_frequencies(&plain), inverse_frequencies(config));
            let divisors: Vec<f32> =
                plain.iter().zip(stretched).map(|(plain, stretched)| (plain / stretched) as f32).collect();
            tensors.push(vector("rope_freqs.weight".into(), &divisors));
        }
        let heads_per_kv = config.heads / kv_heads;
        let is_llama_70b = config.family == Family::Llama && config.layers == 80 && heads_per_kv > 1;
        let facts = Facts { layers: config.layers, heads_per_kv, experts: 0, is_llama_70b };
        Ok(Self { metadata, tensors, facts })
    }
}

fn vector(name: String, values: &[f32]) -> Tensor<'static> {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor { name, shape: vec![values.len()], dtype: DataType::F32, bytes: Cow::Owned(bytes), heads: None }
}

fn keys(config: &Config, kv_heads: usize, head_dim: usize) -> Result<Metadata> {
    let architecture = match config.family {
        Family::Llama => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        _ => return Err(unspeakable(config)),
    };
    let mut metadata = Metadata::default();
    metadata.set_text("general.architecture", architecture);
    metadata.set_text("general.type", "model");
    let key = |name: &str| format!("{architecture}.{name}");
    for (name, size) in [
        ("block_count", config.layers),
        ("context_length", config.max_positions),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", kv_heads),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        let size = u32::try_from(size);
        let size = size.map_err(|_| Error::new(format!("{name} is more than 32 bits hold, and GGUF has no more")))?;
        metadata.set_u32(&key(name), size);
    }
    metadata.set_f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    metadata.set_f32(&key("rope.freq_base"), config.rope.theta as f32);
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        metadata.set_text(&key("rope.scaling.type"), "linear");
        metadata.set_f32(&key("rope.scaling.factor"), factor as f32);
    }
    Ok(metadata)
}

fn unspeakable(config: &Config) -> Error {
    Error::new(format!(
        "models of the family {} are not written as GGUF; those of llama, qwen2 and qwen3 are",
        config.family.name()
    ))
}
