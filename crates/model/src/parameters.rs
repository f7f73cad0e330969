//! A model's tensors by the names on disk, and their places in one arena of numbers.

use std::ops::Range;

use minke_kernels::router::Scoring;

use crate::config::{Attention, Config};

/// How a tensor of a new model is filled (as transformers does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Normal, of standard deviation 0.02.
    Normal,
    /// Ones: norms.
    Ones,
    /// Zeros: biases, and what an adapter ends with.
    Zeros,
    /// Uniform within 1 / sqrt(columns), as PEFT begins an adapter's first matrix (Kaiming, arXiv 1502.01852).
    Uniform,
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

    /// Whether it is a matrix between hidden states, which Muon may move; not the embedding table or the output projection.
    pub fn is_hidden_matrix(&self) -> bool {
        self.shape.len() == 2 && !["model.embed_tokens.weight", "lm_head.weight"].contains(&self.name.as_str())
    }

    /// Matrices decay, norms and biases do not.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// All tensors of a model, in the order of their places in the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    list: Vec<Parameter>,
    len: usize,
}

/// Every tensor that a model of this configuration has, in the order of their places: its name in Hugging Face files and
/// its row-major shape.
///
/// Matrices that are multiplied by the same input stand side by side (query, key, value; gate, up), so that one product
/// serves them all.
pub fn tensor_shapes(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
    let head = (!config.tied_embeddings).then(|| ("lm_head.weight".to_string(), vec![vocabulary, hidden]));
    [("model.embed_tokens.weight".to_string(), vec![vocabulary, hidden])]
        .into_iter()
        .chain((0..config.layers).flat_map(|layer| block(config, layer)))
        .chain([("model.norm.weight".to_string(), vec![hidden])])
        .chain(head)
}

/// The tensors of the first block for multi-token prediction, as [`tensor_shapes`] has the model's own; the embedding table and
/// the output projection are the model's.
pub fn prediction_shapes(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut before = Tensors { prefix: format!("model.layers.{}.", config.layers), list: Vec::new() };
    before.push("enorm.weight", [hidden]);
    before.push("hnorm.weight", [hidden]);
    before.push("eh_proj.weight", [hidden, 2 * hidden]);
    let after = (format!("model.layers.{}.shared_head.norm.weight", config.layers), vec![hidden]);
    before.list.into_iter().chain(block(config, config.layers)).chain([after])
}

/// The tensors of one block.
fn block(config: &Config, layer: usize) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut tensors = Tensors { prefix: format!("model.layers.{layer}."), list: Vec::new() };
    tensors.push("input_layernorm.weight", [hidden]);
    tensors.attention(config);
    tensors.push("post_attention_layernorm.weight", [hidden]);
    match &config.experts {
        Some(experts) if layer >= experts.first_dense => {
            tensors.push("mlp.gate.weight", [experts.routed, hidden]);
            if experts.scoring == Scoring::Sigmoid {
                tensors.push("mlp.gate.e_score_correction_bias", [experts.routed]);
            }
            for expert in 0..experts.routed {
                tensors.gated(&format!("mlp.experts.{expert}"), hidden, experts.intermediate_size);
            }
            if experts.shared > 0 {
                tensors.gated("mlp.shared_experts", hidden, experts.shared * experts.intermediate_size);
            }
        }
        _ => tensors.gated("mlp", hidden, config.intermediate_size),
    }
    tensors.list
}

/// Tensors of one block, under its prefix.
struct Tensors {
    prefix: String,
    list: Vec<(String, Vec<usize>)>,
}

impl Tensors {
    fn push<const N: usize>(&mut self, name: &str, shape: [usize; N]) {
        self.list.push((format!("{}{name}", self.prefix), shape.to_vec()));
    }

    fn gated(&mut self, at: &str, hidden: usize, width: usize) {
        self.push(&format!("{at}.gate_proj.weight"), [width, hidden]);
        self.push(&format!("{at}.up_proj.weight"), [width, hidden]);
        self.push(&format!("{at}.down_proj.weight"), [hidden, width]);
    }

