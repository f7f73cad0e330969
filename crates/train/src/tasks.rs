//! Tasks: prompt and reward together. Which problems are held out is the same for every built-in task and is decided
//! here; what a completion looks like is [`crate::format`]'s.

pub mod chain_sum;
pub mod countdown;
mod expression;

use std::collections::HashSet;
use std::ops::RangeInclusive;

use minke_kernels::random::{Random, fnv1a};
use serde::{Deserialize, Serialize};

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

    /// Draws a problem of one side of the split; the two sides never share a set of numbers.
    ///
    /// # Panics
    /// Where `level` is not one of [`Task::levels`].
    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item;

    /// The problem that `prompt` poses, whoever wrote it; none where it isn't one of this task's. Its level is the lowest
    /// that may pose it.
    fn read(&self, prompt: &str) -> Option<Item>;

    /// What a published model is asked: the prompt, or a sentence where people would write one.
    fn question(&self, item: &Item) -> String {
        item.prompt.clone()
    }

    /// A thought and the right answer.
    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration;

    /// Whether `answer`, all that follows the thought, is right; if not, why not.
    ///
    /// # Errors
    /// The reason, in a few words.
    fn check(&self, item: &Item, answer: &str) -> Result<(), String>;
}

/// Which problems: those to learn from, or those to be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Four fifths of all sets of numbers.
    Train,
    /// One fifth; no training prompt ever has such a set of numbers, in any order.
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
    /// Goes wrong, notices ("no") and mends it.
    Backtrack,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// How hard it is, on the task's own scale.
    pub level: u32,
    /// What the model reads.
    pub prompt: String,
    /// The numbers given, in the prompt's order.
    pub numbers: Vec<u32>,
    /// The number to reach.
    pub target: u32,
}

/// A right completion, to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// What is thought; empty in [`Style::Direct`].
    pub thought: String,
    /// What is answered.
    pub answer: String,
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

/// The side of the split that a set of numbers is on, whatever their order: by the hash of the sorted numbers, one
/// fifth held out.
fn split_of(numbers: &[u32]) -> Split {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let hash = fnv1a(sorted.iter().flat_map(|n| n.to_le_bytes()));
    // The high bits: every byte has reached them.
    if (hash >> 32).is_multiple_of(5) { Split::HeldOut } else { Split::Train }
}

#[cfg(test)]
pub(crate) mod tests {
    use minke_model::Tokenizer;

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
    pub fn keeps_its_promises(task: &dyn Task) {
        let mut random = Random::new(1, [0; 3]);
        let (format, allowed) = (bare(task), |text: &str| text.chars().all(|c| task.alphabet().contains(c)));
        for level in task.levels() {
            let (mut longest, mut kept) = (0, HashSet::new());
            for _ in 0..300 {
                let item = task.sample(Split::Train, level, &mut random);
                assert_eq!((item.level, split_of(&item.numbers)), (level, Split::Train));
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
                assert!(split_of(&item.numbers) == Split::HeldOut && !kept.contains(&item.prompt), "{}", item.prompt);
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
            let split = split_of(&numbers);
            random.shuffle(&mut numbers);
            assert_eq!(split_of(&numbers), split);
            out += usize::from(split == Split::HeldOut);
        }
        assert!((1700..2300).contains(&out), "{out} of 10000");
        // The split is part of what published numbers mean: it may not move (these are from another implementation).
        let out = [37, 85, 3, 9].map(|n| split_of(&[n, 12, 40]) == Split::HeldOut);
        assert_eq!(out, [true, false, false, false]);
    }
}
