//! DeepSeek-V3's keys (R1 has the same). Blocks past `num_hidden_layers` (multi-token prediction) are ignored.

use serde_json::{Value, json};

use super::common;
use super::keys::Keys;
use crate::config::{Attention, Config, Experts, Family};
use crate::error::Result;

pub(super) fn from_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("attention_bias", &json!(false))?;
    keys.only("scoring_func", &json!("sigmoid"))?;
    keys.only("topk_method", &json!("noaux_tc"))?;
    keys.only("moe_layer_freq", &json!(1))?;
    // Latent attention has one latent for all heads; transformers repeats keys otherwise.
    keys.only("num_key_value_heads", &json!(keys.size("num_attention_heads")?))?;
    let attention = Attention::Latent {
        q_lora_rank: keys.optional_size("q_lora_rank")?,
        kv_lora_rank: keys.size("kv_lora_rank")?,
        nope_dim: keys.size("qk_nope_head_dim")?,
        rope_dim: keys.size("qk_rope_head_dim")?,
        value_dim: keys.size("v_head_dim")?,
    };
    let mut config = common(keys, Family::DeepseekV3, attention, keys.flag_or("rope_interleave", true)?)?;
    config.experts = Some(Experts {
        routed: keys.size("n_routed_experts")?,
        per_token: keys.size("num_experts_per_tok")?,
        shared: keys.size("n_shared_experts")?,
        intermediate_size: keys.size("moe_intermediate_size")?,
        first_dense: keys.size("first_k_dense_replace")?,
        groups: keys.size("n_group")?,
        groups_per_token: keys.size("topk_group")?,
        normalize: keys.flag_or("norm_topk_prob", true)?,
        scaling: keys.number("routed_scaling_factor")? as f32,
    });
    Ok(config)
}

pub(super) fn to_json(config: &Config) -> Value {
    let mut json = json!({
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_key_value_heads": config.heads,
        "attention_bias": false,
        "rope_interleave": config.rope.interleaved,
        "num_nextn_predict_layers": 0,
    });
    if let Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } = config.attention {
        super::extend(
            &mut json,
            json!({
                "q_lora_rank": q_lora_rank,
                "kv_lora_rank": kv_lora_rank,
                "qk_nope_head_dim": nope_dim,
                "qk_rope_head_dim": rope_dim,
                "v_head_dim": value_dim,
            }),
        );
    }
    // A model without a mixture is one whose blocks are all dense; the family has no other word for it.
    let dense = Experts {
        routed: 2,
        per_token: 1,
        shared: 1,
        intermediate_size: config.intermediate_size,
        first_dense: config.layers,
        groups: 1,
        groups_per_token: 1,
        normalize: true,
        scaling: 1.0,
    };
    let experts = config.experts.as_ref().unwrap_or(&dense);
    super::extend(
        &mut json,
        json!({
            "n_routed_experts": experts.routed,
            "num_experts_per_tok": experts.per_token,
            "n_shared_experts": experts.shared,
            "moe_intermediate_size": experts.intermediate_size,
            "first_k_dense_replace": experts.first_dense,
            "n_group": experts.groups,
            "topk_group": experts.groups_per_token,
            "norm_topk_prob": experts.normalize,
            "routed_scaling_factor": super::shortest(experts.scaling),
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "moe_layer_freq": 1,
        }),
    );
    json
}
