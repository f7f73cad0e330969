//! Families of published models: each file here translates its family's configuration keys, and this one the names of
//! tensors. What a model computes is in [`crate::transformer`], the same for all.

mod deepseek_v3;
pub(crate) mod gguf;
mod gguf_export;
mod keys;
mod llama;
mod qwen2;

use serde_json::{Value, json};

use crate::config::{Attention, Config, Family, Rope, RopeScaling};
use crate::error::{Error, Result, quoted};
use keys::Keys;

pub use gguf::config_from_gguf;

/// Model types that load, as `config.json` writes them.
const MODEL_TYPES: &str = "llama, mistral, qwen2 and deepseek_v3";

/// Reads a `config.json`, as transformers 4 or 5 writes it.
///
/// # Errors
/// The first key that is missing, can't be, or asks for something that isn't supported.
pub fn config_from_json(json: &Value) -> Result<Config> {
    let keys = Keys::new(json)?;
    if let Some(quantization) = keys.object("quantization_config", "quantization_config.")? {
        let method = quantization.word("quant_method")?.unwrap_or("unknown");
        return Err(Error::new(format!(
            "quantization_config says that the weights are quantised by {}; use the model in bf16, or as GGUF",
            quoted(method)
        )));
    }
    let config = match keys.word("model_type")? {
        Some("llama") => llama::from_json(keys),
        Some("mistral") => llama::from_mistral_json(keys),
        Some("qwen2") => qwen2::from_json(keys),
        Some("deepseek_v3") => deepseek_v3::from_json(keys),
        Some(other) => {
            Err(Error::new(format!("model_type is {}; the families that load are {MODEL_TYPES}", quoted(other))))
        }
        None => Err(Error::new(format!("model_type is missing; the families that load are {MODEL_TYPES}"))),
    }?;
    config.validate()?;
    Ok(config)
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
        Family::Qwen2 => qwen2::to_json(config),
        Family::DeepseekV3 => deepseek_v3::to_json(config),
    };
    extend(&mut json, family);
    extend(&mut json, rope_to_json(&config.rope));
    json
}

/// Every tensor that a model of this configuration has: its name in Hugging Face files and its row-major shape.
pub fn tensor_shapes(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let head = (!config.tied_embeddings).then(|| ("lm_head.weight".to_string(), vec![config.vocab_size, hidden]));
    [("model.embed_tokens.weight".to_string(), vec![config.vocab_size, hidden])]
        .into_iter()
        .chain((0..config.layers).flat_map(move |layer| {
            let mut names = Names { prefix: format!("model.layers.{layer}."), tensors: Vec::new() };
            names.push("input_layernorm.weight", [hidden]);
            attention_shapes(config, &mut names);
            names.push("post_attention_layernorm.weight", [hidden]);
            feed_forward_shapes(config, layer, &mut names);
            names.tensors
        }))
        .chain([("model.norm.weight".to_string(), vec![hidden])])
        .chain(head)
}

/// Tensors of one block, under its prefix.
struct Names {
    prefix: String,
    tensors: Vec<(String, Vec<usize>)>,
}

impl Names {
    fn push<const N: usize>(&mut self, name: &str, shape: [usize; N]) {
        self.tensors.push((format!("{}{name}", self.prefix), shape.to_vec()));
    }
}

fn attention_shapes(config: &Config, names: &mut Names) {
    let (hidden, heads) = (config.hidden_size, config.heads);
    match config.attention {
        Attention::Grouped { kv_heads, head_dim, bias } => {
            for (name, heads) in [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)] {
                names.push(&format!("self_attn.{name}.weight"), [heads * head_dim, hidden]);
                if bias {
                    names.push(&format!("self_attn.{name}.bias"), [heads * head_dim]);
                }
            }
            names.push("self_attn.o_proj.weight", [hidden, heads * head_dim]);
        }
        Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
            let queries = heads * (nope_dim + rope_dim);
            match q_lora_rank {
                None => names.push("self_attn.q_proj.weight", [queries, hidden]),
                Some(rank) => {
                    names.push("self_attn.q_a_proj.weight", [rank, hidden]);
                    names.push("self_attn.q_a_layernorm.weight", [rank]);
                    names.push("self_attn.q_b_proj.weight", [queries, rank]);
                }
            }
            names.push("self_attn.kv_a_proj_with_mqa.weight", [kv_lora_rank + rope_dim, hidden]);
            names.push("self_attn.kv_a_layernorm.weight", [kv_lora_rank]);
            names.push("self_attn.kv_b_proj.weight", [heads * (nope_dim + value_dim), kv_lora_rank]);
            names.push("self_attn.o_proj.weight", [hidden, heads * value_dim]);
        }
    }
}

