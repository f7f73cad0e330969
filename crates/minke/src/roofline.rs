//! What a forward pass of a model costs: bytes to read, operations to do; and the time that a chip needs for them, by its
//! roofline (Williams, Waterman and Patterson, CACM 52(4), 2009).

use anyhow::{Result, bail};
use minke_kernels::Dtype;
use minke_kernels::quantized::Format;
use minke_model::checkpoint::Tensor;
use minke_model::config::{Attention, Config, Family, Rope, RopeScaling};
use minke_model::quantize::{FileType, planned};
use minke_model::{Checkpoint, Precision};

/// How a matrix is kept in memory, which says how fast it is read and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    In(Dtype),
    Quantised(Format),
}

impl Kept {
    pub fn name(self) -> &'static str {
        match self {
            Kept::In(dtype) => dtype.name(),
            Kept::Quantised(format) => format.name(),
        }
    }
}

/// Which rows of a pass a matrix meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    /// All of them.
    All,
    /// Those that have chosen it: `per_token` of `of` experts.
    Chosen { per_token: usize, of: usize },
    /// Those that logits are asked of.
    Logits,
    /// None: a table of which a row is copied.
    Table,
}

/// Matrices of one kind.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    kept: Kept,
    used: Use,
    elements: f64,
    bytes: f64,
}

/// What a model is made of, as far as time and memory go.
#[derive(Clone, Debug)]
pub struct Costs {
    groups: Vec<Group>,
    /// Keys and values of a position in bf16, bytes.
    kv_bytes: f64,
    /// Operations of attention for a row and a position that it sees.
    attention_flop: f64,
    /// Numbers of a row that pass through activations, over all blocks.
    activations: f64,
    pub blocks: Blocks,
    /// Positions that the model was made for.
    pub context: usize,
    pub parameters: u64,
}

/// How many blocks a model has, and of which kinds: what is between its products takes time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub grouped: usize,
    pub latent: usize,
    /// Those of them whose feed-forward is a mixture.
    pub mixtures: usize,
}

/// Rows that run together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    rows: f64,
    /// Rows whose logits are asked for.
    logits: f64,
    /// Positions that rows see, in all.
    seen: f64,
    /// Positions whose keys and values are read from memory.
    read: f64,
}

impl Pass {
    /// A token for each of `sequences`, behind `depth` others on average.
    pub fn decode(sequences: usize, depth: f64) -> Pass {
        let rows = sequences as f64;
        Pass { rows, logits: rows, seen: rows * (depth + 1.0), read: rows * (depth + 1.0) }
    }

    /// `tokens` of one sequence behind `depth` others.
    pub fn prefill(tokens: usize, depth: usize) -> Pass {
        let (rows, depth) = (tokens as f64, depth as f64);
        Pass { rows, logits: 1.0, seen: rows * depth + rows * (rows + 1.0) / 2.0, read: rows + depth }
    }
}

/// What a pass reads and does.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// How matrices are kept; bytes of those that are read; operations with them.
    pub products: Vec<(Kept, f64, f64)>,
    /// Bytes of keys and values.
    pub kv_bytes: f64,
    pub attention_flop: f64,
    pub activations: f64,
    /// Experts that are read, over all mixtures.
    pub experts: f64,
}

impl Load {
    /// Bytes read from memory.
    pub fn bytes(&self) -> f64 {
        self.products.iter().map(|p| p.1).sum::<f64>() + self.kv_bytes
    }

    /// Additions and multiplications.
    pub fn flop(&self) -> f64 {
        self.products.iter().map(|p| p.2).sum::<f64>() + self.attention_flop
    }
}

impl Costs {
    /// Of a model whose matrices are kept in `precision`.
    pub fn of(checkpoint: &Checkpoint, precision: Precision) -> minke_model::Result<Costs> {
        Ok(Costs::new(checkpoint.config(), &checkpoint.tensors()?, precision))
    }

