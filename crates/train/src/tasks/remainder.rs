//! Modular arithmetic, from left to right: `8*7+5-9%11:` → `<think>8*7%11=1;1+5%11=6;6-9%11=8</think>8<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// `level` operations, each followed by taking the remainder of the same division.
pub struct Remainder;

/// Where it begins, what is done to it, and what it is divided by.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    first: u32,
    operations: Vec<(char, u32)>,
    modulus: u32,
}

impl Problem {
    /// The remainders before and after each operation.
    fn remainders(&self) -> Vec<(u32, u32)> {
        let mut value = self.first;
        let step = |&(operation, operand): &(char, u32)| {
            let before = value;
            let (x, y, m) = (i64::from(value), i64::from(operand), i64::from(self.modulus));
            let after = match operation {
                '+' => x + y,
                '-' => x - y,
                _ => x * y,
            };
            value = after.rem_euclid(m) as u32;
            (before, value)
        };
        self.operations.iter().map(step).collect()
    }
}

impl Procedural for Remainder {
    type Problem = Problem;

    const NAME: &'static str = "remainder";
    const ALPHABET: &'static str = "0123456789+-*%:=;no";
    const LEVELS: RangeInclusive<u32> = 1..=6;

    fn longest_prompt(&self, level: u32) -> usize {
        (1 + 2 * level + 4) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let modulus = between(3..=19, random);
        let first = between(2..=9, random);
        let operation = |_| (['+', '-', '*'][random.below(3) as usize], between(2..=9, random));
        Problem { first, operations: (0..level).map(operation).collect(), modulus }
    }

    fn level(&self, Problem { first, operations, modulus }: &Problem) -> Option<u32> {
        let level = u32::try_from(operations.len()).ok().filter(|level| Self::LEVELS.contains(level))?;
        let known = |(operation, operand): &(char, u32)| "+-*".contains(*operation) && (2..=9).contains(operand);
        let good = (2..=9).contains(first) && operations.iter().all(known) && (3..=19).contains(modulus);
        good.then_some(level)
    }

    fn prompt(&self, Problem { first, operations, modulus }: &Problem) -> String {
        let operations: String =
            operations.iter().map(|(operation, operand)| format!("{operation}{operand}")).collect();
        format!("{first}{operations}%{modulus}:")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (chain, modulus) = prompt.strip_suffix(':')?.split_once('%')?;
        let mut numbers = chain.split(['+', '-', '*']).map(str::parse);
        let first = numbers.next()?.ok()?;
        let signs = chain.chars().filter(|c| "+-*".contains(*c));
        let operations = signs.zip(numbers).map(|(sign, number)| Some((sign, number.ok()?))).collect::<Option<_>>()?;
        Some(Problem { first, operations, modulus: modulus.parse().ok()? })
    }

    fn in_words(&self, Problem { first, operations, modulus }: &Problem) -> String {
        let word = |(operation, operand): &(char, u32)| match operation {
            '+' => format!("add {operand}"),
            '-' => format!("subtract {operand}"),
            _ => format!("multiply by {operand}"),
        };
        let words: Vec<String> = operations.iter().map(word).collect();
        format!(
            "Start with {first}; {}; and take the remainder of the division by {modulus} (from 0 to {}).",
            words.join("; "),
            modulus - 1
        )
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let step = |(&(operation, operand), (before, after)): (&(char, u32), (u32, u32))| {
            Step::number(format!("{before}{operation}{operand}%{}", problem.modulus), after)
        };
        problem.operations.iter().zip(problem.remainders()).map(step).collect()
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.remainders().last().map_or(problem.first, |(_, after)| *after).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Remainder, "8*7+5-9%11:", "<think>8*7%11=1;1+5%11=6;6-9%11=8</think>8<end>");
    }
}
