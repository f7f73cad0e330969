//! The transformer: tokens to hidden states and logits, and gradients back.
//!
//! ```text
//! x = embedding[tokens]
//! each block:  x += attention(norm(x));  x += feed_forward(norm(x))
//! logits = norm(x) headᵀ
//! ```

use std::ops::Range;
use std::sync::Arc;

use minke_kernels::cpu::Scratch;
use minke_kernels::embedding::{gather, scatter_add};
use minke_kernels::gemm::{Operand, linear};
use minke_kernels::kv::{KvDtype, KvLayout, KvPages};
use minke_kernels::norm::{rms_norm, rms_norm_backward};
use minke_kernels::rope::RopeTable;
use minke_kernels::{Buffer, Cpu, Matrix, View};

use crate::attention::{AttentionActivations, AttentionWeights, Pass};
use crate::batch::Batch;
use crate::config::{Attention, Config};
use crate::error::Result;
use crate::feed_forward::{FeedForwardActivations, FeedForwardWeights};
use crate::lora::Lora;
use crate::parameters::Parameters;
use crate::rotary;
use crate::stored::Precision;
use crate::weight::{Reader, Source, Vector, Weight};

/// A model ready to run: its weights packed for the products that read them. A clone reads the same ones.
#[derive(Clone)]
pub struct Transformer {
    config: Config,
    parameters: Parameters,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Vector,
    /// The output projection; where it is tied, the embedding packed for products.
    head: Weight,
    rope: Arc<RopeTable>,
    /// Where the tensors are frozen: the adapters that are learnt instead.
    lora: Option<Arc<Lora>>,
    version: u64,
}

/// Where tokens' vectors are read from.
#[derive(Clone)]
enum Embedding {
    /// Numbers that a gradient moves, of a table of their own.
    Values(Vector),
    /// A table as it is stored.
    Table(Weight),
    /// The output projection, which is the same table in the same bits.
    Head,
}

/// A block.
#[derive(Clone)]
pub(crate) struct Layer {
    attention_norm: Vector,
    attention: AttentionWeights,
    feed_forward_norm: Vector,
    feed_forward: FeedForwardWeights,
    eps: f32,
}

/// What a forward pass leaves behind; reused from pass to pass.
#[derive(Default)]
pub struct Activations {
    /// Bytes that whole layers may take for backward; none where it never comes.
    room: Option<usize>,
    /// Every layer's, where backward comes: whole, or no more than what went into the layer.
    layers: Vec<LayerActivations>,
    /// What all other layers use, one after the other.
    shared: LayerActivations,
    loads: Vec<Vec<u64>>,
    /// The residual stream; after a pass, what went into the final norm.
    x: Buffer,
    inv_rms: Buffer,
    /// After the final norm: rows by hidden_size.
    pub hidden: Buffer,
}

/// What a layer's forward pass leaves behind: what backward needs, but for norms and what goes into the down projections, which
/// are quickly computed again.
#[derive(Default)]
pub(crate) struct LayerActivations {
    /// The residual stream before attention, and before the feed-forward (kept for training).
    input: Buffer,
    middle: Buffer,
    attention: AttentionActivations,
    feed_forward: FeedForwardActivations,
}

impl Activations {
    /// Keeps nothing that only backward needs.
    pub fn inference() -> Activations {
        Activations::default()
    }

    /// Keeps all that backward needs.
    pub fn training() -> Activations {
        Activations::within(usize::MAX)
    }

    /// Keeps what backward needs of the first layers, as many as fit into so many bytes. Of the others it keeps what went in, and
    /// backward computes the rest again (arXiv 1604.06174): the same gradients to the bit, for a fraction of the memory and, where
    /// nothing fits, the time of another forward pass.
    pub fn within(bytes: usize) -> Activations {
        Activations { room: Some(bytes), ..Activations::default() }
    }