    /// Of a model that nobody has made: `7B:Q4_K_M`, a dense Llama of so many parameters; without a type, in BF16.
    pub fn of_size(size: &str) -> Result<Option<Costs>> {
        let (count, file_type) = size.split_once(':').unwrap_or((size, "BF16"));
        let Some((number, unit)) = count.char_indices().next_back().map(|(at, unit)| (&count[..at], unit)) else {
            return Ok(None);
        };
        let unit = match unit.to_ascii_uppercase() {
            'M' => 1e6,
            'B' => 1e9,
            'T' => 1e12,
            _ => return Ok(None),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        let Ok(number) = number.parse::<f64>() else { return Ok(None) };
        let Some(file_type) = FileType::from_name(file_type) else {
            bail!("{file_type:?} in {size:?} is no type of weights; choose one of {}", FileType::names());
        };
        let parameters = number * unit;
        if !(1e7..=1e13).contains(&parameters) {
            bail!("{size:?} is no size to think about; choose one from 10M to 10T, as in 7B:Q4_K_M");
        }
        let config = dense(parameters);
        Ok(Some(Costs::new(&config, &planned(&config, file_type), Precision::Stored)))
    }

    fn new(config: &Config, tensors: &[Tensor], precision: Precision) -> Costs {
        let mut groups: Vec<Group> = Vec::new();
        for tensor in tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
            let is = |part: &str| tensor.name.contains(part);
            let used = match &config.experts {
                Some(experts) if is(".mlp.experts.") => {
                    Use::Chosen { per_token: experts.per_token, of: experts.routed }
                }
                _ if is("lm_head") || (is("embed_tokens") && config.tied_embeddings) => Use::Logits,
                _ if is("embed_tokens") => Use::Table,
                _ => Use::All,
            };
            let kept = match tensor.dtype.format() {
                // The router decides in f32 whatever its type; a latent's way to keys and values is cut up by heads.
                _ if is("mlp.gate.weight") => Kept::In(Dtype::F32),
                Some(format) if precision == Precision::Stored && !is("kv_b_proj") => Kept::Quantised(format),
                _ => Kept::In(precision.dtype(tensor.dtype)),
            };
            let elements = tensor.elements() as f64;
            let bytes = match kept {
                Kept::Quantised(_) => tensor.bytes as f64,
                Kept::In(Dtype::F32) => 4.0 * elements,
                Kept::In(Dtype::Bf16) => 2.0 * elements,
            };
            match groups.iter_mut().find(|group| group.kept == kept && group.used == used) {
                Some(group) => (group.elements, group.bytes) = (group.elements + elements, group.bytes + bytes),
                None => groups.push(Group { kept, used, elements, bytes }),
            }
        }
        let (layers, heads, hidden) = (config.layers as f64, config.heads as f64, config.hidden_size as f64);
        // Keys and values of a position; widths of a query's product with a key and of a weight's with a value; projected.
        let (kv, products, projected) = match config.attention {
            Attention::Grouped { kv_heads, head_dim, .. } => {
                (2 * kv_heads * head_dim, 2 * head_dim, (config.heads + 2 * kv_heads) * head_dim)
            }
            Attention::Latent { kv_lora_rank, nope_dim, rope_dim, value_dim, .. } => {
                let width = 2 * kv_lora_rank + rope_dim;
                (width, width, config.heads * (nope_dim + rope_dim + value_dim + width))
            }
        };
        let mixtures = config.experts.as_ref().map_or(0, |experts| config.layers - experts.first_dense);
        let inner = config.experts.as_ref().map_or(0, |e| e.intermediate_size * (e.per_token + e.shared));
        let inner = ((config.layers - mixtures) * config.intermediate_size + mixtures * inner) as f64;
        let latent = if matches!(config.attention, Attention::Latent { .. }) { config.layers } else { 0 };
        Costs {
            groups,
            kv_bytes: 2.0 * layers * kv as f64,
            attention_flop: 2.0 * layers * heads * products as f64,
            // Norms read and write the residual stream twice, and products add to it twice.
            activations: layers * (4.0 * hidden + projected as f64) + 3.0 * inner,
            blocks: Blocks { grouped: config.layers - latent, latent, mixtures },
            context: config.max_positions,
            parameters: tensors.iter().map(Tensor::elements).sum(),
        }
    }