fn feed_forward_shapes(config: &Config, layer: usize, names: &mut Names) {
    let hidden = config.hidden_size;
    let mut gated = |prefix: &str, width: usize| {
        names.push(&format!("{prefix}.gate_proj.weight"), [width, hidden]);
        names.push(&format!("{prefix}.up_proj.weight"), [width, hidden]);
        names.push(&format!("{prefix}.down_proj.weight"), [hidden, width]);
    };
    match &config.experts {
        Some(experts) if layer >= experts.first_dense => {
            for expert in 0..experts.routed {
                gated(&format!("mlp.experts.{expert}"), experts.intermediate_size);
            }
            gated("mlp.shared_experts", experts.shared * experts.intermediate_size);
            names.push("mlp.gate.weight", [experts.routed, hidden]);
            names.push("mlp.gate.e_score_correction_bias", [experts.routed]);
        }
        _ => gated("mlp", config.intermediate_size),
    }
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
        rope: rope_from_json(keys, interleaved)?,
        norm_eps: keys.number_or("rms_norm_eps", 1e-6)? as f32,
        tied_embeddings: keys.flag_or("tie_word_embeddings", false)?,
        max_positions: keys.size("max_position_embeddings")?,
    })
}

/// Grouped-query attention's keys; `default_kv_heads` as in the family's class in transformers.
fn grouped(keys: Keys<'_>, bias: bool, default_kv_heads: Option<usize>) -> Result<Attention> {
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
    Ok(Attention::Grouped { kv_heads, head_dim, bias })
}

/// Rotary keys: transformers 5 nests them in `rope_parameters`; 4 has `rope_theta`, and `rope_scaling` beside it.
/// Where both are written, `rope_scaling` wins over `rope_parameters`, as in transformers 5.
fn rope_from_json(keys: Keys<'_>, interleaved: bool) -> Result<Rope> {
    let scaling = match keys.object("rope_scaling", "rope_scaling.")? {
        Some(scaling) => Some(scaling),
        None => keys.object("rope_parameters", "rope_parameters.")?,
    };
    let outer_theta = keys.number_or("rope_theta", 10_000.0)?;
    whole_heads(keys)?;
    let Some(scaling) = scaling else {
        return Ok(Rope { theta: outer_theta, interleaved, scaling: RopeScaling::None });
    };
    whole_heads(scaling)?;
    let theta = scaling.number_or("rope_theta", outer_theta)?;
    let kind = match scaling.word("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.word("type")?,
    };
    let scaling = match kind {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: scaling.number("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: scaling.number("factor")?,
            low_freq_factor: scaling.number("low_freq_factor")?,
            high_freq_factor: scaling.number("high_freq_factor")?,
            original_max_positions: match scaling.optional_size("original_max_position_embeddings")? {
                Some(positions) => positions,
                None => keys.size("max_position_embeddings")?,
            },
        },
        Some(other) => {
            return Err(Error::new(format!(
                "rope_scaling has the type {}; the types that load are default, linear and llama3",
                quoted(other)
            )));
        }
    };
    Ok(Rope { theta, interleaved, scaling })
}

/// Refuses rotary positions on a part of each head only.
fn whole_heads(keys: Keys<'_>) -> Result<()> {
    match keys.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        part => Err(Error::new(format!("partial_rotary_factor is {part}; only whole heads (1) are supported"))),
    }
}

fn rope_to_json(rope: &Rope) -> Value {
    let scaling = match rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
    };
    let mut parameters = if scaling.is_null() { json!({ "rope_type": "default" }) } else { scaling.clone() };
    extend(&mut parameters, json!({ "rope_theta": rope.theta }));
    json!({ "rope_theta": rope.theta, "rope_scaling": scaling, "rope_parameters": parameters })
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
