//! Policy losses: GRPO's and its successors', with a penalty for leaving a reference, as TRL names and computes them.

use minke_kernels::math;

/// What is asked of each token, and how the tokens of a step's completions are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each completion's mean over its own tokens, then the mean over completions (arXiv 2402.03300). Short
    /// completions' tokens weigh more.
    Grpo,
    /// Each part's mean over its tokens, then the mean over the parts that a step is computed in (TRL's `bnpo`, whose
    /// parts are micro-batches).
    Bnpo,
    /// Sum over all tokens by completions × longest completion allowed (Dr. GRPO, arXiv 2503.20783): every token
    /// weighs the same, in every step.
    DrGrpo,
    /// Sum over all tokens by the number of tokens of the step (DAPO, arXiv 2503.14476).
    Dapo,
    /// The policy gradient of each token times its ratio, which is capped rather than clipped: no token is ever left out
    /// (CISPO, MiniMax-M1, arXiv 2506.13585). Averaged as by [`Loss::Dapo`].
    Cispo,
}

/// What the ratio of new to old probability is a ratio of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Each token has its own.
    Token,
    /// All tokens of a completion share one, their geometric mean (GSPO, arXiv 2507.18071).
    Sequence,
}

/// Within which the ratio of new to old probability may move a token: 1 − `epsilon` to 1 + `epsilon_high`. For
/// [`Loss::Cispo`], `epsilon_high` is the cap itself, and there is no bound below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Distance below 1.
    pub epsilon: f32,
    /// Distance above 1.
    pub epsilon_high: f32,
}

/// A penalty for leaving a reference model: the estimate e^d − d − 1 of the Kullback–Leibler divergence, where d is the
/// reference's log-probability minus the model's (k3 of Schulman, 2020, "Approximating KL divergence").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// What the estimate is multiplied by.
    pub weight: f32,
    /// Multiply it by the ratio of new to old probability too, so that its gradient is that of the divergence
    /// (DeepSeek-V3.2, arXiv 2512.02556).
    pub corrected: bool,
}

/// A loss with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Which.
    pub loss: Loss,
    /// What its ratios are ratios of.
    pub importance: Importance,
    /// How far they may go.
    pub clip: Clip,
    /// What holds the model to a reference, if anything.
    pub penalty: Option<Penalty>,
}

/// Sizes of all of a step's completions, so that the parts it is computed in add up to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Completions of the step; those that are left out of the loss count too.
    pub completions: usize,
    /// The tokens, all together, of those that are not left out.
    pub tokens: usize,
    /// Longest completion that sampling allowed, in tokens.
    pub max_completion_length: usize,
    /// Parts that the step is computed in; only [`Loss::Bnpo`] depends on them.
    pub parts: usize,
}

/// Some of a step's completions, token by token. The tokens of one completion follow those of the one before.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Tokens of each completion.
    pub lengths: &'a [usize],
    /// One advantage a completion.
    pub advantages: &'a [f32],
    /// Log-probability of each token now.
    pub log_probs: &'a [f32],
    /// Log-probability of each token when it was sampled.
    pub old_log_probs: &'a [f32],
    /// Log-probability of each token under the reference; of no token where there is no penalty.
    pub reference_log_probs: &'a [f32],
}

/// A loss, and what it asks of each token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLosses {
    /// This part's share of the step's loss.
    pub loss: f64,
    /// Derivative of the loss with respect to each token's log-probability. (For [`Loss::Cispo`], of a loss whose capped
    /// ratios are constants.)
    pub gradient: Vec<f32>,
    /// Tokens whose ratio fell below the clip with a negative advantage; they no longer move.
    pub clipped_low: usize,
    /// Tokens whose ratio rose above the clip with a positive advantage; they no longer move (for [`Loss::Cispo`], no
    /// faster).
    pub clipped_high: usize,
    /// Sum over the tokens of the estimated divergence from the reference, in nats; 0 without a penalty.
    pub divergence: f64,
}

impl Loss {
    /// What one token weighs, of a completion of `length` tokens in a part of `part` tokens.
    fn weight(self, totals: Totals, length: usize, part: usize) -> f64 {
        let divisor = match self {
            Self::Grpo => totals.completions * length,
            Self::Bnpo => totals.parts * part,
            Self::DrGrpo => totals.completions * totals.max_completion_length,
            Self::Dapo | Self::Cispo => totals.tokens,
        };
        1.0 / divisor.max(1) as f64
    }
}