    /// How matrices are kept, each way once.
    pub fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for group in self.groups.iter().filter(|group| group.used != Use::Table) {
            if !kept.contains(&group.kept) {
                kept.push(group.kept);
            }
        }
        kept
    }

    /// Bytes of all weights.
    pub fn weights(&self) -> f64 {
        self.groups.iter().map(|group| group.bytes).sum()
    }

    /// Bytes of the keys and values of `positions`.
    pub fn kv(&self, positions: usize) -> f64 {
        self.kv_bytes * positions as f64
    }

    /// What a pass reads and does.
    pub fn load(&self, pass: Pass) -> Load {
        let mut products: Vec<(Kept, f64, f64)> = self.kept().into_iter().map(|kept| (kept, 0.0, 0.0)).collect();
        let mut experts = 0.0;
        for group in &self.groups {
            // The share that is read, and the rows that it meets.
            let (read, rows) = match group.used {
                Use::All => (1.0, pass.rows),
                Use::Logits => (1.0, pass.logits),
                Use::Chosen { per_token, of } => {
                    let chosen = per_token as f64 / of as f64;
                    // Where rows choose evenly and apart from each other, an expert is missed by all so often.
                    let read = 1.0 - (1.0 - chosen).powf(pass.rows);
                    experts = self.blocks.mixtures as f64 * read * of as f64;
                    (read, chosen * pass.rows)
                }
                Use::Table => continue,
            };
            for product in products.iter_mut().filter(|product| product.0 == group.kept) {
                product.1 += read * group.bytes;
                product.2 += 2.0 * rows * group.elements;
            }
        }
        Load {
            products,
            kv_bytes: pass.read * self.kv_bytes,
            attention_flop: pass.seen * self.attention_flop,
            activations: pass.rows * self.activations,
            experts,
        }
    }
}

/// A Llama of about so many parameters, at least ten million: blocks 128 times as wide as there are many of them, four query heads to a key
/// head, 32,000 tokens, a context of 4096, the feed-forward as wide as what is left.
fn dense(parameters: f64) -> Config {
    const VOCABULARY: usize = 32_000;
    let tied = parameters < 2e9;
    let tables = if tied { 1.0 } else { 2.0 } * VOCABULARY as f64;
    // A block has 2.5 h² in attention and about 3 · 2.7 h² in its feed-forward.
    let layers = |h: f64| ((parameters - tables * h) / (10.6 * h * h)).round().max(1.0);
    let widths = (1..=256).map(|i| 256 * i).filter(|h| *h < 2048 || h % 512 == 0);
    let off = |h: &usize| (*h as f64 / layers(*h as f64) / 128.0).ln().abs();
    let hidden = widths.min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(4096);
    let h = hidden as f64;
    let wide = ((parameters - tables * h) / layers(h) - 2.5 * h * h) / (3.0 * h) / 256.0;
    let head_dim = if hidden < 2048 { 64 } else { 128 };
    Config {
        family: Family::Llama,
        vocab_size: VOCABULARY,
        hidden_size: hidden,
        layers: layers(h) as usize,
        heads: hidden / head_dim,
        attention: Attention::Grouped { kv_heads: hidden / head_dim / 4, head_dim, bias: false, head_norm: false },
        intermediate_size: 256 * wide.round().max(1.0) as usize,
        experts: None,
        rope: Rope { theta: 1e4, interleaved: false, scaling: RopeScaling::None },
        norm_eps: 1e-5,
        tied_embeddings: tied,
        predictions: 0,
        max_positions: 4096,
    }
}

/// A chip's two limits, in bytes and operations a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub bytes_s: f64,
    pub flop_s: f64,
}

/// Public data sheets of NVIDIA's: bandwidth, and bf16 without sparsity.
pub const H20: Limits = Limits { bytes_s: 4.0e12, flop_s: 148e12 };
pub const H800: Limits = Limits { bytes_s: 3.35e12, flop_s: 989e12 };

impl Limits {
    /// Seconds for the bytes, and for the operations.
    pub fn times(self, load: &Load) -> (f64, f64) {
        (load.bytes() / self.bytes_s, load.flop() / self.flop_s)
    }

    /// Seconds at best: reading and reckoning at once.
    pub fn least(self, load: &Load) -> f64 {
        let (read, reckon) = self.times(load);
        read.max(reckon)
    }

    /// Operations for each byte from which on reading is no longer what it waits for.
    pub fn ridge(self) -> f64 {
        self.flop_s / self.bytes_s
    }

