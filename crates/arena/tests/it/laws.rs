//! What must hold of ratings whatever the votes, on votes drawn at random.

use std::collections::HashMap;

use minke_arena::board::{Options, board};
use minke_arena::fit::{Fit, Ties, fit};
use minke_arena::intervals::{Interval, bootstrap, sandwich};
use minke_arena::{Counts, Outcome, Question, Vote};

use crate::{Random, count, fitted};

const BOTH: [Ties; 2] = [Ties::Half, Ties::Davidson];

/// Votes on models whose strengths are known to whoever draws them, sparse enough that some fits need the half vote.
fn votes(random: &mut Random) -> Vec<Vote> {
    let models = 2 + random.below(9);
    let strengths: Vec<f64> = (0..models).map(|_| 3.0 * random.unit()).collect();
    let votes = 5 + random.below(40 * models);
    let one = |_| {
        let left = random.below(models);
        let right = (left + 1 + random.below(models - 1)) % models;
        let tie = 0.3 * random.unit();
        let winner = if random.unit() < tie {
            [Outcome::Tie, Outcome::BothBad][random.below(2)]
        } else if random.unit() < 1.0 / (1.0 + (strengths[right] - strengths[left]).exp()) {
            Outcome::Left
        } else {
            Outcome::Right
        };
        Vote::new(format!("m{left}"), format!("m{right}"), winner)
    };
    (0..votes).map(one).collect()
}

/// Each model's interval in natural units, by name.
fn ratings(counts: &Counts, fit: &Fit) -> HashMap<String, Interval> {
    let intervals = sandwich(fit).unwrap();
    counts.models().iter().enumerate().map(|(i, model)| (model.clone(), intervals.rating(i))).collect()
}

fn rated(votes: &[Vote], ties: Ties) -> HashMap<String, Interval> {
    ratings(&count(votes), &fitted(votes, ties))
}

fn close(ours: Interval, theirs: Interval) -> bool {
    let pairs = [(ours.value, theirs.value), (ours.lower, theirs.lower), (ours.upper, theirs.upper)];
    pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-8)
}

/// Runs a law on a hundred drawings, both ways of counting ties.
fn on_many(mut law: impl FnMut(&mut Random, Vec<Vote>, Ties)) {
    for seed in 1..=100 {
        for ties in BOTH {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed << 20);
            let votes = votes(&mut random);
            law(&mut random, votes, ties);
        }
    }
}

#[test]
fn names_sides_and_order_do_not_matter() {
    on_many(|random, mut votes, ties| {
        let before = rated(&votes, ties);
        for vote in &mut votes {
            if random.below(2) == 0 {
                std::mem::swap(&mut vote.left, &mut vote.right);
                vote.winner = vote.winner.swapped();
            }
            // The alphabet backwards, so that every index changes.
            for name in [&mut vote.left, &mut vote.right] {
                *name = format!("n{}", 99 - name[1..].parse::<usize>().unwrap());
            }
        }
        for i in (1..votes.len()).rev() {
            votes.swap(i, random.below(i + 1));
        }
        let after = rated(&votes, ties);
        assert_eq!(before.len(), after.len());
        for (name, before) in before {
            let after = after[&format!("n{}", 99 - name[1..].parse::<usize>().unwrap())];
            assert!(close(before, after), "{before:?} {after:?}");
        }
    });
}

#[test]
fn twice_the_votes_leave_ratings_and_narrow_intervals_by_the_root_of_two() {
    on_many(|_, votes, ties| {
        let once = fitted(&votes, ties);
        if once.prior {
            // Half a vote weighs less among more.
            return;
        }
        let (once, twice) = (ratings(&count(&votes), &once), rated(&[&votes[..], &votes[..]].concat(), ties));
        for (name, once) in once {
            let twice = twice[&name];
            assert!((once.value - twice.value).abs() < 1e-9, "{once:?} {twice:?}");
            let ratio = (once.upper - once.lower) / (twice.upper - twice.lower);
            assert!((ratio - 2.0_f64.sqrt()).abs() < 1e-9, "{ratio}");
        }
    });
}

/// One weight for all votes changes nothing, whatever it is.
#[test]
fn weights_are_relative() {
    on_many(|_, mut votes, ties| {
        // The same number of votes on every pair.
        let pairs = count(&votes).pairs().to_vec();
        let models = count(&votes).models().to_vec();
        let most = pairs.iter().map(|pair| pair.votes() as usize).max().unwrap();
        for pair in pairs {
            let fill = Vote::new(&*models[pair.first], &*models[pair.second], Outcome::Tie);
            votes.extend(vec![fill; most - pair.votes() as usize]);
        }
        let counts = count(&votes);
        let plain = ratings(&counts, &fit(&counts, ties).unwrap());
        let counts = counts.reweighted(3.0);
        assert!(counts.pairs()[0].weight < 1.0);
        let weighted = ratings(&counts, &fit(&counts, ties).unwrap());
        assert!(plain.iter().all(|(name, plain)| close(*plain, weighted[name])), "{plain:?} {weighted:?}");
    });
}

/// Reweighting to one vote a pair is the same as a pair that was voted on once for each share of its votes.
#[test]
fn a_heavy_pair_counts_like_a_light_one() {
    let times = |n: usize, left: &str, right: &str, winner| vec![Vote::new(left, right, winner); n];
    let circle = |ab: usize| {
        let heavy = [times(3 * ab, "a", "b", Outcome::Left), times(ab, "b", "a", Outcome::Left)];
        let light = [times(3, "b", "c", Outcome::Left), times(1, "c", "b", Outcome::Left)];
        let last = [times(2, "c", "a", Outcome::Left), times(2, "a", "c", Outcome::Left)];
        [heavy, light, last].concat().concat()
    };
    for ties in BOTH {
        let even = rated(&circle(1), ties);
        let counts = count(&circle(250)).reweighted(1.0);
        let weighted = ratings(&counts, &fit(&counts, ties).unwrap());
        for (name, even) in even {
            assert!((even.value - weighted[&name].value).abs() < 1e-10, "{name}");
        }
    }
}

