//! A forward pass over examples to learn from, in which a group's prompt goes through the model once.

use minke_kernels::cpu::Scratch;
use minke_kernels::elementwise::gather_rows;
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob};
use minke_kernels::{Cpu, View};
use minke_model::{Activations, Batch, Transformer};

use super::Example;

/// A forward pass over examples, as far as the activations don't hold it.
pub(super) struct Pass<'c> {
    pub batch: Batch,
    /// The rows that predict the learnt tokens,
    pub rows: Vec<u32>,
    /// and those tokens.
    pub targets: Vec<u32>,
    /// The row of each token of each example but its last.
    pub states: Vec<u32>,
    /// Hidden states of those rows: rows by hidden_size.
    pub hidden: Scratch<'c>,
    pub log_probs: Vec<LogProb>,
}

impl<'c> Pass<'c> {
    /// Forward, to the log-probabilities of the learnt tokens.
    pub fn forward(
        cpu: &'c Cpu,
        transformer: &Transformer,
        kv: &mut KvPages,
        a: &mut Activations,
        examples: &[Example],
        inverse_temperature: f32,
    ) -> Pass<'c> {
        let mut pass = Pass::states(cpu, transformer, kv, a, examples);
        let view = View::new(&pass.hidden, pass.rows.len(), transformer.config().hidden_size);
        log_prob(cpu, transformer.head(), view, &pass.targets, inverse_temperature, &mut pass.log_probs);
        pass
    }

    /// As far as the final hidden states; log-probabilities are still to be found.
    pub fn states(
        cpu: &'c Cpu,
        transformer: &Transformer,
        kv: &mut KvPages,
        a: &mut Activations,
        examples: &[Example],
    ) -> Pass<'c> {
        // The last token of a sequence predicts nothing.
        let (mut batch, mut rows, mut targets, mut states) = (Batch::default(), Vec::new(), Vec::new(), Vec::new());
        let mut pages = 0;
        let mut more = |positions: usize| {
            let first = pages;
            pages += positions.div_ceil(PAGE_POSITIONS) as u32;
            first..pages
        };
        // To share a prompt of one token spares nothing.
        for group in examples.chunk_by(|a, b| a.prompt > 1 && a.given() == b.given()) {
            let prompt = group[0].given();
            // A prompt goes through the model once, whoever goes on from it.
            let past = (group.len() > 1).then(|| {
                batch.push(prompt, 0, more(prompt.len()).collect());
                (batch.spans.len() - 1, batch.tokens.len() as u32 - 1)
            });
            for example in group {
                let inputs = &example.tokens[..example.tokens.len() - 1];
                targets.extend_from_slice(&example.tokens[example.prompt..]);
                let first = batch.tokens.len() as u32;
                let Some((past, last)) = past else {
                    rows.extend(first + prompt.len() as u32 - 1..first + inputs.len() as u32);
                    states.extend(first..first + inputs.len() as u32);
                    batch.push(inputs, 0, more(inputs.len()).collect());
                    continue;
                };
                let own = &inputs[prompt.len()..];
                rows.push(last);
                rows.extend(first..first + own.len() as u32);
                states.extend((last + 1 - prompt.len() as u32..=last).chain(first..first + own.len() as u32));
                if !own.is_empty() {
                    batch.go_on(past, own, more(prompt.len() % PAGE_POSITIONS + own.len()));
                }
            }
        }
        kv.grow(pages as usize);
        transformer.forward(cpu, &batch, kv, a);

        let hidden_size = transformer.config().hidden_size;
        let mut hidden = cpu.scratch(rows.len() * hidden_size);
        gather_rows(cpu, &a.hidden, hidden_size, &rows, &mut hidden);
        let log_probs = vec![LogProb::default(); rows.len()];
        Pass { batch, rows, targets, states, hidden, log_probs }
    }
}
