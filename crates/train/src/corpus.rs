//! The fixed set of demonstrations that an `sft` or `distil` stage learns from.
//!
//! Generated ones depend on the seed and the stage's own settings alone, so that two stages with the same settings share
//! them; a teacher's are what it wrote.

use minke_kernels::random::Random;

use crate::format::Format;
use crate::recipe::{Sft, Share};
use crate::rollouts::Rollout;
use crate::tasks::{Demonstration, Item, Style, Task, training_item};

/// One demonstration.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The problem.
    pub item: Item,
    /// How the completion thinks.
    pub style: Style,
    /// What should follow the prompt.
    pub shown: Demonstration,
}

/// Demonstrations, in the order they were drawn.
#[derive(Clone, Debug)]
pub struct Corpus {
    examples: Vec<Example>,
    seed: u64,
}

/// First words of the random streams used here.
const DRAW: u32 = 0x636f_7270;
const ORDER: u32 = 0x6f72_6465;

impl Corpus {
    /// Draws the corpus of a stage from the task's training side.
    pub fn new(task: &dyn Task, sft: &Sft, seed: u64) -> Corpus {
        Corpus::draw(task, &sft.levels, sft.examples, &sft.mixture, seed)
    }

    /// Draws so many demonstrations of these levels.
    pub fn draw(task: &dyn Task, levels: &[u32], examples: u32, mixture: &[Share], seed: u64) -> Corpus {
        let mut given = vec![0; mixture.len()];
        let examples = (0..examples).map(|i| {
            let mut random = Random::new(seed, [DRAW, i, 0]);
            let item = training_item(task, levels, &mut random);
            let style = next_style(mixture, &mut given);
            let shown = task.demonstration(&item, style, &mut random);
            Example { item, style, shown }
        });
        Corpus { examples: examples.collect(), seed }
    }

    /// The corpus of what a teacher wrote; what is not in the right form of the model that learns is left out.
    pub fn of(traces: &[Rollout], format: &Format, seed: u64) -> Corpus {
        let example = |trace: &Rollout| {
            let parts = format.parts(&trace.text, trace.finished).ok()?;
            let shown = Demonstration { thought: parts.thought.into(), answer: parts.answer.into() };
            Some(Example { item: trace.item.clone(), style: Style::Think, shown })
        };
        Corpus { examples: traces.iter().filter_map(example).collect(), seed }
    }

    /// All demonstrations.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The demonstrations of a step (from 0), `batch` of them: pass after pass over the corpus, each in its own order.
    pub fn batch(&self, step: u32, batch: u32) -> Vec<&Example> {
        places(self.seed, self.examples.len(), step, batch).into_iter().map(|place| &self.examples[place]).collect()
    }
}

/// Which of `count` things a step (from 0) takes, `batch` of them: pass after pass over all, each in its own order.
pub(crate) fn places(seed: u64, count: usize, step: u32, batch: u32) -> Vec<usize> {
    let (each, first) = (count as u64, u64::from(step) * u64::from(batch));
    let mut order: (u64, Vec<usize>) = (u64::MAX, Vec::new());
    (first..first + u64::from(batch))
        .map(|place| {
            let pass = place / each;
            if order.0 != pass {
                order = (pass, (0..count).collect());
                Random::new(seed, [ORDER, pass as u32, 0]).shuffle(&mut order.1);
            }
            order.1[(place % each) as usize]
        })
        .collect()
}

/// The style that is furthest behind its share: the shares hold after any number of examples, to within an example or so.
fn next_style(mixture: &[Share], given: &mut [u32]) -> Style {
    let total = given.iter().sum::<u32>() + 1;
    let behind = |i: usize| f64::from(total) * mixture[i].share - f64::from(given[i]);
    let next = (0..mixture.len()).max_by(|&a, &b| behind(a).total_cmp(&behind(b))).unwrap_or(0);
    given[next] += 1;
    mixture[next].style
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::recipe::{Recipe, Stage};

    fn tiny() -> (Box<dyn Task>, Sft) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tiny.toml");
        let recipe = Recipe::read(&path).unwrap();
        let Stage::Sft(sft) = &recipe.stages[0] else { panic!("a cold start") };
        (recipe.task.build(), sft.clone())
    }

    #[test]
    fn shares_are_kept() {
        let (task, sft) = tiny();
        let corpus = Corpus::new(&*task, &Sft { examples: 1000, ..sft.clone() }, 1);
        let mut counts = HashMap::new();
        for (i, example) in corpus.examples().iter().enumerate() {
            *counts.entry(example.style).or_insert(0) += 1;
            for share in &sft.mixture {
                let expected = share.share * (i + 1) as f64;
                assert!((f64::from(*counts.get(&share.style).unwrap_or(&0)) - expected).abs() <= 1.0, "after {i}");
            }
            assert_eq!(task.check(&example.item, &example.shown.answer), Ok(()));
        }
        assert_eq!(counts, HashMap::from([(Style::Direct, 400), (Style::Think, 450), (Style::Backtrack, 150)]));
    }

    #[test]
    fn a_pass_sees_every_example_once_and_another_pass_another_order() {
        let (task, sft) = tiny();
        let corpus = Corpus::new(&*task, &Sft { examples: 24, ..sft }, 1);
        let place = |example: &Example| corpus.examples().iter().position(|e| std::ptr::eq(e, example)).unwrap();
        // Batches of 7 straddle the passes.
        let order: Vec<usize> = (0..7).flat_map(|step| corpus.batch(step, 7)).map(place).collect();
        for pass in [&order[..24], &order[24..48]] {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..24).collect::<Vec<usize>>());
        }
        assert_ne!(order[..24], order[24..48]);
    }

    #[test]
    fn the_corpus_follows_from_seed_and_settings() {
        let (task, sft) = tiny();
        let corpus = |seed, examples| Corpus::new(&*task, &Sft { examples, ..sft.clone() }, seed).examples;
        assert_eq!(corpus(1, 64), corpus(1, 64));
        assert_eq!(corpus(1, 64)[..32], corpus(1, 32));
        assert_ne!(corpus(1, 64), corpus(2, 64));
    }
}
