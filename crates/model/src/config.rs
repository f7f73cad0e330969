//! What a model is made of: sizes and switches, the same for every family and file format.

use minke_kernels::router::Scoring;

use crate::error::{Error, Result};

/// The published families that load and run; each only translates keys and names ([`crate::families`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2/3 and everything published in its shape (SmolLM2, Mistral without a window).
    Llama,
    /// Qwen2 and Qwen2.5: Llama with biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: Llama with a norm on each query and key head.
    Qwen3,
    /// Qwen3's mixtures of experts.
    Qwen3Moe,
    /// DeepSeek-V2: latent attention and a mixture of experts with a softmax gate.
    DeepseekV2,
    /// DeepSeek-V3: the same with a sigmoid gate.
    DeepseekV3,
}

impl Family {
    /// The name that `config.json` has under `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
            Self::DeepseekV2 => "deepseek_v2",
            Self::DeepseekV3 => "deepseek_v3",
        }
    }
}

/// Sizes and switches of a transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which family's keys and tensor names it is read from and written with.
    pub family: Family,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// How a block attends.
    pub attention: Attention,
    /// Width inside a dense feed-forward.
    pub intermediate_size: usize,
    /// The mixture of experts, where the model has one.
    pub experts: Option<Experts>,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Added to the mean square under the root of every RMSNorm.
    pub norm_eps: f32,
    /// The output projection is the embedding table itself.
    pub tied_embeddings: bool,
    /// Blocks for multi-token prediction beside the model (DeepSeek-V3, arXiv 2412.19437, section 2.2).
    pub predictions: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
}

/// How a block attends.
#[derive(Clone, Debug, PartialEq)]
pub enum Attention {
    /// Grouped-query attention (arXiv 2305.13245); `kv_heads == heads` is the multi-head case.
    Grouped {
        /// Number of key and value heads; divides the number of query heads.
        kv_heads: usize,
        /// Width of one head.
        head_dim: usize,
        /// The query, key and value projections have biases.
        bias: bool,
        /// Queries and keys are normed, each head by itself (Qwen3).
        head_norm: bool,
    },
    /// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
    Latent {
        /// Rank of the query's low-rank projection; `None` projects directly.
        q_lora_rank: Option<usize>,
        /// Rank of the latent that keys and values are made from.
        kv_lora_rank: usize,
        /// Width of a head's query and key part without position.
        nope_dim: usize,
        /// Width of a head's query part, and of the one shared key part, with rotary position.
        rope_dim: usize,
        /// Width of a head's value.
        value_dim: usize,
    },
}

/// A mixture of experts: DeepSeekMoE (arXiv 2401.06066) as in DeepSeek-V2 and V3, and Qwen3's.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Routed experts.
    pub routed: usize,
    /// Routed experts that each token uses.
    pub per_token: usize,
    /// Shared experts, applied to every token (one feed-forward, this many times as wide); 0 for none.
    pub shared: usize,
    /// Width inside one expert.
    pub intermediate_size: usize,
    /// Blocks before the first mixture; those have a dense feed-forward.
    pub first_dense: usize,
    /// What the router makes of its logits; with sigmoid scores, every expert has a bias in the choice.
    pub scoring: Scoring,
    /// Groups that the experts are divided in.
    pub groups: usize,
    /// Groups that a token may choose from.
    pub groups_per_token: usize,
    /// Divide the chosen scores by their sum.
    pub normalize: bool,
    /// Factor on the routed experts' sum.
    pub scaling: f32,
}

/// Rotary position embedding (arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Neighbouring elements are a pair (DeepSeek), rather than element i and i + half (Llama).
    pub interleaved: bool,
    /// How the wavelengths are stretched.
    pub scaling: RopeScaling,
}

/// How rotary wavelengths are stretched for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by the factor, a ramp between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Ratio of original context to wavelength below which the factor holds in full.
        low_freq_factor: f64,
        /// Ratio of original context to wavelength above which nothing changes.
        high_freq_factor: f64,
        /// The context that the model was first trained for.
        original_max_positions: usize,
    },
    /// YaRN (arXiv 2309.00071): long wavelengths divided by the factor, a ramp between, and longer vectors.
    Yarn(Yarn),
}

/// YaRN, in the words of transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// The divisor of long wavelengths.
    pub factor: f64,
    /// Turns over the original context above which nothing changes.
    pub beta_fast: f64,
    /// Turns over the original context below which the factor holds in full.
    pub beta_slow: f64,
    /// The context that the model was first trained for.
    pub original_max_positions: usize,
    /// How much longer rotated vectors become; where it is missing, `mscale` and `mscale_all_dim` say.
    pub attention_factor: Option<f64>,
    /// DeepSeek's weights of ln(factor) for rotated vectors, and for whole ones (latent attention alone uses it).
    pub mscale: Option<f64>,
    /// See `mscale`.
    pub mscale_all_dim: Option<f64>,
}

