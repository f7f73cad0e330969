//! A model's tensors by the names on disk, and their places in one arena of numbers.

use std::ops::Range;

use crate::config::{Attention, Config};

/// How a tensor of a new model is filled (as transformers does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Normal, of standard deviation 0.02.
    Normal,
    /// Ones: norms.
    Ones,
    /// Zeros: biases.
    Zeros,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a Hugging Face checkpoint.
    pub name: String,
    /// Its shape there; row-major.
    pub shape: Vec<usize>,
    /// Where it begins in the arena.
    pub offset: usize,
    /// How a new model has it.
    pub initial: Initial,
    /// Whether a gradient moves it (the router's bias is moved by the load instead).
    pub trainable: bool,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the arena.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Matrices decay, norms and biases do not.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// All tensors of a model, in the order of their places in the arena.
///
/// Matrices that are multiplied by the same input stand side by side (query, key, value; gate, up), so that one product
/// serves them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    list: Vec<Parameter>,
    len: usize,
}

impl Parameters {
    /// The tensors of a model with this configuration.
    pub fn of(config: &Config) -> Parameters {
        let mut p = Parameters { list: Vec::new(), len: 0 };
        let hidden = config.hidden_size;
        p.matrix("model.embed_tokens", config.vocab_size, hidden);
        for layer in 0..config.layers {
            let at = format!("model.layers.{layer}");
            p.norm(&format!("{at}.input_layernorm"), hidden);
            p.attention(config, &format!("{at}.self_attn"));
            p.norm(&format!("{at}.post_attention_layernorm"), hidden);
            match &config.experts {
                Some(experts) if layer >= experts.first_dense => {
                    p.matrix(&format!("{at}.mlp.gate"), experts.routed, hidden);
                    p.add(
                        format!("{at}.mlp.gate.e_score_correction_bias"),
                        vec![experts.routed],
                        Initial::Zeros,
                        false,
                    );
                    for expert in 0..experts.routed {
                        p.gated(&format!("{at}.mlp.experts.{expert}"), hidden, experts.intermediate_size);
                    }
                    if experts.shared > 0 {
                        p.gated(
                            &format!("{at}.mlp.shared_experts"),
                            hidden,
                            experts.shared * experts.intermediate_size,
                        );
                    }
                }
                _ => p.gated(&format!("{at}.mlp"), hidden, config.intermediate_size),
            }
        }
        p.norm("model.norm", hidden);
        if !config.tied_embeddings {
            p.matrix("lm_head", config.vocab_size, hidden);
        }
        p
    }

    fn attention(&mut self, config: &Config, at: &str) {
        let (hidden, heads) = (config.hidden_size, config.heads);
        match config.attention {
            Attention::Grouped { kv_heads, head_dim, bias } => {
                let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
                for (name, heads) in parts {
                    self.matrix(&format!("{at}.{name}"), heads * head_dim, hidden);
                }
                if bias {
                    for (name, heads) in parts {
                        self.add(format!("{at}.{name}.bias"), vec![heads * head_dim], Initial::Zeros, true);
                    }
                }
                self.matrix(&format!("{at}.o_proj"), hidden, heads * head_dim);
            }
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                let query = heads * (nope_dim + rope_dim);
                match q_lora_rank {
                    Some(rank) => self.matrix(&format!("{at}.q_a_proj"), rank, hidden),
                    None => self.matrix(&format!("{at}.q_proj"), query, hidden),
                }
                self.matrix(&format!("{at}.kv_a_proj_with_mqa"), kv_lora_rank + rope_dim, hidden);
                if let Some(rank) = q_lora_rank {
                    self.norm(&format!("{at}.q_a_layernorm"), rank);
                    self.matrix(&format!("{at}.q_b_proj"), query, rank);
                }
                self.norm(&format!("{at}.kv_a_layernorm"), kv_lora_rank);
                self.matrix(&format!("{at}.kv_b_proj"), heads * (nope_dim + value_dim), kv_lora_rank);
                self.matrix(&format!("{at}.o_proj"), hidden, heads * value_dim);
            }
        }
    }

    fn gated(&mut self, at: &str, hidden: usize, width: usize) {
        self.matrix(&format!("{at}.gate_proj"), width, hidden);
        self.matrix(&format!("{at}.up_proj"), width, hidden);
        self.matrix(&format!("{at}.down_proj"), hidden, width);
    }

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.add(format!("{name}.weight"), vec![outputs, inputs], Initial::Normal, true);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), vec![width], Initial::Ones, true);
    }

    fn add(&mut self, name: String, shape: Vec<usize>, initial: Initial, trainable: bool) {
        let parameter = Parameter { name, shape, offset: self.len, initial, trainable };
        self.len += parameter.len();
        self.list.push(parameter);
    }

    /// The tensors, in order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// Elements in all: the length of the arena.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|parameter| parameter.name == name)
    }
}

impl<'a> IntoIterator for &'a Parameters {
    type Item = &'a Parameter;
    type IntoIter = std::slice::Iter<'a, Parameter>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