/// Objective and gradient of some completions: for each token −min(ρ A, clip(ρ) A), or for [`Loss::Cispo`]
/// −min(ρ, cap) A log_prob, and the penalty; weighed and summed. A is the completion's advantage, and ρ is
/// exp(log_prob − old_log_prob), or exp of the completion's mean of that.
///
/// # Panics
/// Where the lengths of the slices don't fit together.
pub fn token_losses(objective: &Objective, totals: Totals, tokens: Tokens<'_>) -> TokenLosses {
    let Tokens { lengths, advantages, log_probs, old_log_probs, reference_log_probs } = tokens;
    let count: usize = lengths.iter().sum();
    assert!(lengths.len() == advantages.len() && lengths.len() <= totals.completions, "an advantage a completion");
    assert!(log_probs.len() == count && old_log_probs.len() == count && count <= totals.tokens, "a number a token");
    let expected = if objective.penalty.is_some() { count } else { 0 };
    assert_eq!(reference_log_probs.len(), expected, "a reference where there is a penalty");
    let mut result = TokenLosses {
        loss: 0.0,
        gradient: Vec::with_capacity(count),
        clipped_low: 0,
        clipped_high: 0,
        divergence: 0.0,
    };
    let mut start = 0;
    for (&length, &advantage) in lengths.iter().zip(advantages) {
        let range = start..start + length;
        start = range.end;
        let weight = objective.loss.weight(totals, length, count);
        let new = &log_probs[range.clone()];
        let ratios = objective.importance.ratios(new, &old_log_probs[range.clone()]);
        let mut gradient = objective.surrogate(weight, f64::from(advantage), new, &ratios, &mut result);
        if let Some(penalty) = objective.penalty {
            let reference = &reference_log_probs[range];
            penalty.add(weight, objective.importance, new, reference, &ratios, &mut gradient, &mut result);
        }
        result.gradient.extend(gradient.into_iter().map(|slope| slope as f32));
    }
    result
}

impl Importance {
    /// The ratio that each token of a completion goes by.
    fn ratios(self, new: &[f32], old: &[f32]) -> Vec<f64> {
        let logs = new.iter().zip(old).map(|(&new, &old)| f64::from(new) - f64::from(old));
        match self {
            Self::Token => logs.map(math::exp).collect(),
            Self::Sequence => vec![math::exp(logs.sum::<f64>() / new.len().max(1) as f64); new.len()],
        }
    }
}

impl Objective {
    /// A completion's part without the penalty, added to `result`; returns the derivative by each token's log-probability.
    ///
    /// A shared ratio needs no other derivative than one for each token: each token moves it by 1 / length, and it moves
    /// the terms of all.
    fn surrogate(
        &self,
        weight: f64,
        advantage: f64,
        new: &[f32],
        ratios: &[f64],
        result: &mut TokenLosses,
    ) -> Vec<f64> {
        let Clip { epsilon, epsilon_high } = self.clip;
        let (low, high) = (1.0 - f64::from(epsilon), 1.0 + f64::from(epsilon_high));
        let cap = f64::from(epsilon_high);
        let mut gradient = Vec::with_capacity(new.len());
        for (&new, &ratio) in new.iter().zip(ratios) {
            let (below, above, gain, slope) = if self.loss == Loss::Cispo {
                let capped = ratio.min(cap);
                (false, ratio > cap && advantage > 0.0, capped * advantage * f64::from(new), capped)
            } else {
                let (below, above) = (ratio < low && advantage < 0.0, ratio > high && advantage > 0.0);
                // The smaller of the two products is the clipped one exactly where the clip stops a move further out.
                if below || above {
                    (below, above, ratio.clamp(low, high) * advantage, 0.0)
                } else {
                    (below, above, ratio * advantage, ratio)
                }
            };
            result.clipped_low += usize::from(below);
            result.clipped_high += usize::from(above);
            result.loss -= weight * gain;
            gradient.push(-weight * slope * advantage);
        }
        gradient
    }
}

