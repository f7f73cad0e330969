//! Votes collapsed to how often each pair of models had each outcome: all that ratings depend on.

use std::collections::{BTreeSet, HashMap};

use crate::error::{Error, Result};
use crate::vote::{Outcome, Vote};

/// Most models that are rated together; the work grows with their number cubed.
pub const MOST_MODELS: usize = 1000;

/// What the votes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whose answer is better.
    Answer,
    /// Whose reasoning is better; votes that were not asked are left out.
    Reasoning,
}

/// All votes on two models.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Index of one model.
    pub first: usize,
    /// Index of the other, which is greater.
    pub second: usize,
    /// How often the first was better, how often neither was, how often the second was.
    pub counts: [f64; 3],
    /// What each of these votes weighs.
    pub weight: f64,
}

/// What a model has met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Votes on it.
    pub votes: u64,
    /// Votes for it.
    pub wins: u64,
    /// Votes that it is no better and no worse, or that both are bad.
    pub ties: u64,
    /// Votes that both are bad.
    pub both_bad: u64,
}

/// Collapsed votes.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    models: Vec<String>,
    tallies: Vec<Tally>,
    pairs: Vec<Pair>,
    votes: u64,
}

impl Counts {
    /// Collapses votes. Models are in alphabetical order, so that the order of votes does not matter.
    ///
    /// # Errors
    /// That there are more than [`MOST_MODELS`].
    pub fn of(votes: &[Vote], question: Question) -> Result<Counts> {
        Counts::with_models(&[], votes, question)
    }

    /// The same, with models that may not have been voted on yet.
    ///
    /// # Errors
    /// That there are more than [`MOST_MODELS`].
    pub fn with_models(models: &[String], votes: &[Vote], question: Question) -> Result<Counts> {
        let outcome = |vote: &Vote| match question {
            Question::Answer => Some(vote.winner),
            Question::Reasoning => vote.reasoning,
        };
        let counted = || votes.iter().filter_map(|vote| Some((&*vote.left, &*vote.right, outcome(vote)?)));
        let mut names: BTreeSet<&str> = models.iter().map(String::as_str).collect();
        for (left, right, _) in counted() {
            // Most names are there; a second look is cheaper than a second tree.
            if !names.contains(left) || !names.contains(right) {
                names.extend([left, right]);
            }
            if names.len() > MOST_MODELS {
                return Err(Error::new(format!(
                    "the votes are on more than {MOST_MODELS} models, more than can be rated together"
                )));
            }
        }
        let index: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let mut counts = Counts {
            models: names.iter().map(|name| name.to_string()).collect(),
            tallies: vec![Tally::default(); names.len()],
            pairs: Vec::new(),
            votes: 0,
        };
        let mut at: HashMap<(usize, usize), usize> = HashMap::new();
        for (left, right, outcome) in counted() {
            counts.add(&mut at, index[left], index[right], outcome);
        }
        counts.pairs.sort_by_key(|pair| (pair.first, pair.second));
        Ok(counts)
    }

    fn add(&mut self, at: &mut HashMap<(usize, usize), usize>, left: usize, right: usize, outcome: Outcome) {
        self.votes += 1;
        for (side, better) in [(left, Outcome::Left), (right, Outcome::Right)] {
            let tally = &mut self.tallies[side];
            tally.votes += 1;
            tally.wins += u64::from(outcome == better);
            tally.ties += u64::from(matches!(outcome, Outcome::Tie | Outcome::BothBad));
            tally.both_bad += u64::from(outcome == Outcome::BothBad);
        }
        let (first, second) = (left.min(right), left.max(right));
        let pair = *at.entry((first, second)).or_insert_with(|| {
            self.pairs.push(Pair { first, second, counts: [0.0; 3], weight: 1.0 });
            self.pairs.len() - 1
        });
        let outcome = if left > right { outcome.swapped() } else { outcome };
        let place = match outcome {
            Outcome::Left => 0,
            Outcome::Tie | Outcome::BothBad => 1,
            Outcome::Right => 2,
        };
        self.pairs[pair].counts[place] += 1.0;
    }

    /// Weighs the votes so that each pair counts the same, however often it was voted on; pairs with fewer than `least`
    /// votes count in proportion.
    pub fn reweighted(mut self, least: f64) -> Counts {
        for pair in &mut self.pairs {
            pair.weight = 1.0 / pair.votes().max(least);
        }
        self
    }

    /// The models.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// What each model has met with.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Pairs that were voted on, sorted.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Number of votes.
    pub fn votes(&self) -> u64 {
        self.votes
    }
}

impl Pair {
    /// Number of votes.
    pub fn votes(&self) -> f64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_and_order_are_forgotten_and_bad_ties_are_not() {
        use Outcome::{BothBad, Left, Right, Tie};
        let votes = [("b", "a", Left), ("a", "b", Right), ("c", "a", BothBad), ("a", "b", Left), ("b", "a", Tie)];
        let mut votes = votes.map(|(left, right, winner)| Vote::new(left, right, winner));
        votes[3].reasoning = Some(BothBad);
        let counts = Counts::of(&votes, Question::Answer).unwrap();
        assert_eq!(counts.models(), ["a", "b", "c"]);
        let pair = |first, second, counts| Pair { first, second, counts, weight: 1.0 };
        assert_eq!(counts.pairs(), [pair(0, 1, [1.0, 1.0, 2.0]), pair(0, 2, [0.0, 1.0, 0.0])]);
        let tally = |votes, wins, ties, both_bad| Tally { votes, wins, ties, both_bad };
        assert_eq!(counts.tallies(), [tally(5, 1, 2, 1), tally(4, 2, 1, 0), tally(1, 0, 1, 1)]);
        assert_eq!(counts.votes(), 5);
        votes.reverse();
        assert_eq!(Counts::of(&votes, Question::Answer).unwrap(), counts);

        let reasoning = Counts::with_models(&["x".into()], &votes, Question::Reasoning).unwrap();
        assert_eq!(reasoning.models(), ["a", "b", "x"]);
        assert_eq!(reasoning.pairs(), [pair(0, 1, [0.0, 1.0, 0.0])]);
        assert_eq!((reasoning.votes(), reasoning.tallies()[2]), (1, Tally::default()));

        let weights: Vec<f64> = counts.reweighted(2.0).pairs().iter().map(|pair| pair.weight).collect();
        assert_eq!(weights, [0.25, 0.5]);
    }

    #[test]
    fn there_is_a_most() {
        let votes = |models: usize| {
            let votes = (1..models).map(|i| Vote::new("m0", format!("m{i}"), Outcome::Tie));
            Counts::of(&votes.collect::<Vec<Vote>>(), Question::Answer)
        };
        assert_eq!(votes(MOST_MODELS).unwrap().models().len(), MOST_MODELS);
        assert!(votes(MOST_MODELS + 1).unwrap_err().to_string().contains("more than 1000 models"));
    }
}
