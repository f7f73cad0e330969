//! A block's attention: grouped heads (Llama, Qwen; [`grouped`]), or multi-head latent attention (DeepSeek).
//!
//! Latent attention runs in one form everywhere, the absorbed one (arXiv 2405.04434, section 2.1.2): a query is carried
//! into the latent space by its head's part of `kv_b_proj`, attends to the latents themselves, and the weighted latent is
//! carried back out. So prefill, decode and training compute the same bits, and a token is remembered by its latent.

mod grouped;

use std::sync::Arc;

use minke_kernels::attention::{attention, attention_backward};
use minke_kernels::cpu::Scratch;
use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::heads::{Heads, copy_heads};
use minke_kernels::kv::{KvPages, Span};
use minke_kernels::norm::{rms_norm, rms_norm_backward};
use minke_kernels::rope::{Direction, RopeTable, rope};
use minke_kernels::{Buffer, Cpu, Matrix, Packed, View};

use crate::config::{Attention, Config};
use crate::error::Result;
use crate::rotary;
use crate::stored::Precision;
use crate::weight::{Reader, Vector, Weight};
use grouped::Grouped;

/// Of the norms inside latent attention, whatever `rms_norm_eps` says (modeling_deepseek_v3.py in transformers).
const LATENT_NORM_EPS: f32 = 1e-6;

/// What a block's attention is made of.
#[derive(Clone)]
pub(crate) enum AttentionWeights {
    Grouped(Grouped),
    Latent(Latent),
}

#[derive(Clone)]
pub(crate) struct Latent {
    /// query (or its low-rank projection) | latent | rotary key, from the hidden state
    down: Weight,
    query: Option<LowRankQuery>,
    kv_norm: Vector,
    kv_up: KvUp,
    output: Weight,
    heads: usize,
    widths: Widths,
    /// Of a query's product with a key.
    scale: f32,
}

#[derive(Clone)]
struct LowRankQuery {
    norm: Vector,
    up: Weight,
}

/// `kv_b_proj`, by heads.
#[derive(Clone)]
struct KvUp {
    /// Of each head, nope_dim to latent: its key rows, transposed.
    absorb: Vec<Arc<Matrix>>,
    /// Of each head, latent to value_dim: its value rows.
    expand: Vec<Arc<Matrix>>,
    precision: Precision,
    at: usize,
    frozen: bool,
}

#[derive(Clone, Copy)]
struct Widths {
    /// Of the query's part of `down`: its rank, or all heads.
    query: usize,
    latent: usize,
    nope: usize,
    rope: usize,
    value: usize,
}

impl Widths {
    /// Of a head's query before absorption.
    fn head(&self) -> usize {
        self.nope + self.rope
    }
    /// Of the key that all heads share, and of a head's absorbed query.
    fn key(&self) -> usize {
        self.latent + self.rope
    }
}

/// What backward needs of an attention's forward pass. Rows are those of the batch.
#[derive(Default)]
pub(crate) struct AttentionActivations {
    /// Output of `qkv` (after rotation, where heads have no norms) or of `down`.
    projected: Buffer,
    /// Where heads have norms: queries and keys after norm and rotation, and 1 / rms of the query heads, then the key heads.
    head_normed: Buffer,
    head_inv_rms: Buffer,
    /// Latent only: the normed low-rank query and its 1 / rms; all heads' queries where there is one; the absorbed queries;
    /// the normed latents and their 1 / rms; the keys; the heads' values.
    query_normed: Buffer,
    query_inv_rms: Buffer,
    query: Buffer,
    absorbed: Buffer,
    latent: Buffer,
    latent_inv_rms: Buffer,
    key: Buffer,
    values: Buffer,
    /// Attention's output and its logarithms of sums.
    out: Buffer,
    lse: Buffer,
}

