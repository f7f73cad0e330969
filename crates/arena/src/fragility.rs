//! How much the first place hangs on: how many votes would have to be others for another model to take it.

use crate::counts::{Counts, Pair};
use crate::error::Result;
use crate::fit::{Fit, climb};

/// What would topple the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragility {
    /// The model with the highest rating.
    pub first: usize,
    /// Who would take its place.
    pub rival: usize,
    /// Votes that would have to be others.
    pub flips: u64,
}

/// Votes of one pair and outcome that may be turned against the first.
struct Turn {
    pair: usize,
    from: usize,
    to: usize,
    count: u64,
    /// By how much each closes the gap, to first order.
    effect: f64,
}

/// How many votes would have to be turned for the first to lose its place, as an estimate from above.
///
/// The effect of turning one vote on the gap between the first and a rival is estimated by its influence, uᵀ Δs with
/// u = A⁻¹ (e_first − e_rival) and Δs the change of the vote's score (as Broderick et al., arXiv 2011.14999, do for
/// dropped votes). For each rival, votes are turned from the most influential down until the gap is closed; the rival that
/// takes the fewest counts. How many votes of that order it really takes is then found by fitting anew: with that many
/// turned the first does lose its place, but other votes, or another rival, might do it with fewer. None if even turning
/// every vote would not, or if odds are too long for influences to be told apart.
///
/// # Errors
/// What [`crate::fit::fit`] says of the votes when some are turned.
pub fn fragility(counts: &Counts, fit: &Fit) -> Result<Option<Fragility>> {
    let models = fit.theta.len();
    let Some(first) = (0..models).max_by(|&a, &b| fit.theta[a].total_cmp(&fit.theta[b])) else { return Ok(None) };
    let Some(cholesky) = fit.gauged_information().cholesky() else { return Ok(None) };
    let mut easiest: Option<(u64, usize, Vec<Turn>)> = None;
    for rival in (0..models).filter(|&rival| rival != first) {
        let mut towards = vec![0.0; models + usize::from(fit.eta.is_some())];
        (towards[first], towards[rival]) = (1.0, -1.0);
        cholesky.solve(&mut towards);
        let turns = turns(counts, fit, &towards);
        let estimate = enough(&turns, fit.theta[first] - fit.theta[rival]);
        if easiest.as_ref().is_none_or(|(fewest, ..)| estimate < *fewest) {
            easiest = Some((estimate, rival, turns));
        }
    }
    let Some((estimate, rival, turns)) = easiest else { return Ok(None) };
    let all = turns.iter().map(|turn| turn.count).sum();
    let toppled = |flips: u64| -> Result<bool> {
        let theta = climb(models, turned(counts, &turns, flips), fit.ties)?.theta;
        Ok(is_toppled(&theta, first))
    };
    let flips = fewest(estimate.min(all), all, toppled)?;
    Ok(flips.map(|flips| Fragility { first, rival, flips }))
}

/// Whether another is above `first`, or level but for rounding.
fn is_toppled(theta: &[f64], first: usize) -> bool {
    theta.iter().enumerate().any(|(other, &rating)| other != first && rating > theta[first] - 1e-9)
}

/// All that can be turned, the most influential first.
fn turns(counts: &Counts, fit: &Fit, towards: &[f64]) -> Vec<Turn> {
    let of_eta = towards.get(fit.theta.len()).copied().unwrap_or(0.0);
    let mut turns = Vec::new();
    for (pair, Pair { first, second, counts, weight }) in counts.pairs().iter().enumerate() {
        let local = fit.local(*first, *second);
        let of_d = towards[*first] - towards[*second];
        let pull = local.score.map(|[d, eta]| weight * (d * of_d + eta * of_eta));
        let to = (0..3).min_by(|&a, &b| pull[a].total_cmp(&pull[b])).unwrap_or(0);
        for from in (0..3).filter(|&from| from != to && counts[from] > 0.0) {
            turns.push(Turn { pair, from, to, count: counts[from] as u64, effect: pull[from] - pull[to] });
        }
    }
    turns.sort_by(|a, b| b.effect.total_cmp(&a.effect));
    turns
}

/// How many of these close the gap, by their effects; all of them if none do.
fn enough(turns: &[Turn], mut gap: f64) -> u64 {
    let mut flips = 0;
    for turn in turns {
        let needed = (gap / turn.effect).ceil().max(0.0);
        if needed <= turn.count as f64 {
            return flips + needed as u64;
        }
        flips += turn.count;
        gap -= turn.effect * turn.count as f64;
    }
    flips
}

/// The votes with the first `flips` turned.
fn turned(counts: &Counts, turns: &[Turn], mut flips: u64) -> Vec<Pair> {
    let mut pairs = counts.pairs().to_vec();
    for turn in turns {
        let now = turn.count.min(flips);
        pairs[turn.pair].counts[turn.from] -= now as f64;
        pairs[turn.pair].counts[turn.to] += now as f64;
        flips -= now;
    }
    pairs
}

