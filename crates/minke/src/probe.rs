//! How fast this machine reads and multiplies: what the costs of a model are divided by.

use std::hint::black_box;
use std::time::Instant;

use minke_kernels::attention::attention;
use minke_kernels::elementwise::swiglu;
use minke_kernels::gemm::{Job, Mode, Operand, gemm, linear};
use minke_kernels::kv::{KvDtype, KvLayout, KvPages, PAGE_POSITIONS, Span};
use minke_kernels::quantized::Row;
use minke_kernels::random::Random;
use minke_kernels::router::Scoring;
use minke_kernels::{Buffer, Cpu, Dtype, Matrix, View};
use minke_model::config::{Attention, Config, Experts, Family, Rope, RopeScaling};
use minke_model::{Activations, Batch, Precision, Source, Transformer};
use serde::Serialize;

use crate::machine;
use crate::roofline::{Costs, Kept, Load};

/// Rows of a prompt.
const ROWS: usize = 512;
/// Inputs of the matrices that are multiplied.
const INPUTS: usize = 1024;
/// Outputs of a product with many rows.
const OUTPUTS: usize = 1024;
/// Such products before one meets the same weights again: no cache that is a core's own holds as many.
const TURNS: usize = 16;
/// Products of a block: query, key and value; attention's output; gate and up; down. Latent attention has one more.
const PRODUCTS: usize = 4;
/// Of so many activations one is so much larger than the rest, as in SmolLM2.
const OUTLIERS: (u32, f32) = (245, 16.0);
/// Bytes that are at least read, and at most.
const READ: (u64, u64) = (64 << 20, 512 << 20);

/// Main memory that is read, several times as much as caches hold, in large pages where the system has them.
pub struct Memory(Buffer<f32>);

impl Memory {
    pub fn new() -> Memory {
        let cache = machine::caches().iter().map(|cache| cache.bytes).max().unwrap_or(0);
        Memory(Buffer::zeros(((3 * cache).clamp(READ.0, READ.1) / 4) as usize))
    }

