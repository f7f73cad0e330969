//! What GGUF calls a family's keys, as llama.cpp's converter writes them.

use std::f64::consts::TAU;

use minke_kernels::router::Scoring;

use crate::config::{Attention, Config, Experts, Family, Rope, RopeScaling, Yarn};
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
    let keys = Keys { file, architecture };
    let config = match architecture {
        "llama" => keys.grouped(Family::Llama),
        "qwen2" => keys.grouped(Family::Qwen2),
        "qwen3" => keys.grouped(Family::Qwen3),
        "qwen3moe" => keys.grouped(Family::Qwen3Moe),
        "deepseek2" => keys.latent(),
        other => Err(Error::new(format!(
            "general.architecture is {}; the ones that load from GGUF are llama, qwen2, qwen3, qwen3moe and deepseek2",
            quoted(other)
        ))),
    }?;
    config.validate().map_err(|e| e.at("the metadata, in config.json's words"))?;
    Ok(config)
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

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.file.flag(&self.key(name))
    }

    /// What all architectures share; `head_dim` is the width that rotary positions turn.
    fn common(&self, family: Family, attention: Attention, head_dim: usize) -> Result<Config> {
        let max_positions = self.size("context_length")?;
        if let Some(window @ 1..) = self.optional_size("attention.sliding_window")?
            && window < max_positions
        {
            return Err(Error::new(format!(
                "{} is {window}; sliding windows are not supported",
                self.key("attention.sliding_window")
            )));
        }
        let table =
            self.file.tensor("token_embd.weight").ok_or_else(|| Error::new("tensor token_embd.weight is missing"))?;
        // Blocks for multi-token prediction come last.
        let predicting = self.optional_size("nextn_predict_layers")?.unwrap_or(0);
        Ok(Config {
            family,
            // The metadata's own count is optional, and the table is what ids index.
            vocab_size: table.shape[0],
            hidden_size: self.size("embedding_length")?,
            layers: self.size("block_count")?.saturating_sub(predicting),
            heads: self.size("attention.head_count")?,
            attention,
            intermediate_size: self.size("feed_forward_length")?,
            experts: None,
            rope: self.rope(head_dim)?,
            norm_eps: self
                .number("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| missing(&self.key("attention.layer_norm_rms_epsilon")))? as f32,
            tied_embeddings: self.file.tensor("output.weight").is_none(),
            predictions: 0,
            max_positions,
        })
    }

    fn grouped(&self, family: Family) -> Result<Config> {
        let (bias, head_norm) = (family == Family::Qwen2, matches!(family, Family::Qwen3 | Family::Qwen3Moe));
        if !bias && self.file.tensor("blk.0.attn_q.bias").is_some() {
            return Err(Error::new("tensor blk.0.attn_q.bias is there, but biases are only supported in qwen2"));
        }
        let (hidden_size, heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
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
        let kv_heads = self.optional_size("attention.head_count_kv")?.unwrap_or(heads);
        let attention = Attention::Grouped { kv_heads, head_dim, bias, head_norm };
        let mut config = self.common(family, attention, head_dim)?;
        match self.optional_size("expert_count")? {
            Some(experts @ 1..) if family != Family::Qwen3Moe => Err(Error::new(format!(
                "{} is {experts}; mixtures load from the architectures qwen3moe and deepseek2",
                self.key("expert_count")
            ))),
            _ if family != Family::Qwen3Moe => Ok(config),
            _ => {
                // The architecture implies that chosen weights are divided by their sum.
                config.experts = Some(Experts { normalize: true, ..self.experts(Scoring::Softmax)? });
                Ok(config)
            }
        }
    }

    /// Latent attention. Converters of 2025 and later write it as one head of keys and values, and a head's own widths
    /// under `_mla`.
    fn latent(&self) -> Result<Config> {
        let rope_dim = self.size("rope.dimension_count")?;
        let width = |name: &str| match self.optional_size(&format!("attention.{name}_mla"))? {
            Some(width) => Ok(width),
            None => self.size(&format!("attention.{name}")),
        };
        let key = width("key_length")?;
        let nope_dim = key.checked_sub(rope_dim).ok_or_else(|| {
            Error::new(format!(
                "{} is {rope_dim}, more than the {key} of a head's key",
                self.key("rope.dimension_count")
            ))
        })?;
        let attention = Attention::Latent {
            q_lora_rank: self.optional_size("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            kv_lora_rank: self.size("attention.kv_lora_rank")?,
            nope_dim,
            rope_dim,
            value_dim: width("value_length")?,
        };
        // Files of V2 from before the key was invented say nothing.
        let scoring = match self.optional_size("expert_gating_func")?.unwrap_or(1) {
            1 => Scoring::Softmax,
            2 => Scoring::Sigmoid,
            other => {
                return Err(Error::new(format!(
                    "{} is {other}; the ones that load are 1 (softmax) and 2 (sigmoid)",
                    self.key("expert_gating_func")
                )));
            }
        };
        let family = if scoring == Scoring::Sigmoid { Family::DeepseekV3 } else { Family::DeepseekV2 };
        let mut config = self.common(family, attention, rope_dim)?;
        config.rope.interleaved = true;
        if let Some(1..) = self.optional_size("expert_count")? {
            config.experts = Some(self.experts(scoring)?);
        }
        Ok(config)
    }

    fn experts(&self, scoring: Scoring) -> Result<Experts> {
        let groups = self.optional_size("expert_group_count")?.filter(|&groups| groups > 0).unwrap_or(1);
        Ok(Experts {
            routed: self.size("expert_count")?,
            per_token: self.size("expert_used_count")?,
            shared: self.optional_size("expert_shared_count")?.unwrap_or(0),
            intermediate_size: self.size("expert_feed_forward_length")?,
            first_dense: self.optional_size("leading_dense_block_count")?.unwrap_or(0),
            scoring,
            groups,
            groups_per_token: self.optional_size("expert_group_used_count")?.filter(|_| groups > 1).unwrap_or(groups),
            normalize: self.flag("expert_weights_norm")?.unwrap_or(false),
            scaling: self.number("expert_weights_scale")?.filter(|&scale| scale != 0.0).unwrap_or(1.0) as f32,
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
            (Some("linear" | "yarn"), None) => return Err(missing(&self.key("rope.scaling.factor"))),
            (Some("yarn"), Some(factor)) => RopeScaling::Yarn(self.yarn(factor)?),
            (Some(other), _) => {
                return Err(Error::new(format!(
                    "{kind} is {}; the types that load are none, linear and yarn",
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

    /// YaRN as llama.cpp computes it.
    fn yarn(&self, factor: f64) -> Result<Yarn> {
        for name in ["yarn_ext_factor", "yarn_attn_factor", "attn_factor"] {
            match self.number(&format!("rope.scaling.{name}"))? {
                None | Some(1.0) => {}
                Some(other) => {
                    return Err(Error::new(format!(
                        "{} is {other}, but only 1 is supported",
                        self.key(&format!("rope.scaling.{name}"))
                    )));
                }
            }
        }
        let number_or = |name: &str, default: f64| -> Result<f64> {
            Ok(self.number(&format!("rope.scaling.{name}"))?.unwrap_or(default))
        };
        // A tenth of mscale_all_dim, which is mscale in all models that have it. Numbers here are f32, and 0.0707 ten times
        // over is not what the model's configuration says: six digits are.
        let all = self.number("rope.scaling.yarn_log_multiplier")?.map(|m| (m * 1e7).round() / 1e6);
        Ok(Yarn {
            factor,
            beta_fast: number_or("yarn_beta_fast", 32.0)?,
            beta_slow: number_or("yarn_beta_slow", 1.0)?,
            original_max_positions: match self.optional_size("rope.scaling.original_context_length")? {
                Some(positions) => positions,
                None => self.size("context_length")?,
            },
            attention_factor: None,
            mscale: all,
            mscale_all_dim: all,
        })
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
