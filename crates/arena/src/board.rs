//! The leaderboard: ratings with intervals, ranks, and what they hang on.

use serde::Serialize;

use crate::counts::Counts;
use crate::error::Result;
use crate::fit::{Fit, Ties, fit};
use crate::fragility::{Fragility, fragility};
use crate::intervals::{Interval, Intervals, bootstrap, sandwich};

/// The mean of all ratings.
const MEAN: f64 = 1000.0;
/// Points of rating for odds of ten to one, as in chess.
const POINTS_PER_TEN: f64 = 400.0;

/// All models, best first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Board {
    /// One for each model, by rating.
    pub models: Vec<Standing>,
    /// Votes that were counted.
    pub votes: u64,
    /// How ties were counted: `half` or `davidson`.
    pub ties: &'static str,
    /// Davidson's ν.
    pub nu: Option<f64>,
    /// Where intervals come from: `sandwich` or `bootstrap`.
    pub intervals: &'static str,
    /// Whether half a vote was added for each model, because votes alone left some rating without bound.
    pub half_vote_prior: bool,
    /// What the first place hangs on.
    pub first_place: Option<FirstPlace>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub model: String,
    /// 400 points are odds of ten to one; the mean is 1000.
    pub rating: f64,
    /// Lower end of the rating's 95 % interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// 1 + the number of models whose interval lies above this one's.
    pub rank: usize,
    /// Votes on it.
    pub votes: u64,
    /// Votes for it.
    pub wins: u64,
    /// Votes that were ties, or that both are bad.
    pub ties: u64,
    /// Share of its votes that said both are bad; none without votes.
    pub both_bad: Option<f64>,
    /// How it does against the next one below.
    pub beats_next: Option<Beats>,
}

/// The probability that a vote goes to one model and not to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beats {
    /// The other.
    pub model: String,
    /// The estimate, where ties don't count, or are half wins.
    pub probability: f64,
    /// Lower end of its 95 % interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// What the first place hangs on ([`fragility`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FirstPlace {
    /// Who has it.
    pub model: String,
    /// Who would take it.
    pub rival: String,
    /// Votes that would have to be others; an estimate from above.
    pub flips: u64,
}

/// How a board is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How ties are counted.
    pub ties: Ties,
    /// Samples and seed of a bootstrap that gives the intervals, in the sandwich's place.
    pub bootstrap: Option<(usize, u64)>,
}

/// Ranks the models of `counts`.
///
/// # Errors
/// That nothing can be rated, or not told apart in floating point.
pub fn board(counts: &Counts, options: Options) -> Result<Board> {
    let fit = fit(counts, options.ties)?;
    let sandwich = sandwich(&fit)?;
    let models = 0..fit.theta.len();
    let ratings: Vec<Interval> = match options.bootstrap {
        Some((samples, seed)) => bootstrap(counts, &fit, samples, seed)?,
        None => models.map(|model| sandwich.rating(model)).collect(),
    };
    let ratings: Vec<Interval> = ratings.into_iter().map(points).collect();
    let mut order: Vec<usize> = (0..ratings.len()).collect();
    // Level ones stay in alphabetical order.
    order.sort_by(|&a, &b| ratings[b].value.total_cmp(&ratings[a].value));
    let next = |place: usize| order.get(place + 1).map(|&next| beats(counts, &sandwich, order[place], next));
    let standings = order.iter().enumerate().map(|(place, &model)| {
        let (Interval { value, lower, upper }, tally) = (ratings[model], counts.tallies()[model]);
        Standing {
            model: counts.models()[model].clone(),
            rating: value,
            lower,
            upper,
            rank: 1 + ratings.iter().filter(|other| other.lower > upper).count(),
            votes: tally.votes,
            wins: tally.wins,
            ties: tally.ties,
            both_bad: (tally.votes > 0).then(|| tally.both_bad as f64 / tally.votes as f64),
            beats_next: next(place),
        }
    });
    Ok(Board {
        models: standings.collect(),
        votes: counts.votes(),
        ties: match options.ties {
            Ties::Half => "half",
            Ties::Davidson => "davidson",
        },
        nu: fit.nu,
        intervals: if options.bootstrap.is_some() { "bootstrap" } else { "sandwich" },
        half_vote_prior: fit.prior,
        first_place: first_place(counts, &fit)?,
    })
}

