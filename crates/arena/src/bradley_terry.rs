//! Bradley and Terry's model (Biometrika 39, 1952): how likely one model's answer is preferred to another's.
//!
//! Model i is preferred to j with probability p = σ(θᵢ − θⱼ). A tie counts as half a win for each, so its likelihood is
//! √(p (1 − p)); this is what Chatbot Arena and arena-rank do, and `davidson.rs` what is better founded.

use crate::counts::Counts;
use crate::error::Result;
use crate::fit::{Fit, Local, Ties, climb};

/// The most likely θ, with sum 0.
///
/// # Errors
/// That there are fewer than two models, or numbers beyond what floating point can tell apart.
pub fn fit(counts: &Counts) -> Result<Fit> {
    climb(counts.models().len(), counts.pairs().to_vec(), Ties::Half)
}

/// A pair whose θ are `d` apart.
pub(crate) fn local(d: f64) -> Local {
    let e = (-d.abs()).exp();
    // Of the better and the worse; neither is computed as one minus the other.
    let (likely, unlikely) = (1.0 / (1.0 + e), e / (1.0 + e));
    let (log_likely, log_unlikely) = (-e.ln_1p(), -d.abs() - e.ln_1p());
    let (p, q, log_p, log_q) = if d >= 0.0 {
        (likely, unlikely, log_likely, log_unlikely)
    } else {
        (unlikely, likely, log_unlikely, log_likely)
    };
    Local {
        log_likelihood: [log_p, 0.5 * (log_p + log_q), log_q],
        score: [[q, 0.0], [0.5 * (q - p), 0.0], [-p, 0.0]],
        information: [p * q, 0.0, 0.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::tests::check_derivatives;

    #[test]
    fn scores_and_information_are_derivatives() {
        for d in [-7.0, -0.3, 0.0, 0.3, 2.0, 20.0] {
            check_derivatives(|d, _| local(d), d, 0.0);
        }
    }

    #[test]
    fn far_apart_is_not_impossible() {
        for d in [-800.0, 800.0] {
            let Local { log_likelihood, score, .. } = local(d);
            assert!(log_likelihood.iter().all(|l| l.is_finite()), "{log_likelihood:?}");
            assert!(score.iter().all(|s| s[0].abs() <= 1.0), "{score:?}");
        }
    }
}
