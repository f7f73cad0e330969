//! Davidson's model (JASA 65, 1970): Bradley and Terry's, with ties as a third outcome that has a likelihood of its own.
//!
//! With sᵢ = exp θᵢ and D = sᵢ + sⱼ + 2ν √(sᵢ sⱼ), model i is preferred with probability sᵢ / D and the vote is a tie with
//! probability 2ν √(sᵢ sⱼ) / D, where ν says how readily people call a tie. (Newman, JMLR 24, 2023, fits the same model.)
//! As an exponential family in (θᵢ − θⱼ) / 2 and η = ln 2ν it has a concave likelihood.

use crate::counts::{Counts, Pair};
use crate::error::Result;
use crate::fit::{Fit, Local, Ties, climb};

/// The most likely θ, with sum 0, and ν.
///
/// # Errors
/// That there are fewer than two models, or numbers beyond what floating point can tell apart.
pub fn fit(counts: &Counts) -> Result<Fit> {
    climb(counts.models().len(), counts.pairs().to_vec(), Ties::Davidson)
}

/// The η of models that are all alike. None where nothing was ever a tie: then ν is 0, and the model Bradley and Terry's.
pub(crate) fn start(pairs: &[Pair]) -> Option<f64> {
    let sum = |weigh: fn(&Pair) -> f64| pairs.iter().map(weigh).sum::<f64>();
    let (ties, votes) = (sum(|pair| pair.weight * pair.counts[1]), sum(|pair| pair.weight * pair.votes()));
    // Votes that are all ties get half a vote against them.
    (ties > 0.0).then(|| (2.0 * ties / (votes - ties).max(0.5 * ties / votes)).ln())
}

/// A pair whose θ are `d` apart, where ties have `eta` = ln 2ν.
pub(crate) fn local(d: f64, eta: f64) -> Local {
    let exponents = [0.5 * d, eta, -0.5 * d];
    let most = exponents.into_iter().fold(f64::MIN, f64::max);
    let [first, tie, second] = exponents.map(|x| (x - most).exp());
    let sum = first + tie + second;
    let [first, tie, second] = [first / sum, tie / sum, second / sum];
    let mean = 0.5 * (first - second);
    Local {
        log_likelihood: exponents.map(|x| x - most - sum.ln()),
        score: [[0.5 - mean, -tie], [-mean, first + second], [-0.5 - mean, -tie]],
        // The first is (first + second) / 4 − mean², written without its cancellation.
        information: [first * second + 0.25 * tie * (first + second), -mean * tie, tie * (first + second)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bradley_terry;
    use crate::fit::tests::check_derivatives;

    #[test]
    fn scores_and_information_are_derivatives() {
        for d in [-5.0, -0.3, 0.0, 0.3, 2.0] {
            for eta in [-4.0, -0.5, 0.0, 1.5] {
                check_derivatives(local, d, eta);
            }
        }
    }

    #[test]
    fn probabilities_are_davidsons() {
        let (first, second, nu): (f64, f64, f64) = (1.7, 0.4, 0.6);
        let Local { log_likelihood, .. } = local((first / second).ln(), (2.0 * nu).ln());
        let tie = 2.0 * nu * (first * second).sqrt();
        let all = first + second + tie;
        for (log, expected) in log_likelihood.into_iter().zip([first / all, tie / all, second / all]) {
            assert!((log.exp() - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn without_ties_it_is_bradley_and_terrys() {
        for d in [-3.0, 0.0, 0.1, 9.0] {
            let (ours, theirs) = (local(d, -90.0), bradley_terry::local(d));
            for outcome in [0, 2] {
                assert!((ours.log_likelihood[outcome] - theirs.log_likelihood[outcome]).abs() < 1e-14);
                assert!((ours.score[outcome][0] - theirs.score[outcome][0]).abs() < 1e-14);
            }
            assert!((ours.information[0] - theirs.information[0]).abs() < 1e-14);
        }
    }
}
