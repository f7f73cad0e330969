//! Words written backwards, each letter put before the last: `bead:` → `<think>b=b;e=eb;a=aeb;d=daeb</think>daeb<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step};

/// A word of `level` letters.
pub struct Reversal;

/// What is reversed.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    word: String,
}

const LETTERS: [char; 8] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

impl Procedural for Reversal {
    type Problem = Problem;

    const NAME: &'static str = "reversal";
    const ALPHABET: &'static str = "abcdefgh:=;no";
    const LEVELS: RangeInclusive<u32> = 4..=12;

    fn longest_prompt(&self, level: u32) -> usize {
        (level + 1) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        Problem { word: (0..level).map(|_| LETTERS[random.below(8) as usize]).collect() }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let level = u32::try_from(problem.word.len()).ok()?;
        (Self::LEVELS.contains(&level) && problem.word.chars().all(|c| LETTERS.contains(&c))).then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        format!("{}:", problem.word)
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        Some(Problem { word: prompt.strip_suffix(':')?.into() })
    }

    fn in_words(&self, problem: &Problem) -> String {
        format!("Write {} backwards.", problem.word)
    }

    /// What goes wrong is a letter put behind instead of before.
    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut reversed = String::new();
        let step = |c: char| {
            let behind = format!("{reversed}{c}");
            reversed.insert(0, c);
            Step::word(c, reversed.clone(), [behind])
        };
        problem.word.chars().map(step).collect()
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.word.chars().rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Reversal, "bead:", "<think>b=b;e=eb;a=aeb;d=daeb</think>daeb<end>");
    }
}
