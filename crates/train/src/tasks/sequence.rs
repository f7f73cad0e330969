//! The next number of a sequence, by its differences: `2 5 8 11:` → `<think>5-2=3;8-5=3;11-8=3;11+3=14</think>14<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// Sequences whose `level`-th differences are all the same, but not those before; `level` + 3 numbers are given.
pub struct Sequence;

/// What is given.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    terms: Vec<u32>,
}

/// The largest of the first differences of each order.
const LARGEST: [u32; 3] = [20, 9, 5];

impl Problem {
    /// The terms, their differences, the differences of these and so on, down to differences that are all the same; none
    /// where some number falls.
    fn rows(&self) -> Option<Vec<Vec<u32>>> {
        let mut rows = vec![self.terms.clone()];
        while let Some(last) = rows.last().filter(|row| row.windows(2).any(|pair| pair[0] != pair[1])) {
            rows.push(last.windows(2).map(|pair| pair[1].checked_sub(pair[0])).collect::<Option<_>>()?);
        }
        Some(rows)
    }

    /// The last number of each row, and what stands behind it.
    fn extended(&self) -> Vec<(u32, u32)> {
        let mut below = 0;
        let rows = self.rows().unwrap_or_default();
        let extend = |row: &Vec<u32>| {
            let last = *row.last()?;
            below += last;
            Some((last, below))
        };
        let mut ends: Vec<(u32, u32)> = rows.iter().rev().filter_map(extend).collect();
        ends.reverse();
        ends
    }
}

impl Procedural for Sequence {
    type Problem = Problem;

    const NAME: &'static str = "sequence";
    const ALPHABET: &'static str = "0123456789 :-+=;no";
    const LEVELS: RangeInclusive<u32> = 1..=3;

    fn longest_prompt(&self, level: u32) -> usize {
        (4 * (level + 3)) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        // The first of each row; the last row must not be of zeros, or the level would be lower.
        let mut firsts = vec![between(0..=50, random)];
        firsts.extend((1..level).map(|order| between(0..=LARGEST[order as usize - 1], random)));
        firsts.push(between(1..=LARGEST[level as usize - 1], random));
        let next = |_| {
            let term = firsts[0];
            (0..firsts.len() - 1).for_each(|order| firsts[order] += firsts[order + 1]);
            term
        };
        Problem { terms: (0..level + 3).map(next).collect() }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        if !(4..=6).contains(&problem.terms.len()) || problem.terms.iter().any(|term| *term > 999) {
            return None;
        }
        let rows = problem.rows()?;
        let level = rows.len() as u32 - 1;
        (Self::LEVELS.contains(&level) && problem.terms.len() as u32 == level + 3).then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        let terms: Vec<String> = problem.terms.iter().map(u32::to_string).collect();
        terms.join(" ") + ":"
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let terms = prompt.strip_suffix(':')?.split(' ').map(|term| term.parse().ok()).collect::<Option<_>>()?;
        Some(Problem { terms })
    }

    fn in_words(&self, problem: &Problem) -> String {
        let terms: Vec<String> = problem.terms.iter().map(u32::to_string).collect();
        format!("Which number comes next: {}?", terms.join(", "))
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let rows = problem.rows().unwrap_or_default();
        let pairs = rows[..rows.len() - 1].iter().flat_map(|row| row.windows(2));
        let mut steps: Vec<Step> =
            pairs.map(|pair| Step::number(format!("{}-{}", pair[1], pair[0]), pair[1] - pair[0])).collect();
        let ends = problem.extended();
        let sums = ends.windows(2).rev().map(|pair| {
            let ((last, next), (_, difference)) = (pair[0], pair[1]);
            Step::number(format!("{last}+{difference}"), next)
        });
        steps.extend(sums);
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.extended()[0].1.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Sequence, "2 5 8 11:", "<think>5-2=3;8-5=3;11-8=3;11+3=14</think>14<end>");
        let squares = "4-1=3;9-4=5;16-9=7;25-16=9;5-3=2;7-5=2;9-7=2;9+2=11;25+11=36";
        promises(&Sequence, "1 4 9 16 25:", &format!("<think>{squares}</think>36<end>"));
    }
}