    /// Memory of the layers that are kept whole.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerActivations::bytes).sum()
    }

    /// The hidden states of the last pass, after the final norm, rows by hidden_size.
    pub fn hidden(&self, config: &Config) -> View<'_> {
        View::new(&self.hidden, self.hidden.len() / config.hidden_size, config.hidden_size)
    }

    /// For each mixture of experts, how many of the last pass's tokens chose each expert; of passes to learn from.
    pub fn loads(&self) -> &[Vec<u64>] {
        &self.loads
    }
}

impl LayerActivations {
    /// Whether there is more than what went into the layer.
    fn is_whole(&self) -> bool {
        !self.middle.is_empty()
    }

    /// Takes over all of another's but what went into that layer.
    fn take(&mut self, other: &mut LayerActivations) {
        let (own, others) = (std::mem::take(&mut self.input), std::mem::take(&mut other.input));
        *self = LayerActivations { input: own, ..std::mem::take(other) };
        other.input = others;
    }

    /// Memory that it takes besides what went into the layer.
    fn bytes(&self) -> usize {
        self.middle.capacity() * size_of::<f32>() + self.attention.bytes() + self.feed_forward.bytes()
    }
}

impl Transformer {
    /// A model with the tensors of `source`, its matrices kept in `precision`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn new(cpu: &Cpu, config: &Config, precision: Precision, source: Source<'_>) -> Result<Transformer> {
        let layers = (0..config.layers).map(|layer| Layer::new(config, layer, precision));
        let mut transformer = Transformer {
            parameters: Parameters::of(config),
            embedding: Embedding::Head,
            layers: layers.collect(),
            norm: Vector::default(),
            head: Weight::new(precision, config.vocab_size, config.hidden_size),
            rope: Arc::new(rotary::table(config)),
            config: config.clone(),
            lora: None,
            version: 0,
        };
        transformer.fill(cpu, source)?;
        Ok(transformer)
    }

    /// The same model, frozen, with adapters that have these values; the weights are shared with it.
    pub fn adapted(&self, cpu: &Cpu, lora: &Arc<Lora>, values: &[f32]) -> Transformer {
        let free = self.lora.as_ref().is_none_or(|own| Arc::ptr_eq(own, lora));
        assert!(free, "a model has other adapters already");
        let mut adapted = Transformer { lora: Some(Arc::clone(lora)), ..self.clone() };
        adapted.refresh(cpu, values);
        adapted
    }

    /// Takes over new values after an update; `values` is the arena: of the adapters, where there are any.
    pub fn refresh(&mut self, cpu: &Cpu, values: &[f32]) {
        let filled = match self.lora.clone() {
            Some(lora) => self.fill(cpu, Source::Adapters(&lora, values)),
            None => self.fill(cpu, Source::Arena(values)),
        };
        assert!(filled.is_ok(), "an arena has every tensor");
        self.version += 1;
    }

    fn fill(&mut self, cpu: &Cpu, source: Source<'_>) -> Result<()> {
        let mut reader = Reader::new(source, &self.parameters);
        match source {
            Source::Arena(_) if self.config.tied_embeddings => {
                // Read in the bits of the products, as a stored model of that type is.
                self.head.fill(cpu, &mut reader, 1)?;
                self.embedding = Embedding::Head;
            }
            Source::Arena(_) => {
                // The table of the step before is written over.
                let mut table = match std::mem::replace(&mut self.embedding, Embedding::Head) {
                    Embedding::Values(table) => table,
                    Embedding::Table(_) | Embedding::Head => Vector::default(),
                };
                table.fill(&mut reader, 1)?;
                self.embedding = Embedding::Values(table);
            }
            Source::Checkpoint(_) | Source::Packed(..) => {
                let mut table = Weight::new(Precision::Stored, self.config.vocab_size, self.config.hidden_size);
                table.fill(cpu, &mut reader, 1)?;
                self.embedding = if !self.config.tied_embeddings {
                    Embedding::Table(table)
                } else if self.head.holds(table.matrix()) {
                    self.head = table;
                    Embedding::Head
                } else {
                    self.head.fill(cpu, &mut Reader::new(source, &self.parameters), 1)?;
                    Embedding::Table(table)
                };
            }
            Source::Adapters(..) => match &mut self.embedding {
                Embedding::Values(table) => table.fill(&mut reader, 1)?,
                Embedding::Table(_) | Embedding::Head => assert!(reader.freezes(1), "adapters change no table"),
            },
        }
        for layer in &mut self.layers {
            layer.fill(cpu, &mut reader)?;
        }
        self.norm.fill(&mut reader, 1)?;
        if self.config.tied_embeddings || reader.freezes(1) { Ok(()) } else { self.head.fill(cpu, &mut reader, 1) }
    }

    /// How often the values were taken over: keys and values remembered under another version are of another model.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tensors and their places.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The adapters, where its tensors are frozen.
    pub fn lora(&self) -> Option<&Arc<Lora>> {
        self.lora.as_ref()
    }

    /// The tensors that an arena of values or gradients has: the adapters', where there are any.
    pub fn learnt(&self) -> &Parameters {
        self.lora.as_deref().map_or(&self.parameters, Lora::parameters)
    }

    /// The embedding table, vocab_size by hidden_size.
    pub(crate) fn embedding(&self) -> Operand<'_> {
        match &self.embedding {
            Embedding::Values(table) => {
                Operand::View(View::new(&table.values, self.config.vocab_size, self.config.hidden_size))
            }
            Embedding::Table(table) => Operand::Packed(table.matrix()),
            Embedding::Head => Operand::Packed(self.head.matrix()),
        }
    }

    pub(crate) fn rope(&self) -> &RopeTable {
        &self.rope
    }

    /// The output projection, vocab_size by hidden_size.
    pub fn head(&self) -> &Matrix {
        self.head.matrix()
    }

    /// The output projection in an arena (values or gradient).
    pub fn head_range(&self) -> Range<usize> {
        self.head.at()..self.head.at() + self.config.vocab_size * self.config.hidden_size
    }

    /// Positions that it can run.
    pub fn context(&self) -> usize {
        rotary::positions(&self.config)
    }

    /// Sizes of what it remembers of a token, in f32 as training needs it.
    pub fn kv_layout(&self) -> KvLayout {
        let (kv_heads, key_width, value_width) = match self.config.attention {
            Attention::Grouped { kv_heads, head_dim, .. } => (kv_heads, head_dim, head_dim),
            Attention::Latent { kv_lora_rank, rope_dim, .. } => (1, kv_lora_rank + rope_dim, kv_lora_rank),
        };
        KvLayout { layers: self.config.layers, kv_heads, key_width, value_width, dtype: KvDtype::F32 }
    }

    /// Runs a batch: its keys and values go into the pages, `a.hidden` holds its hidden states after the final norm.
    ///
    /// A row's result depends on its own sequence up to that row alone.
    pub fn forward(&self, cpu: &Cpu, batch: &Batch, kv: &mut KvPages, a: &mut Activations) {
        let (rows, hidden) = (batch.tokens.len(), self.config.hidden_size);
        let Activations { room, layers, shared, loads, x, inv_rms, hidden: out } = a;
        let mut free = *room;
        layers.resize_with(if free.is_some() { self.layers.len() } else { 0 }, LayerActivations::default);
        loads.clear();
        x.resize(rows * hidden);
        gather(cpu, self.embedding(), &batch.tokens, x);
        let positions = batch.positions();
        for (index, layer) in self.layers.iter().enumerate() {
            let pass = Pass { cpu, layer: index, spans: &batch.spans, positions: &positions, rope: &self.rope };
            let Some(free) = &mut free else {
                layer.forward(&pass, kv, false, shared, x);
                continue;
            };
            let a = &mut layers[index];
            if !a.is_whole() {
                a.take(shared);
            }
            layer.forward(&pass, kv, true, a, x);
            let chosen = Layer::loads(a);
            loads.extend((!chosen.is_empty()).then_some(chosen));
            match free.checked_sub(a.bytes()) {
                Some(rest) => *free = rest,
                None => shared.take(a),
            }
        }
        inv_rms.resize(rows);
        out.resize(rows * hidden);
        rms_norm(cpu, View::new(x, rows, hidden), &self.norm.values, self.config.norm_eps, out, inv_rms);
    }

    /// Logits of hidden states: rows by vocab_size.
    pub fn logits(&self, cpu: &Cpu, hidden: View<'_>, out: &mut [f32]) {
        linear(cpu, self.head.matrix(), hidden, out);
    }

    /// From the gradient of `a.hidden`, the gradients of all tensors, added to `gradient`; the output projection's own use
    /// is the caller's ([`minke_kernels::log_prob`]). `a` and `kv` are those of the forward pass of `batch`, whose spans
    /// are whole sequences; `values` is the arena that the model was made from, or that of its adapters.
    ///
    /// With `alpha` > 0 the sequence balance loss (arXiv 2412.19437, equations 17–20) of every mixture is added, and
    /// their sum is returned.
    pub fn backward(
        &self,
        cpu: &Cpu,
        values: &[f32],
        batch: &Batch,
        kv: &mut KvPages,
        a: &mut Activations,
        d_hidden: &[f32],
        alpha: f32,
        gradient: &mut [f32],
    ) -> f32 {
        let (rows, hidden) = (batch.tokens.len(), self.config.hidden_size);
        let Activations { layers, shared, x, inv_rms, .. } = a;
        assert!(layers.len() == self.layers.len(), "backward needs what a training pass kept");
        let positions = batch.positions();
        let sequences: Vec<_> = batch.spans.iter().map(|span| span.rows.clone()).collect();
        let mut d_x = cpu.scratch(rows * hidden);
        let d_norm = self.norm.gradient(gradient);
        let x = View::new(x, rows, hidden);
        rms_norm_backward(cpu, x, &self.norm.values, inv_rms, d_hidden, &mut d_x, hidden, false, d_norm);
        let all = layers.iter().all(LayerActivations::is_whole);
        let mut again = cpu.scratch(if all { 0 } else { rows * hidden });
        let mut d_normed = cpu.scratch(rows * hidden);
        let mut loss = 0.0;
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let pass = Pass { cpu, layer: index, spans: &batch.spans, positions: &positions, rope: &self.rope };
            let a = match &layers[index] {
                whole if whole.is_whole() => whole,
                LayerActivations { input, .. } => {
                    again.copy_from_slice(input);
                    layer.forward(&pass, kv, true, shared, &mut again);
                    &*shared
                }
            };
            loss += layer.backward(&pass, values, kv, &sequences, alpha, a, &mut d_x, &mut d_normed, gradient);
        }
        if let Some(d_table) = self.embedding_gradient(gradient) {
            scatter_add(cpu, &batch.tokens, &d_x, d_table);
        }
        loss
    }

    /// The embedding table's place in a gradient, vocab_size by hidden_size; none where it is frozen.
    pub(crate) fn embedding_gradient<'g>(&self, gradient: &'g mut [f32]) -> Option<&'g mut [f32]> {
        match &self.embedding {
            Embedding::Values(table) => table.gradient(gradient),
            Embedding::Table(_) | Embedding::Head if self.lora.is_some() => None,
            Embedding::Head => Some(&mut gradient[self.head_range()]),
            Embedding::Table(_) => panic!("backward of a model that was not made from an arena"),
        }
    }
}