impl Penalty {
    /// Adds a completion's penalty to its gradient and to `result`.
    fn add(
        self,
        weight: f64,
        importance: Importance,
        new: &[f32],
        reference: &[f32],
        ratios: &[f64],
        gradient: &mut [f64],
        result: &mut TokenLosses,
    ) {
        let weight = weight * f64::from(self.weight);
        let distances = || new.iter().zip(reference).map(|(&new, &reference)| f64::from(reference) - f64::from(new));
        let estimates: Vec<f64> = distances().map(|d| math::exp(d) - d - 1.0).collect();
        let sum: f64 = estimates.iter().sum();
        result.divergence += sum;
        let mean = sum / new.len().max(1) as f64;
        for (i, d) in distances().enumerate() {
            let slope = 1.0 - math::exp(d);
            let (value, slope) = match (self.corrected, importance) {
                (false, _) => (estimates[i], slope),
                // The product rule; the derivative of a ratio by its own logarithm is the ratio.
                (true, Importance::Token) => (ratios[i] * estimates[i], ratios[i] * (estimates[i] + slope)),
                // Each token moves the shared ratio, and it the estimates of all.
                (true, Importance::Sequence) => (ratios[i] * estimates[i], ratios[i] * (mean + slope)),
            };
            result.loss += weight * value;
            gradient[i] += weight * slope;
        }
    }
}

#[cfg(test)]
mod tests {
    use minke_kernels::random::Random;

    use super::*;

    const LOSSES: [Loss; 5] = [Loss::Grpo, Loss::Bnpo, Loss::DrGrpo, Loss::Dapo, Loss::Cispo];
    const IMPORTANCES: [Importance; 2] = [Importance::Token, Importance::Sequence];

    fn objective(loss: Loss) -> Objective {
        let epsilon_high = if loss == Loss::Cispo { 5.0 } else { 0.2 };
        Objective { loss, importance: Importance::Token, clip: Clip { epsilon: 0.2, epsilon_high }, penalty: None }
    }

    /// With the policy still the one that sampled, every ratio is 1 and nothing is clipped, whatever it is a ratio of.
    #[test]
    fn on_policy_gradients_are_weighed_advantages() {
        let log_probs = [-0.5, -3.0, -0.1];
        let tokens = Tokens {
            lengths: &[2, 1],
            advantages: &[1.0, -0.5],
            log_probs: &log_probs,
            old_log_probs: &log_probs,
            reference_log_probs: &[],
        };
        let totals = Totals { completions: 2, tokens: 3, max_completion_length: 5, parts: 1 };
        for (loss, expected) in [
            (Loss::Grpo, [-0.25, -0.25, 0.25]),
            (Loss::Bnpo, [-1.0 / 3.0, -1.0 / 3.0, 0.5 / 3.0]),
            (Loss::DrGrpo, [-0.1, -0.1, 0.05]),
            (Loss::Dapo, [-1.0 / 3.0, -1.0 / 3.0, 0.5 / 3.0]),
            (Loss::Cispo, [-1.0 / 3.0, -1.0 / 3.0, 0.5 / 3.0]),
        ] {
            for importance in IMPORTANCES {
                let result = token_losses(&Objective { importance, ..objective(loss) }, totals, tokens);
                assert_eq!(result.gradient, expected, "{loss:?}");
                assert_eq!((result.clipped_low, result.clipped_high, result.divergence), (0, 0, 0.0));
            }
        }
    }

    #[test]
    fn the_clip_only_stops_moves_further_out() {
        let one = |loss: Loss, ratio: f32, advantage: f32| {
            let tokens = Tokens {
                lengths: &[1],
                advantages: &[advantage],
                log_probs: &[ratio.ln()],
                old_log_probs: &[0.0],
                reference_log_probs: &[],
            };
            let totals = Totals { completions: 1, tokens: 1, max_completion_length: 1, parts: 1 };
            let clip = Clip { epsilon: 0.2, epsilon_high: if loss == Loss::Cispo { 1.3 } else { 0.3 } };
            let result = token_losses(&Objective { clip, ..objective(loss) }, totals, tokens);
            (result.gradient[0], result.clipped_low, result.clipped_high)
        };
        let moves = |ratio, advantage| {
            let (gradient, low, high) = one(Loss::Dapo, ratio, advantage);
            (gradient != 0.0, low, high)
        };
        assert_eq!(moves(1.4, 1.0), (false, 0, 1));
        assert_eq!(moves(1.4, -1.0), (true, 0, 0));
        assert_eq!(moves(0.7, -1.0), (false, 1, 0));
        assert_eq!(moves(0.7, 1.0), (true, 0, 0));
        assert_eq!(moves(1.25, 1.0), (true, 0, 0));
        assert_eq!(moves(0.7, 0.0), (false, 0, 0));
        // CISPO's cap stops nothing.
        assert_eq!(one(Loss::Cispo, 1.4, 1.0), (-1.3, 0, 1));
        assert_eq!(one(Loss::Cispo, 1.4, -1.0), (1.3, 0, 0));
        assert!((one(Loss::Cispo, 0.01, -1.0).0 - 0.01).abs() < 1e-6);
    }

