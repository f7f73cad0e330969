//! What the engine needs of a model.

use minke_kernels::elementwise::gather_rows;
use minke_kernels::kv::{KvDtype, KvLayout, KvPages};
use minke_kernels::{Buffer, Cpu, View};
use minke_model::{Activations, Batch, Predictor, Transformer};

use crate::drafter::Drafter;
use crate::mtp::Mtp;

/// A model that goes on from tokens: the transformer, or a script in tests.
pub trait Decoder {
    /// The machine that it runs on.
    fn cpu(&self) -> &Cpu;

    /// Sizes of what it remembers of a token.
    fn kv_layout(&self) -> KvLayout;

    /// Token ids are below this.
    fn vocab_size(&self) -> usize;

    /// Positions that it can run.
    fn context(&self) -> usize;

    /// Another number whenever the weights have changed: pages made by other weights must not be read.
    fn version(&self) -> u64;

    /// Runs a batch, whose keys and values go into its pages, and sets `logits` to the logits of the batch's rows `rows`
    /// (ascending), rows by `vocab_size`. A row's result depends on its own sequence up to that row alone.
    fn forward(&mut self, batch: &Batch, kv: &mut KvPages, rows: &[u32], logits: &mut Buffer);

    /// What guesses its next tokens, if anything does.
    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        None
    }
}

/// The transformer as a decoder.
pub struct TransformerDecoder<'a> {
    cpu: &'a Cpu,
    transformer: &'a Transformer,
    kv: KvDtype,
    activations: Activations,
    /// Hidden states of the rows whose logits are wanted.
    hidden: Buffer,
    mtp: Option<Mtp<'a>>,
}

impl<'a> TransformerDecoder<'a> {
    /// Runs `transformer` on `cpu`, with keys and values in f32, as training has them.
    pub fn new(cpu: &'a Cpu, transformer: &'a Transformer) -> TransformerDecoder<'a> {
        let (activations, hidden) = (Activations::inference(), Buffer::default());
        TransformerDecoder { cpu, transformer, kv: KvDtype::F32, activations, hidden, mtp: None }
    }

    /// The same, with keys and values kept otherwise.
    pub fn with_kv(self, kv: KvDtype) -> TransformerDecoder<'a> {
        TransformerDecoder { kv, ..self }
    }

    /// The same, whose tokens are guessed by the model's own block for multi-token prediction; for `row` see
    /// [`Costs::row`](crate::Costs::row).
    pub fn predicting(self, predictor: &'a Predictor, row: f64) -> TransformerDecoder<'a> {
        TransformerDecoder { mtp: Some(Mtp::new(self.cpu, self.transformer, predictor, row)), ..self }
    }
}

impl Decoder for TransformerDecoder<'_> {
    fn cpu(&self) -> &Cpu {
        self.cpu
    }

    fn kv_layout(&self) -> KvLayout {
        let layout = match self.mtp {
            Some(_) => Predictor::kv_layout(self.transformer),
            None => self.transformer.kv_layout(),
        };
        layout.kept_as(self.kv)
    }

    fn vocab_size(&self) -> usize {
        self.transformer.config().vocab_size
    }

    fn context(&self) -> usize {
        self.transformer.context()
    }

    fn version(&self) -> u64 {
        self.transformer.version()
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvPages, rows: &[u32], logits: &mut Buffer) {
        self.transformer.forward(self.cpu, batch, kv, &mut self.activations);
        let width = self.transformer.config().hidden_size;
        self.hidden.resize(rows.len() * width);
        gather_rows(self.cpu, &self.activations.hidden, width, rows, &mut self.hidden);
        logits.resize(rows.len() * self.vocab_size());
        self.transformer.logits(self.cpu, View::new(&self.hidden, rows.len(), width), logits);
        if let Some(mtp) = &mut self.mtp {
            mtp.see(&mut self.activations.hidden);
        }
    }

    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        self.mtp.as_mut().map(|mtp| mtp as &mut dyn Drafter)
    }
}
