//! Families of published models: each file here translates its family's configuration keys, and this one the names of
//! tensors. What a model computes is in [`crate::transformer`], the same for all.

mod deepseek;
pub(crate) mod gguf;
mod gguf_export;
pub(crate) mod gguf_tensors;
mod keys;
mod llama;
mod qwen;
mod rope;

use serde_json::{Value, json};

use crate::config::{Attention, Config, Family};
use crate::error::{Error, Result, quoted};
use keys::Keys;

pub use gguf::config_from_gguf;

pub use crate::parameters::tensor_shapes;

/// Model types that load, as `config.json` writes them.
const MODEL_TYPES: &str = "llama, mistral, qwen2, qwen3, qwen3_moe, deepseek_v2 and deepseek_v3";

/// Reads a `config.json`, as transformers 4 or 5 writes it.
///
/// # Errors
/// The first key that is missing, can't be, or asks for something that isn't supported.
pub fn config_from_json(json: &Value) -> Result<Config> {
    let keys = Keys::new(json)?;
    let config = match keys.word("model_type")? {
        Some("llama") => llama::from_json(keys),
        Some("mistral") => llama::from_mistral_json(keys),
        Some("qwen2") => qwen::from_qwen2_json(keys),
        Some("qwen3") => qwen::from_qwen3_json(keys),
        Some("qwen3_moe") => qwen::from_qwen3_moe_json(keys),
        Some("deepseek_v2") => deepseek::from_v2_json(keys),
        Some("deepseek_v3") => deepseek::from_v3_json(keys),
        Some(other) => {
            Err(Error::new(format!("model_type is {}; the families that load are {MODEL_TYPES}", quoted(other))))
        }
        None => Err(Error::new(format!("model_type is missing; the families that load are {MODEL_TYPES}"))),
    }?;
    config.validate()?;
    Ok(config)
}

/// The rows and columns of a block of FP8 weights that share a factor, where `config.json` says that there are any.
///
/// # Errors
/// When the weights are quantised in another way.
pub(crate) fn fp8_block(json: &Value) -> Result<Option<[usize; 2]>> {
    let Some(quantization) = Keys::new(json)?.object("quantization_config", "quantization_config.")? else {
        return Ok(None);
    };
    match quantization.word("quant_method")? {
        Some("fp8") => {}
        method => {
            return Err(Error::new(format!(
                "quantization_config says that the weights are quantised by {}; use the model in bf16, or as GGUF",
                quoted(method.unwrap_or("unknown"))
            )));
        }
    }
    quantization.only("fmt", &json!("e4m3"))?;
    let block = quantization.get("weight_block_size").and_then(Value::as_array);
    let sides: Vec<_> = block.into_iter().flatten().filter_map(Value::as_u64).collect();
    match sides[..] {
        // A side is bounded so that it fits this machine's numbers.
        [rows @ 1..=0xffff, columns @ 1..=0xffff] => Ok(Some([rows as usize, columns as usize])),
        _ => Err(Error::new(
            "quantization_config.weight_block_size is not a pair of sizes; other kinds of fp8 are not supported",
        )),
    }
}

/// Writes the `config.json` that transformers 4 and 5 both read: the rotary keys in the words of each.
pub fn config_to_json(config: &Config) -> Value {
    let mut json = json!({
        "model_type": config.family.name(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": shortest(config.norm_eps),
        "tie_word_embeddings": config.tied_embeddings,
    });
    let family = match config.family {
        Family::Llama => llama::to_json(config),
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => qwen::to_json(config),
        Family::DeepseekV2 | Family::DeepseekV3 => deepseek::to_json(config),
    };
    extend(&mut json, family);
    extend(&mut json, rope::to_json(&config.rope));
    json
}

/// Reads the keys that all families share; `attention` is the family's own.
fn common(keys: Keys<'_>, family: Family, attention: Attention, interleaved: bool) -> Result<Config> {
    keys.only("hidden_act", &json!("silu"))?;
    Ok(Config {
        family,
        vocab_size: keys.size("vocab_size")?,
        hidden_size: keys.size("hidden_size")?,
        layers: keys.size("num_hidden_layers")?,
        heads: keys.size("num_attention_heads")?,
        attention,
        intermediate_size: keys.size("intermediate_size")?,
        experts: None,
        rope: rope::from_json(keys, interleaved)?,
        norm_eps: keys.number_or("rms_norm_eps", 1e-6)? as f32,
        tied_embeddings: keys.flag_or("tie_word_embeddings", false)?,
        predictions: 0,
        max_positions: keys.size("max_position_embeddings")?,
    })
}

/// Grouped-query attention's keys, without biases and norms; `default_kv_heads` as in the family's class in transformers.
fn grouped(keys: Keys<'_>, default_kv_heads: Option<usize>) -> Result<Attention> {
    let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
    let head_dim = match keys.optional_size("head_dim")? {
        Some(width) => width,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(Error::new(format!(
                "num_attention_heads is {heads}, which does not divide the {hidden} of hidden_size, and head_dim is \
                 missing"
            )));
        }
    };
    let kv_heads = keys.size_or("num_key_value_heads", default_kv_heads.unwrap_or(heads))?;
    Ok(Attention::Grouped { kv_heads, head_dim, bias: false, head_norm: false })
}

/// The shortest decimal that reads back as `x`, as a JSON number (1e-5, not 9.999999747378752e-6).
fn shortest(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Adds the keys of `more` to those of `json`; both are objects.
fn extend(json: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(from)) = (json, more) {
        into.extend(from);
    }
}
