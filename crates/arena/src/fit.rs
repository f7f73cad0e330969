//! The most likely ratings, by Newton's method on collapsed votes.

use crate::bradley_terry;
use crate::counts::{Counts, Pair};
use crate::davidson;
use crate::error::{Error, Result};
use crate::existence::{has_maximum, with_half_votes};
use crate::matrix::{Cholesky, Matrix};

/// How ties are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// As half a win for each (`bradley_terry.rs`).
    Half,
    /// As an outcome of their own (`davidson.rs`).
    Davidson,
}

/// Ratings in natural units: a difference of 1 is odds of e.
#[derive(Clone, Debug)]
pub struct Fit {
    /// One for each model, with sum 0.
    pub theta: Vec<f64>,
    /// Davidson's ν, 0 without ties; none where ties are half wins.
    pub nu: Option<f64>,
    /// Whether votes alone left some rating without bound, so that half a vote was added for each model.
    pub prior: bool,
    /// Newton's steps.
    pub steps: usize,
    /// How ties were counted.
    pub ties: Ties,
    /// ln 2ν, where it was fitted.
    pub(crate) eta: Option<f64>,
    /// What was fitted: the votes' pairs, and those of the prior.
    pub(crate) pairs: Vec<Pair>,
}

/// What a vote on a pair adds to the likelihood; outcomes are in the order of [`Pair::counts`].
pub(crate) struct Local {
    /// Logarithm of each outcome's likelihood.
    pub log_likelihood: [f64; 3],
    /// Its derivatives by the difference of the pair's θ, and by η.
    pub score: [[f64; 2]; 3],
    /// Minus its second derivatives: twice by the difference, by both, twice by η. In an exponential family they are the
    /// same for all outcomes.
    pub information: [f64; 3],
}

/// Steps are small enough when the next would be of the order of their square, 1e-16.
const SMALL: f64 = 1e-8;
/// Gain of likelihood, as a part of it, that is not worth a step: where odds are long, ratings are not known to [`SMALL`],
/// because they are lost in rounding before.
const NOTHING: f64 = 1e-18;
/// Far more steps than it takes: about six, and one for every power of e in the longest odds.
const MOST_STEPS: usize = 500;

/// Ratings with ties counted as `ties`.
///
/// # Errors
/// As [`bradley_terry::fit`] and [`davidson::fit`].
pub fn fit(counts: &Counts, ties: Ties) -> Result<Fit> {
    match ties {
        Ties::Half => bradley_terry::fit(counts),
        Ties::Davidson => davidson::fit(counts),
    }
}

/// The most likely ratings of `models` models for votes on `pairs`.
pub(crate) fn climb(models: usize, mut pairs: Vec<Pair>, ties: Ties) -> Result<Fit> {
    if models < 2 {
        return Err(Error::new("there is nothing to rate without a vote on two models"));
    }
    let eta = match ties {
        Ties::Half => None,
        Ties::Davidson => davidson::start(&pairs),
    };
    let prior = !has_maximum(models, &pairs, eta.is_some());
    if prior {
        pairs = with_half_votes(models, &pairs);
    }
    // From models that are all alike, also where good ratings are known from votes that differ little: away from the
    // maximum the likelihood may be all but flat, but here it never is.
    let (x, steps) = top(&pairs, models, std::iter::repeat_n(0.0, models).chain(eta).collect())?;
    let (theta, eta) = x.split_at(models);
    let mean = theta.iter().sum::<f64>() / models as f64;
    let theta = theta.iter().map(|theta| theta - mean).collect();
    let eta = eta.first().copied();
    let nu = (ties == Ties::Davidson).then(|| eta.map_or(0.0, |eta| 0.5 * eta.exp()));
    Ok(Fit { theta, nu, prior, steps, ties, eta, pairs })
}

/// The place of the maximum, and how many steps from `x` it took.
fn top(pairs: &[Pair], models: usize, mut x: Vec<f64>) -> Result<(Vec<f64>, usize)> {
    let unsettled = || Error::new("the ratings do not settle: some model wins by more than can be computed");
    let mut here = derivatives(pairs, models, &x);
    for step in 1..=MOST_STEPS {
        let mut delta = here.gradient.clone();
        let information = gauged(here.information, models);
        let (factor, is_exact) = match information.clone().cholesky() {
            Some(factor) => (factor, true),
            None => (raised(&information).ok_or_else(unsettled)?, false),
        };
        factor.solve(&mut delta);
        let largest = delta.iter().fold(0.0, |most: f64, d| most.max(d.abs()));
        let gain: f64 = here.gradient.iter().zip(&delta).map(|(g, d)| g * d).sum();
        if (largest <= SMALL && is_exact) || gain <= NOTHING * (1.0 + here.log_likelihood.abs()) {
            x.iter_mut().zip(&delta).for_each(|(x, d)| *x += d);
            return Ok((x, step));
        }
        // The likelihood is concave, so a step that is short enough climbs; rounding may hide that near the top.
        let slack = 1e-12 * (1.0 + here.log_likelihood.abs());
        let mut length = 1.0;
        loop {
            let there: Vec<f64> = x.iter().zip(&delta).map(|(x, d)| x + length * d).collect();
            let found = derivatives(pairs, models, &there);
            if found.log_likelihood >= here.log_likelihood - slack {
                (x, here) = (there, found);
                break;
            }
            length *= 0.5;
            if length * largest < SMALL {
                return Err(unsettled());
            }
        }
    }
    Err(unsettled())
}

