//! Policy losses: the clipped surrogate, and the three ways of averaging it over tokens, as TRL names and computes them.

use minke_kernels::math;

/// How the tokens of a step's completions are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each completion's mean over its own tokens, then the mean over completions (arXiv 2402.03300). Short
    /// completions' tokens weigh more.
    Grpo,
    /// Sum over all tokens by completions × longest completion allowed (Dr. GRPO, arXiv 2503.20783): every token
    /// weighs the same, in every step.
    DrGrpo,
    /// Sum over all tokens by the number of tokens of the step (DAPO, arXiv 2503.14476).
    Dapo,
}

/// Within which the ratio of new to old probability may move a token: 1 − `epsilon` to 1 + `epsilon_high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Distance below 1.
    pub epsilon: f32,
    /// Distance above 1.
    pub epsilon_high: f32,
}

/// Sizes of all of a step's completions, so that the parts it is computed in add up to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Completions of the step.
    pub completions: usize,
    /// Their tokens, all together.
    pub tokens: usize,
    /// Longest completion that sampling allowed, in tokens.
    pub max_completion_length: usize,
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
}

/// A loss, and what it asks of each token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLosses {
    /// This part's share of the step's loss.
    pub loss: f64,
    /// Derivative of the loss with respect to each token's log-probability.
    pub gradient: Vec<f32>,
    /// Tokens whose ratio fell below the clip with a negative advantage; they no longer move.
    pub clipped_low: usize,
    /// Tokens whose ratio rose above the clip with a positive advantage; they no longer move.
    pub clipped_high: usize,
}

impl Loss {
    /// What one token of a completion of `length` tokens weighs.
    fn weight(self, totals: Totals, length: usize) -> f64 {
        let divisor = match self {
            Self::Grpo => totals.completions * length,
            Self::DrGrpo => totals.completions * totals.max_completion_length,
            Self::Dapo => totals.tokens,
        };
        1.0 / divisor.max(1) as f64
    }
}

/// −min(ρ A, clip(ρ) A) for each token, weighed and summed, with ρ = exp(log_prob − old_log_prob).
///
/// # Panics
/// Where the lengths of the slices don't fit together.
pub fn token_losses(loss: Loss, clip: Clip, totals: Totals, tokens: Tokens<'_>) -> TokenLosses {
    let Tokens { lengths, advantages, log_probs, old_log_probs } = tokens;
    let count: usize = lengths.iter().sum();
    assert!(lengths.len() == advantages.len() && lengths.len() <= totals.completions, "an advantage a completion");
    assert!(log_probs.len() == count && old_log_probs.len() == count && count <= totals.tokens, "a number a token");
    let (low, high) = (1.0 - f64::from(clip.epsilon), 1.0 + f64::from(clip.epsilon_high));
    let mut result = TokenLosses { loss: 0.0, gradient: Vec::with_capacity(count), clipped_low: 0, clipped_high: 0 };
    let mut pairs = log_probs.iter().zip(old_log_probs);
    for (&length, &advantage) in lengths.iter().zip(advantages) {
        let (weight, advantage) = (loss.weight(totals, length), f64::from(advantage));
        for (&new, &old) in pairs.by_ref().take(length) {
            let ratio = math::exp(f64::from(new) - f64::from(old));
            let (below, above) = (ratio < low && advantage < 0.0, ratio > high && advantage > 0.0);
            result.clipped_low += usize::from(below);
            result.clipped_high += usize::from(above);
            // The smaller of the two products is the clipped one exactly where the clip stops a move further out.
            let (gain, slope) =
                if below || above { (ratio.clamp(low, high) * advantage, 0.0) } else { (ratio * advantage, ratio) };
            result.loss -= weight * gain;
            result.gradient.push((-weight * slope * advantage) as f32);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the policy still the one that sampled, every ratio is 1 and nothing is clipped.
    #[test]
    fn on_policy_gradients_are_weighed_advantages() {
        let log_probs = [-0.5, -3.0, -0.1];
        let tokens =
            Tokens { lengths: &[2, 1], advantages: &[1.0, -0.5], log_probs: &log_probs, old_log_probs: &log_probs };
        let totals = Totals { completions: 2, tokens: 3, max_completion_length: 5 };
        let clip = Clip { epsilon: 0.2, epsilon_high: 0.2 };
        for (loss, expected) in [
            (Loss::Grpo, [-0.25, -0.25, 0.25]),
            (Loss::DrGrpo, [-0.1, -0.1, 0.05]),
            (Loss::Dapo, [-1.0 / 3.0, -1.0 / 3.0, 0.5 / 3.0]),
        ] {
            let result = token_losses(loss, clip, totals, tokens);
            assert_eq!(result.gradient, expected);
            assert_eq!((result.clipped_low, result.clipped_high), (0, 0));
        }
    }

    #[test]
    fn the_clip_only_stops_moves_further_out() {
        let clip = Clip { epsilon: 0.2, epsilon_high: 0.3 };
        let totals = Totals { completions: 1, tokens: 1, max_completion_length: 1 };
        let one = |ratio: f32, advantage: f32| {
            let tokens =
                Tokens { lengths: &[1], advantages: &[advantage], log_probs: &[ratio.ln()], old_log_probs: &[0.0] };
            let result = token_losses(Loss::Dapo, clip, totals, tokens);
            (result.gradient[0] != 0.0, result.clipped_low, result.clipped_high)
        };
        assert_eq!(one(1.4, 1.0), (false, 0, 1));
        assert_eq!(one(1.4, -1.0), (true, 0, 0));
        assert_eq!(one(0.7, -1.0), (false, 1, 0));
        assert_eq!(one(0.7, 1.0), (true, 0, 0));
        assert_eq!(one(1.25, 1.0), (true, 0, 0));
        assert_eq!(one(0.7, 0.0), (false, 0, 0));
    }
}
