//! Learning from text: one step of a `pretrain` stage, and how well text that was held out is predicted.

use minke_kernels::math;
use serde::{Deserialize, Serialize};

use crate::corpus::places;
use crate::learner::{Example, Learner, Step};
use crate::sequences::Sequences;
use crate::sft::{Learnt, learn};

/// Tokens of a pass: enough rows for full products, few enough that their activations stay in the cache.
const PASS: usize = 1024;

/// How well held-out text is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Mean cross-entropy of them, in nats.
    pub loss: f64,
    /// Its exponential: among so many equally likely tokens it would be as hard to choose.
    pub perplexity: f64,
}

/// Sequences of a pass.
fn per_pass(length: usize) -> usize {
    (PASS / length).max(1)
}

/// Step `index` (from 0): cross-entropy over the next `batch` sequences of the text, pass after pass over it, each in its own
/// order. With `mtp` > 0 the tokens after the next ones are learnt too, with that weight.
pub fn step(
    learner: &mut Learner<'_>,
    text: &Sequences,
    batch: u32,
    seed: u64,
    index: u32,
    alpha: f32,
    mtp: f32,
    update: &Step,
) -> Learnt {
    let sequences: Vec<Vec<Example>> = places(seed, text.count(), index, batch)
        .into_iter()
        .map(|sequence| text.learnt.sequence(sequence, text.length))
        .collect();
    let passes: Vec<Vec<Example>> = sequences.chunks(per_pass(text.length)).map(<[_]>::concat).collect();
    learn(learner, &passes.iter().map(Vec::as_slice).collect::<Vec<_>>(), alpha, mtp, update)
}

/// How well the model predicts the first `most` sequences of what is held out; none where `heed`, which is asked now and then,
/// says no.
pub fn measure(
    learner: &mut Learner<'_>,
    text: &Sequences,
    most: usize,
    mut heed: impl FnMut() -> bool,
) -> Option<HeldOut> {
    let count = text.held_out.learnt().div_ceil(text.length).min(most);
    let (mut tokens, mut loss) = (0, 0.0);
    for first in (0..count).step_by(per_pass(text.length)) {
        if !heed() {
            return None;
        }
        let pass = first..count.min(first + per_pass(text.length));
        let examples: Vec<Example> = pass.flat_map(|index| text.held_out.sequence(index, text.length)).collect();
        let log_probs = learner.log_probs(&examples);
        tokens += log_probs.len() as u64;
        loss -= log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum::<f64>();
    }
    let loss = loss / tokens.max(1) as f64;
    Some(HeldOut { tokens, loss, perplexity: math::exp(loss) })
}