    fn attention(&mut self, config: &Config) {
        let (hidden, heads) = (config.hidden_size, config.heads);
        match config.attention {
            Attention::Grouped { kv_heads, head_dim, bias, head_norm } => {
                let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
                for (name, heads) in parts {
                    self.push(&format!("self_attn.{name}.weight"), [heads * head_dim, hidden]);
                }
                if bias {
                    for (name, heads) in parts {
                        self.push(&format!("self_attn.{name}.bias"), [heads * head_dim]);
                    }
                }
                if head_norm {
                    self.push("self_attn.q_norm.weight", [head_dim]);
                    self.push("self_attn.k_norm.weight", [head_dim]);
                }
                self.push("self_attn.o_proj.weight", [hidden, heads * head_dim]);
            }
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                let query = heads * (nope_dim + rope_dim);
                match q_lora_rank {
                    Some(rank) => self.push("self_attn.q_a_proj.weight", [rank, hidden]),
                    None => self.push("self_attn.q_proj.weight", [query, hidden]),
                }
                self.push("self_attn.kv_a_proj_with_mqa.weight", [kv_lora_rank + rope_dim, hidden]);
                if let Some(rank) = q_lora_rank {
                    self.push("self_attn.q_a_layernorm.weight", [rank]);
                    self.push("self_attn.q_b_proj.weight", [query, rank]);
                }
                self.push("self_attn.kv_a_layernorm.weight", [kv_lora_rank]);
                self.push("self_attn.kv_b_proj.weight", [heads * (nope_dim + value_dim), kv_lora_rank]);
                self.push("self_attn.o_proj.weight", [hidden, heads * value_dim]);
            }
        }
    }
}

impl Parameters {
    /// The tensors of a model with this configuration.
    pub fn of(config: &Config) -> Parameters {
        Parameters::from_shapes(tensor_shapes(config))
    }

    /// The tensors of a model that learns: its own and, behind them, those of its block for multi-token prediction, where the
    /// configuration has one.
    pub fn learnt(config: &Config) -> Parameters {
        let block = (config.predictions > 0).then(|| prediction_shapes(config));
        Parameters::from_shapes(tensor_shapes(config).chain(block.into_iter().flatten()))
    }

    /// The tensors of the first block for multi-token prediction.
    pub fn of_prediction(config: &Config) -> Parameters {
        Parameters::from_shapes(prediction_shapes(config))
    }

    fn from_shapes(shapes: impl Iterator<Item = (String, Vec<usize>)>) -> Parameters {
        Parameters::laid_out(shapes.map(|(name, shape)| {
            let initial = match name.as_str() {
                name if name.ends_with("norm.weight") => Initial::Ones,
                name if name.ends_with("bias") => Initial::Zeros,
                _ => Initial::Normal,
            };
            (name, shape, initial)
        }))
    }

    /// These tensors, one behind the other.
    pub(crate) fn laid_out(tensors: impl Iterator<Item = (String, Vec<usize>, Initial)>) -> Parameters {
        let mut len = 0;
        let list = tensors.map(|(name, shape, initial)| {
            let trainable = !name.ends_with("e_score_correction_bias");
            let parameter = Parameter { name, shape, offset: len, initial, trainable };
            len += parameter.len();
            parameter
        });
        Parameters { list: list.collect(), len }
    }

    /// The tensors, in order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// Elements in all: the length of the arena.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of them a single row reads on its way to logits: of a mixture the experts that it chooses, and no table of
    /// which it copies a row. `config` is that of their model.
    pub fn read_by_a_row(&self, config: &Config) -> f64 {
        let chosen = config.experts.as_ref().map_or(1.0, |experts| experts.per_token as f64 / experts.routed as f64);
        let read = |parameter: &Parameter| match parameter.name.as_str() {
            "model.embed_tokens.weight" if !config.tied_embeddings => 0.0,
            name if name.contains(".mlp.experts.") => parameter.len() as f64 * chosen,
            _ => parameter.len() as f64,
        };
        self.iter().map(read).sum()
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
