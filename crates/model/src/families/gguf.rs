//! What GGUF calls a family's keys and tensors, as llama.cpp's converter writes them.

use std::f64::consts::TAU;

use crate::config::{Attention, Config, Family, Rope, RopeScaling};
use crate::error::{Error, Result, quoted};
use crate::gguf::Gguf;

/// Reads the configuration from a GGUF file's metadata, and from its tensors what the metadata leaves out.
///
/// # Errors
/// The first key that is missing, can't be, or asks for something that isn't supported.
pub fn config_from_gguf(file: &Gguf) -> Result<Config> {
    let architecture = file.text("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
    if let Some(parts @ 2..) = file.size("split.count")? {
        return Err(Error::new(format!("split.count is {parts}; merge the parts with llama-gguf-split first")));
    }
    let (family, bias) = match architecture {
        "llama" => (Family::Llama, false),
        "qwen2" => (Family::Qwen2, true),
        other => {
            return Err(Error::new(format!(
                "general.architecture is {}; the ones that load from GGUF are llama and qwen2",
                quoted(other)
            )));
        }
    };
    let config = Keys { file, architecture }.config(family, bias)?;
    config.validate().map_err(|e| e.at("the metadata, in config.json's words"))?;
    Ok(config)
}

/// What GGUF calls a tensor that Hugging Face calls `name`.
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
    let (part, kind) = part.rsplit_once('.')?;
    let (_, part) = PARTS.iter().find(|(theirs, _)| *theirs == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// Parts of a block: in Hugging Face files, and in GGUF.
const PARTS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Hugging Face's name of the tensor that GGUF calls `name`, if it is one of a model's weights.
pub(crate) fn tensor_name_in_hugging_face(name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.to_string());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let (part, _) = PARTS.iter().find(|(_, ours)| *ours == part)?;
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// The number of heads whose rows llama.cpp reorders in this tensor (Hugging Face's name), if it does.
///
/// llama.cpp rotates neighbouring elements where Hugging Face's Llama rotates halves, so its converter interleaves
/// the rows of each query and key head; Qwen2's are left alone.
pub(crate) fn interleaved_heads(config: &Config, name: &str) -> Option<usize> {
    let Attention::Grouped { kv_heads, .. } = config.attention else { return None };
    match config.family {
        Family::Llama if name.ends_with("self_attn.q_proj.weight") => Some(config.heads),
        Family::Llama if name.ends_with("self_attn.k_proj.weight") => Some(kv_heads),
        _ => None,
    }
}

/// Puts interleaved rows back in halves; `values` is `[heads, width / 2, 2, columns]` and becomes
/// `[heads, 2, width / 2, columns]`.
pub(crate) fn deinterleave_rows(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let width = rows / heads;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for half in 0..2 {
            for i in 0..width / 2 {
                let row = head * width + 2 * i + half;
                out.extend_from_slice(&values[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}

/// The keys of one architecture.
struct Keys<'a> {
    file: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        self.file.size(&self.key(name))
    }

    fn size(&self, name: &str) -> Result<usize> {
        self.optional_size(name)?.ok_or_else(|| missing(&self.key(name)))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.file.number(&self.key(name))
    }

    fn config(&self, family: Family, bias: bool) -> Result<Config> {
        if let Some(experts @ 1..) = self.optional_size("expert_count")? {
            return Err(Error::new(format!(
                "{} is {experts}; mixtures load from Hugging Face files only",
                self.key("expert_count")
            )));
        }
        let max_positions = self.size("context_length")?;
        if let Some(window @ 1..) = self.optional_size("attention.sliding_window")?
            && window < max_positions
        {
            return Err(Error::new(format!(
                "{} is {window}; sliding windows are not supported",
                self.key("attention.sliding_window")
            )));
        }
        if !bias && self.file.tensor("blk.0.attn_q.bias").is_some() {
            return Err(Error::new("tensor blk.0.attn_q.bias is there, but biases are only supported in qwen2"));
        }
        let hidden_size = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let head_dim = match self.optional_size("attention.key_length")? {
            Some(width) => width,
            None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(Error::new(format!(
                    "{} is {heads}, which does not divide the {hidden_size} of {}",
                    self.key("attention.head_count"),
                    self.key("embedding_length")
                )));
            }
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(width) = self.optional_size(name)?
                && width != head_dim
            {
                return Err(Error::new(format!(
                    "{} is {width}, but only the {head_dim} of a whole head is supported",
                    self.key(name)
                )));
            }
        }
        let table =
            self.file.tensor("token_embd.weight").ok_or_else(|| Error::new("tensor token_embd.weight is missing"))?;
        Ok(Config {
            family,
            // The metadata's own count is optional, and the table is what ids index.
            vocab_size: table.shape[0],
            hidden_size,
            layers: self.size("block_count")?,
            heads,
            attention: Attention::Grouped {
                kv_heads: self.optional_size("attention.head_count_kv")?.unwrap_or(heads),
                head_dim,
                bias,
                head_norm: false,
            },
            intermediate_size: self.size("feed_forward_length")?,
            experts: None,
            rope: self.rope(head_dim)?,
            norm_eps: self
                .number("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| missing(&self.key("attention.layer_norm_rms_epsilon")))? as f32,
            tied_embeddings: self.file.tensor("output.weight").is_none(),
            max_positions,
        })
    }

    fn rope(&self, head_dim: usize) -> Result<Rope> {
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let kind = self.key("rope.scaling.type");
        let mut scaling = match (self.file.text(&kind)?, self.number("rope.scaling.factor")?) {
            (None | Some("none"), None) => RopeScaling::None,
            (Some("none"), Some(_)) => RopeScaling::None,
            (None | Some("linear"), Some(1.0)) => RopeScaling::None,
            (None | Some("linear"), Some(factor)) => RopeScaling::Linear { factor },
            (Some("linear"), None) => return Err(missing(&self.key("rope.scaling.factor"))),
            (Some(other), _) => {
                return Err(Error::new(format!(
                    "{kind} is {}; the types that load are none and linear",
                    quoted(other)
                )));
            }
        };
        if let Some(tensor) = self.file.tensor("rope_freqs.weight") {
            let divisors = tensor.dtype.map(|dtype| dtype.to_f32(self.file.bytes(tensor))).unwrap_or_default();
            scaling = llama3_scaling(&divisors, theta, head_dim).ok_or_else(|| {
                Error::new("tensor rope_freqs.weight does not stretch wavelengths as Llama 3.1 does; nothing else is supported")
            })?;
        }
        Ok(Rope { theta, interleaved: false, scaling })
    }
}

/// Llama 3.1's rule, which converters write as the divisors it comes to: the factor is the largest, and the rest of
/// the rule is the one that all of Meta's models have. `None` where the divisors are not what it comes to.
fn llama3_scaling(divisors: &[f32], theta: f64, head_dim: usize) -> Option<RopeScaling> {
    let factor = divisors.iter().copied().reduce(f32::max)? as f64;
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let expected = |pair: usize| {
        let wavelength = TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let agrees = divisors.len() == head_dim / 2
        && divisors.iter().enumerate().all(|(i, &x)| (x as f64 - expected(i)).abs() <= 1e-4 * expected(i));
    agrees.then_some(RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_positions: original as usize,
    })
}

fn missing(key: &str) -> Error {
    Error::new(format!("{key} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (theirs, ours) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.12.self_attn.k_proj.bias", "blk.12.attn_k.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(tensor_name(theirs).as_deref(), Some(ours));
            assert_eq!(tensor_name_in_hugging_face(ours).as_deref(), Some(theirs));
        }
        assert_eq!(tensor_name("model.layers.0.mlp.gate.weight"), None);
        assert_eq!(tensor_name_in_hugging_face("rope_freqs.weight"), None);
    }

    #[test]
    fn rows_go_back_to_halves() {
        // Two heads of width 4, one column; the converter wrote rows 0 2 1 3 of each head.
        let stored = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        assert_eq!(deinterleave_rows(&stored, 2, 8), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn only_llama_3_1_divisors_are_understood() {
        let divisors: Vec<f32> = (0..32)
            .map(|i| {
                let wavelength = TAU * 500_000f64.powf(i as f64 / 32.0);
                let smooth = ((8192.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
                (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
            })
            .collect();
        let scaling = llama3_scaling(&divisors, 500_000.0, 64);
        assert!(matches!(scaling, Some(RopeScaling::Llama3 { factor: 32.0, .. })), "{scaling:?}");
        assert_eq!(llama3_scaling(&divisors, 10_000.0, 64), None);
        assert_eq!(llama3_scaling(&divisors[1..], 500_000.0, 64), None);
        assert_eq!(llama3_scaling(&[], 500_000.0, 64), None);
    }
}