    /// Operations a second with so many for each byte.
    pub fn reach(self, intensity: f64) -> f64 {
        self.flop_s.min(intensity * self.bytes_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
    }

    fn tensors(config: &Config, dtype: &str) -> Vec<Tensor> {
        planned(config, FileType::from_name(dtype).unwrap())
    }

    /// SmolLM2-135M's sizes.
    fn smollm2() -> Config {
        let attention = Attention::Grouped { kv_heads: 3, head_dim: 64, bias: false, head_norm: false };
        let sizes = Config { vocab_size: 49_152, hidden_size: 576, layers: 30, heads: 9, ..dense(1e8) };
        Config { attention, intermediate_size: 1536, tied_embeddings: true, ..sizes }
    }

    #[test]
    fn smollm2_costs_what_it_does_by_hand() {
        // A block: 576 · (960 + 576) + 3 · 576 · 1536 = 3,538,944; 30 of them 106,168,320; the table 28,311,552.
        let costs = Costs::new(&smollm2(), &tensors(&smollm2(), "BF16"), Precision::Stored);
        close(costs.weights(), 2.0 * 134_479_872.0);
        let one = costs.load(Pass::decode(1, 0.0));
        close(one.products[0].1, 268_959_744.0);
        close(one.products[0].2, 268_959_744.0);
        // 30 blocks of 2 · 3 · 64 numbers in bf16; 4 · 9 · 64 operations a position.
        close(one.kv_bytes, 23_040.0);
        close(one.attention_flop, 69_120.0);
        let prompt = costs.load(Pass::prefill(512, 0));
        close(prompt.products[0].2, 2.0 * (512.0 * 106_168_320.0 + 28_311_552.0));
        close(prompt.attention_flop, 69_120.0 * 512.0 * 513.0 / 2.0);
        // Four bits and a half a weight; the table in Q8_0, since 576 is no whole number of blocks of Q6_K.
        let costs = Costs::new(&smollm2(), &tensors(&smollm2(), "Q4_0"), Precision::Stored);
        close(costs.weights(), 106_168_320.0 * 18.0 / 32.0 + 28_311_552.0 * 34.0 / 32.0);
        let kept = Precision::In(Dtype::F32);
        close(Costs::new(&smollm2(), &tensors(&smollm2(), "Q4_0"), kept).weights(), 4.0 * 134_479_872.0);
    }

    #[test]
    fn a_mixture_reads_what_was_chosen() {
        use minke_kernels::router::Scoring;
        use minke_model::config::Experts;
        let experts = Experts {
            routed: 8,
            per_token: 2,
            shared: 1,
            intermediate_size: 256,
            first_dense: 1,
            scoring: Scoring::Softmax,
            groups: 1,
            groups_per_token: 1,
            normalize: false,
            scaling: 1.0,
        };
        let config = Config { experts: Some(experts), layers: 2, tied_embeddings: false, ..smollm2() };
        let costs = Costs::new(&config, &tensors(&config, "BF16"), Precision::Stored);
        let load = |rows| costs.load(Pass::decode(rows, 0.0));
        let bytes = |rows| load(rows).products.iter().map(|p| p.1).sum::<f64>();
        close(load(1).experts, 2.0);
        close(load(2).experts, 3.5);
        let expert = 3.0 * 576.0 * 256.0;
        // Two blocks' attention, one dense feed-forward, a shared expert, two of eight, the head; the gate in f32.
        let always = 2.0 * 576.0 * 1536.0 + 3.0 * 576.0 * 1536.0 + expert + 49_152.0 * 576.0;
        let gate = 4.0 * 8.0 * 576.0;
        close(bytes(1), 2.0 * (always + 2.0 * expert) + gate);
        // Two rows choose 8 · (1 − (3/4)²) = 3.5 experts.
        close(bytes(2), 2.0 * (always + 3.5 * expert) + gate);
        close(costs.weights(), 2.0 * (always + 49_152.0 * 576.0 + 8.0 * expert) + gate);
        assert_eq!(costs.blocks, Blocks { grouped: 2, latent: 0, mixtures: 1 });
    }

    #[test]
    fn sizes_are_close_to_what_they_are_called() {
        for (size, parameters) in
            [("135M", 135e6), ("1.5b:q8_0", 1.5e9), ("7B:Q4_K_M", 7e9), ("70B:Q4_0", 70e9), ("10T", 1e13)]
        {
            let costs = Costs::of_size(size).unwrap().unwrap();
            assert!((costs.parameters as f64 / parameters - 1.0).abs() < 0.02, "{size}: {}", costs.parameters);
        }
        for name in ["smollm2", "", "B", "-7B", "7", "7B.gguf", "é"] {
            assert!(Costs::of_size(name).unwrap().is_none(), "{name}");
        }
        for size in ["7B:Q9_9", "1M", "99T"] {
            assert!(Costs::of_size(size).is_err(), "{size}");
        }
    }

    #[test]
    fn an_h20_writes_faster_and_an_h800_reads_faster() {
        let costs = Costs::of_size("7B").unwrap().unwrap();
        let times = |pass| H800.least(&costs.load(pass)) / H20.least(&costs.load(pass));
        close(times(Pass::decode(1, 0.0)), 4.0 / 3.35);
        close(times(Pass::prefill(4096, 0)), 148.0 / 989.0);
        close(H20.ridge(), 37.0);
        close(H800.reach(1e9), 989e12);
    }
}
