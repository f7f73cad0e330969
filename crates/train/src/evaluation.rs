//! Held-out results: how each item went, and what that says of a model.

use serde::{Deserialize, Serialize};

use crate::intervals::{Interval, paired, pass_at_k, wilson};

/// How one held-out item went.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The greedy completion was right.
    pub greedy: bool,
    /// The greedy completion ended by itself.
    pub finished: bool,
    /// It was right for a lenient reader, whatever its form.
    pub lenient: bool,
    /// Tokens of the greedy completion's thought.
    pub thought_tokens: usize,
    /// Completions sampled besides.
    pub samples: usize,
    /// Those of them that were right.
    pub right: usize,
}

/// What the outcomes come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Level of the items.
    pub level: u32,
    /// Number of items.
    pub items: usize,
    /// Fraction of items whose greedy completion was right,
    pub accuracy: f64,
    /// and its interval.
    pub interval: Interval,
    /// The greedy completions one by one, in the order of the items: `1` for a right one, `0` for any other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub right: String,
    /// Fraction of items whose greedy completion has the right answer where a lenient reader looks for it. Where this is much
    /// more than `accuracy`, the model knows better than it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lenient: Option<f64>,
    /// Mean length of the greedy thoughts, in tokens.
    pub thought_tokens: f64,
    /// Fraction of greedy completions that ran into their limit.
    pub truncated: f64,
    /// Chances of sampling, where it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
}

/// How much more often one model is right than another on the same items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of items.
    pub items: usize,
    /// Difference of the accuracies,
    pub mean: f64,
    /// and its interval.
    pub interval: Interval,
}

impl Difference {
    /// Whether chance alone would hardly make it so large: the interval is all on one side of 0.
    pub fn is_more_than_noise(&self) -> bool {
        self.interval.low > 0.0 || self.interval.high < 0.0
    }
}

/// Chances of sampling a right completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Completions sampled of each item; the k of `pass_at_k`.
    pub k: usize,
    /// Chance that one is right,
    pub pass_at_1: f64,
    /// and its interval.
    pub pass_at_1_interval: Interval,
    /// Chance that at least one of k is right,
    pub pass_at_k: f64,
    /// and its interval.
    pub pass_at_k_interval: Interval,
}

impl Evaluation {
    /// How much more often this model is right than another on the same items; `None` where they are not known to be the
    /// same.
    pub fn minus(&self, other: &Evaluation) -> Option<Difference> {
        if (self.level, self.right.len()) != (other.level, other.right.len()) || self.right.is_empty() {
            return None;
        }
        let pairs = || self.right.bytes().zip(other.right.bytes());
        let (gained, lost) = (pairs().filter(|(a, b)| a > b).count(), pairs().filter(|(a, b)| a < b).count());
        let items = self.right.len();
        let mean = (gained as f64 - lost as f64) / items as f64;
        Some(Difference { items, mean, interval: paired(gained, lost, items) })
    }

    /// Sums up the outcomes of a level's items, each with equally many samples.
    ///
    /// # Panics
    /// Without outcomes, or where their numbers of samples differ.
    pub fn of(level: u32, outcomes: &[Outcome]) -> Evaluation {
        assert!(!outcomes.is_empty(), "nothing was evaluated");
        let items = outcomes.len();
        let mean = |f: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(f).sum::<f64>() / items as f64;
        let accuracy = mean(&|o| f64::from(u8::from(o.greedy)));
        let k = outcomes[0].samples;
        assert!(outcomes.iter().all(|o| o.samples == k), "items with different numbers of samples");
        let sampled = (k > 0).then(|| {
            let [one, all] = [1, k].map(|k| mean(&|o| pass_at_k(o.samples, o.right, k)));
            Sampled {
                k,
                pass_at_1: one,
                pass_at_1_interval: wilson(one, items),
                pass_at_k: all,
                pass_at_k_interval: wilson(all, items),
            }
        });
        Evaluation {
            level,
            items,
            accuracy,
            interval: wilson(accuracy, items),
            right: outcomes.iter().map(|o| if o.greedy { '1' } else { '0' }).collect(),
            lenient: Some(mean(&|o| f64::from(u8::from(o.lenient)))),
            thought_tokens: mean(&|o| o.thought_tokens as f64),
            truncated: mean(&|o| f64::from(u8::from(!o.finished))),
            sampled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_summed_up() {
        let outcome = |greedy, right| Outcome {
            greedy,
            finished: greedy,
            lenient: right > 0,
            thought_tokens: 10,
            samples: 4,
            right,
        };
        let outcomes = [outcome(true, 4), outcome(true, 1), outcome(false, 1), outcome(false, 0)];
        let evaluation = Evaluation::of(3, &outcomes);
        assert_eq!((evaluation.items, evaluation.accuracy, evaluation.truncated), (4, 0.5, 0.5));
        assert_eq!(evaluation.lenient, Some(0.75));
        assert_eq!(evaluation.right, "1100");
        let sampled = evaluation.sampled.as_ref().unwrap();
        assert_eq!((sampled.k, sampled.pass_at_1, sampled.pass_at_k), (4, 0.375, 0.75));
        assert!(evaluation.interval.low < 0.5 && evaluation.interval.high > 0.5);
        let text = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);

        let other = Evaluation { right: "0110".into(), ..evaluation.clone() };
        let difference = evaluation.minus(&other).unwrap();
        assert_eq!((difference.items, difference.mean), (4, 0.0));
        assert!(!difference.is_more_than_noise() && difference.interval.low < 0.0);
        let (all, none) = ("1".repeat(40), "0".repeat(40));
        let [better, worse] = [all, none].map(|right| Evaluation { right, ..evaluation.clone() });
        assert!(better.minus(&worse).unwrap().interval.low > 0.8 && worse.minus(&better).unwrap().is_more_than_noise());
        assert!(!better.minus(&better).unwrap().is_more_than_noise());
        for stranger in [Evaluation { level: 4, ..other.clone() }, Evaluation { right: String::new(), ..other }] {
            assert_eq!(evaluation.minus(&stranger), None);
        }

        let greedy = Outcome { samples: 0, right: 0, ..outcome(true, 0) };
        assert_eq!(Evaluation::of(3, &[greedy]).sampled, None);
    }
}
