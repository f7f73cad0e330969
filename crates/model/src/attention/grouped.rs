//! Grouped-query attention (arXiv 2305.13245): several query heads share a key and value head.

use minke_kernels::attention::{attention, attention_backward};
use minke_kernels::elementwise::{add_bias, bias_backward};
use minke_kernels::gemm::Mode;
use minke_kernels::head_norm::{rms_norm_heads, rms_norm_heads_backward};
use minke_kernels::heads::Heads;
use minke_kernels::kv::KvPages;
use minke_kernels::rope::{Direction, rope};
use minke_kernels::{Cpu, View};

use super::{AttentionActivations, Pass};
use crate::config::{Attention, Config};
use crate::error::Result;
use crate::stored::Precision;
use crate::weight::{Reader, Vector, Weight};

#[derive(Clone)]
pub(crate) struct Grouped {
    /// query | key | value, from the hidden state
    qkv: Weight,
    bias: Option<Vector>,
    head_norms: Option<HeadNorms>,
    output: Weight,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Norms of each query head and each key head.
#[derive(Clone)]
struct HeadNorms {
    query: Vector,
    key: Vector,
    eps: f32,
}

impl Grouped {
    /// # Panics
    /// If the configuration's attention is another.
    pub fn new(config: &Config, precision: Precision) -> Grouped {
        let (hidden, heads) = (config.hidden_size, config.heads);
        let Attention::Grouped { kv_heads, head_dim, bias, head_norm } = config.attention else {
            panic!("grouped attention of a model with latent attention");
        };
        let norms = || HeadNorms { query: Vector::default(), key: Vector::default(), eps: config.norm_eps };
        Grouped {
            qkv: Weight::new(precision, (heads + 2 * kv_heads) * head_dim, hidden),
            bias: bias.then(Vector::default),
            head_norms: head_norm.then(norms),
            output: Weight::new(precision, hidden, heads * head_dim),
            heads,
            kv_heads,
            head_dim,
        }
    }

    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        self.qkv.fill(cpu, reader, 3)?;
        if let Some(bias) = &mut self.bias {
            bias.fill(reader, 3)?;
        }
        if let Some(norms) = &mut self.head_norms {
            norms.query.fill(reader, 1)?;
            norms.key.fill(reader, 1)?;
        }
        self.output.fill(cpu, reader, 1)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Rotated queries and keys, and the distance between their rows.
    fn rotated<'a>(&self, a: &'a AttentionActivations) -> (&'a [f32], usize) {
        match self.head_norms {
            Some(_) => (&a.head_normed, (self.heads + self.kv_heads) * self.head_dim),
            None => (&a.projected, self.qkv.outputs()),
        }
    }

    /// Norms queries and keys, where their heads have norms.
    fn norm_heads(&self, cpu: &Cpu, rows: usize, a: &mut AttentionActivations) {
        let Some(norms) = &self.head_norms else { return };
        let &Grouped { heads, kv_heads, head_dim, .. } = self;
        let stride = (heads + kv_heads) * head_dim;
        a.head_normed.resize(rows * stride);
        a.head_inv_rms.resize(rows * (heads + kv_heads));
        let (q_inv, k_inv) = a.head_inv_rms.split_at_mut(rows * heads);
        for (norm, heads, inv_rms, offset) in
            [(&norms.query, heads, q_inv, 0), (&norms.key, kv_heads, k_inv, heads * head_dim)]
        {
            let from = Heads { row: self.qkv.outputs(), head: head_dim, offset };
            let to = Heads { row: stride, head: head_dim, offset };
            let (x, y) = ((&*a.projected, from), (&mut *a.head_normed, to));
            rms_norm_heads(cpu, (rows, heads), x, &norm.values, norms.eps, y, inv_rms);
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
        let &Pass { cpu, layer, spans, positions, rope: table } = pass;
        let &Grouped { heads, kv_heads, head_dim, .. } = self;
        let (rows, width) = (normed.rows(), self.qkv.outputs());
        a.projected.resize(rows * width);
        self.qkv.forward(cpu, normed, Mode::Set, &mut a.projected);
        if let Some(bias) = &self.bias {
            add_bias(cpu, &bias.values, &mut a.projected);
        }
        self.norm_heads(cpu, rows, a);
        let rotated_heads = heads + kv_heads;
        let (rotated, stride) = match self.head_norms {
            Some(_) => (&mut a.head_normed, rotated_heads * head_dim),
            None => (&mut a.projected, width),
        };
        rope(cpu, table, rotated, stride, rotated_heads, head_dim, 0, positions, Direction::Forward);
        let (key, value) = (heads * head_dim, rotated_heads * head_dim);
        let rotated: &[f32] = if self.head_norms.is_some() { &a.head_normed } else { &a.projected };
        let rotated = |from, heads| View::columns(rotated, rows, stride, from, heads * head_dim);
        let values = View::columns(&a.projected, rows, width, value, kv_heads * head_dim);
        kv.write(cpu, layer, spans, rotated(key, kv_heads), values);
        a.out.resize(rows * heads * head_dim);
        a.lse.resize(rows * heads);
        attention(cpu, kv, layer, spans, heads, self.scale(), rotated(0, heads), &mut a.out, Some(&mut a.lse));
        self.output.forward(cpu, View::new(&a.out, rows, heads * head_dim), Mode::Add, x);
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
        let &Pass { cpu, layer, spans, positions, rope: table } = pass;
        let &Grouped { heads, kv_heads, head_dim, .. } = self;
        let (rows, width) = (normed.rows(), self.qkv.outputs());
        let mut d_out = cpu.scratch(rows * heads * head_dim);
        let out = View::new(&a.out, rows, heads * head_dim);
        self.output.backward(cpu, values, d_x, out, Mode::Set, &mut d_out, gradient);
        let mut d_qkv = cpu.scratch(rows * width);
        let (rotated, stride) = self.rotated(a);
        let q = View::columns(rotated, rows, stride, 0, heads * head_dim);
        attention_backward(cpu, kv, layer, spans, heads, self.scale(), q, &a.out, &a.lse, &d_out, &mut d_qkv);
        rope(cpu, table, &mut d_qkv, width, heads + kv_heads, head_dim, 0, positions, Direction::Backward);
        if let Some(norms) = &self.head_norms {
            let (q_inv, k_inv) = a.head_inv_rms.split_at(rows * heads);
            for (norm, heads, inv_rms, offset) in
                [(&norms.query, heads, q_inv, 0), (&norms.key, kv_heads, k_inv, heads * head_dim)]
            {
                let at = Heads { row: width, head: head_dim, offset };
                let (x, d) = ((&*a.projected, at), (&mut *d_qkv, at));
                rms_norm_heads_backward(cpu, (rows, heads), x, &norm.values, inv_rms, d, norm.gradient(gradient));
            }
        }
        if let Some(d_bias) = self.bias.as_ref().and_then(|bias| bias.gradient(gradient)) {
            bias_backward(cpu, &d_qkv, d_bias);
        }
        let d_qkv = View::new(&d_qkv, rows, width);
        self.qkv.backward(cpu, values, d_qkv, normed, Mode::Set, d_normed, gradient);
    }
}
