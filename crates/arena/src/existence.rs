//! Whether votes bound every rating, and the half vote that does where they don't.

use crate::counts::Pair;

/// Whether the likelihood has a maximum at finite ratings.
///
/// With ties as half wins it has one if from every model every other can be reached by going from winners to losers and
/// across ties (Ford, American Mathematical Monthly 64, 1957). Where ties have a parameter of their own, that could
/// still grow for ever together with the differences, unless some circle of votes has more wins along it than ties.
pub(crate) fn has_maximum(models: usize, pairs: &[Pair], with_eta: bool) -> bool {
    let forward = edges(models, pairs, |[first, tie, second]| (first + tie > 0.0, second + tie > 0.0));
    let backward = edges(models, pairs, |[first, tie, second]| (second + tie > 0.0, first + tie > 0.0));
    all_reachable(&forward) && all_reachable(&backward) && (!with_eta || has_winning_circle(models, pairs))
}

/// For each model the others that it leads to; `directions` says whether a pair leads from first to second, and back.
fn edges(models: usize, pairs: &[Pair], directions: fn([f64; 3]) -> (bool, bool)) -> Vec<Vec<usize>> {
    let mut edges = vec![Vec::new(); models];
    for pair in pairs {
        let (there, back) = directions(pair.counts);
        edges[pair.first].extend(there.then_some(pair.second));
        edges[pair.second].extend(back.then_some(pair.first));
    }
    edges
}

fn all_reachable(edges: &[Vec<usize>]) -> bool {
    let mut reached = vec![false; edges.len()];
    let mut left: Vec<usize> = (0..edges.len().min(1)).collect();
    while let Some(model) = left.pop() {
        if !std::mem::replace(&mut reached[model], true) {
            left.extend(edges[model].iter().filter(|&&next| !reached[next]));
        }
    }
    reached.into_iter().all(|reached| reached)
}

/// Whether some circle has more wins along it than ties. If not, there are ratings with every winner at least 1 above
/// the loser and tied models at most 1 apart, and on along them the likelihood climbs for ever; Bellman's and Ford's
/// relaxations find such ratings if there are any.
fn has_winning_circle(models: usize, pairs: &[Pair]) -> bool {
    let mut rating = vec![0_i64; models];
    // With n models a longest path has n − 1 steps; what still moves after as many rounds goes round in a circle.
    for _ in 0..models {
        let mut moved = false;
        let mut lift = |rating: &mut Vec<i64>, model: usize, least: i64| {
            if rating[model] < least {
                rating[model] = least;
                moved = true;
            }
        };
        for &Pair { first, second, counts: [won, tie, lost], .. } in pairs {
            if won > 0.0 && lost > 0.0 {
                return true;
            }
            for (on, above, below, gap) in
                [(won, first, second, 1), (lost, second, first, 1), (tie, first, second, -1), (tie, second, first, -1)]
            {
                if on > 0.0 {
                    let least = rating[below] + gap;
                    lift(&mut rating, above, least);
                }
            }
        }
        if !moved {
            return false;
        }
    }
    true
}

/// The pairs, and for each model half a vote spread over all others: half won, half lost. It draws every rating a little
/// towards the middle, and bounds it.
pub(crate) fn with_half_votes(models: usize, pairs: &[Pair]) -> Vec<Pair> {
    let half = 0.25 / (models - 1) as f64;
    // A vote weighs what votes here weigh; without any, anything will do.
    let (weighed, votes) =
        pairs.iter().fold((0.0, 0.0), |(w, n), pair| (w + pair.weight * pair.votes(), n + pair.votes()));
    let weight = if votes > 0.0 { weighed / votes } else { 1.0 };
    let mut voted = pairs.iter().peekable();
    let mut all = Vec::with_capacity(models * (models - 1) / 2);
    for first in 0..models {
        for second in first + 1..models {
            let there = voted.next_if(|pair| (pair.first, pair.second) == (first, second));
            let (counts, weight) = there.map_or(([0.0; 3], weight), |pair| (pair.counts, pair.weight));
            let [won, tie, lost] = counts;
            all.push(Pair { first, second, counts: [won + half, tie, lost + half], weight });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs from (first, second, [won, tie, lost]).
    fn pairs(counts: &[(usize, usize, [i32; 3])]) -> Vec<Pair> {
        let pair = |&(first, second, counts): &(usize, usize, [i32; 3])| Pair {
            first,
            second,
            counts: counts.map(f64::from),
            weight: 1.0,
        };
        counts.iter().map(pair).collect()
    }

    #[test]
    fn every_model_must_lead_to_every_other() {
        let exists = |models, counts: &[_]| has_maximum(models, &pairs(counts), false);
        let (win, tie, loss) = ([1, 0, 0], [0, 1, 0], [0, 0, 1]);
        assert!(!exists(2, &[(0, 1, win)]));
        assert!(exists(2, &[(0, 1, tie)]));
        assert!(exists(2, &[(0, 1, [1, 0, 1])]));
        assert!(exists(3, &[(0, 1, win), (0, 2, loss), (1, 2, win)]), "a circle");
        assert!(!exists(3, &[(0, 1, win), (0, 2, win), (1, 2, win)]), "an order");
        assert!(!exists(3, &[(0, 1, tie)]), "nobody has voted on the third");
        assert!(!exists(4, &[(0, 1, tie), (2, 3, tie)]), "two camps");
        assert!(!exists(4, &[(0, 1, tie), (1, 2, win), (2, 3, tie)]), "two camps, one above");
    }

    #[test]
    fn with_ties_of_their_own_a_circle_must_win() {
        let exists = |models, counts: &[_]| has_maximum(models, &pairs(counts), true);
        let (win, tie, loss) = ([1, 0, 0], [0, 1, 0], [0, 0, 1]);
        assert!(!exists(2, &[(0, 1, [1, 1, 0])]), "1 never won");
        assert!(exists(2, &[(0, 1, [1, 1, 1])]));
        assert!(!exists(3, &[(0, 1, win), (1, 2, tie), (0, 2, tie)]), "a win and two ties");
        assert!(exists(3, &[(0, 1, win), (1, 2, win), (0, 2, tie)]), "two wins and a tie");
        assert!(exists(3, &[(0, 1, win), (1, 2, win), (0, 2, loss)]), "three wins");
        assert!(!exists(4, &[(0, 1, win), (1, 2, tie), (2, 3, win), (0, 3, tie)]), "as many");
    }

    #[test]
    fn half_votes_reach_everyone_evenly() {
        let with = with_half_votes(3, &pairs(&[(0, 2, [4, 1, 0])]));
        let counts: Vec<[f64; 3]> = with.iter().map(|pair| pair.counts).collect();
        assert_eq!(counts, [[0.125, 0.0, 0.125], [4.125, 1.0, 0.125], [0.125, 0.0, 0.125]]);
        for with_eta in [false, true] {
            assert!(has_maximum(3, &with, with_eta));
        }
    }
}
