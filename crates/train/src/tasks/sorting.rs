//! Sorting, by taking the least of what is left: `7 3 9:` → `<think>7 3 9=3;7 9=7;9=9</think>3 7 9<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between, unordered};

/// `level` numbers below 100, to be put in order.
pub struct Sorting;

/// Numbers in any order.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    numbers: Vec<u32>,
}

fn join(numbers: &[u32], between: &str) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    numbers.join(between)
}

impl Procedural for Sorting {
    type Problem = Problem;

    const NAME: &'static str = "sorting";
    const ALPHABET: &'static str = "0123456789 :=;no";
    const LEVELS: RangeInclusive<u32> = 3..=10;

    fn longest_prompt(&self, level: u32) -> usize {
        (3 * level) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        Problem { numbers: (0..level).map(|_| between(0..=99, random)).collect() }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let level = u32::try_from(problem.numbers.len()).ok()?;
        (Self::LEVELS.contains(&level) && problem.numbers.iter().all(|number| *number < 100)).then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        join(&problem.numbers, " ") + ":"
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let numbers = prompt.strip_suffix(':')?.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        Some(Problem { numbers })
    }

    fn in_words(&self, problem: &Problem) -> String {
        let numbers = join(&problem.numbers, ", ");
        format!(
            "Sort these numbers from the least to the greatest: {numbers}. Answer with the numbers, a space between two."
        )
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut left = problem.numbers.clone();
        let mut steps = Vec::new();
        while let Some((at, least)) = left.iter().copied().enumerate().min_by_key(|(_, number)| *number) {
            steps.push(Step::word(join(&left, " "), least.to_string(), left.iter().map(u32::to_string)));
            left.remove(at);
        }
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        let mut sorted = problem.numbers.clone();
        sorted.sort_unstable();
        join(&sorted, " ")
    }

    fn essence(&self, problem: &Problem) -> Vec<u8> {
        unordered(&problem.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Sorting, "7 3 9:", "<think>7 3 9=3;7 9=7;9=9</think>3 7 9<end>");
    }
}
