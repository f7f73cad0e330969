//! Multi-token prediction: a block that looks one token further than the model (DeepSeek-V3, arXiv 2412.19437, section 2.2).
//!
//! ```text
//! x = eh_proj [norm(embedding[next token]) | norm(the model's hidden state)]
//! x = block(x);  logits = norm(x) headᵀ
//! ```

use minke_kernels::embedding::gather;
use minke_kernels::gemm::Mode;
use minke_kernels::head_norm::rms_norm_heads;
use minke_kernels::heads::Heads;
use minke_kernels::kv::{KvLayout, KvPages};
use minke_kernels::norm::rms_norm;
use minke_kernels::{Buffer, Cpu, View};

use crate::attention::Pass;
use crate::batch::Batch;
use crate::config::Config;
use crate::error::Result;
use crate::parameters::Parameters;
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
    embedded: Buffer,
    joined: Buffer,
    inv_rms: Buffer,
    x: Buffer,
    layer: LayerActivations,
    /// After the final norm: rows by hidden_size; [`Transformer::logits`] makes logits of it.
    pub hidden: Buffer,
}

impl Predictor {
    /// The block with the tensors of `source`, which are those of [`Parameters::of_prediction`], kept in `precision`.
    ///
    /// # Errors
    /// Those of the source: most published models have no such block.
    pub fn new(cpu: &Cpu, config: &Config, precision: Precision, source: Source<'_>) -> Result<Predictor> {
        let hidden = config.hidden_size;
        let mut predictor = Predictor {
            embedding_norm: Vector::default(),
            hidden_norm: Vector::default(),
            project: Weight::new(precision, hidden, 2 * hidden),
            layer: Layer::new(config, config.layers, precision),
            norm: Vector::default(),
            eps: config.norm_eps,
        };
        let parameters = Parameters::of_prediction(config);
        let mut reader = Reader::new(source, &parameters);
        predictor.embedding_norm.fill(&mut reader, 1)?;
        predictor.hidden_norm.fill(&mut reader, 1)?;
        predictor.project.fill(cpu, &mut reader, 1)?;
        predictor.layer.fill(cpu, &mut reader)?;
        predictor.norm.fill(&mut reader, 1)?;
        Ok(predictor)
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
        a.inv_rms.resize(rows);
        let norms = [(&*a.embedded, &self.embedding_norm, 0), (hidden.contiguous(), &self.hidden_norm, width)];
        for (x, norm, offset) in norms {
            let from = Heads { row: width, head: width, offset: 0 };
            let to = (&mut *a.joined, Heads { row: 2 * width, head: width, offset });
            rms_norm_heads(cpu, (rows, 1), (x, from), &norm.values, self.eps, to, &mut a.inv_rms);
        }
        a.x.resize(rows * width);
        self.project.forward(cpu, View::new(&a.joined, rows, 2 * width), Mode::Set, &mut a.x);
        let pass =
            Pass { cpu, layer: model.config().layers, spans: &batch.spans, positions: &positions, rope: model.rope() };
        self.layer.forward(&pass, kv, false, self.eps, &mut a.layer, &mut a.x);
        a.hidden.resize(rows * width);
        let x = View::new(&a.x, rows, width);
        rms_norm(cpu, x, &self.norm.values, self.eps, &mut a.hidden, &mut a.inv_rms);
    }
}
