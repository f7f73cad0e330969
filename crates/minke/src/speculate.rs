//! `--speculate`: what guesses a model's next tokens, which changes how fast they come and nothing else.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use minke_engine::{Costs, DraftModel, Drafter, Lookup, TransformerDecoder};
use minke_kernels::Cpu;
use minke_model::{Precision, Tokenizer, Transformer};

use crate::load;

/// What may stand behind `--speculate`.
#[derive(Clone, Debug, PartialEq)]
pub enum Speculate {
    Off,
    Lookup,
    /// A smaller model of the same vocabulary.
    Model(String),
}

impl From<String> for Speculate {
    fn from(text: String) -> Speculate {
        match text.as_str() {
            "off" => Speculate::Off,
            "lookup" => Speculate::Lookup,
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

impl Speculation {
    /// Loads the model, if it is one.
    pub fn load(speculate: &Speculate, cpu: &Cpu, precision: Precision) -> Result<Speculation> {
        let name = match speculate {
            Speculate::Off => return Ok(Speculation::Off),
            Speculate::Lookup => return Ok(Speculation::Lookup),
            Speculate::Model(name) => name.clone(),
        };
        let load = || {
            let checkpoint = load::open(&name)?;
            let (tokenizer, bytes) = (checkpoint.tokenizer()?, checkpoint.describe()?.bytes_in(precision));
            let transformer = load::transformer(cpu, &checkpoint, precision)?;
            Ok(Small { name: name.clone(), transformer, tokenizer, bytes })
        };
        let small: Result<Small> = load();
        Ok(Speculation::Model(Arc::new(
            small.context("--speculate takes off, lookup or a model, and the model fails")?,
        )))
    }

    /// Bytes of weights that it keeps.
    pub fn bytes(&self) -> u64 {
        match self {
            Speculation::Model(small) => small.bytes,
            Speculation::Off | Speculation::Lookup => 0,
        }
    }

    /// Whether it can guess for a model with this tokenizer.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<()> {
        let Speculation::Model(small) = self else { return Ok(()) };
        let ids = 0..tokenizer.vocab_size() as u32;
        let same = small.tokenizer.vocab_size() == tokenizer.vocab_size()
            && ids.into_iter().all(|id| small.tokenizer.token(id) == tokenizer.token(id));
        ensure!(
            same,
            "{} has another vocabulary, so it can't guess for this model; give a smaller model of the same family, or \
             --speculate lookup",
            small.name
        );
        Ok(())
    }

    /// What guesses for `transformer`, in at most so many pages of its own.
    pub fn drafter<'a>(
        &'a self,
        cpu: &'a Cpu,
        transformer: &Transformer,
        pages: usize,
    ) -> Option<Box<dyn Drafter + 'a>> {
        match self {
            Speculation::Off => None,
            Speculation::Lookup => Some(Box::new(Lookup::default())),
            Speculation::Model(small) => {
                // Decoding takes as long as weights take to be read.
                let token = small.transformer.parameters().len() as f64 / transformer.parameters().len() as f64;
                let decoder = TransformerDecoder::new(cpu, &small.transformer);
                Some(Box::new(DraftModel::new(decoder, pages, Costs::ROW, token)))
            }
        }
    }
}
