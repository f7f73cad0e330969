//! Tasks: prompt and reward together. Which problems are held out is the same for every built-in task and is decided
//! here; what a completion looks like is [`crate::format`]'s.

#[cfg(test)]
mod adversarial;
mod bases;
mod brackets;
mod built_in;
mod calendar;
pub mod chain_sum;
pub mod checker;
pub mod countdown;
mod equation;
mod expression;
pub mod external;
mod fractions;
mod gcd;
mod knights;
mod letters;
pub mod lines;
pub mod mixture;
pub mod procedural;
mod product;
mod remainder;
mod reversal;
mod roman;
mod sequence;
mod sorting;
mod truth_table;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;

use minke_kernels::random::{Random, fnv1a};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use built_in::{built_in, built_in_names};

/// A kind of problem with a checkable answer.
pub trait Task: Send + Sync {
    /// The name that recipes and reports call it by.
    fn name(&self) -> &str;

    /// Every character of its prompts and demonstrations.
    fn alphabet(&self) -> &str;

    /// The levels it has, easiest first.
    fn levels(&self) -> RangeInclusive<u32>;

    /// Characters of the longest prompt of a level.
    fn prompt_length(&self, level: u32) -> usize;

    /// Draws a problem of one side of the split; the two sides never share a problem, however it is put.
    ///
    /// # Panics
    /// Where `level` is not one of [`Task::levels`].
    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item;

    /// The problem that `prompt` poses, whoever wrote it; none where it isn't one of this task's. Its level is the lowest
    /// that may pose it.
    fn read(&self, prompt: &str) -> Option<Item>;

    /// What a published model is asked: the prompt, or a sentence or two where people would write them.
    fn question(&self, item: &Item) -> String {
        item.prompt.clone()
    }

    /// Whether it has demonstrations to learn from.
    fn demonstrates(&self) -> bool {
        true
    }

    /// A thought and the right answer.
    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration;

    /// Whether `answer`, all that follows the thought, is right; if not, why not.
    ///
    /// # Errors
    /// The reason, in a few words.
    fn check(&self, item: &Item, answer: &str) -> Result<(), String>;

    /// Goes by what a file of its run has of what the task was told from outside and, if there is `more` to come, keeps that
    /// there too. Tasks that are told nothing have nothing to keep.
    ///
    /// # Errors
    /// What the file system says, or what is wrong with the file.
    fn remember(&self, _path: &Path, _more: bool) -> crate::Result<()> {
        Ok(())
    }

    /// Whether problems and verdicts are to be believed, which is asked after they were given and before they are used; what
    /// is to be remembered of them is on disk then.
    ///
    /// # Errors
    /// Why they are not, if the task is a program that can't be worked with any more.
    fn health(&self) -> crate::Result<()> {
        Ok(())
    }
}

/// Which problems: those to learn from, or those to be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Four fifths of all problems.
    Train,
    /// One fifth; no training prompt ever poses such a problem, nor one with the same numbers in another order where
    /// that makes it no other problem.
    HeldOut,
}

/// How a demonstration thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// An empty thought, and the answer.
    Direct,
    /// Straight to the answer.
    Think,
    /// Goes wrong, notices ("no") and mends it; straight to the answer where nothing can go wrong.
    Backtrack,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenItem")]
pub struct Item {
    /// How hard it is, on the task's own scale.
    pub level: u32,
    /// What the model reads.
    pub prompt: String,
    /// What the task keeps of the problem, to judge answers by; nobody else looks into it.
    pub facts: Value,
}

/// An item as files have it. Those of version 1 knew sums and countdowns alone, and named their facts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenItem {
    level: u32,
    prompt: String,
    facts: Option<Value>,
    numbers: Option<Vec<u32>>,
    target: Option<u32>,
}

impl TryFrom<WrittenItem> for Item {
    type Error = &'static str;

    fn try_from(written: WrittenItem) -> Result<Item, Self::Error> {
        let WrittenItem { level, prompt, facts, numbers, target } = written;
        let facts = match (facts, numbers, target) {
            (Some(facts), None, None) => facts,
            (None, Some(numbers), Some(target)) => json!({ "numbers": numbers, "target": target }),
            _ => return Err("an item has either facts, or numbers and a target"),
        };
        Ok(Item { level, prompt, facts })
    }
}

/// A right completion, to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// What is thought; empty in [`Style::Direct`].
    pub thought: String,
    /// What is answered.
    pub answer: String,
}

/// A problem to learn from, of one of `levels`, each equally likely.
pub fn training_item(task: &dyn Task, levels: &[u32], random: &mut Random) -> Item {
    let level = levels[random.below(levels.len() as u32) as usize];
    task.sample(Split::Train, level, random)
}

/// Up to `count` different held-out problems of a level, fewer where the level hasn't as many. They are the same for
/// every run of the same task, so that results can be compared.
pub fn held_out_items(task: &dyn Task, level: u32, count: usize) -> Vec<Item> {
    const SEED: u64 = 0x6865_6c64;
    let mut random = Random::new(SEED, [level, 0, 0]);
    let mut seen = HashSet::new();
    // Twenty misses a problem: by then nearly every problem of a small level has been seen.
    (0..count.saturating_mul(20))
        .map(|_| task.sample(Split::HeldOut, level, &mut random))
        .filter(|item| seen.insert(item.prompt.clone()))
        .take(count)
        .collect()
}