impl Yarn {
    /// 0.1 m ln(factor) + 1.
    fn length(&self, m: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * m * minke_kernels::math::ln(self.factor) + 1.0 }
    }

    /// What cosines and sines are multiplied by.
    pub fn amplitude(&self) -> f64 {
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(factor), ..) => factor,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => self.length(m) / self.length(all),
            _ => self.length(1.0),
        }
    }

    /// What latent attention's scores are multiplied by.
    pub fn score_factor(&self) -> f64 {
        let all = self.mscale_all_dim.unwrap_or(0.0);
        if all == 0.0 { 1.0 } else { self.length(all) * self.length(all) }
    }
}

/// Upper bounds that no published model comes near, and below which products of sizes fit 64 bits.
mod limit {
    pub const VOCABULARY: usize = 1 << 24;
    pub const WIDTH: usize = 1 << 20;
    pub const COUNT: usize = 1 << 14;
    pub const LAYERS: usize = 1 << 12;
    pub const POSITIONS: usize = 1 << 31;
    pub const PARAMETERS: u128 = 1 << 44;
}

impl Config {
    /// Checks what every later division, product and loop relies on.
    ///
    /// # Errors
    /// The first size that can't be, under its Hugging Face key.
    pub fn validate(&self) -> Result<()> {
        within("vocab_size", self.vocab_size, limit::VOCABULARY)?;
        within("hidden_size", self.hidden_size, limit::WIDTH)?;
        within("num_hidden_layers", self.layers, limit::LAYERS)?;
        within("num_attention_heads", self.heads, limit::COUNT)?;
        within("intermediate_size", self.intermediate_size, limit::WIDTH)?;
        within("max_position_embeddings", self.max_positions, limit::POSITIONS)?;
        match self.attention {
            Attention::Grouped { kv_heads, head_dim, .. } => {
                within("num_key_value_heads", kv_heads, limit::COUNT)?;
                divides("num_key_value_heads", kv_heads, "num_attention_heads", self.heads)?;
                within("head_dim", head_dim, limit::WIDTH)?;
                even("head_dim", head_dim)?;
            }
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                within("q_lora_rank", q_lora_rank.unwrap_or(1), limit::WIDTH)?;
                within("kv_lora_rank", kv_lora_rank, limit::WIDTH)?;
                within("qk_nope_head_dim", nope_dim, limit::WIDTH)?;
                within("qk_rope_head_dim", rope_dim, limit::WIDTH)?;
                even("qk_rope_head_dim", rope_dim)?;
                within("v_head_dim", value_dim, limit::WIDTH)?;
            }
        }
        if let Some(experts) = &self.experts {
            experts.validate(self.layers)?;
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(Error::new(format!("rms_norm_eps is {}, which is not between 0 and 1", self.norm_eps)));
        }
        self.rope.validate()?;
        let parameters = self.parameters();
        if parameters > limit::PARAMETERS {
            return Err(Error::new(format!(
                "the sizes make {parameters} parameters, more than any machine here could hold; one of them is wrong"
            )));
        }
        Ok(())
    }

    /// Number of parameters, embeddings counted once when tied.
    pub fn parameters(&self) -> u128 {
        let [vocabulary, hidden, layers, heads, wide] =
            [self.vocab_size, self.hidden_size, self.layers, self.heads, self.intermediate_size].map(|n| n as u128);
        let attention = match self.attention {
            Attention::Grouped { kv_heads, head_dim, bias, head_norm } => {
                let (q, kv) = (heads * head_dim as u128, (kv_heads * head_dim) as u128);
                let norms = if head_norm { 2 * head_dim as u128 } else { 0 };
                hidden * (2 * q + 2 * kv) + norms + if bias { q + 2 * kv } else { 0 }
            }
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                let [latent, nope, rope, value] = [kv_lora_rank, nope_dim, rope_dim, value_dim].map(|n| n as u128);
                let q = heads * (nope + rope);
                let query = match q_lora_rank {
                    Some(rank) => rank as u128 * (hidden + 1 + q),
                    None => hidden * q,
                };
                query + hidden * (latent + rope) + latent * (1 + heads * (nope + value)) + heads * value * hidden
            }
        };
        let dense = 3 * hidden * wide;
        let feed_forward = match &self.experts {
            None => layers * dense,
            Some(e) => {
                let [routed, shared, narrow, first] =
                    [e.routed, e.shared, e.intermediate_size, e.first_dense].map(|n| n as u128);
                let gate = routed * (hidden + if e.scoring == Scoring::Sigmoid { 1 } else { 0 });
                first * dense + (layers - first) * (gate + 3 * hidden * narrow * (routed + shared))
            }
        };
        let tables = if self.tied_embeddings { 1 } else { 2 };
        tables * vocabulary * hidden + layers * (attention + 2 * hidden) + feed_forward + hidden
    }
}