/// The least number up to `most` for which `holds`, searched outwards from `guess`; it is taken to hold for all above.
fn fewest(guess: u64, most: u64, holds: impl Fn(u64) -> Result<bool>) -> Result<Option<u64>> {
    // It holds at `above` and not at `below`.
    let (mut below, mut above) = (None, None);
    let mut reach = 1;
    let mut at = guess;
    loop {
        if holds(at)? {
            above = Some(at);
            match below {
                None if at > 0 => at = at.saturating_sub(reach),
                _ => break,
            }
        } else {
            below = Some(at);
            match above {
                None if at < most => at = (at + reach).min(most),
                _ => break,
            }
        }
        reach *= 2;
    }
    let Some(mut above) = above else { return Ok(None) };
    // Where it holds at once, there is nothing below.
    let Some(mut below) = below else { return Ok(Some(above)) };
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if holds(middle)? {
            above = middle;
        } else {
            below = middle;
        }
    }
    Ok(Some(above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Question;
    use crate::fit::Ties;
    use crate::vote::{Outcome, Vote};

    fn counts(votes: &[(&str, &str, Outcome, usize)]) -> Counts {
        let votes = votes.iter().flat_map(|&(left, right, winner, times)| vec![Vote::new(left, right, winner); times]);
        Counts::of(&votes.collect::<Vec<Vote>>(), Question::Answer).unwrap()
    }

    fn of(counts: &Counts, ties: Ties) -> Option<Fragility> {
        fragility(counts, &crate::fit::fit(counts, ties).unwrap()).unwrap()
    }

    /// Two models: who wins more is first, so half the surplus must turn.
    #[test]
    fn between_two_half_the_surplus_must_turn() {
        use Outcome::{Left, Right, Tie};
        for (wins, losses, ties, expected) in [(30, 10, 0, 10), (31, 10, 0, 11), (10, 9, 3, 1), (900, 100, 50, 400)] {
            let votes = [("a", "b", Left, wins), ("a", "b", Right, losses), ("b", "a", Tie, ties)];
            for way in [Ties::Half, Ties::Davidson] {
                let found = of(&counts(&votes), way).unwrap();
                assert_eq!((found.first, found.rival), (0, 1));
                assert_eq!(found.flips, expected, "{wins} {losses} {ties} {way:?}");
            }
        }
        assert_eq!(of(&counts(&[("a", "b", Left, 5), ("a", "b", Right, 5)]), Ties::Half).unwrap().flips, 0);
    }

    /// All ways to turn votes, tried one by one: the estimate is never below the least of them, and seldom above.
    #[test]
    fn it_is_near_what_trying_everything_finds() {
        use Outcome::{Left, Right};
        let mut random = crate::random::Random::new(3);
        let mut exact = 0;
        for _ in 0..20 {
            let mut often = || 1 + (random.uniform() * 6.0) as usize;
            let mut votes = Vec::new();
            for (left, right) in [("a", "b"), ("a", "c"), ("b", "c")] {
                votes.extend([(left, right, Left, often()), (left, right, Right, often())]);
            }
            let counts = counts(&votes);
            let found = of(&counts, Ties::Half).unwrap();
            let least = least(&counts, found.first);
            assert!(found.flips >= least, "{votes:?}: {found:?} {least}");
            assert!(found.flips <= least + 1, "{votes:?}: {found:?} {least}");
            exact += u32::from(found.flips == least);
        }
        assert!(exact >= 16, "{exact} of 20");
    }

    /// For three models without ties: each pair's wins may be any number.
    fn least(counts: &Counts, first: usize) -> u64 {
        let ends: Vec<u64> = counts.pairs().iter().map(|pair| pair.votes() as u64).collect();
        let mut least = u64::MAX;
        for a in 0..=ends[0] {
            for b in 0..=ends[1] {
                for c in 0..=ends[2] {
                    let mut pairs = counts.pairs().to_vec();
                    let mut flips = 0;
                    for (pair, (won, votes)) in pairs.iter_mut().zip([a, b, c].into_iter().zip(&ends)) {
                        flips += won.abs_diff(pair.counts[0] as u64);
                        pair.counts = [won as f64, 0.0, (votes - won) as f64];
                    }
                    let theta = climb(3, pairs, Ties::Half).unwrap().theta;
                    least = if is_toppled(&theta, first) { least.min(flips) } else { least };
                }
            }
        }
        least
    }

    #[test]
    fn the_least_is_found_from_any_guess() {
        for least in [0, 1, 7, 100] {
            for guess in [0, 1, 6, 7, 8, 50, 100] {
                assert_eq!(fewest(guess, 100, |n| Ok(n >= least)).unwrap(), Some(least), "{least} {guess}");
                assert_eq!(fewest(guess, 100, |_| Ok(false)).unwrap(), None);
            }
        }
    }
}
