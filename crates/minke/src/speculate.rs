//! `--speculate`: what guesses a model's next tokens, which changes how fast they come and nothing else.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use minke_engine::{Costs, DraftModel, Drafter, Lookup, Speculative, TransformerDecoder};
use minke_kernels::Cpu;
use minke_kernels::kv::KvDtype;
use minke_model::{Checkpoint, Precision, Predictor, Source, Tokenizer, Transformer};

use crate::load;

/// What may stand behind `--speculate`.
#[derive(Clone, Debug, PartialEq)]
pub enum Speculate {
    Off,
    Lookup,
    /// The model's own block for multi-token prediction.
    Mtp,
    /// A smaller model of the same vocabulary.
    Model(String),
}

impl From<String> for Speculate {
    fn from(text: String) -> Speculate {
        match text.as_str() {
            "off" => Speculate::Off,
            "lookup" => Speculate::Lookup,
            "mtp" => Speculate::Mtp,
            _ => Speculate::Model(text),
        }
    }
}

/// What guesses, ready to run.
#[derive(Clone, Default)]
pub enum Speculation {
    #[default]
    Off,
    Lookup,
    /// The model's own block: none until [`Speculation::fitted`] knows the model.
    Mtp(Option<Arc<Predictor>>),
    Model(Arc<Small>),
}

/// A model that guesses for others.
pub struct Small {
    name: String,
    transformer: Transformer,
    tokenizer: Tokenizer,
    /// Of its weights in memory.
    bytes: u64,
}

impl Small {
    /// Reads it; `name` is what whoever chose it calls it.
    pub fn load(cpu: &Cpu, name: &str, checkpoint: &Checkpoint, precision: Precision) -> Result<Small> {
        let (tokenizer, bytes) = (checkpoint.tokenizer()?, checkpoint.describe()?.bytes_in(precision));
        let transformer = load::transformer(cpu, checkpoint, precision)?;
        Ok(Small { name: name.to_string(), transformer, tokenizer, bytes })
    }
}

impl Speculation {
    /// Loads the model, if it is one.
    pub fn load(speculate: &Speculate, cpu: &Cpu, precision: Precision) -> Result<Speculation> {
        let name = match speculate {
            Speculate::Off => return Ok(Speculation::Off),
            Speculate::Lookup => return Ok(Speculation::Lookup),
            Speculate::Mtp => return Ok(Speculation::Mtp(None)),
            Speculate::Model(name) => name,
        };
        let small = load::open(name).and_then(|checkpoint| Small::load(cpu, name, &checkpoint, precision));
        let small = small.context("--speculate takes off, lookup, mtp or a model, and the model fails")?;
        Ok(Speculation::Model(Arc::new(small)))
    }

    /// Bytes of weights that it keeps, whatever it guesses for.
    pub fn bytes(&self) -> u64 {
        match self {
            Speculation::Model(small) => small.bytes,
            Speculation::Off | Speculation::Lookup | Speculation::Mtp(_) => 0,
        }
    }

    /// Bytes of weights that it needs beside those of the model in `checkpoint`, to guess for it.
    pub fn bytes_for(&self, checkpoint: &Checkpoint, precision: Precision) -> u64 {
        match self {
            // Without a block, or with a broken one, something else will guess.
            Speculation::Mtp(_) => checkpoint.prediction_bytes(precision).unwrap_or(0),
            Speculation::Off | Speculation::Lookup | Speculation::Model(_) => 0,
        }
    }

    /// The same for the model in `checkpoint`, whose tokenizer this is; or why it can't guess for that model.
    pub fn fitted(
        &self,
        cpu: &Cpu,
        checkpoint: &Checkpoint,
        precision: Precision,
        tokenizer: &Tokenizer,
    ) -> Result<Speculation> {
        match self {
            Speculation::Off | Speculation::Lookup => {}
            Speculation::Mtp(_) => {
                ensure!(
                    checkpoint.predicts(),
                    "this model has no block for multi-token prediction, which DeepSeek-V3 has; guess with --speculate lookup \
                     or a smaller model"
                );
                let source = Source::Checkpoint(checkpoint);
                let predictor = Predictor::new(cpu, checkpoint.config(), precision, source)?;
                return Ok(Speculation::Mtp(Some(Arc::new(predictor))));
            }
            Speculation::Model(small) => {
                let ids = 0..tokenizer.vocab_size() as u32;
                let same = small.tokenizer.vocab_size() == tokenizer.vocab_size()
                    && ids.into_iter().all(|id| small.tokenizer.token(id) == tokenizer.token(id));
                ensure!(
                    same,
                    "{} has another vocabulary, so it can't guess for this model; give a smaller model of the same family, \
                     or --speculate lookup",
                    small.name
                );
            }
        }
        Ok(self.clone())
    }

    /// The model's own block, where that is what guesses.
    pub fn predictor(&self) -> Option<&Predictor> {
        match self {
            Speculation::Mtp(predictor) => predictor.as_deref(),
            Speculation::Off | Speculation::Lookup | Speculation::Model(_) => None,
        }
    }

    /// What guesses for `transformer` from outside it, in at most so many pages of its own.
    pub fn drafter<'a>(
        &'a self,
        cpu: &'a Cpu,
        transformer: &Transformer,
        pages: usize,
    ) -> Option<Box<dyn Drafter + 'a>> {
        match self {
            Speculation::Off | Speculation::Mtp(_) => None,
            Speculation::Lookup => Some(Box::new(Lookup::default())),
            Speculation::Model(small) => {
                // Decoding takes as long as weights take to be read.
                let read = |model: &Transformer| model.parameters().read_by_a_row(model.config());
                let token = read(&small.transformer) / read(transformer);
                let decoder = TransformerDecoder::new(cpu, &small.transformer);
                Some(Box::new(DraftModel::new(decoder, pages, Costs::ROW, token)))
            }
        }
    }

    /// `transformer` with what guesses for it, its keys and values kept as `kv`.
    pub fn decoder<'a>(
        &'a self,
        cpu: &'a Cpu,
        transformer: &'a Transformer,
        kv: KvDtype,
        pages: usize,
    ) -> Speculative<'a, TransformerDecoder<'a>> {
        let mut decoder = TransformerDecoder::new(cpu, transformer).with_kv(kv);
        if let Some(predictor) = self.predictor() {
            decoder = decoder.predicting(predictor, Costs::ROW);
        }
        Speculative { decoder, drafter: self.drafter(cpu, transformer, pages) }
    }

    /// Bytes of a page of `transformer`'s keys and values, and of the page that guesses may need beside it.
    pub fn page_bytes(&self, transformer: &Transformer, kv: KvDtype) -> usize {
        let own = match self.predictor() {
            Some(_) => Predictor::kv_layout(transformer),
            None => transformer.kv_layout(),
        };
        let beside = match self {
            Speculation::Model(small) => small.transformer.kv_layout().page_bytes(),
            Speculation::Off | Speculation::Lookup | Speculation::Mtp(_) => 0,
        };
        own.kept_as(kv).page_bytes() + beside
    }
}
