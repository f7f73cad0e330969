//! Llama's keys, and Mistral's where they mean the same model.

use serde_json::{Value, json};

use super::keys::Keys;
use super::{common, grouped};
use crate::config::{Attention, Config, Family};
use crate::error::{Error, Result};

pub(super) fn from_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("attention_bias", &json!(false))?;
    keys.only("mlp_bias", &json!(false))?;
    common(keys, Family::Llama, grouped(keys, None)?, false)
}

/// Mistral is Llama's arithmetic as long as no sequence outgrows its sliding window.
pub(super) fn from_mistral_json(keys: Keys<'_>) -> Result<Config> {
    let config = common(keys, Family::Llama, grouped(keys, Some(8))?, false)?;
    match keys.optional_size("sliding_window")? {
        Some(window) if window < config.max_positions => Err(Error::new(format!(
            "sliding_window is {window}, shorter than the {} of max_position_embeddings; sliding windows are not \
             supported",
            config.max_positions
        ))),
        _ => Ok(config),
    }
}

pub(super) fn to_json(config: &Config) -> Value {
    let mut json = json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "mlp_bias": false,
    });
    if let Attention::Grouped { kv_heads, head_dim, .. } = config.attention {
        super::extend(&mut json, json!({ "num_key_value_heads": kv_heads, "head_dim": head_dim }));
    }
    json
}