impl Layer {
    /// Block `layer` of the model, filled by [`Layer::fill`].
    pub fn new(config: &Config, layer: usize, precision: Precision) -> Layer {
        Layer {
            attention_norm: Vector::default(),
            attention: AttentionWeights::new(config, precision),
            feed_forward_norm: Vector::default(),
            feed_forward: FeedForwardWeights::new(config, layer, precision),
            eps: config.norm_eps,
        }
    }

    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        self.attention_norm.fill(reader, 1)?;
        self.attention.fill(cpu, reader)?;
        self.feed_forward_norm.fill(reader, 1)?;
        self.feed_forward.fill(cpu, reader)
    }

    /// x += attention and feed-forward of it; `keep` for backward.
    pub fn forward(&self, pass: &Pass<'_>, kv: &mut KvPages, keep: bool, a: &mut LayerActivations, x: &mut [f32]) {
        let (cpu, rows) = (pass.cpu, pass.positions.len());
        let hidden = x.len() / rows.max(1);
        if keep {
            a.input.resize(x.len());
            a.input.copy_from_slice(x);
        }
        let (normed, _) = self.norm(cpu, View::new(x, rows, hidden), &self.attention_norm);
        self.attention.forward(pass, kv, View::new(&normed, rows, hidden), &mut a.attention, x);
        if keep {
            a.middle.resize(x.len());
            a.middle.copy_from_slice(x);
        }
        let (normed, _) = self.norm(cpu, View::new(x, rows, hidden), &self.feed_forward_norm);
        self.feed_forward.forward(cpu, View::new(&normed, rows, hidden), &mut a.feed_forward, x);
    }

    /// `x` after a norm, and 1 / rms of its rows.
    fn norm<'a>(&self, cpu: &'a Cpu, x: View<'_>, norm: &Vector) -> (Scratch<'a>, Scratch<'a>) {
        let (mut normed, mut inv_rms) = (cpu.scratch(x.rows() * x.cols()), cpu.scratch(x.rows()));
        rms_norm(cpu, x, &norm.values, self.eps, &mut normed, &mut inv_rms);
        (normed, inv_rms)
    }

    /// From the gradient of what [`Layer::forward`] came to, in `d_x`, that of what it began with, in its place; the tensors' are
    /// added to `gradient`. `d_normed` is as long as `d_x`, and has anything. Returns the balance loss, as
    /// [`Transformer::backward`] does.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        values: &[f32],
        kv: &mut KvPages,
        sequences: &[Range<usize>],
        alpha: f32,
        a: &LayerActivations,
        d_x: &mut [f32],
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) -> f32 {
        let (cpu, rows) = (pass.cpu, pass.positions.len());
        let hidden = d_x.len() / rows.max(1);
        let (x, weight) = (View::new(&a.middle, rows, hidden), &self.feed_forward_norm);
        let (normed, inv) = self.norm(cpu, x, weight);
        let loss = self.feed_forward.backward(
            cpu,
            values,
            View::new(&normed, rows, hidden),
            &a.feed_forward,
            sequences,
            alpha,
            View::new(d_x, rows, hidden),
            d_normed,
            gradient,
        );
        rms_norm_backward(cpu, x, &weight.values, &inv, d_normed, d_x, hidden, true, weight.gradient(gradient));

        let (x, weight) = (View::new(&a.input, rows, hidden), &self.attention_norm);
        let (normed, inv) = self.norm(cpu, x, weight);
        let (normed, d_x_view) = (View::new(&normed, rows, hidden), View::new(d_x, rows, hidden));
        self.attention.backward(pass, values, kv, normed, &a.attention, d_x_view, d_normed, gradient);
        rms_norm_backward(cpu, x, &weight.values, &inv, d_normed, d_x, hidden, true, weight.gradient(gradient));
        loss
    }

    /// For each expert, how many of the last pass's tokens chose it; nothing where there are none.
    pub fn loads(a: &LayerActivations) -> Vec<u64> {
        a.feed_forward.loads().collect()
    }
}