impl AttentionActivations {
    /// Memory that it takes, also where an earlier pass was longer.
    pub fn bytes(&self) -> usize {
        let AttentionActivations {
            projected,
            head_normed,
            head_inv_rms,
            query_normed,
            query_inv_rms,
            query,
            absorbed,
            latent,
            latent_inv_rms,
            key,
            values,
            out,
            lse,
        } = self;
        let heads = [projected, head_normed, head_inv_rms, out, lse];
        let latents = [query_normed, query_inv_rms, query, absorbed, latent, latent_inv_rms, key, values];
        heads.iter().chain(&latents).map(|buffer| buffer.capacity() * size_of::<f32>()).sum()
    }
}

/// What all layers share in one pass.
pub(crate) struct Pass<'a> {
    pub cpu: &'a Cpu,
    pub layer: usize,
    pub spans: &'a [Span],
    pub positions: &'a [u32],
    pub rope: &'a RopeTable,
}

impl AttentionWeights {
    pub fn new(config: &Config, precision: Precision) -> AttentionWeights {
        let (hidden, heads) = (config.hidden_size, config.heads);
        match config.attention {
            Attention::Grouped { .. } => AttentionWeights::Grouped(Grouped::new(config, precision)),
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                let all_heads = heads * (nope_dim + rope_dim);
                let query = q_lora_rank.unwrap_or(all_heads);
                AttentionWeights::Latent(Latent {
                    down: Weight::new(precision, query + kv_lora_rank + rope_dim, hidden),
                    query: q_lora_rank.map(|rank| LowRankQuery {
                        norm: Vector::default(),
                        up: Weight::new(precision, all_heads, rank),
                    }),
                    kv_norm: Vector::default(),
                    kv_up: KvUp { absorb: Vec::new(), expand: Vec::new(), precision, at: 0, frozen: false },
                    output: Weight::new(precision, hidden, heads * value_dim),
                    heads,
                    widths: Widths { query, latent: kv_lora_rank, nope: nope_dim, rope: rope_dim, value: value_dim },
                    scale: (rotary::score_factor(config) / ((nope_dim + rope_dim) as f64).sqrt()) as f32,
                })
            }
        }
    }

    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        match self {
            AttentionWeights::Grouped(w) => w.fill(cpu, reader),
            AttentionWeights::Latent(w) => {
                w.down.fill(cpu, reader, 2)?;
                if let Some(query) = &mut w.query {
                    query.norm.fill(reader, 1)?;
                    query.up.fill(cpu, reader, 1)?;
                }
                w.kv_norm.fill(reader, 1)?;
                w.kv_up.fill(cpu, reader, w.heads, w.widths)?;
                w.output.fill(cpu, reader, 1)
            }
        }
    }

    /// x += attention(normed); keys and values go into the pages.
    pub fn forward(
        &self,
        pass: &Pass<'_>,
        kv: &mut KvPages,
        normed: View<'_>,
        a: &mut AttentionActivations,
        x: &mut [f32],
    ) {
        match self {
            AttentionWeights::Grouped(w) => w.forward(pass, kv, normed, a, x),
            AttentionWeights::Latent(w) => w.forward(pass, kv, normed, a, x),
        }
    }

    /// Sets `d_normed` from `d_x`, and adds to the tensors' gradients.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        values: &[f32],
        kv: &KvPages,
        normed: View<'_>,
        a: &AttentionActivations,
        d_x: View<'_>,
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) {
        match self {
            AttentionWeights::Grouped(w) => w.backward(pass, values, kv, normed, a, d_x, d_normed, gradient),
            AttentionWeights::Latent(w) => w.backward(pass, values, kv, normed, a, d_x, d_normed, gradient),
        }
    }
}

