//! Sums of fractions in lowest terms: `1/6+1/3=` → `<think>1*3=3;1*6=6;3+6=9;6*3=18;9,18=9;9/9=1;18/9=2</think>1/2<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::gcd::gcd;
use super::procedural::{Procedural, Step, between, unordered};

/// Two fractions below 1, with denominators up to 9 at level 1, 12 at level 2 and 20 at level 3.
pub struct Fractions;

/// `a/b+c/d`.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
}

/// The largest denominator of a level.
fn largest(level: u32) -> u32 {
    [9, 12, 20][level as usize - 1]
}

impl Problem {
    /// The sum over the product of the denominators.
    fn sum(&self) -> (u32, u32) {
        (self.a * self.d + self.c * self.b, self.b * self.d)
    }
}

impl Procedural for Fractions {
    type Problem = Problem;

    const NAME: &'static str = "fractions";
    const ALPHABET: &'static str = "0123456789/+=*,;no";
    const LEVELS: RangeInclusive<u32> = 1..=3;

    fn longest_prompt(&self, level: u32) -> usize {
        4 * largest(level).to_string().len() + 4
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let mut fraction = || {
            let denominator = between(2..=largest(level), random);
            (between(1..=denominator - 1, random), denominator)
        };
        let ((a, b), (c, d)) = (fraction(), fraction());
        Problem { a, b, c, d }
    }

    fn level(&self, &Problem { a, b, c, d }: &Problem) -> Option<u32> {
        let proper = 0 < a && a < b && 0 < c && c < d;
        Self::LEVELS.into_iter().find(|level| proper && b.max(d) <= largest(*level))
    }

    fn prompt(&self, Problem { a, b, c, d }: &Problem) -> String {
        format!("{a}/{b}+{c}/{d}=")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let fraction = |text: &str| {
            let (above, below) = text.split_once('/')?;
            Some((above.parse().ok()?, below.parse().ok()?))
        };
        let (left, right) = prompt.strip_suffix('=')?.split_once('+')?;
        let ((a, b), (c, d)) = (fraction(left)?, fraction(right)?);
        Some(Problem { a, b, c, d })
    }

    fn in_words(&self, Problem { a, b, c, d }: &Problem) -> String {
        format!(
            "What is {a}/{b} + {c}/{d}? Answer with a fraction in lowest terms, written like 3/4, or with a whole number."
        )
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let Problem { a, b, c, d } = *problem;
        let (above, below) = problem.sum();
        let common = gcd(above, below);
        let mut steps = vec![
            Step::number(format!("{a}*{d}"), a * d),
            Step::number(format!("{c}*{b}"), c * b),
            Step::number(format!("{}+{}", a * d, c * b), above),
            Step::number(format!("{b}*{d}"), below),
            Step::number(format!("{above},{below}"), common),
        ];
        if common > 1 {
            steps.extend([above, below].map(|part| Step::number(format!("{part}/{common}"), part / common)));
        }
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        let (above, below) = problem.sum();
        let common = gcd(above, below);
        if below == common { (above / common).to_string() } else { format!("{}/{}", above / common, below / common) }
    }

    fn essence(&self, &Problem { a, b, c, d }: &Problem) -> Vec<u8> {
        // A fraction in one number: numerators and denominators are small.
        unordered(&[1000 * a + b, 1000 * c + d])
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        let thought = "1*3=3;1*6=6;3+6=9;6*3=18;9,18=9;9/9=1;18/9=2";
        promises(&Fractions, "1/6+1/3=", &format!("<think>{thought}</think>1/2<end>"));
        promises(&Fractions, "1/3+2/3=", "<think>1*3=3;2*3=6;3+6=9;3*3=9;9,9=9;9/9=1;9/9=1</think>1<end>");
    }
}
