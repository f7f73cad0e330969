//! Multi-token prediction as a loss (DeepSeek-V3, arXiv 2412.19437, section 2.2): the model's own block learns the token after
//! the next, and through it the model.

use minke_kernels::elementwise::gather_rows;
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward};
use minke_kernels::{Cpu, Dtype, View};
use minke_model::{Batch, Config, Parameters, Predictions, Predictor, Transformer};

use crate::learner::Example;

/// A block that learns beside its model.
pub(crate) struct Ahead {
    /// All tensors of the arena: the model's, and the block's behind them.
    pub parameters: Parameters,
    /// Whether it has learnt anything since the last update.
    pub moved: bool,
    predictor: Predictor,
    predictions: Predictions,
}

/// What a pass through the block leaves behind, besides gradients.
#[derive(Default)]
pub(crate) struct Looked {
    /// Sum of the log-probabilities of the tokens that it learnt.
    pub log_prob: f64,
    /// If the block is a mixture of experts, how many tokens chose each expert.
    pub loads: Option<Vec<u64>>,
}

impl Example {
    /// Tokens that a block for multi-token prediction learns of it: those that are learnt, but for the second of all.
    pub fn ahead(&self) -> usize {
        self.tokens.len().saturating_sub(self.prompt.max(2))
    }
}

impl Ahead {
    /// The block of a model that learns, if it has one; `values` is the arena of both.
    pub fn new(cpu: &Cpu, config: &Config, dtype: Dtype, values: &[f32]) -> Option<Ahead> {
        if config.predictions == 0 {
            return None;
        }
        let parameters = Parameters::learnt(config);
        let predictor = Predictor::learning(cpu, config, dtype.into(), &parameters, values);
        Some(Ahead { parameters, moved: false, predictor, predictions: Predictions::training() })
    }

    /// Takes over new values.
    pub fn refresh(&mut self, cpu: &Cpu, config: &Config, values: &[f32]) {
        self.predictor.refresh(cpu, config, &self.parameters, values);
    }

    /// Forward and backward of the loss −`weight` times the log-probabilities of the tokens after the next ones that `examples`
    /// learn. `hidden` are the hidden states of the model's pass (rows by hidden_size); `states` has the row of each token of
    /// each example but its last. Gradients are added to `d_hidden`, which is as long as `hidden`, and to `gradient`.
    pub fn pass(
        &mut self,
        cpu: &Cpu,
        model: &Transformer,
        values: &[f32],
        kv: &mut KvPages,
        examples: &[Example],
        (hidden, states): (&[f32], &[u32]),
        (weight, alpha): (f32, f32),
        d_hidden: &mut [f32],
        gradient: &mut [f32],
    ) -> Looked {
        let width = model.config().hidden_size;
        // Row i of an example has the hidden state of token i, and token i + 1, and predicts token i + 2.
        let (mut batch, mut from, mut rows, mut targets) = (Batch::default(), Vec::new(), Vec::new(), Vec::new());
        let (mut pages, mut at) = (0, 0);
        for Example { tokens, prompt } in examples {
            let count = tokens.len().saturating_sub(2);
            if count > 0 {
                let (first, given) = (batch.tokens.len() as u32, (*prompt).max(2) - 2);
                let next = pages + count.div_ceil(PAGE_POSITIONS) as u32;
                batch.push(&tokens[1..=count], 0, (pages..next).collect());
                pages = next;
                from.extend_from_slice(&states[at..at + count]);
                rows.extend(first + given as u32..first + count as u32);
                targets.extend_from_slice(&tokens[given + 2..]);
            }
            at += tokens.len() - 1;
        }
        if from.is_empty() {
            return Looked::default();
        }
        let mut own = cpu.scratch(from.len() * width);
        gather_rows(cpu, hidden, width, &from, &mut own);
        let own = View::new(&own, from.len(), width);
        kv.grow(pages as usize);
        self.predictor.forward(cpu, model, &batch, own, kv, &mut self.predictions);

        let mut out = cpu.scratch(rows.len() * width);
        gather_rows(cpu, &self.predictions.hidden, width, &rows, &mut out);
        let out = View::new(&out, rows.len(), width);
        let mut log_probs = vec![LogProb::default(); rows.len()];
        log_prob(cpu, model.head(), out, &targets, 1.0, &mut log_probs);

        let lse: Vec<f32> = log_probs.iter().map(|row| row.lse).collect();
        let d_log_prob = vec![-weight; rows.len()];
        let head = model.head_range();
        let head_rows = View::new(&values[head.clone()], model.config().vocab_size, width);
        let mut d_rows = cpu.scratch(rows.len() * width);
        d_rows.fill(0.0);
        let (d, d_head) = (&d_log_prob, &mut gradient[head]);
        log_prob_backward(cpu, model.head(), head_rows, out, &targets, &lse, d, 1.0, &mut d_rows, d_head);
        let mut d_out = cpu.scratch(from.len() * width);
        d_out.fill(0.0);
        for (d_row, &row) in d_rows.chunks_exact(width).zip(&rows) {
            d_out[row as usize * width..][..width].copy_from_slice(d_row);
        }
        let mut d_own = cpu.scratch(from.len() * width);
        let a = &self.predictions;
        self.predictor.backward(cpu, model, values, &batch, own, kv, a, &d_out, alpha, &mut d_own, gradient);
        // Examples may share the rows of a prompt.
        for (d_own, &row) in d_own.chunks_exact(width).zip(&from) {
            let d_hidden = &mut d_hidden[row as usize * width..][..width];
            d_hidden.iter_mut().zip(d_own).for_each(|(sum, d)| *sum += d);
        }
        self.moved = true;
        Looked { log_prob: log_probs.iter().map(|row| f64::from(row.log_prob)).sum(), loads: self.predictions.loads() }
    }
}
