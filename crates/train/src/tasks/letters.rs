//! How often a letter occurs, counted one letter at a time: `a:bad=` → `<think>b=0;a=1;d=1</think>1<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// A letter in a word of up to 4 × `level` letters.
pub struct Letters;

/// What is counted, and where.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    letter: char,
    word: String,
}

/// Few enough for each to be there more than once.
const LETTERS: [char; 6] = ['a', 'b', 'c', 'd', 'e', 'f'];

impl Procedural for Letters {
    type Problem = Problem;

    const NAME: &'static str = "letters";
    const ALPHABET: &'static str = "abcdef:=0123456789;no";
    const LEVELS: RangeInclusive<u32> = 2..=6;

    fn longest_prompt(&self, level: u32) -> usize {
        (4 * level + 3) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        // The letter more often than chance would have it, so that every count is met.
        let letter = LETTERS[random.below(6) as usize];
        let often = between(0..=6, random);
        let length = between(4 * level - 3..=4 * level, random);
        let draw = |_| if random.below(10) < often { letter } else { LETTERS[random.below(6) as usize] };
        Problem { letter, word: (0..length).map(draw).collect() }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let known = problem.word.chars().chain([problem.letter]).all(|c| LETTERS.contains(&c));
        Self::LEVELS.into_iter().find(|level| known && (5..=4 * *level as usize).contains(&problem.word.len()))
    }

    fn prompt(&self, Problem { letter, word }: &Problem) -> String {
        format!("{letter}:{word}=")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (letter, word) = prompt.strip_suffix('=')?.split_once(':')?;
        Some(Problem { letter: letter.parse().ok()?, word: word.into() })
    }

    fn in_words(&self, Problem { letter, word }: &Problem) -> String {
        format!("How many times does the letter {letter} occur in {word}?")
    }

    fn steps(&self, Problem { letter, word }: &Problem) -> Vec<Step> {
        let mut count = 0;
        let step = |c: char| {
            count += u32::from(c == *letter);
            Step::number(c, count)
        };
        word.chars().map(step).collect()
    }

    fn answer(&self, Problem { letter, word }: &Problem) -> String {
        word.matches(*letter).count().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        let thought = "b=0;e=0;a=1;d=1;e=1;d=1";
        promises(&Letters, "a:beaded=", &format!("<think>{thought}</think>1<end>"));
    }
}
