//! Qwen's keys: Qwen2 (Qwen2.5 has the same), Qwen3, and Qwen3's mixtures of experts.

use minke_kernels::router::Scoring;
use serde_json::{Value, json};

use super::keys::Keys;
use super::{common, extend, grouped};
use crate::config::{Attention, Config, Experts, Family};
use crate::error::{Error, Result};

pub(super) fn from_qwen2_json(keys: Keys<'_>) -> Result<Config> {
    no_windows(keys)?;
    let mut config = common(keys, Family::Qwen2, grouped(keys, Some(32))?, false)?;
    if let Attention::Grouped { bias, .. } = &mut config.attention {
        *bias = true;
    }
    Ok(config)
}

pub(super) fn from_qwen3_json(keys: Keys<'_>) -> Result<Config> {
    no_windows(keys)?;
    keys.only("attention_bias", &json!(false))?;
    let mut config = common(keys, Family::Qwen3, grouped(keys, Some(32))?, false)?;
    if let Attention::Grouped { head_norm, .. } = &mut config.attention {
        *head_norm = true;
    }
    Ok(config)
}

pub(super) fn from_qwen3_moe_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("decoder_sparse_step", &json!(1))?;
    match keys.get("mlp_only_layers") {
        None => {}
        Some(Value::Array(layers)) if layers.is_empty() => {}
        Some(_) => return Err(Error::new("mlp_only_layers names blocks without experts, which is not supported")),
    }
    let mut config = Config { family: Family::Qwen3Moe, ..from_qwen3_json(keys)? };
    let routed = match keys.optional_size("num_experts")? {
        Some(experts) => experts,
        // What transformers 5 writes.
        None => keys.size("num_local_experts")?,
    };
    config.experts = Some(Experts {
        routed,
        per_token: keys.size("num_experts_per_tok")?,
        shared: 0,
        intermediate_size: keys.size("moe_intermediate_size")?,
        first_dense: 0,
        scoring: Scoring::Softmax,
        groups: 1,
        groups_per_token: 1,
        normalize: keys.flag_or("norm_topk_prob", false)?,
        scaling: 1.0,
    });
    Ok(config)
}

fn no_windows(keys: Keys<'_>) -> Result<()> {
    keys.only("use_sliding_window", &json!(false))?;
    match keys.get("layer_types") {
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind != "full_attention") => {
            Err(Error::new("layer_types has a kind other than full_attention; sliding windows are not supported"))
        }
        _ => Ok(()),
    }
}

pub(super) fn to_json(config: &Config) -> Value {
    let architecture = match config.family {
        Family::Qwen3Moe => "Qwen3MoeForCausalLM",
        Family::Qwen3 => "Qwen3ForCausalLM",
        _ => "Qwen2ForCausalLM",
    };
    let mut json = json!({ "architectures": [architecture], "use_sliding_window": false });
    if let Attention::Grouped { kv_heads, head_dim, head_norm, .. } = config.attention {
        extend(&mut json, json!({ "num_key_value_heads": kv_heads, "head_dim": head_dim }));
        if head_norm {
            extend(&mut json, json!({ "attention_bias": false }));
        }
    }
    if let Some(experts) = &config.experts {
        extend(
            &mut json,
            json!({
                "num_experts": experts.routed,
                "num_experts_per_tok": experts.per_token,
                "moe_intermediate_size": experts.intermediate_size,
                "norm_topk_prob": experts.normalize,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }),
        );
    }
    json
}