impl KvUp {
    fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>, heads: usize, widths: Widths) -> Result<()> {
        if reader.freezes(1) {
            self.frozen = true;
            return Ok(());
        }
        let dtype = self.precision.dtype(reader.dtype()?);
        let (at, numbers) = reader.next_to_pack(1)?;
        self.at = at;
        let Widths { latent, nope, value, .. } = widths;
        for head in 0..heads {
            let rows = |first: usize, count| {
                let first = head * (nope + value) + first;
                View::new(&numbers[first * latent..(first + count) * latent], count, latent)
            };
            reader.keep(cpu, &mut self.absorb, head, dtype, (latent, nope), || rows(0, nope).t())?;
            reader.keep(cpu, &mut self.expand, head, dtype, (value, latent), || rows(nope, value))?;
        }
        Ok(())
    }

    /// Its numbers as they are packed: for each head, nope_dim and value_dim rows of the latent's width.
    fn unpack<'c>(&self, cpu: &'c Cpu, widths: Widths) -> Scratch<'c> {
        let Widths { latent, nope, value, .. } = widths;
        let mut all = cpu.scratch(self.absorb.len() * (nope + value) * latent);
        let mut transposed = cpu.scratch(latent * nope);
        let heads = self.absorb.iter().zip(&self.expand);
        for ((absorb, expand), rows) in heads.zip(all.chunks_exact_mut((nope + value) * latent)) {
            let (keys, values) = rows.split_at_mut(nope * latent);
            absorb.rows(cpu, 0..latent, &mut transposed);
            for (i, key) in keys.chunks_exact_mut(latent).enumerate() {
                key.iter_mut().enumerate().for_each(|(j, x)| *x = transposed[j * nope + i]);
            }
            expand.rows(cpu, 0..value, values);
        }
        all
    }
}

