//! Products, by partial products: `23*47=` → `<think>23*40=920;23*7=161;920+161=1081</think>1081<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between, unordered};

/// Products of two numbers whose digits grow with the level.
pub struct Product;

/// Two factors.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    left: u32,
    right: u32,
}

/// Most digits of the shorter and the longer factor of a level.
fn digits(level: u32) -> (u32, u32) {
    [(1, 2), (2, 2), (2, 3), (3, 3)][level as usize - 1]
}

impl Procedural for Product {
    type Problem = Problem;

    const NAME: &'static str = "product";
    const ALPHABET: &'static str = "0123456789*+=;no";
    const LEVELS: RangeInclusive<u32> = 1..=4;

    fn longest_prompt(&self, level: u32) -> usize {
        let (shorter, longer) = digits(level);
        (shorter + longer + 2) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let (shorter, longer) = digits(level);
        let mut factors = [shorter, longer].map(|digits| between(2..=10_u32.pow(digits) - 1, random));
        random.shuffle(&mut factors);
        Problem { left: factors[0], right: factors[1] }
    }

    fn level(&self, &Problem { left, right }: &Problem) -> Option<u32> {
        let fits = |level: &u32| {
            let (shorter, longer) = digits(*level);
            left.min(right) >= 2 && left.min(right) < 10_u32.pow(shorter) && left.max(right) < 10_u32.pow(longer)
        };
        Self::LEVELS.into_iter().find(fits)
    }

    fn prompt(&self, Problem { left, right }: &Problem) -> String {
        format!("{left}*{right}=")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (left, right) = prompt.strip_suffix('=')?.split_once('*')?;
        Some(Problem { left: left.parse().ok()?, right: right.parse().ok()? })
    }

    fn in_words(&self, Problem { left, right }: &Problem) -> String {
        format!("What is {left} times {right}?")
    }

    fn steps(&self, &Problem { left, right }: &Problem) -> Vec<Step> {
        let (mut steps, mut total) = (Vec::new(), 0);
        for unit in [1000, 100, 10, 1] {
            let part = right / unit % 10 * unit;
            if part == 0 {
                continue;
            }
            steps.push(Step::number(format!("{left}*{part}"), left * part));
            if total > 0 {
                steps.push(Step::number(format!("{total}+{}", left * part), total + left * part));
            }
            total += left * part;
        }
        steps
    }

    fn answer(&self, &Problem { left, right }: &Problem) -> String {
        (left * right).to_string()
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
        promises(&Product, "23*47=", "<think>23*40=920;23*7=161;920+161=1081</think>1081<end>");
    }
}