impl Experts {
    fn validate(&self, layers: usize) -> Result<()> {
        within("n_routed_experts", self.routed, limit::COUNT)?;
        within("num_experts_per_tok", self.per_token, self.routed)?;
        if self.shared > 0 {
            within("n_shared_experts", self.shared, limit::COUNT)?;
        }
        within("moe_intermediate_size", self.intermediate_size, limit::WIDTH)?;
        if self.first_dense > layers {
            return Err(Error::new(format!(
                "first_k_dense_replace is {}, more than the {layers} of num_hidden_layers",
                self.first_dense
            )));
        }
        within("n_group", self.groups, limit::COUNT)?;
        divides("n_group", self.groups, "n_routed_experts", self.routed)?;
        within("topk_group", self.groups_per_token, self.groups)?;
        let group = self.routed / self.groups;
        // A group is scored by the sum of its two best experts, where scores are sigmoids.
        if group < 2 && self.scoring == Scoring::Sigmoid {
            return Err(Error::new(format!(
                "n_group is {} for {} experts, but a group needs at least two",
                self.groups, self.routed
            )));
        }
        if self.groups_per_token * group < self.per_token {
            return Err(Error::new(format!(
                "num_experts_per_tok is {}, but topk_group leaves only {} experts to choose from",
                self.per_token,
                self.groups_per_token * group
            )));
        }
        // DeepSeek's own code for V2 then leaves out the factor, llama.cpp and vLLM apply it, and transformers does not divide.
        if self.scoring == Scoring::Softmax && self.normalize && self.scaling != 1.0 {
            return Err(Error::new(format!(
                "norm_topk_prob is true and routed_scaling_factor is {}, which no two implementations of DeepSeek-V2 \
                 understand alike; one of them must be false or 1",
                self.scaling
            )));
        }
        if !self.scaling.is_finite() {
            return Err(Error::new("routed_scaling_factor is not a finite number"));
        }
        Ok(())
    }
}

impl Rope {
    fn validate(&self) -> Result<()> {
        let positive = |key: &str, x: f64| {
            if x.is_finite() && x > 0.0 {
                Ok(())
            } else {
                Err(Error::new(format!("{key} is {x}, which is not a positive number")))
            }
        };
        positive("rope_theta", self.theta)?;
        match &self.scaling {
            &RopeScaling::Yarn(Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_positions,
                attention_factor,
                mscale,
                mscale_all_dim,
            }) => {
                positive("rope_scaling.factor", factor)?;
                positive("rope_scaling.beta_fast", beta_fast)?;
                positive("rope_scaling.beta_slow", beta_slow)?;
                if beta_slow >= beta_fast {
                    return Err(Error::new("rope_scaling.beta_slow is not below rope_scaling.beta_fast"));
                }
                // The ramp is measured in logarithms of the base.
                if self.theta <= 1.0 {
                    return Err(Error::new(format!("rope_theta is {}, but YaRN needs more than 1", self.theta)));
                }
                positive("rope_scaling.attention_factor", attention_factor.unwrap_or(1.0))?;
                for (key, m) in [("mscale", mscale), ("mscale_all_dim", mscale_all_dim)] {
                    let m = m.unwrap_or(0.0);
                    if !(m.is_finite() && m >= 0.0) {
                        return Err(Error::new(format!("rope_scaling.{key} is {m}, which is not 0 or more")));
                    }
                }
                within("rope_scaling.original_max_position_embeddings", original_max_positions, limit::POSITIONS)
            }
            RopeScaling::None => Ok(()),
            &RopeScaling::Linear { factor } => positive("rope_scaling.factor", factor),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                positive("rope_scaling.factor", factor)?;
                positive("rope_scaling.low_freq_factor", low_freq_factor)?;
                positive("rope_scaling.high_freq_factor", high_freq_factor)?;
                if low_freq_factor >= high_freq_factor {
                    return Err(Error::new("rope_scaling.low_freq_factor is not below rope_scaling.high_freq_factor"));
                }
                within("rope_scaling.original_max_position_embeddings", original_max_positions, limit::POSITIONS)
            }
        }
    }
}

fn within(key: &str, n: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&n) {
        return Ok(());
    }
    Err(Error::new(format!("{key} is {n}, which is not from 1 to {most}")))
}

fn divides(key: &str, n: usize, whole_key: &str, whole: usize) -> Result<()> {
    if whole.is_multiple_of(n) {
        return Ok(());
    }
    Err(Error::new(format!("{key} is {n}, which does not divide the {whole} of {whole_key}")))
}

fn even(key: &str, n: usize) -> Result<()> {
    if n.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::new(format!("{key} is {n}, but rotary positions need an even width")))
}