impl Latent {
    /// All heads' queries before absorption, and the distance between their rows.
    fn query<'a>(&self, a: &'a AttentionActivations) -> (&'a [f32], usize) {
        match self.query {
            Some(_) => (&a.query, self.heads * self.widths.head()),
            None => (&a.projected, self.down.outputs()),
        }
    }

    fn forward(
        &self,
        pass: &Pass<'_>,
        kv: &mut KvPages,
        normed: View<'_>,
        a: &mut AttentionActivations,
        x: &mut [f32],
    ) {
        let &Pass { cpu, layer, spans, positions, rope: table } = pass;
        let (heads, widths) = (self.heads, self.widths);
        let Widths { query, latent, nope, rope: rotary, value } = widths;
        let (head, key) = (widths.head(), widths.key());
        let (rows, down) = (normed.rows(), self.down.outputs());
        a.projected.resize(rows * down);
        self.down.forward(cpu, normed, Mode::Set, &mut a.projected);

        if let Some(low_rank) = &self.query {
            a.query_normed.resize(rows * query);
            a.query_inv_rms.resize(rows);
            let x = View::columns(&a.projected, rows, down, 0, query);
            rms_norm(cpu, x, &low_rank.norm.values, LATENT_NORM_EPS, &mut a.query_normed, &mut a.query_inv_rms);
            a.query.resize(rows * heads * head);
            low_rank.up.forward(cpu, View::new(&a.query_normed, rows, query), Mode::Set, &mut a.query);
        }

        // The one key of a token: its normed latent, which is also its value, and the rotated part behind it.
        a.latent.resize(rows * latent);
        a.latent_inv_rms.resize(rows);
        let x_kv = View::columns(&a.projected, rows, down, query, latent);
        rms_norm(cpu, x_kv, &self.kv_norm.values, LATENT_NORM_EPS, &mut a.latent, &mut a.latent_inv_rms);
        a.key.resize(rows * key);
        let one = |row, offset| Heads { row, head: 0, offset };
        copy_heads(cpu, (rows, 1, latent), (&a.latent, one(latent, 0)), (&mut a.key, one(key, 0)), false);
        let from = (&*a.projected, one(down, query + latent));
        copy_heads(cpu, (rows, 1, rotary), from, (&mut a.key, one(key, latent)), false);
        rope(cpu, table, &mut a.key, key, 1, key, latent, positions, Direction::Forward);
        kv.write(cpu, layer, spans, View::new(&a.key, rows, key), View::columns(&a.key, rows, key, 0, latent));

        let mut absorbed = std::mem::take(&mut a.absorbed);
        absorbed.resize(rows * heads * key);
        let (queries, stride) = self.query(a);
        let jobs: Vec<Job<'_>> = (0..heads)
            .map(|h| Job {
                a: View::columns(queries, rows, stride, h * head, nope),
                b: Operand::Packed(&self.kv_up.absorb[h]),
                row: 0,
                col: h * key,
            })
            .collect();
        gemm(cpu, &mut absorbed, heads * key, Mode::Set, &jobs);
        let from = (queries, Heads { row: stride, head, offset: nope });
        let to = Heads { row: heads * key, head: key, offset: latent };
        copy_heads(cpu, (rows, heads, rotary), from, (&mut absorbed, to), false);
        rope(cpu, table, &mut absorbed, heads * key, heads, key, latent, positions, Direction::Forward);
        a.absorbed = absorbed;

        a.out.resize(rows * heads * latent);
        a.lse.resize(rows * heads);
        let q = View::new(&a.absorbed, rows, heads * key);
        attention(cpu, kv, layer, spans, heads, self.scale, q, &mut a.out, Some(&mut a.lse));
        a.values.resize(rows * heads * value);
        let jobs: Vec<Job<'_>> = (0..heads)
            .map(|h| Job {
                a: View::columns(&a.out, rows, heads * latent, h * latent, latent),
                b: Operand::Packed(&self.kv_up.expand[h]),
                row: 0,
                col: h * value,
            })
            .collect();
        gemm(cpu, &mut a.values, heads * value, Mode::Set, &jobs);
        self.output.forward(cpu, View::new(&a.values, rows, heads * value), Mode::Add, x);
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        values: &[f32],
        kv: &KvPages,
        normed: View<'_>,
        a: &AttentionActivations,
        d_x: View<'_>,
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) {
        let &Pass { cpu, layer, spans, positions, rope: table } = pass;
        let (heads, widths) = (self.heads, self.widths);
        let Widths { query, latent, nope, rope: rotary, value } = widths;
        let (head, key) = (widths.head(), widths.key());
        let (rows, down) = (normed.rows(), self.down.outputs());
        let at = self.kv_up.at..self.kv_up.at + heads * (nope + value) * latent;
        let unpacked;
        let kv_up = match self.kv_up.frozen {
            false => &values[at.clone()],
            true => {
                unpacked = self.kv_up.unpack(cpu, widths);
                &unpacked
            }
        };
        let key_rows = |h: usize| View::new(&kv_up[h * (nope + value) * latent..][..nope * latent], nope, latent);
        let value_rows =
            |h: usize| View::new(&kv_up[(h * (nope + value) + nope) * latent..][..value * latent], value, latent);

        let pack = |b: View<'_>| Matrix::pack(cpu, self.output.dtype(), b.t());

        // Out of the latent space.
        let mut d_values = cpu.scratch(rows * heads * value);
        let out = View::new(&a.values, rows, heads * value);
        self.output.backward(cpu, values, d_x, out, Mode::Set, &mut d_values, gradient);
        let d_value = |h: usize| View::columns(&d_values, rows, heads * value, h * value, value);
        let mut d_out = cpu.scratch(rows * heads * latent);
        let packed: Vec<Packed<'_>> = (0..heads).map(|h| pack(value_rows(h))).collect();
        let jobs: Vec<Job<'_>> = (0..heads)
            .map(|h| Job { a: d_value(h), b: Operand::Packed(&packed[h]), row: 0, col: h * latent })
            .collect();
        gemm(cpu, &mut d_out, heads * latent, Mode::Set, &jobs);
        if !self.kv_up.frozen {
            let out = |h: usize| View::columns(&a.out, rows, heads * latent, h * latent, latent);
            let packed: Vec<Packed<'_>> = (0..heads).map(|h| pack(out(h))).collect();
            let jobs: Vec<Job<'_>> = (0..heads)
                .map(|h| {
                    let row = h * (nope + value) + nope;
                    Job { a: d_value(h).t(), b: Operand::Packed(&packed[h]), row, col: 0 }
                })
                .collect();
            gemm(cpu, &mut gradient[at.clone()], latent, Mode::Add, &jobs);
        }

        // In the latent space: each row of d_qkv is heads * key for the queries, key for the key, latent for the value.
        let width = heads * key + key + latent;
        let mut d_qkv = cpu.scratch(rows * width);
        let q = View::new(&a.absorbed, rows, heads * key);
        attention_backward(cpu, kv, layer, spans, heads, self.scale, q, &a.out, &a.lse, &d_out, &mut d_qkv);
        rope(cpu, table, &mut d_qkv, width, heads + 1, key, latent, positions, Direction::Backward);

        // Queries into the latent space.
        let (queries, stride) = self.query(a);
        let d_absorbed = |h: usize| View::columns(&d_qkv, rows, width, h * key, latent);
        if !self.kv_up.frozen {
            let packed: Vec<Packed<'_>> = (0..heads).map(|h| pack(d_absorbed(h))).collect();
            let jobs: Vec<Job<'_>> = (0..heads)
                .map(|h| {
                    let nope = View::columns(queries, rows, stride, h * head, nope);
                    Job { a: nope.t(), b: Operand::Packed(&packed[h]), row: h * (widths.nope + value), col: 0 }
                })
                .collect();
            gemm(cpu, &mut gradient[at], latent, Mode::Add, &jobs);
        }
        let mut d_down = cpu.scratch(rows * down);
        let mut d_query = cpu.scratch(if self.query.is_some() { rows * heads * head } else { 0 });
        let into = if self.query.is_some() { &mut d_query } else { &mut d_down };
        let packed: Vec<Packed<'_>> = (0..heads).map(|h| pack(key_rows(h).t())).collect();
        let jobs: Vec<Job<'_>> = (0..heads)
            .map(|h| Job { a: d_absorbed(h), b: Operand::Packed(&packed[h]), row: 0, col: h * head })
            .collect();
        gemm(cpu, into, stride, Mode::Set, &jobs);
        let from = (&*d_qkv, Heads { row: width, head: key, offset: latent });
        copy_heads(cpu, (rows, heads, rotary), from, (into, Heads { row: stride, head, offset: nope }), false);
        if let Some(low_rank) = &self.query {
            let d_query = View::new(&d_query, rows, heads * head);
            let mut d_query_normed = cpu.scratch(rows * query);
            let x = View::new(&a.query_normed, rows, query);
            low_rank.up.backward(cpu, values, d_query, x, Mode::Set, &mut d_query_normed, gradient);
            let x = View::columns(&a.projected, rows, down, 0, query);
            let (weight, d_weight) = (&low_rank.norm.values, low_rank.norm.gradient(gradient));
            rms_norm_backward(cpu, x, weight, &a.query_inv_rms, &d_query_normed, &mut d_down, down, false, d_weight);
        }

        // The key: its latent part was the value too.
        let one = |row, offset| Heads { row, head: 0, offset };
        let mut d_latent = cpu.scratch(rows * latent);
        let from = (&*d_qkv, one(width, heads * key));
        copy_heads(cpu, (rows, 1, latent), from, (&mut d_latent, one(latent, 0)), false);
        let from = (&*d_qkv, one(width, (heads + 1) * key));
        copy_heads(cpu, (rows, 1, latent), from, (&mut d_latent, one(latent, 0)), true);
        let from = (&*d_qkv, one(width, heads * key + latent));
        copy_heads(cpu, (rows, 1, rotary), from, (&mut d_down, one(down, query + latent)), false);
        let x = View::columns(&a.projected, rows, down, query, latent);
        let (weight, d_weight) = (&self.kv_norm.values, self.kv_norm.gradient(gradient));
        rms_norm_backward(cpu, x, weight, &a.latent_inv_rms, &d_latent, &mut d_down[query..], down, false, d_weight);

        let d_down = View::new(&d_down, rows, down);
        self.down.backward(cpu, values, d_down, normed, Mode::Set, d_normed, gradient);
    }
}
