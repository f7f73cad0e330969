//! How sure ratings are: the sandwich estimate of their covariance, and the bootstrap that checks it.
//!
//! The sandwich is V = A⁻¹ B A⁻¹, with A the information plus 1e-5 times the weight of all votes on its diagonal, and
//! B the sum of the votes' scores times their transposes. It holds whether votes follow the model or not: half-win ties
//! vary less than the model thinks, and 1 / A alone would be too wide. These are arena-rank's conventions.

use crate::counts::{Counts, Pair};
use crate::error::{Error, Result};
use crate::fit::{Fit, add_pair, climb};
use crate::matrix::Matrix;
use crate::random::Random;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// What the information's diagonal is raised by, per vote: it makes the matrix one that can be inverted.
const RIDGE: f64 = 1e-5;

/// Where a number probably is: about 95 % of such intervals hold the true value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// A fit's ratings with their covariance.
#[derive(Clone, Debug)]
pub struct Intervals {
    theta: Vec<f64>,
    covariance: Matrix,
}

/// The sandwich estimate for a fit.
///
/// # Errors
/// That it is beyond what floating point can tell apart.
pub fn sandwich(fit: &Fit) -> Result<Intervals> {
    let models = fit.theta.len();
    // Fixing the sum of θ changes nothing: neither matrix has anything in the direction of all ones. But where the ridge
    // alone held that direction, rounding would be blown up by the square of its inverse.
    let mut bread = fit.gauged_information();
    let votes: f64 = fit.pairs.iter().map(|pair| pair.weight * pair.votes()).sum();
    (0..models).for_each(|i| bread.add(i, i, RIDGE * votes));
    let mut meat = Matrix::zeros(bread.size());
    for pair in &fit.pairs {
        for (count, [d, eta]) in pair.counts.iter().zip(fit.local(pair.first, pair.second).score) {
            let square = count * pair.weight * pair.weight;
            add_pair(&mut meat, pair, [d * d, d * eta, eta * eta].map(|product| square * product), fit.eta.is_some());
        }
    }
    let beyond = || Error::new("the intervals can't be computed: some model wins by more than can be told apart");
    let inverse = bread.cholesky().ok_or_else(beyond)?.inverse();
    let covariance = inverse.times_symmetric(&meat).times_symmetric(&inverse);
    Ok(Intervals { theta: fit.theta.clone(), covariance })
}

impl Intervals {
    /// A model's rating, in natural units.
    pub fn rating(&self, model: usize) -> Interval {
        interval(self.theta[model], self.covariance.at(model, model))
    }

    /// By how much one model's rating is above another's, in natural units.
    pub fn difference(&self, model: usize, other: usize) -> Interval {
        interval(self.theta[model] - self.theta[other], self.variance_of_difference(model, other))
    }

    /// The probability that a vote that is no tie goes to `model` and not to `other`; where ties are half wins, the share
    /// that it gets of all votes.
    pub fn beats(&self, model: usize, other: usize) -> Interval {
        let Interval { value, lower, upper } = self.difference(model, other);
        let probability = |d: f64| 1.0 / (1.0 + (-d).exp());
        Interval { value: probability(value), lower: probability(lower), upper: probability(upper) }
    }

    pub(crate) fn variance_of_difference(&self, model: usize, other: usize) -> f64 {
        let v = |i, j| self.covariance.at(i, j);
        (v(model, model) + v(other, other) - v(model, other) - v(other, model)).max(0.0)
    }
}

fn interval(value: f64, variance: f64) -> Interval {
    let reach = Z * variance.max(0.0).sqrt();
    Interval { value, lower: value - reach, upper: value + reach }
}

/// Intervals from `samples` draws of as many votes with replacement, each fitted anew: 2.5 and 97.5 % quantiles.
///
/// # Errors
/// That there is no sample, or that one can't be fitted.
pub fn bootstrap(counts: &Counts, fit: &Fit, samples: usize, seed: u64) -> Result<Vec<Interval>> {
    if samples == 0 {
        return Err(Error::new("a bootstrap needs at least one sample"));
    }
    let mut random = Random::new(seed);
    let mut sum = 0.0;
    let all = counts.pairs().iter().flat_map(|pair| pair.counts);
    let cumulative: Vec<f64> = all
        .map(|count| {
            sum += count;
            sum
        })
        .collect();
    let mut drawn = vec![Vec::with_capacity(samples); fit.theta.len()];
    for _ in 0..samples {
        let mut pairs: Vec<Pair> = counts.pairs().iter().map(|pair| Pair { counts: [0.0; 3], ..*pair }).collect();
        for _ in 0..counts.votes() {
            let row = random.pick(&cumulative);
            pairs[row / 3].counts[row % 3] += 1.0;
        }
        let again = climb(fit.theta.len(), pairs, fit.ties)?;
        drawn.iter_mut().zip(again.theta).for_each(|(drawn, theta)| drawn.push(theta));
    }
    let interval = |(drawn, &value): (&mut Vec<f64>, &f64)| {
        drawn.sort_by(f64::total_cmp);
        Interval { value, lower: quantile(drawn, 0.025), upper: quantile(drawn, 0.975) }
    };
    Ok(drawn.iter_mut().zip(&fit.theta).map(interval).collect())
}

/// Of sorted numbers, with straight lines between them (R's type 7, NumPy's default).
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let below = sorted[place as usize];
    let above = sorted[(place as usize + 1).min(sorted.len() - 1)];
    below + place.fract() * (above - below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Question;
    use crate::fit::{Ties, fit};
    use crate::vote::{Outcome, Vote};

    /// Two models without ties: the variance of the log odds is 1 / wins + 1 / losses, but for the ridge.
    #[test]
    fn log_odds_have_their_variance() {
        let votes = [vec![Vote::new("a", "b", Outcome::Left); 60], vec![Vote::new("a", "b", Outcome::Right); 20]];
        let counts = Counts::of(&votes.concat(), Question::Answer).unwrap();
        let intervals = sandwich(&fit(&counts, Ties::Half).unwrap()).unwrap();
        let expected = 1.0 / 60.0 + 1.0 / 20.0;
        assert!((intervals.variance_of_difference(0, 1) / expected - 1.0).abs() < 1e-4);
        let difference = intervals.difference(0, 1);
        assert!((difference.value - 3.0_f64.ln()).abs() < 1e-14);
        assert!((difference.upper - difference.lower - 2.0 * Z * expected.sqrt()).abs() < 1e-4);
        let beats = intervals.beats(0, 1);
        assert!((beats.value - 0.75).abs() < 1e-14 && beats.lower < 0.75 && 0.75 < beats.upper, "{beats:?}");
        let back = intervals.beats(1, 0);
        assert!((back.lower + beats.upper - 1.0).abs() < 1e-12, "{back:?}");
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (fraction, expected) in [(0.0, 1.0), (1.0, 8.0), (0.5, 3.0), (0.25, 1.75)] {
            assert_eq!(quantile(&sorted, fraction), expected);
        }
        assert_eq!(quantile(&[3.0], 0.975), 3.0);
    }
}
