//! Which two models meet next: those about whose difference one more vote would tell most.

use crate::fit::Fit;
use crate::intervals::Intervals;
use crate::random::Random;

/// Pairs of models with their probabilities.
#[derive(Clone, Debug)]
pub struct Pairing {
    pairs: Vec<(usize, usize)>,
    /// Sums of the probabilities up to and with each.
    cumulative: Vec<f64>,
}

impl Pairing {
    /// Pairs in proportion to how much one more vote would narrow the interval of their difference, √D − √(D / (1 + h D)),
    /// for a difference of variance D and a vote with information h (Chiang et al., arXiv 2403.04132, have the same for
    /// pairs taken one by one, D = σ² / n). All pairs together get at least `floor` evenly, whatever they promise: an
    /// estimate that is wrong must be able to find out.
    ///
    /// # Panics
    /// Where `floor` is not within 0 and 1.
    pub fn new(fit: &Fit, intervals: &Intervals, floor: f64) -> Pairing {
        assert!((0.0..=1.0).contains(&floor), "a floor of {floor}");
        let models = fit.theta.len();
        let pairs: Vec<(usize, usize)> = (0..models).flat_map(|i| (i + 1..models).map(move |j| (i, j))).collect();
        let gain = |&(i, j): &(usize, usize)| {
            let variance = intervals.variance_of_difference(i, j);
            let information = fit.local(i, j).information[0];
            variance.sqrt() - (variance / (1.0 + information * variance)).sqrt()
        };
        let gains: Vec<f64> = pairs.iter().map(gain).collect();
        let all: f64 = gains.iter().sum();
        let even = 1.0 / pairs.len() as f64;
        let mut sum = 0.0;
        let cumulative = gains.iter().map(|gain| {
            sum += floor * even + (1.0 - floor) * if all > 0.0 { gain / all } else { even };
            sum
        });
        Pairing { cumulative: cumulative.collect(), pairs }
    }

    /// The left and the right model of a battle; the same seed gives the same. Sides are as likely as not.
    pub fn draw(&self, seed: u64) -> (usize, usize) {
        let mut random = Random::new(seed);
        let (i, j) = self.pairs[random.pick(&self.cumulative)];
        if random.uniform() < 0.5 { (i, j) } else { (j, i) }
    }

    /// How likely each pair is, the lower index first.
    pub fn probabilities(&self) -> impl Iterator<Item = ((usize, usize), f64)> {
        let below = std::iter::once(0.0).chain(self.cumulative.iter().copied());
        self.pairs.iter().zip(self.cumulative.iter().zip(below)).map(|(pair, (sum, below))| (*pair, sum - below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::{Counts, Question};
    use crate::fit::{Ties, fit};
    use crate::intervals::sandwich;
    use crate::vote::{Outcome, Vote};

    /// a and b have met often, c seldom, d never.
    fn pairing(floor: f64) -> Pairing {
        let votes = [("a", "b", 200), ("a", "c", 8), ("b", "c", 8)].into_iter().flat_map(|(left, right, times)| {
            let wins = |winner| vec![Vote::new(left, right, winner); times];
            [wins(Outcome::Left), wins(Outcome::Right)].concat()
        });
        let votes: Vec<Vote> = votes.collect();
        let counts = Counts::with_models(&["d".into()], &votes, Question::Answer).unwrap();
        let fit = fit(&counts, Ties::Half).unwrap();
        Pairing::new(&fit, &sandwich(&fit).unwrap(), floor)
    }

    #[test]
    fn who_is_little_known_meets_more() {
        let of = |pairing: &Pairing, pair| pairing.probabilities().find(|(p, _)| *p == pair).unwrap().1;
        let free = pairing(0.0);
        assert!((free.probabilities().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(of(&free, (0, 2)) > 10.0 * of(&free, (0, 1)), "{free:?}");
        assert!(of(&free, (0, 3)) > of(&free, (0, 2)), "{free:?}");
        let floored = pairing(0.3);
        assert!(floored.probabilities().all(|(_, p)| p >= 0.3 / 6.0), "{floored:?}");
        assert!(pairing(1.0).probabilities().all(|(_, p)| (p - 1.0 / 6.0).abs() < 1e-12));
    }

    #[test]
    fn draws_follow_the_probabilities_and_sides_are_even() {
        let pairing = pairing(0.2);
        let draws: Vec<(usize, usize)> = (0..20_000).map(|seed| pairing.draw(seed)).collect();
        let count = |wanted: &dyn Fn((usize, usize)) -> bool| draws.iter().filter(|draw| wanted(**draw)).count() as f64;
        for ((i, j), p) in pairing.probabilities() {
            // Five standard deviations.
            let near = |n: f64, p: f64| (n - 20_000.0 * p).abs() < 5.0 * (20_000.0 * p).sqrt();
            let (there, back) = (count(&|draw| draw == (i, j)), count(&|draw| draw == (j, i)));
            assert!(near(there, 0.5 * p) && near(back, 0.5 * p), "{i} {j}: {there} {back} {p}");
        }
        assert_eq!(pairing.draw(77), pairing.draw(77));
    }
}