    /// Five completions of a step of six, with log-probabilities in steps of 1/1024, which differences keep exact.
    struct Example {
        lengths: Vec<usize>,
        advantages: Vec<f32>,
        new: Vec<f32>,
        old: Vec<f32>,
        reference: Vec<f32>,
    }

    const STEP: f32 = 1.0 / 1024.0;

    impl Example {
        fn new(seed: u64) -> Example {
            let mut random = Random::new(seed, [0; 3]);
            let lengths = vec![3, 1, 7, 12, 5];
            let count = lengths.iter().sum();
            let old: Vec<f32> = (0..count).map(|_| -(random.below(4096) as f32) * STEP).collect();
            let mut near = |most: u32| -> Vec<f32> {
                old.iter().map(|x| x + (random.below(2 * most) as f32 - most as f32) * STEP).collect()
            };
            let (new, reference) = (near(700), near(500));
            Example { lengths, advantages: vec![1.5, -0.5, -1.0, 0.25, 0.0], new, old, reference }
        }

        fn losses(&self, objective: &Objective) -> TokenLosses {
            let totals = Totals { completions: 6, tokens: self.old.len() + 4, max_completion_length: 16, parts: 3 };
            let tokens = Tokens {
                lengths: &self.lengths,
                advantages: &self.advantages,
                log_probs: &self.new,
                old_log_probs: &self.old,
                reference_log_probs: if objective.penalty.is_some() { &self.reference } else { &[] },
            };
            token_losses(objective, totals, tokens)
        }
    }

    /// Every gradient is its loss's, by central differences. CISPO's ratios are constants: there the old log-probability
    /// moves along, and an estimate that is corrected by the ratio is left out.
    #[test]
    fn gradients_are_those_of_the_losses() {
        let penalties = [None, Some(false), Some(true)];
        let mut clipped = 0;
        for (loss, importance) in LOSSES.into_iter().flat_map(|loss| IMPORTANCES.map(|i| (loss, i))) {
            for penalty in penalties.map(|corrected| corrected.map(|corrected| Penalty { weight: 0.3, corrected })) {
                let cispo = loss == Loss::Cispo;
                if cispo && penalty.is_some_and(|penalty| penalty.corrected) {
                    continue;
                }
                let clip = Clip { epsilon: 0.05, epsilon_high: if cispo { 1.05 } else { 0.04 } };
                let objective = Objective { loss, importance, clip, penalty };
                let example = Example::new(11);
                let result = example.losses(&objective);
                clipped += result.clipped_low.min(1) + result.clipped_high.min(1);
                for i in 0..example.new.len() {
                    let moved = |by: f32| {
                        let mut example = Example::new(11);
                        example.new[i] += by;
                        if cispo {
                            example.old[i] += by;
                        }
                        example.losses(&objective).loss
                    };
                    let difference = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
                    let ours = f64::from(result.gradient[i]);
                    assert!((ours - difference).abs() < 1e-6, "{objective:?} token {i}: {ours} {difference}");
                }
            }
        }
        assert!(clipped > 20, "the clips are passed over: {clipped}");
    }

    /// The gradient of the corrected estimate is the reverse divergence's: the ratio times the distance from the reference.
    #[test]
    fn a_corrected_penalty_pulls_by_the_distance() {
        let example = Example::new(3);
        let plain = Objective { penalty: None, ..objective(Loss::DrGrpo) };
        let held = Objective { penalty: Some(Penalty { weight: 0.5, corrected: true }), ..plain };
        let (plain, held) = (example.losses(&plain), example.losses(&held));
        assert!(held.divergence > 0.0 && plain.divergence == 0.0);
        for i in 0..example.new.len() {
            let ratio = (example.new[i] - example.old[i]).exp();
            let expected = 0.5 / (6.0 * 16.0) * ratio * (example.new[i] - example.reference[i]);
            assert!((held.gradient[i] - plain.gradient[i] - expected).abs() < 1e-6, "token {i}");
        }
    }

    #[test]
    fn at_the_reference_there_is_no_penalty() {
        for (loss, importance) in LOSSES.into_iter().flat_map(|loss| IMPORTANCES.map(|i| (loss, i))) {
            for corrected in [false, true] {
                let mut example = Example::new(5);
                example.reference.clone_from(&example.new);
                let plain = Objective { importance, ..objective(loss) };
                let held = Objective { penalty: Some(Penalty { weight: 0.5, corrected }), ..plain };
                assert_eq!(example.losses(&held), example.losses(&plain));
            }
        }
    }
}