    /// Bytes a second that all threads read, each its own part, once.
    pub fn read(&self, cpu: &Cpu) -> f64 {
        let (pool, numbers) = (cpu.pool(), &*self.0);
        let share = numbers.len().div_ceil(pool.threads());
        let seconds = seconds(|| {
            pool.run(pool.threads(), &|i| {
                let part = numbers.chunks(share).nth(i).unwrap_or_default();
                black_box(part.iter().fold(0_u32, |sum, x| sum.wrapping_add(x.to_bits())));
            });
        });
        size_of_val(numbers) as f64 / seconds
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Products of many rows with one matrix after the other, as in a pass through a model.
pub struct Product {
    matrix: Matrix,
    turn: usize,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Product {
    pub fn new(cpu: &Cpu, kept: Kept) -> Product {
        let matrix = matrix(cpu, kept, TURNS * OUTPUTS);
        Product { matrix, turn: 0, x: activations(ROWS), y: vec![0.0; ROWS * OUTPUTS] }
    }

    /// Operations a second, once.
    pub fn measure(&mut self, cpu: &Cpu) -> f64 {
        let (x, piece) = (View::new(&self.x, ROWS, INPUTS), self.turn % TURNS);
        self.turn += 1;
        let seconds = seconds(|| product(cpu, &self.matrix, piece, x, &mut self.y));
        (2 * ROWS * INPUTS * OUTPUTS) as f64 / seconds
    }
}

/// A product with some of a matrix's outputs: the piece of [`OUTPUTS`] of that number.
fn product(cpu: &Cpu, matrix: &Matrix, piece: usize, x: View<'_>, y: &mut [f32]) {
    let first = piece * OUTPUTS;
    let b = Operand::columns(matrix, first..first + OUTPUTS);
    gemm(cpu, y, OUTPUTS, Mode::Set, &[Job { a: x, b, row: 0, col: 0 }]);
}

/// Activations with as many outliers as those of a model: they have products of their own.
fn activations(rows: usize) -> Vec<f32> {
    let mut random = Random::new(0, [0; 3]);
    let mut number = || random.normal() * if random.below(OUTLIERS.0) == 0 { OUTLIERS.1 } else { 1.0 };
    (0..rows * INPUTS).map(|_| number()).collect()
}

/// A matrix of whatever numbers: how fast it is multiplied does not depend on them.
fn matrix(cpu: &Cpu, kept: Kept, outputs: usize) -> Matrix {
    match kept {
        Kept::In(dtype) => {
            let w: Vec<f32> = (0..INPUTS).map(|i| (i % 13) as f32 - 6.0).collect();
            Matrix::lasting(cpu, dtype, View::new(&w, 1, INPUTS).repeat_row(outputs))
        }
        Kept::Quantised(format) => Matrix::quantized(cpu, format, outputs, INPUTS, &|i, row: &mut Row| {
            row.codes.fill((i % (1 << format.layout().bits)) as u8);
            row.halves.fill([0x2000, 0x1c00]);
            row.groups.fill([7, 7]);
        }),
    }
}

/// What a way of keeping matrices reaches.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    #[serde(skip)]
    kept: Kept,
    /// How matrices are kept.
    pub weights: &'static str,
    /// Bytes of a matrix that meet one row, in 10⁹ a second.
    pub one_row_gb_s: f64,
    /// Operations with many rows, in 10⁹ a second.
    pub many_rows_gflop_s: f64,
    /// What a product of one row takes longer than its bytes, until they flow, in microseconds.
    pub product_us: f64,
}

/// What this machine reaches with all threads.
#[derive(Debug, Serialize)]
pub struct Rates {
    pub read_gb_s: f64,
    pub products: Vec<Rate>,
    /// Attention of a prompt over keys and values in bf16.
    pub attention_gflop_s: f64,
    /// Numbers through a gated unit, in 10⁹ a second.
    pub activations_g_s: f64,
    /// A block of one row whose matrices are so small that only its calls take time, in microseconds,
    pub block_us: f64,
    /// and what it takes longer with latent attention,
    pub latent_us: f64,
    /// and with a mixture of experts.
    pub mixture_us: f64,
}

impl Rates {
    /// Measures, in turn, so that no moment decides; takes a second or two.
    pub fn measure(cpu: &Cpu, kept: &[Kept]) -> Rates {
        let memory = Memory::new();
        let products = kept.iter().map(|&kept| {
            let probe = matrix(cpu, kept, OUTPUTS);
            let outputs = (memory.bytes() / probe.bytes().max(1) * OUTPUTS).max(OUTPUTS);
            let large = matrix(cpu, kept, outputs);
            let (x, mut y) = (activations(1), vec![0.0; outputs]);
            let (x, pieces) = (View::new(&x, 1, INPUTS), outputs / OUTPUTS);
            let one = median(9, || seconds(|| linear(cpu, &large, x, &mut y)));
            let in_pieces = median(9, || {
                seconds(|| (0..pieces).for_each(|i| product(cpu, &large, i, x, &mut y[i * OUTPUTS..][..OUTPUTS])))
            });
            let mut many = Product::new(cpu, kept);
            let many_rows = 1.0 / median(9, || 1.0 / many.measure(cpu));
            Rate {
                kept,
                weights: kept.name(),
                one_row_gb_s: large.bytes() as f64 / one / 1e9,
                many_rows_gflop_s: many_rows / 1e9,
                product_us: 1e6 * (in_pieces - one).max(0.0) / pieces as f64,
            }
        });
        let products = products.collect();
        let [block, latent, mixture] = blocks(cpu);
        Rates {
            products,
            read_gb_s: 1e-9 / median(9, || 1.0 / memory.read(cpu)),
            attention_gflop_s: attention_rate(cpu) / 1e9,
            activations_g_s: activation_rate(cpu) / 1e9,
            block_us: 1e6 * block,
            latent_us: 1e6 * (latent - block).max(0.0),
            mixture_us: 1e6 * (mixture - block).max(0.0),
        }
    }

    /// Operations a second with many rows.
    pub fn many_rows(&self, kept: Kept) -> f64 {
        self.products.iter().find(|rate| rate.kept == kept).map_or(0.0, |rate| rate.many_rows_gflop_s * 1e9)
    }

    /// Seconds that a pass takes: each kind of product what its bytes or its operations take, whichever is more; then
    /// attention, what is between products, and calls.
    pub fn seconds(&self, costs: &Costs, load: &Load) -> f64 {
        let product = |&(kept, bytes, flop): &(Kept, f64, f64)| {
            let rate = self.products.iter().find(|rate| rate.kept == kept);
            rate.map_or(0.0, |rate| (bytes / rate.one_row_gb_s).max(flop / rate.many_rows_gflop_s) / 1e9)
        };
        let attention = (load.kv_bytes / self.read_gb_s).max(load.attention_flop / self.attention_gflop_s) / 1e9;
        let activations = load.activations / self.activations_g_s / 1e9;
        let blocks = costs.blocks;
        // Most matrices are kept as the most bytes are.
        let most = load.products.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|product| product.0);
        let rate = self.products.iter().find(|rate| Some(rate.kept) == most);
        let product_us = rate.map_or(0.0, |rate| rate.product_us);
        // An expert's two matrices lie by themselves.
        let products = (PRODUCTS * (blocks.grouped + blocks.latent) + blocks.latent) as f64 + 2.0 * load.experts;
        let calls = products * product_us
            + (blocks.grouped + blocks.latent) as f64 * self.block_us
            + blocks.latent as f64 * self.latent_us
            + blocks.mixtures as f64 * self.mixture_us;
        load.products.iter().map(product).sum::<f64>() + attention + activations + calls / 1e6
    }
}

/// Operations a second of causal attention, over a prompt's keys and values in bf16.
fn attention_rate(cpu: &Cpu) -> f64 {
    let (heads, kv_heads, width) = (8, 2, 64);
    let layout = KvLayout { layers: 1, kv_heads, key_width: width, value_width: width, dtype: KvDtype::Bf16 };
    let pages = ROWS.div_ceil(PAGE_POSITIONS);
    let mut kv = KvPages::new(layout, pages);
    let spans = [Span { rows: 0..ROWS, start: 0, pages: (0..pages as u32).collect(), past: None }];
    let numbers: Vec<f32> = (0..ROWS * heads * width).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect();
    let narrow = View::new(&numbers[..ROWS * kv_heads * width], ROWS, kv_heads * width);
    kv.write(cpu, 0, &spans, narrow, narrow);
    let (q, mut out) = (View::new(&numbers, ROWS, heads * width), vec![0.0; numbers.len()]);
    let time = median(9, || seconds(|| attention(cpu, &kv, 0, &spans, heads, 0.125, q, &mut out, None)));
    (4 * heads * width * ROWS * (ROWS + 1) / 2) as f64 / time
}

/// Numbers a second through a gated unit of a prompt's rows, read or written.
fn activation_rate(cpu: &Cpu) -> f64 {
    let gate_up = vec![0.5; ROWS * 2 * INPUTS];
    let mut out = vec![0.0; ROWS * INPUTS];
    let time = median(9, || seconds(|| swiglu(cpu, &gate_up, INPUTS, &mut out)));
    (3 * ROWS * INPUTS) as f64 / time
}

/// Seconds that a block takes for one row where only calls take time: a plain one, one with latent attention, and one with
/// a mixture. Its matrices are just large enough to be shared among threads, and stay in the nearest caches.
fn blocks(cpu: &Cpu) -> [f64; 3] {
    let grouped = Attention::Grouped { kv_heads: 2, head_dim: 32, bias: false, head_norm: false };
    let latent = Attention::Latent { q_lora_rank: None, kv_lora_rank: 64, nope_dim: 32, rope_dim: 32, value_dim: 32 };
    let experts = Experts {
        routed: 8,
        per_token: 4,
        shared: 1,
        intermediate_size: 64,
        first_dense: 0,
        scoring: Scoring::Softmax,
        groups: 1,
        groups_per_token: 1,
        normalize: false,
        scaling: 1.0,
    };
    let block = |attention: &Attention, experts: Option<Experts>| {
        let config = Config {
            family: Family::Llama,
            vocab_size: 32,
            hidden_size: 192,
            layers: 2,
            heads: 6,
            attention: attention.clone(),
            intermediate_size: 192,
            experts,
            rope: Rope { theta: 1e4, interleaved: false, scaling: RopeScaling::None },
            norm_eps: 1e-5,
            tied_embeddings: true,
            predictions: 0,
            max_positions: 64,
        };
        let values = vec![0.01; config.parameters() as usize];
        let Ok(model) = Transformer::new(cpu, &config, Precision::In(Dtype::Bf16), Source::Arena(&values)) else {
            return 0.0;
        };
        let mut kv = KvPages::new(model.kv_layout().kept_as(KvDtype::Bf16), 1);
        let (mut activations, mut batch) = (Activations::inference(), Batch::default());
        batch.push(&[1], 0, vec![0]);
        median(200, || seconds(|| model.forward(cpu, &batch, &mut kv, &mut activations))) / config.layers as f64
    };
    [block(&grouped, None), block(&latent, None), block(&grouped, Some(experts))]
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// The median of so many times, after one that does not count.
fn median(times: usize, mut time: impl FnMut() -> f64) -> f64 {
    time();
    let mut all: Vec<f64> = (0..times).map(|_| time()).collect();
    all.sort_by(f64::total_cmp);
    all[times / 2]
}
