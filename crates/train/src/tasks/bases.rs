//! Numbers in other bases, by repeated division: `13>2:` → `<think>13/2=6r1;6/2=3r0;3/2=1r1;1/2=0r1</think>1101<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// Numbers up to 4 to the power of `level` + 3 in base 2 or 3, from level 2 on in up to base 9.
pub struct Bases;

/// A number, and the base to write it in.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    number: u32,
    base: u32,
}

/// The largest number and the largest base of a level.
fn largest(level: u32) -> (u32, u32) {
    (4_u32.pow(level + 3), if level == 1 { 3 } else { 9 })
}

impl Procedural for Bases {
    type Problem = Problem;

    const NAME: &'static str = "bases";
    const ALPHABET: &'static str = "0123456789>:/r=;no";
    const LEVELS: RangeInclusive<u32> = 1..=4;

    fn longest_prompt(&self, level: u32) -> usize {
        largest(level).0.to_string().len() + 3
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let (number, base) = largest(level);
        Problem { number: between(2..=number, random), base: between(2..=base, random) }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let fits = |level: &u32| {
            let (number, base) = largest(*level);
            (2..=number).contains(&problem.number) && (2..=base).contains(&problem.base)
        };
        Self::LEVELS.into_iter().find(fits)
    }

    fn prompt(&self, Problem { number, base }: &Problem) -> String {
        format!("{number}>{base}:")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (number, base) = prompt.strip_suffix(':')?.split_once('>')?;
        Some(Problem { number: number.parse().ok()?, base: base.parse().ok()? })
    }

    fn in_words(&self, Problem { number, base }: &Problem) -> String {
        format!("Write the number {number} in base {base}.")
    }

    /// What goes wrong is the quotient or the remainder.
    fn steps(&self, &Problem { mut number, base }: &Problem) -> Vec<Step> {
        let mut steps = Vec::new();
        while number > 0 {
            let (quotient, remainder) = (number / base, number % base);
            let wrong = [format!("{}r{remainder}", quotient + 1), format!("{quotient}r{}", (remainder + 1) % base)];
            steps.push(Step::word(format!("{number}/{base}"), format!("{quotient}r{remainder}"), wrong));
            number = quotient;
        }
        steps
    }

    fn answer(&self, &Problem { mut number, base }: &Problem) -> String {
        let mut digits = String::new();
        while number > 0 {
            digits.insert_str(0, &(number % base).to_string());
            number /= base;
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Bases, "13>2:", "<think>13/2=6r1;6/2=3r0;3/2=1r1;1/2=0r1</think>1101<end>");
    }
}