fn first_place(counts: &Counts, fit: &Fit) -> Result<Option<FirstPlace>> {
    let name = |model: usize| counts.models()[model].clone();
    let named = |Fragility { first, rival, flips }| FirstPlace { model: name(first), rival: name(rival), flips };
    Ok(fragility(counts, fit)?.map(named))
}

fn beats(counts: &Counts, intervals: &Intervals, model: usize, other: usize) -> Beats {
    let Interval { value, lower, upper } = intervals.beats(model, other);
    Beats { model: counts.models()[other].clone(), probability: value, lower, upper }
}

/// From natural units.
fn points(Interval { value, lower, upper }: Interval) -> Interval {
    let points = |theta: f64| MEAN + POINTS_PER_TEN / std::f64::consts::LN_10 * theta;
    Interval { value: points(value), lower: points(lower), upper: points(upper) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Question;
    use crate::vote::{Outcome, Vote};

    fn votes(votes: &[(&str, &str, Outcome, usize)]) -> Counts {
        let votes = votes.iter().flat_map(|&(left, right, winner, times)| vec![Vote::new(left, right, winner); times]);
        Counts::of(&votes.collect::<Vec<Vote>>(), Question::Answer).unwrap()
    }

    const PLAIN: Options = Options { ties: Ties::Half, bootstrap: None };

    #[test]
    fn a_board_says_who_stands_where() {
        use Outcome::{BothBad, Left, Right, Tie};
        let ten_to_one = [("a", "b", Left, 1000), ("a", "b", Right, 100)];
        let others = [("b", "c", Left, 20), ("c", "b", Left, 20), ("c", "a", Tie, 1), ("a", "c", BothBad, 3)];
        let counts = votes(&[&ten_to_one[..], &others[..]].concat());
        let board = board(&counts, PLAIN).unwrap();
        assert_eq!(board.models.iter().map(|s| s.model.as_str()).collect::<Vec<&str>>(), ["a", "c", "b"]);
        assert_eq!(board.models.iter().map(|s| s.rank).collect::<Vec<usize>>(), [1, 2, 2]);
        let mean = board.models.iter().map(|s| s.rating).sum::<f64>() / 3.0;
        assert!((mean - 1000.0).abs() < 1e-9);
        let a = &board.models[0];
        assert_eq!((a.votes, a.wins, a.ties, a.both_bad), (1104, 1000, 4, Some(3.0 / 1104.0)));
        assert!(a.lower < a.rating && a.rating < a.upper, "{a:?}");
        let beats = a.beats_next.as_ref().unwrap();
        let expected = 1.0 / (1.0 + 10_f64.powf((board.models[1].rating - a.rating) / 400.0));
        assert!(beats.model == "c" && (beats.probability - expected).abs() < 1e-12, "{beats:?}");
        assert_eq!(board.models[2].beats_next, None);
        assert_eq!((board.votes, board.half_vote_prior, board.nu), (1144, false, None));
        let first = board.first_place.unwrap();
        assert!(first.model == "a" && first.flips > 3, "{first:?}");
    }

    #[test]
    fn a_model_without_votes_is_on_the_board_if_it_is_named() {
        let vote = Vote::new("a", "b", Outcome::Tie);
        let counts = Counts::with_models(&["new".into()], &[vote], Question::Answer).unwrap();
        let board = board(&counts, PLAIN).unwrap();
        let new = board.models.iter().find(|s| s.model == "new").unwrap();
        assert!(board.half_vote_prior && new.votes == 0 && new.both_bad.is_none());
        assert!((new.rating - 1000.0).abs() < 1e-9 && new.rank == 1, "{new:?}");
    }
}
