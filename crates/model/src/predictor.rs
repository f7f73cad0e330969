//! Multi-token prediction: a block that looks one token further than the model (DeepSeek-V3, arXiv 2412.19437, section 2.2).
//!
//! ```text
//! x = eh_proj [norm(embedding[next token]) | norm(the model's hidden state)]
//! x = block(x);  logits = norm(x) headᵀ
//! ```

use minke_kernels::embedding::{gather, scatter_add};
use minke_kernels::gemm::Mode;
use minke_kernels::head_norm::{rms_norm_heads, rms_norm_heads_backward};
use minke_kernels::heads::Heads;
use minke_kernels::kv::{KvLayout, KvPages};
use minke_kernels::norm::{rms_norm, rms_norm_backward};
use minke_kernels::{Buffer, Cpu, View};

use crate::attention::Pass;
use crate::batch::Batch;
use crate::config::Config;
use crate::error::Result;
use crate::parameters::{Parameters, prediction_shapes};
use crate::stored::Precision;
use crate::transformer::{Layer, LayerActivations, Transformer};
use crate::weight::{Reader, Source, Vector, Weight};

/// A model's block for multi-token prediction. The embedding table and the output projection are the model's own.
pub struct Predictor {
    embedding_norm: Vector,
    hidden_norm: Vector,
    /// hidden_size by embedding | hidden state
    project: Weight,
    layer: Layer,
    norm: Vector,
    eps: f32,
}

/// What a pass leaves behind; reused from pass to pass.
#[derive(Default)]
pub struct Predictions {
    /// Whether backward comes.
    keep: bool,
    embedded: Buffer,
    joined: Buffer,
    embedding_inv_rms: Buffer,
    hidden_inv_rms: Buffer,
    inv_rms: Buffer,
    x: Buffer,
    layer: LayerActivations,
    /// After the final norm: rows by hidden_size; [`Transformer::logits`] makes logits of it.
    pub hidden: Buffer,
}

impl Predictions {
    /// Keeps what backward needs.
    pub fn training() -> Predictions {
        Predictions { keep: true, ..Predictions::default() }
    }

    /// If the block is a mixture of experts, how many of the last pass's tokens chose each expert.
    pub fn loads(&self) -> Option<Vec<u64>> {
        Some(Layer::loads(&self.layer)).filter(|loads| !loads.is_empty())
    }
}

impl Predictor {
    /// The block with the tensors of `source`, which are those of [`Parameters::of_prediction`], kept in `precision`.
    ///
    /// # Errors
    /// Those of the source: most published models have no such block.
    pub fn new(cpu: &Cpu, config: &Config, precision: Precision, source: Source<'_>) -> Result<Predictor> {
        let parameters = Parameters::of_prediction(config);
        let mut predictor = Predictor::empty(config, precision);
        predictor.fill(cpu, &mut Reader::new(source, &parameters))?;
        Ok(predictor)
    }

    /// The block of a model that learns: `values` is the arena of both, laid out as `parameters` ([`Parameters::learnt`]) says.
    pub fn learning(
        cpu: &Cpu,
        config: &Config,
        precision: Precision,
        parameters: &Parameters,
        values: &[f32],
    ) -> Predictor {
        let mut predictor = Predictor::empty(config, precision);
        predictor.refresh(cpu, config, parameters, values);
        predictor
    }

    /// Takes over new values after an update.
    pub fn refresh(&mut self, cpu: &Cpu, config: &Config, parameters: &Parameters, values: &[f32]) {
        let mut reader = Reader::new(Source::Arena(values), parameters);
        reader.skip_to_last(prediction_shapes(config).count());
        assert!(self.fill(cpu, &mut reader).is_ok(), "an arena has every tensor");
    }

    fn empty(config: &Config, precision: Precision) -> Predictor {
        let hidden = config.hidden_size;
        Predictor {
            embedding_norm: Vector::default(),
            hidden_norm: Vector::default(),
            project: Weight::new(precision, hidden, 2 * hidden),
            layer: Layer::new(config, config.layers, precision),
            norm: Vector::default(),
            eps: config.norm_eps,
        }
    }

    fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        self.embedding_norm.fill(reader, 1)?;
        self.hidden_norm.fill(reader, 1)?;
        self.project.fill(cpu, reader, 1)?;
        self.layer.fill(cpu, reader)?;
        self.norm.fill(reader, 1)
    }

    /// Sizes of what the model and its block remember of a token: the block's keys and values are one more layer.
    pub fn kv_layout(model: &Transformer) -> KvLayout {
        let layout = model.kv_layout();
        KvLayout { layers: layout.layers + 1, ..layout }
    }

    /// For each row, whose token follows the one that `hidden` (rows by hidden_size, after the model's final norm) is of,
    /// and which stands at that one's position: what the token after it may be, in `a.hidden`. Where `hidden` is
    /// the block's own it looks further ahead.
    pub fn forward(
        &self,
        cpu: &Cpu,
        model: &Transformer,
        batch: &Batch,
        hidden: View<'_>,
        kv: &mut KvPages,
        a: &mut Predictions,
    ) {
        let (rows, width) = (hidden.rows(), hidden.cols());
        assert_eq!(batch.tokens.len(), rows, "a hidden state for each token");
        let positions = batch.positions();
        a.embedded.resize(rows * width);
        gather(cpu, model.embedding(), &batch.tokens, &mut a.embedded);
        a.joined.resize(rows * 2 * width);
        let norms = [
            (&*a.embedded, &self.embedding_norm, 0, &mut a.embedding_inv_rms),
            (hidden.contiguous(), &self.hidden_norm, width, &mut a.hidden_inv_rms),
        ];
        for (x, norm, offset, inv_rms) in norms {
            let from = Heads { row: width, head: width, offset: 0 };
            let to = (&mut *a.joined, Heads { row: 2 * width, head: width, offset });
            inv_rms.resize(rows);
            rms_norm_heads(cpu, (rows, 1), (x, from), &norm.values, self.eps, to, inv_rms);
        }
        a.x.resize(rows * width);
        self.project.forward(cpu, View::new(&a.joined, rows, 2 * width), Mode::Set, &mut a.x);
        let pass =
            Pass { cpu, layer: model.config().layers, spans: &batch.spans, positions: &positions, rope: model.rope() };
        self.layer.forward(&pass, kv, a.keep, &mut a.layer, &mut a.x);
        a.hidden.resize(rows * width);
        a.inv_rms.resize(rows);
        let x = View::new(&a.x, rows, width);
        rms_norm(cpu, x, &self.norm.values, self.eps, &mut a.hidden, &mut a.inv_rms);
    }

    /// From `d_out`, the gradient of `a.hidden`, the gradients of the block's tensors and of the model's embedding table, added to
    /// `gradient`; that of `hidden`, rows by hidden_size, is set in `d_hidden`. The other arguments are those of the forward
    /// pass, whose spans are whole sequences; `values` and `gradient` are laid out as [`Parameters::learnt`] says.
    ///
    /// The output projection's own use is the caller's, as is the way of `d_hidden` back through the model. `alpha` is as in
    /// [`Transformer::backward`].
    pub fn backward(
        &self,
        cpu: &Cpu,
        model: &Transformer,
        values: &[f32],
        batch: &Batch,
        hidden: View<'_>,
        kv: &mut KvPages,
        a: &Predictions,
        d_out: &[f32],
        alpha: f32,
        d_hidden: &mut [f32],
        gradient: &mut [f32],
    ) {
        let (rows, width) = (hidden.rows(), hidden.cols());
        assert!(a.keep, "backward needs what a training pass kept");
        let positions = batch.positions();
        let sequences: Vec<_> = batch.spans.iter().map(|span| span.rows.clone()).collect();
        let mut d_x = cpu.scratch(rows * width);
        let d_norm = self.norm.gradient(gradient);
        let x = View::new(&a.x, rows, width);
        rms_norm_backward(cpu, x, &self.norm.values, &a.inv_rms, d_out, &mut d_x, width, false, d_norm);
        let pass =
            Pass { cpu, layer: model.config().layers, spans: &batch.spans, positions: &positions, rope: model.rope() };
        let mut d_normed = cpu.scratch(rows * width);
        self.layer.backward(&pass, values, kv, &sequences, alpha, &a.layer, &mut d_x, &mut d_normed, gradient);

        let d_x = View::new(&d_x, rows, width);
        let mut d_joined = cpu.scratch(rows * 2 * width);
        self.project.backward_weight(cpu, d_x, View::new(&a.joined, rows, 2 * width), gradient);
        self.project.backward_input(cpu, values, d_x, Mode::Set, &mut d_joined);
        let norms = [
            (&*a.embedded, &self.embedding_norm, 0, &a.embedding_inv_rms),
            (hidden.contiguous(), &self.hidden_norm, width, &a.hidden_inv_rms),
        ];
        for (x, norm, offset, inv_rms) in norms {
            let from = Heads { row: width, head: width, offset: 0 };
            let d = (&mut *d_joined, Heads { row: 2 * width, head: width, offset });
            rms_norm_heads_backward(cpu, (rows, 1), (x, from), &norm.values, inv_rms, d, norm.gradient(gradient));
        }
        let mut d_embedded = d_normed;
        let parts = d_embedded.chunks_exact_mut(width).zip(d_hidden.chunks_exact_mut(width));
        for ((d_embedded, d_hidden), d_joined) in parts.zip(d_joined.chunks_exact(2 * width)) {
            d_embedded.copy_from_slice(&d_joined[..width]);
            d_hidden.copy_from_slice(&d_joined[width..]);
        }
        if let Some(d_table) = model.embedding_gradient(gradient) {
            scatter_add(cpu, &batch.tokens, &d_embedded, d_table);
        }
    }
}
