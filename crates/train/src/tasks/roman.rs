//! Sums of Roman numerals: `XIV+IX=` → `<think>XIV=14;IX=9;14+9=23;23=XXIII</think>XXIII<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between, unordered};

/// Sums of two numerals, up to 30 each at level 1 and 999 at level 4.
pub struct Roman;

/// Two numbers.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    left: u32,
    right: u32,
}

const NUMERALS: [(u32, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

/// The largest number of a level.
fn largest(level: u32) -> u32 {
    [30, 100, 400, 999][level as usize - 1]
}

/// A number from 1 to 3999 as Romans write it.
fn write(mut number: u32) -> String {
    let mut text = String::new();
    for (value, numeral) in NUMERALS {
        while number >= value {
            text += numeral;
            number -= value;
        }
    }
    text
}

/// What the numerals of a text come to, where there are no others.
fn read(mut text: &str) -> Option<u32> {
    let mut number = 0_u32;
    while !text.is_empty() {
        let (value, rest) = NUMERALS.iter().find_map(|(value, numeral)| Some((value, text.strip_prefix(numeral)?)))?;
        (number, text) = (number.checked_add(*value)?, rest);
    }
    Some(number)
}

impl Procedural for Roman {
    type Problem = Problem;

    const NAME: &'static str = "roman";
    const ALPHABET: &'static str = "IVXLCDM+=0123456789;no";
    const LEVELS: RangeInclusive<u32> = 1..=4;

    fn longest_prompt(&self, level: u32) -> usize {
        let longest = (1..=largest(level)).map(|number| write(number).len()).max();
        2 * (longest.unwrap_or(0) + 1)
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        Problem { left: between(1..=largest(level), random), right: between(1..=largest(level), random) }
    }

    fn level(&self, &Problem { left, right }: &Problem) -> Option<u32> {
        Self::LEVELS.into_iter().find(|level| left.min(right) > 0 && left.max(right) <= largest(*level))
    }

    fn prompt(&self, &Problem { left, right }: &Problem) -> String {
        format!("{}+{}=", write(left), write(right))
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (left, right) = prompt.strip_suffix('=')?.split_once('+')?;
        Some(Problem { left: read(left)?, right: read(right)? })
    }

    fn in_words(&self, &Problem { left, right }: &Problem) -> String {
        format!("What is {} + {} in Roman numerals?", write(left), write(right))
    }

    fn steps(&self, &Problem { left, right }: &Problem) -> Vec<Step> {
        let sum = left + right;
        vec![
            Step::number(write(left), left),
            Step::number(write(right), right),
            Step::number(format!("{left}+{right}"), sum),
            Step::word(sum.to_string(), write(sum), [write(sum + 1), write(sum - 1)]),
        ]
    }

    fn answer(&self, &Problem { left, right }: &Problem) -> String {
        write(left + right)
    }

    fn essence(&self, &Problem { left, right }: &Problem) -> Vec<u8> {
        unordered(&[left, right])
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Roman, "XIV+IX=", "<think>XIV=14;IX=9;14+9=23;23=XXIII</think>XXIII<end>");
    }

    #[test]
    fn numerals_come_back() {
        for (number, text) in [(4, "IV"), (49, "XLIX"), (444, "CDXLIV"), (1994, "MCMXCIV"), (3888, "MMMDCCCLXXXVIII")] {
            assert_eq!((write(number), read(text)), (text.to_string(), Some(number)));
        }
        assert!((1..4000).all(|number| read(&write(number)) == Some(number)));
        assert_eq!((read("IIII"), read("XA"), read("ⅩⅣ")), (Some(4), None, None));
    }
}
