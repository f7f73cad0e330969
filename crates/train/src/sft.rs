//! Learning from demonstrations: one step of an `sft` or `distil` stage.

use std::convert::Infallible;
use std::result;

use minke_model::Result;

use crate::corpus::{self, Corpus};
use crate::format::Format;
use crate::learner::{Example, Learner, Step};
use crate::tasks::Task;

/// Sequences of a pass: enough rows for full products, few enough that their activations stay in the cache.
pub(crate) const PASS: usize = 32;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learnt {
    /// Mean cross-entropy of the completions' tokens, in nats.
    pub loss: f64,
    /// Mean cross-entropy of the tokens after the next ones, where they are learnt too.
    pub mtp_loss: Option<f64>,
    /// Norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// Tokens that went through the model.
    pub tokens: u64,
}

/// One step: cross-entropy over the examples' completions, averaged over their tokens, and `mtp` times that of the tokens after
/// the next ones, averaged over these.
pub fn step(learner: &mut Learner<'_>, examples: &[Example], alpha: f32, mtp: f32, update: &Step) -> Learnt {
    learn(learner, &examples.chunks(PASS).collect::<Vec<_>>(), alpha, mtp, update)
}

/// One update by the cross-entropy of what the examples of these passes learn, averaged over its tokens, and `mtp` times that
/// of the tokens after the next ones, averaged over these.
pub(crate) fn learn(learner: &mut Learner<'_>, passes: &[&[Example]], alpha: f32, mtp: f32, update: &Step) -> Learnt {
    let examples = || passes.iter().copied().flatten();
    let learnt: usize = examples().map(Example::learnt).sum();
    // The balance loss is a mean over sequences, as the cross-entropy is one over tokens.
    let alpha = alpha / examples().count() as f32;
    let ahead = examples().map(Example::ahead).sum::<usize>().max(1);
    let weight = mtp / ahead as f32;
    let (mut loss, mut mtp_loss) = (0.0, 0.0);
    for pass in passes {
        let done: result::Result<f64, Infallible> = learner.pass_ahead(pass, 1.0, alpha, weight, |log_probs| {
            loss -= log_probs.iter().map(|row| f64::from(row.log_prob)).sum::<f64>() / learnt as f64;
            Ok(vec![-1.0 / learnt as f32; log_probs.len()])
        });
        match done {
            Ok(log_prob) => mtp_loss -= log_prob / ahead as f64,
            Err(never) => match never {},
        }
    }
    let tokens = examples().map(|example| example.tokens.len() as u64).sum();
    let mtp_loss = (mtp > 0.0).then_some(mtp_loss);
    Learnt { loss, mtp_loss, gradient_norm: learner.update(update), tokens }
}

/// The demonstrations of step `index` (from 0), the corpus's next `batch`, in the model's tokens.
///
/// # Errors
/// When one cannot be written in them.
pub(crate) fn examples(
    task: &dyn Task,
    format: &Format,
    corpus: &Corpus,
    batch: u32,
    index: u32,
) -> Result<Vec<Example>> {
    let example = |demonstration: &corpus::Example| {
        let mut tokens = format.prompt(task, &demonstration.item)?;
        let prompt = tokens.len();
        tokens.extend(format.completion(&demonstration.shown)?);
        Ok(Example { tokens, prompt })
    };
    corpus.batch(index, batch).into_iter().map(example).collect()
}