/// The side of the split that a problem is on, by the hash of what makes it that problem: one fifth is held out.
fn split_of(essence: &[u8]) -> Split {
    let hash = fnv1a(essence.iter().copied());
    // The high bits: every byte has reached them.
    if (hash >> 32).is_multiple_of(5) { Split::HeldOut } else { Split::Train }
}

#[cfg(test)]
pub(crate) mod tests {
    use minke_model::Tokenizer;

    use super::procedural::unordered;
    use super::*;
    use crate::format::{END, END_THINK, Format, SPECIALS, Score, THINK};

    /// How a model made from scratch for `task` writes.
    pub fn bare(task: &dyn Task) -> Format {
        let alphabet: Vec<char> = task.alphabet().chars().collect();
        Format::new(Tokenizer::characters(&alphabet, &SPECIALS).unwrap(), None, None).unwrap()
    }

    /// What `text`, a completion of a model made from scratch, is worth.
    pub fn score(task: &dyn Task, item: &Item, text: &str) -> Score {
        bare(task).score(task, item, text, true)
    }

    /// A demonstration as such a model writes it.
    pub fn written(Demonstration { thought, answer }: &Demonstration) -> String {
        format!("{THINK}{thought}{END_THINK}{answer}{END}")
    }

    /// Strings to trip a verifier with: a right completion changed at random places, and pieces of text thrown together.
    pub fn hostile(right: &str, alphabet: &str, random: &mut Random) -> String {
        let odd =
            ["<think>", "</think>", "<end>", "<pad>", "+", "-", "0", " ", "\n", "٣", "３", "−", "1e2", "\0", "", "168"];
        let chars: Vec<char> = alphabet.chars().collect();
        let piece = |random: &mut Random| match random.below(2) {
            0 => odd[random.below(odd.len() as u32) as usize].to_string(),
            _ => chars[random.below(chars.len() as u32) as usize].to_string(),
        };
        if random.below(4) == 0 {
            return (0..random.below(30)).map(|_| piece(random)).collect();
        }
        let mut text: Vec<char> = right.chars().collect();
        for _ in 0..=random.below(3) {
            let from = random.below(text.len() as u32 + 1) as usize;
            let to = (from + random.below(3) as usize).min(text.len());
            let new = if random.below(3) == 0 { String::new() } else { piece(random) };
            text.splice(from..to, new.chars());
        }
        text.into_iter().collect()
    }

    /// What every task promises: its alphabet is enough, demonstrations score 1, prompts are as long as it says.
    pub fn keeps_its_promises(task: &dyn Task, essence: &dyn Fn(&Item) -> Vec<u8>) {
        let mut random = Random::new(1, [0; 3]);
        let (format, allowed) = (bare(task), |text: &str| text.chars().all(|c| task.alphabet().contains(c)));
        for level in task.levels() {
            let (mut longest, mut kept) = (0, HashSet::new());
            for _ in 0..300 {
                let item = task.sample(Split::Train, level, &mut random);
                assert_eq!((item.level, split_of(&essence(&item))), (level, Split::Train));
                longest = longest.max(item.prompt.chars().count());
                let read = task.read(&item.prompt).unwrap();
                assert!(read.level <= level && Item { level, ..read } == item, "{item:?}");
                for style in [Style::Direct, Style::Think, Style::Backtrack] {
                    let shown = task.demonstration(&item, style, &mut random);
                    let text = written(&shown);
                    assert_eq!(format.text(&format.completion(&shown).unwrap()).unwrap(), text);
                    let score = format.score(task, &item, &text, true);
                    assert_eq!(score.reward, 1.0, "{}{text}: {}", item.prompt, score.reason);
                    assert!(
                        [&item.prompt, &shown.thought, &shown.answer].into_iter().all(|text| allowed(text)),
                        "{text}"
                    );
                    assert_eq!(shown.thought.is_empty(), style == Style::Direct, "{text}");
                    // Cut anywhere, it is worth nothing.
                    let cut = text.char_indices().nth(random.below(text.chars().count() as u32) as usize).unwrap().0;
                    assert_eq!(format.score(task, &item, &text[..cut], true).reward, 0.0, "{}", &text[..cut]);
                }
                kept.insert(item.prompt);
            }
            assert!(longest <= task.prompt_length(level), "{longest} at level {level}");
            let held_out = held_out_items(task, level, 100);
            assert!(!held_out.is_empty(), "level {level} holds nothing out");
            for item in &held_out {
                assert!(split_of(&essence(item)) == Split::HeldOut && !kept.contains(&item.prompt), "{}", item.prompt);
            }
            assert_eq!(held_out, held_out_items(task, level, 100));
        }
    }

    #[test]
    fn the_split_does_not_see_order_and_holds_out_a_fifth() {
        let mut random = Random::new(2, [0; 3]);
        let mut out = 0;
        for _ in 0..10_000 {
            let mut numbers: Vec<u32> = (0..3).map(|_| 1 + random.below(99)).collect();
            let split = split_of(&unordered(&numbers));
            random.shuffle(&mut numbers);
            assert_eq!(split_of(&unordered(&numbers)), split);
            out += usize::from(split == Split::HeldOut);
        }
        assert!((1700..2300).contains(&out), "{out} of 10000");
        // The split is part of what published numbers mean: it may not move (these are from another implementation).
        let out = [37, 85, 3, 9].map(|n| split_of(&unordered(&[n, 12, 40])) == Split::HeldOut);
        assert_eq!(out, [true, false, false, false]);
    }
}