/// By how much each model's points, and then all ties, exceed what the fit expects.
fn surpluses(counts: &Counts, fit: &Fit) -> Vec<f64> {
    let nu = fit.nu.unwrap_or(0.0);
    let mut surplus = vec![0.0; fit.theta.len() + 1];
    for pair in counts.pairs() {
        // The odds of first, tie and second, with the largest of the logarithms taken off all.
        let (a, b) = (fit.theta[pair.first], fit.theta[pair.second]);
        let logs = [a, (2.0 * nu).ln() + 0.5 * (a + b), b];
        let odds = logs.map(|log| (log - logs.into_iter().fold(f64::MIN, f64::max)).exp());
        let all: f64 = odds.iter().sum();
        let points = |[won, tie, _]: [f64; 3]| won + 0.5 * tie;
        let off = points(pair.counts) - points(odds) / all * pair.votes();
        surplus[pair.first] += off;
        surplus[pair.second] -= off;
        if fit.nu.is_some() {
            surplus[fit.theta.len()] += pair.counts[1] - odds[1] / all * pair.votes();
        }
    }
    surplus
}

/// At the maximum a model's expected share of its votes is the share that it got, and ties are as many as expected: the
/// equations of the maximum, however it was found.
#[test]
fn expected_and_observed_points_are_equal() {
    on_many(|_, votes, ties| {
        let (counts, fit) = (count(&votes), fitted(&votes, ties));
        assert!(fit.theta.iter().sum::<f64>().abs() < 1e-9);
        if !fit.prior {
            let off = surpluses(&counts, &fit);
            assert!(off.iter().all(|off| off.abs() < 1e-8), "{off:?}");
        }
    });
}

/// Drawn from known strengths, 95 % of intervals hold them.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let mut random = Random(99);
    let strengths = [-0.9, -0.3, 0.0, 0.3, 0.9];
    for ties in BOTH {
        let (mut held, mut all) = (0, 0);
        for _ in 0..200 {
            let one = |_| {
                let left = random.below(5);
                let right = (left + 1 + random.below(4)) % 5;
                let (a, b) = (f64::exp(strengths[left]), f64::exp(strengths[right]));
                // Only Davidson's model has ties in it.
                let tie = if ties == Ties::Davidson { 0.8 * (a * b).sqrt() } else { 0.0 };
                let point = random.unit() * (a + b + tie);
                let winner = if point < a {
                    Outcome::Left
                } else if point < a + b {
                    Outcome::Right
                } else {
                    Outcome::Tie
                };
                Vote::new(left.to_string(), right.to_string(), winner)
            };
            let votes: Vec<Vote> = (0..600).map(one).collect();
            for (name, interval) in rated(&votes, ties) {
                let truth = strengths[name.parse::<usize>().unwrap()];
                held += u32::from(interval.lower <= truth && truth <= interval.upper);
                all += 1;
            }
        }
        // Four standard deviations of a share of 1000, were they independent.
        let share = f64::from(held) / f64::from(all);
        assert!((share - 0.95).abs() < 0.028, "{ties:?}: {share}");
    }
}

#[test]
fn boards_of_whatever_votes_are_in_order() {
    on_many(|_, votes, ties| {
        let counts = count(&votes);
        let made = board(&counts, Options { ties, bootstrap: None }).unwrap();
        assert!(made.models.is_sorted_by(|a, b| a.rating >= b.rating));
        assert!(made.models.is_sorted_by(|a, b| a.rating > b.rating || a.model < b.model));
        let mean = made.models.iter().map(|s| s.rating).sum::<f64>() / made.models.len() as f64;
        assert!((mean - 1000.0).abs() < 1e-6);
        for standing in &made.models {
            assert!(standing.lower <= standing.rating && standing.rating <= standing.upper);
            let above = made.models.iter().filter(|other| other.lower > standing.upper).count();
            assert_eq!(standing.rank, 1 + above);
        }
        let flips = made.first_place.unwrap().flips;
        assert!(flips <= made.votes, "{flips} of {}", made.votes);
        let drawn = bootstrap(&counts, &fit(&counts, ties).unwrap(), 5, 1).unwrap();
        assert!(drawn.iter().all(|interval| interval.lower <= interval.upper));
    });
}

/// The order in which two questions are asked of the same votes is of no consequence, and they don't mix.
#[test]
fn reasoning_has_a_board_of_its_own() {
    on_many(|random, mut votes, ties| {
        let answers = rated(&votes, ties);
        votes.iter_mut().for_each(|vote| vote.reasoning = (random.below(2) == 0).then_some(vote.winner.swapped()));
        assert!(answers.iter().all(|(name, answer)| close(*answer, rated(&votes, ties)[name])));
        let asked: Vec<Vote> = votes.iter().filter(|vote| vote.reasoning.is_some()).cloned().collect();
        let swapped = asked.iter().map(|vote| Vote { winner: vote.winner.swapped(), ..vote.clone() });
        let expected = count(&swapped.collect::<Vec<Vote>>());
        assert_eq!(Counts::of(&votes, Question::Reasoning).unwrap(), expected);
    });
}
