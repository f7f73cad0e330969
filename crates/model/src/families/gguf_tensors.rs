//! What GGUF calls a model's tensors, and how it lays out those that it stores otherwise than Hugging Face, as llama.cpp's
//! converter writes them.

use crate::config::{Attention, Config, Family};
use crate::gguf::Gguf;

/// Where the numbers of a tensor lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a tensor of its own.
    Whole(String),
    /// In the rows of one expert of a tensor in which all experts are stacked.
    Expert { stack: String, expert: usize },
    /// Latent attention's `kv_b_proj` in two: heads of transposed key rows, and heads of value rows.
    KeysAndValues { keys: String, values: String },
}

/// Parts of a block: in Hugging Face files, and in GGUF.
const PARTS: [(&str, &str); 21] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

/// What GGUF calls a tensor that Hugging Face calls `name`, where each has one of its own.
pub(crate) fn tensor_name(name: &str) -> Option<String> {
    let whole = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.to_string());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if part == "mlp.gate.e_score_correction_bias" {
        return Some(format!("blk.{layer}.exp_probs_b.bias"));
    }
    let (part, kind) = part.rsplit_once('.')?;
    let (_, part) = PARTS.iter().find(|(theirs, _)| *theirs == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// What GGUF calls the tensor in which the experts of `name` are stacked, and which of them it is, if it is one's.
pub(crate) fn stack_name(name: &str) -> Option<(String, usize)> {
    let (layer, expert) = name.split_once(".mlp.experts.")?;
    let (expert, part) = expert.split_once('.')?;
    let part = part.strip_suffix("_proj.weight")?;
    Some((format!("blk.{}.ffn_{part}_exps.weight", layer.strip_prefix("model.layers.")?), expert.parse().ok()?))
}

/// Where `file` has the numbers of the tensor that Hugging Face calls `name`; the file may turn out not to have it.
pub(crate) fn place(file: &Gguf, name: &str) -> Option<Place> {
    if let Some((stack, expert)) = stack_name(name) {
        return Some(Place::Expert { stack, expert });
    }
    let whole = tensor_name(name)?;
    match whole.strip_suffix("attn_kv_b.weight") {
        // Converters before 2025 leave it whole.
        Some(block) if file.tensor(&whole).is_none() => Some(Place::KeysAndValues {
            keys: format!("{block}attn_k_b.weight"),
            values: format!("{block}attn_v_b.weight"),
        }),
        _ => Some(Place::Whole(whole)),
    }
}

/// The number of heads whose rows llama.cpp reorders in this tensor (Hugging Face's name), if it does.
///
/// llama.cpp rotates neighbouring elements where Hugging Face's Llama rotates halves, so its converter interleaves
/// the rows of each query and key head; Qwen's and DeepSeek's are left alone.
pub(crate) fn interleaved_heads(config: &Config, name: &str) -> Option<usize> {
    let Attention::Grouped { kv_heads, .. } = config.attention else { return None };
    match config.family {
        Family::Llama if name.ends_with("self_attn.q_proj.weight") => Some(config.heads),
        Family::Llama if name.ends_with("self_attn.k_proj.weight") => Some(kv_heads),
        _ => None,
    }
}

/// Where a row of heads in halves, `width` rows each, lies among interleaved ones.
pub(crate) fn interleaved_row(row: usize, width: usize) -> usize {
    let (head, at) = (row / width, row % width);
    head * width + at % (width / 2) * 2 + at / (width / 2)
}

/// Puts interleaved rows back in halves; `values` is `[heads, width / 2, 2, columns]` and becomes
/// `[heads, 2, width / 2, columns]`.
pub(crate) fn deinterleave_rows(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        out.extend_from_slice(&values[interleaved_row(row, rows / heads) * columns..][..columns]);
    }
    out
}

/// Puts `kv_b_proj` together: of each of `heads` heads, its key rows, then its value rows, of `latent` columns.
/// `keys` is `[heads, latent, nope_dim]`, `values` `[heads, value_dim, latent]`.
pub(crate) fn join_keys_and_values(keys: &[f32], values: &[f32], heads: usize, latent: usize) -> Vec<f32> {
    let (per_key, per_value) = (keys.len() / heads, values.len() / heads);
    let nope = per_key / latent;
    let mut out = Vec::with_capacity(keys.len() + values.len());
    for (keys, values) in keys.chunks_exact(per_key).zip(values.chunks_exact(per_value)) {
        for row in 0..nope {
            out.extend((0..latent).map(|column| keys[column * nope + row]));
        }
        out.extend_from_slice(values);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_have_llama_cpps_names() {
        for (theirs, ours) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.12.self_attn.k_proj.bias", "blk.12.attn_k.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("model.layers.3.mlp.gate.weight", "blk.3.ffn_gate_inp.weight"),
            ("model.layers.3.mlp.gate.e_score_correction_bias", "blk.3.exp_probs_b.bias"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(tensor_name(theirs).as_deref(), Some(ours));
        }
        assert_eq!(tensor_name("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
    }

    #[test]
    fn rows_go_back_to_halves() {
        // Two heads of width 4, one column; the converter wrote rows 0 2 1 3 of each head.
        let stored = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        assert_eq!(deinterleave_rows(&stored, 2, 8), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn keys_are_transposed_and_stand_before_values() {
        // Two heads of two key rows and one value row, three columns.
        let keys = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 11.0, 14.0, 12.0, 15.0, 13.0, 16.0];
        let values = [7.0, 8.0, 9.0, 17.0, 18.0, 19.0];
        let joined = join_keys_and_values(&keys, &values, 2, 3);
        assert_eq!(joined[..9], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(joined[9..], [11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0]);
    }
}