/// The factor of a matrix that is flat in some direction as far as can be computed, with its diagonal raised until it is
/// not (Levenberg's method): the step with it climbs too, but is short.
fn raised(information: &Matrix) -> Option<Cholesky> {
    let size = information.size();
    let mean = (0..size).map(|i| information.at(i, i)).sum::<f64>() / size as f64;
    [1e-12, 1e-9, 1e-6, 1e-3].into_iter().find_map(|part| {
        let mut raised = information.clone();
        (0..size).for_each(|i| raised.add(i, i, part * mean));
        raised.cholesky()
    })
}

/// The logarithm of the likelihood at some place, and its derivatives there.
struct Derivatives {
    log_likelihood: f64,
    gradient: Vec<f64>,
    information: Matrix,
}

/// By θ, and η where `x` has one.
fn derivatives(pairs: &[Pair], models: usize, x: &[f64]) -> Derivatives {
    let mut sum =
        Derivatives { log_likelihood: 0.0, gradient: vec![0.0; x.len()], information: Matrix::zeros(x.len()) };
    let eta = x.get(models).copied();
    for pair in pairs {
        let local = local(x[pair.first] - x[pair.second], eta);
        let [mut by_d, mut by_eta] = [0.0; 2];
        for (outcome, &count) in pair.counts.iter().enumerate() {
            if count > 0.0 {
                sum.log_likelihood += pair.weight * count * local.log_likelihood[outcome];
                by_d += pair.weight * count * local.score[outcome][0];
                by_eta += pair.weight * count * local.score[outcome][1];
            }
        }
        sum.gradient[pair.first] += by_d;
        sum.gradient[pair.second] -= by_d;
        let votes = pair.weight * pair.votes();
        add_pair(&mut sum.information, pair, local.information.map(|information| votes * information), eta.is_some());
        if eta.is_some() {
            sum.gradient[models] += by_eta;
        }
    }
    sum
}

/// Outcomes' likelihoods for a pair.
pub(crate) fn local(d: f64, eta: Option<f64>) -> Local {
    match eta {
        None => bradley_terry::local(d),
        Some(eta) => davidson::local(d, eta),
    }
}

/// Adds to a matrix over θ, and η as its last row, what a pair has in it: x xᵀ for x = e_first − e_second, and so on.
pub(crate) fn add_pair(matrix: &mut Matrix, pair: &Pair, [twice_d, both, twice_eta]: [f64; 3], with_eta: bool) {
    let (i, j) = (pair.first, pair.second);
    matrix.add(i, i, twice_d);
    matrix.add(j, j, twice_d);
    matrix.add(i, j, -twice_d);
    matrix.add(j, i, -twice_d);
    if with_eta {
        let eta = matrix.size() - 1;
        for (model, value) in [(i, both), (j, -both)] {
            matrix.add(model, eta, value);
            matrix.add(eta, model, value);
        }
        matrix.add(eta, eta, twice_eta);
    }
}

/// Only differences of θ matter to the likelihood. This fixes their sum, by a matrix of ones of about the others' size.
fn gauged(mut information: Matrix, models: usize) -> Matrix {
    let trace: f64 = (0..models).map(|i| information.at(i, i)).sum();
    let ones = trace / (models * models) as f64;
    for i in 0..models {
        for j in 0..models {
            information.add(i, j, ones);
        }
    }
    information
}

impl Fit {
    /// Minus the second derivatives of the likelihood at the maximum, with the sum of θ fixed.
    pub(crate) fn gauged_information(&self) -> Matrix {
        let x: Vec<f64> = self.theta.iter().copied().chain(self.eta).collect();
        gauged(derivatives(&self.pairs, self.theta.len(), &x).information, self.theta.len())
    }

