//! Which two models meet next: those about whose difference one more vote would tell most.

use crate::counts::{Counts, Question};
use crate::error::{Error, Result};
use crate::fit::{Fit, Ties, fit};
use crate::intervals::{Intervals, sandwich};
use crate::random::Random;
use crate::vote::Vote;

/// Share of battles that go to all pairs evenly.
const FLOOR: f64 = 0.15;

/// The left and the right model of the next battle between some of `models`, by the votes on answers so far; the same
/// seed gives the same.
///
/// # Errors
/// That there are no two models, or that the votes can't be rated.
pub fn next_pair(models: &[String], votes: &[Vote], seed: u64) -> Result<(String, String)> {
    let counts = Counts::with_models(models, votes, Question::Answer)?;
    let known = counts.models();
    let mut there: Vec<usize> = models.iter().filter_map(|model| known.binary_search(model).ok()).collect();
    there.sort_unstable();
    there.dedup();
    if there.len() < 2 {
        return Err(Error::new("a battle needs two models, and there are fewer"));
    }
    let fit = fit(&counts, Ties::Half)?;
    let (left, right) = Pairing::new(&fit, &sandwich(&fit)?, &there, FLOOR).draw(seed);
    Ok((known[left].clone(), known[right].clone()))
}

/// Pairs of models with their probabilities.
#[derive(Clone, Debug)]
pub struct Pairing {
    pairs: Vec<(usize, usize)>,
    /// Sums of the probabilities up to and with each.
    cumulative: Vec<f64>,
}

impl Pairing {
    /// Pairs of `models`, of all that were rated, in proportion to how much one more vote would narrow the interval of their difference, √D − √(D / (1 + h D)),
    /// for a difference of variance D and a vote with information h (Chiang et al., arXiv 2403.04132, have the same for
    /// pairs taken one by one, D = σ² / n). All pairs together get at least `floor` evenly, whatever they promise: an
    /// estimate that is wrong must be able to find out.
    ///
    /// # Panics
    /// Where `floor` is not within 0 and 1, or there are fewer than two models.
    pub fn new(fit: &Fit, intervals: &Intervals, models: &[usize], floor: f64) -> Pairing {
        assert!((0.0..=1.0).contains(&floor), "a floor of {floor}");
        assert!(models.len() > 1, "{} models", models.len());
        let with = |at: usize| models[at + 1..].iter().map(move |&j| (models[at], j));
        let pairs: Vec<(usize, usize)> = (0..models.len()).flat_map(with).collect();
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
    use crate::vote::Outcome;

    const ALL: [usize; 4] = [0, 1, 2, 3];

    /// a and b have met often, c seldom, d never.
    fn pairing(models: &[usize], floor: f64) -> Pairing {
        let votes = [("a", "b", 200), ("a", "c", 8), ("b", "c", 8)].into_iter().flat_map(|(left, right, times)| {
            let wins = |winner| vec![Vote::new(left, right, winner); times];
            [wins(Outcome::Left), wins(Outcome::Right)].concat()
        });
        let votes: Vec<Vote> = votes.collect();
        let counts = Counts::with_models(&["d".into()], &votes, Question::Answer).unwrap();
        let fit = fit(&counts, Ties::Half).unwrap();
        Pairing::new(&fit, &sandwich(&fit).unwrap(), models, floor)
    }

    #[test]
    fn who_is_little_known_meets_more() {
        let of = |pairing: &Pairing, pair| pairing.probabilities().find(|(p, _)| *p == pair).unwrap().1;
        let free = pairing(&ALL, 0.0);
        assert!((free.probabilities().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(of(&free, (0, 2)) > 10.0 * of(&free, (0, 1)), "{free:?}");
        assert!(of(&free, (0, 3)) > of(&free, (0, 2)), "{free:?}");
        let floored = pairing(&ALL, 0.3);
        assert!(floored.probabilities().all(|(_, p)| p >= 0.3 / 6.0), "{floored:?}");
        let some = pairing(&[0, 2, 3], 0.0);
        assert_eq!(some.probabilities().map(|(pair, _)| pair).collect::<Vec<_>>(), [(0, 2), (0, 3), (2, 3)]);
        let ratio = |pairing: &Pairing| of(pairing, (0, 3)) / of(pairing, (0, 2));
        assert!((ratio(&some) / ratio(&free) - 1.0).abs() < 1e-9, "models that are away change nothing between others");
        assert!(pairing(&ALL, 1.0).probabilities().all(|(_, p)| (p - 1.0 / 6.0).abs() < 1e-12));
    }

    #[test]
    fn draws_follow_the_probabilities_and_sides_are_even() {
        let pairing = pairing(&ALL, 0.2);
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

    #[test]
    fn a_battle_is_between_models_that_are_there() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<String>>();
        let votes = [("gone", "a", 9), ("a", "b", 3), ("b", "gone", 2)]
            .map(|(left, right, times)| vec![Vote::new(left, right, Outcome::Left); times])
            .concat();
        let models = names(&["new", "b", "a", "a"]);
        let drawn: Vec<(String, String)> = (0..200).map(|seed| next_pair(&models, &votes, seed).unwrap()).collect();
        assert!(drawn.iter().all(|(left, right)| left != right && left != "gone" && right != "gone"), "{drawn:?}");
        let (new, old): (Vec<_>, Vec<_>) = drawn.iter().partition(|(left, right)| left == "new" || right == "new");
        assert!(new.len() > old.len() && !old.is_empty(), "{} {}", new.len(), old.len());
        assert!(next_pair(&names(&["a", "a"]), &votes, 1).is_err() && next_pair(&[], &[], 1).is_err());
        assert!(next_pair(&names(&["x", "y"]), &[], 1).is_ok(), "the first battle of all");
    }
}
