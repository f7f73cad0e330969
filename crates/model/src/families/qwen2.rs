//! Qwen2's keys (Qwen2.5 has the same).

use serde_json::{Value, json};

use super::keys::Keys;
use super::{common, grouped};
use crate::config::{Attention, Config, Family};
use crate::error::{Error, Result};

pub(super) fn from_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("use_sliding_window", &json!(false))?;
    if let Some(Value::Array(kinds)) = keys.get("layer_types")
        && kinds.iter().any(|kind| kind != "full_attention")
    {
        return Err(Error::new("layer_types has a kind other than full_attention; sliding windows are not supported"));
    }
    common(keys, Family::Qwen2, grouped(keys, true, Some(32))?, false)
}

pub(super) fn to_json(config: &Config) -> Value {
    let mut json = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "use_sliding_window": false,
    });
    if let Attention::Grouped { kv_heads, head_dim, .. } = config.attention {
        super::extend(&mut json, json!({ "num_key_value_heads": kv_heads, "head_dim": head_dim }));
    }
    json
}