    /// The outcomes' likelihoods for a pair of models.
    pub(crate) fn local(&self, first: usize, second: usize) -> Local {
        local(self.theta[first] - self.theta[second], self.eta)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::counts::Question;
    use crate::random::Random;
    use crate::vote::{Outcome, Vote};

    /// Against central differences.
    pub(crate) fn check_derivatives(local: impl Fn(f64, f64) -> Local, d: f64, eta: f64) {
        let h = 1e-5;
        let here = local(d, eta);
        let (right, left, up, down) = (local(d + h, eta), local(d - h, eta), local(d, eta + h), local(d, eta - h));
        let close = |ours: f64, above: f64, below: f64| {
            let theirs = (above - below) / (2.0 * h);
            assert!((ours - theirs).abs() < 1e-9, "d {d}, eta {eta}: {ours} {theirs}");
        };
        let [twice_d, both, twice_eta] = here.information;
        for o in 0..3 {
            close(here.score[o][0], right.log_likelihood[o], left.log_likelihood[o]);
            close(here.score[o][1], up.log_likelihood[o], down.log_likelihood[o]);
            close(-twice_d, right.score[o][0], left.score[o][0]);
            close(-both, right.score[o][1], left.score[o][1]);
            close(-twice_eta, up.score[o][1], down.score[o][1]);
        }
    }

    fn counts(votes: &[(&str, &str, Outcome, usize)]) -> Counts {
        let votes = votes.iter().flat_map(|&(left, right, winner, times)| vec![Vote::new(left, right, winner); times]);
        Counts::of(&votes.collect::<Vec<Vote>>(), Question::Answer).unwrap()
    }

    /// Two models: the odds are those of the votes, in closed form.
    #[test]
    fn odds_of_two_are_those_of_their_votes() {
        use Outcome::{Left, Right, Tie};
        let votes = [("a", "b", Left, 30), ("b", "a", Left, 6), ("a", "b", Right, 4), ("a", "b", Tie, 20)];
        let half = fit(&counts(&votes), Ties::Half).unwrap();
        assert!((half.theta[0] - half.theta[1] - (40.0_f64 / 20.0).ln()).abs() < 1e-14, "{half:?}");
        assert_eq!((half.prior, half.nu), (false, None));
        let davidson = fit(&counts(&votes), Ties::Davidson).unwrap();
        assert!((davidson.theta[0] - davidson.theta[1] - (30.0_f64 / 10.0).ln()).abs() < 1e-14, "{davidson:?}");
        let nu = 0.5 * 20.0 / (30.0_f64 * 10.0).sqrt();
        assert!((davidson.nu.unwrap() - nu).abs() < 1e-14, "{davidson:?}");
    }

    /// A model that never lost has no most likely rating; with half a vote it has one, and that is said.
    #[test]
    fn without_a_maximum_half_a_vote_is_added() {
        use Outcome::{Left, Tie};
        for ties in [Ties::Half, Ties::Davidson] {
            let fit = fit(&counts(&[("a", "b", Left, 3)]), ties).unwrap();
            assert!(fit.prior);
            assert!((fit.theta[0] - fit.theta[1] - (3.25_f64 / 0.25).ln()).abs() < 1e-14, "{fit:?}");
        }
        let fit = |votes: &[_]| super::fit(&counts(votes), Ties::Davidson).unwrap();
        let all_ties = fit(&[("a", "b", Tie, 3)]);
        assert!(all_ties.prior && all_ties.theta.iter().all(|theta| theta.abs() < 1e-14), "{all_ties:?}");
        assert!((all_ties.nu.unwrap() - 0.5 * 3.0 / 0.25).abs() < 1e-12, "{all_ties:?}");
        let never = fit(&[("a", "b", Left, 3), ("b", "a", Left, 1)]);
        assert_eq!((never.nu, never.prior), (Some(0.0), false), "{never:?}");
    }

    #[test]
    fn long_odds_settle() {
        for power in [3, 9, 15] {
            let often = 10_f64.powi(power);
            let pair = |first, second| Pair { first, second, counts: [often, 0.0, 1.0], weight: 1.0 };
            let fit = climb(3, vec![pair(0, 1), pair(1, 2)], Ties::Half).unwrap();
            assert!((fit.theta[0] - fit.theta[2] - 2.0 * often.ln()).abs() < 1e-9, "{fit:?}");
        }
    }

    /// Few pairs, thousands of votes the same way: odds beyond all measure, but never beyond computing.
    #[test]
    fn lopsided_votes_settle() {
        let mut random = Random::new(5);
        let mut below = |n: usize| (random.uniform() * n as f64) as usize;
        for _ in 0..20_000 {
            let models = 2 + below(14);
            let kinds = 1 + below(3);
            let mut pairs = BTreeMap::new();
            for _ in 0..1 + below(14) {
                let (a, b) = (below(models), below(models));
                if a != b {
                    let counts: &mut [f64; 3] = pairs.entry((a.min(b), a.max(b))).or_default();
                    counts[(2 * usize::from(a > b)).abs_diff(below(kinds))] += [1.0, 1000.0, 3000.0][below(3)];
                }
            }
            let pair = |((first, second), counts)| Pair { first, second, counts, weight: 1.0 };
            let pairs: Vec<Pair> = pairs.into_iter().map(pair).collect();
            for ties in [Ties::Half, Ties::Davidson] {
                let fit = climb(models, pairs.clone(), ties).unwrap();
                let x: Vec<f64> = fit.theta.iter().copied().chain(fit.eta).collect();
                let slopes = derivatives(&fit.pairs, models, &x).gradient;
                assert!(slopes.iter().all(|slope| slope.abs() < 1e-6), "{slopes:?} {fit:?}");
            }
        }
    }

    #[test]
    fn nothing_to_rate_is_said() {
        assert!(fit(&counts(&[]), Ties::Half).unwrap_err().to_string().contains("nothing to rate"));
    }
}
