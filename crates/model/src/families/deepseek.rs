//! DeepSeek's keys: V2 (V2-Lite and V2.5 have the same) and V3 (R1 has the same).

use minke_kernels::router::Scoring;
use serde_json::{Value, json};

use super::keys::Keys;
use super::{common, extend, shortest};
use crate::config::{Attention, Config, Experts, Family};
use crate::error::{Error, Result, quoted};

pub(super) fn from_v2_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("mlp_bias", &json!(false))?;
    keys.only("scoring_func", &json!("softmax"))?;
    let (groups, groups_per_token) = match keys.word("topk_method")? {
        None | Some("greedy") => (1, 1),
        Some("group_limited_greedy") => (keys.size("n_group")?, keys.size("topk_group")?),
        Some(other) => {
            return Err(Error::new(format!(
                "topk_method is {}; DeepSeek-V2's are greedy and group_limited_greedy",
                quoted(other)
            )));
        }
    };
    let experts = Experts {
        groups,
        groups_per_token,
        shared: keys.size_or("n_shared_experts", 0)?,
        normalize: keys.flag_or("norm_topk_prob", false)?,
        scaling: keys.number_or("routed_scaling_factor", 1.0)? as f32,
        ..experts(keys, Scoring::Softmax)?
    };
    latent(keys, Family::DeepseekV2, true, experts)
}

pub(super) fn from_v3_json(keys: Keys<'_>) -> Result<Config> {
    keys.only("scoring_func", &json!("sigmoid"))?;
    keys.only("topk_method", &json!("noaux_tc"))?;
    let experts = Experts {
        groups: keys.size("n_group")?,
        groups_per_token: keys.size("topk_group")?,
        shared: keys.size("n_shared_experts")?,
        normalize: keys.flag_or("norm_topk_prob", true)?,
        scaling: keys.number("routed_scaling_factor")? as f32,
        ..experts(keys, Scoring::Sigmoid)?
    };
    let config = latent(keys, Family::DeepseekV3, keys.flag_or("rope_interleave", true)?, experts)?;
    Ok(Config { predictions: keys.size_or("num_nextn_predict_layers", 0)?, ..config })
}

/// What both versions say of their experts in the same words.
fn experts(keys: Keys<'_>, scoring: Scoring) -> Result<Experts> {
    keys.only("moe_layer_freq", &json!(1))?;
    Ok(Experts {
        routed: keys.size("n_routed_experts")?,
        per_token: keys.size("num_experts_per_tok")?,
        shared: 0,
        intermediate_size: keys.size("moe_intermediate_size")?,
        first_dense: keys.size("first_k_dense_replace")?,
        scoring,
        groups: 1,
        groups_per_token: 1,
        normalize: false,
        scaling: 1.0,
    })
}

fn latent(keys: Keys<'_>, family: Family, interleaved: bool, experts: Experts) -> Result<Config> {
    keys.only("attention_bias", &json!(false))?;
    // Latent attention has one latent for all heads; transformers repeats keys otherwise.
    keys.only("num_key_value_heads", &json!(keys.size("num_attention_heads")?))?;
    let attention = Attention::Latent {
        q_lora_rank: keys.optional_size("q_lora_rank")?,
        kv_lora_rank: keys.size("kv_lora_rank")?,
        nope_dim: keys.size("qk_nope_head_dim")?,
        rope_dim: keys.size("qk_rope_head_dim")?,
        value_dim: keys.size("v_head_dim")?,
    };
    let config = common(keys, family, attention, interleaved)?;
    Ok(Config { experts: Some(experts), ..config })
}

pub(super) fn to_json(config: &Config) -> Value {
    let v2 = config.family == Family::DeepseekV2;
    let mut json = json!({
        "architectures": [if v2 { "DeepseekV2ForCausalLM" } else { "DeepseekV3ForCausalLM" }],
        "num_key_value_heads": config.heads,
        "attention_bias": false,
    });
    if v2 {
        extend(&mut json, json!({ "mlp_bias": false }));
    } else {
        let (interleave, predictions) = (config.rope.interleaved, config.predictions);
        extend(&mut json, json!({ "rope_interleave": interleave, "num_nextn_predict_layers": predictions }));
    }
    if let Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } = config.attention {
        extend(
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
        scoring: if v2 { Scoring::Softmax } else { Scoring::Sigmoid },
        groups: 1,
        groups_per_token: 1,
        normalize: true,
        scaling: 1.0,
    };
    let experts = config.experts.as_ref().unwrap_or(&dense);
    let (scoring, method) = match (experts.scoring, experts.groups) {
        (Scoring::Sigmoid, _) => ("sigmoid", "noaux_tc"),
        (Scoring::Softmax, 1) => ("softmax", "greedy"),
        (Scoring::Softmax, _) => ("softmax", "group_limited_greedy"),
    };
    extend(
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
            "routed_scaling_factor": shortest(experts.scaling),
            "scoring_func": scoring,
            "topk_method": method,
            "moe_layer_freq": 1,
        }),
    );
    json
}
