//! Greatest common divisors, by Euclid's algorithm: `36,84:` → `<think>84%36=12;36%12=0</think>12<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between, unordered};

/// The greatest common divisor of two numbers, up to 50 at level 1 and 2000 at level 4.
pub struct Gcd;

/// Two numbers.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    left: u32,
    right: u32,
}

/// The largest number of a level.
fn largest(level: u32) -> u32 {
    [50, 200, 800, 2000][level as usize - 1]
}

/// The greatest common divisor.
pub fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Procedural for Gcd {
    type Problem = Problem;

    const NAME: &'static str = "gcd";
    const ALPHABET: &'static str = "0123456789,:%=;no";
    const LEVELS: RangeInclusive<u32> = 1..=4;

    fn longest_prompt(&self, level: u32) -> usize {
        2 * (largest(level).to_string().len() + 1)
    }

    /// Multiples of the same number: most pairs of numbers have no divisor in common but 1.
    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let common = between(1..=largest(level) / 4, random);
        let [left, right] = [(); 2].map(|()| common * between(1..=largest(level) / common, random));
        Problem { left, right }
    }

    fn level(&self, &Problem { left, right }: &Problem) -> Option<u32> {
        Self::LEVELS.into_iter().find(|level| left.min(right) > 0 && left.max(right) <= largest(*level))
    }

    fn prompt(&self, Problem { left, right }: &Problem) -> String {
        format!("{left},{right}:")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (left, right) = prompt.strip_suffix(':')?.split_once(',')?;
        Some(Problem { left: left.parse().ok()?, right: right.parse().ok()? })
    }

    fn in_words(&self, Problem { left, right }: &Problem) -> String {
        format!("What is the greatest common divisor of {left} and {right}?")
    }

    fn steps(&self, &Problem { left, right }: &Problem) -> Vec<Step> {
        let (mut a, mut b) = (left.max(right), left.min(right));
        let mut steps = Vec::new();
        while b > 0 {
            steps.push(Step::number(format!("{a}%{b}"), a % b));
            (a, b) = (b, a % b);
        }
        steps
    }

    fn answer(&self, &Problem { left, right }: &Problem) -> String {
        gcd(left, right).to_string()
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
        promises(&Gcd, "36,84:", "<think>84%36=12;36%12=0</think>12<end>");
    }
}
