//! Linear equations in one unknown: `7x+5=3x+25:` → `<think>7-3=4;25-5=20;20/4=5</think>5<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between};

/// `ax+b=d` at levels 1 and 2, `ax+b=cx+d` at level 3; the solution is a whole number above zero.
pub struct Equation;

/// `ax+b=cx+d`.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
}

/// Largest a, b and x of a level.
fn largest(level: u32) -> (u32, u32, u32) {
    if level == 1 { (9, 20, 9) } else { (20, 99, 40) }
}

impl Problem {
    fn solution(&self) -> u32 {
        (self.d - self.b) / (self.a - self.c)
    }

    fn right_side(&self) -> String {
        if self.c == 0 { self.d.to_string() } else { format!("{}x+{}", self.c, self.d) }
    }
}

impl Procedural for Equation {
    type Problem = Problem;

    const NAME: &'static str = "equation";
    const ALPHABET: &'static str = "0123456789x+=:-/;no";
    const LEVELS: RangeInclusive<u32> = 1..=3;

    fn longest_prompt(&self, level: u32) -> usize {
        [10, 11, 15][level as usize - 1]
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let (most, constant, solution) = largest(level);
        let c = if level == 3 { between(2..=most - 2, random) } else { 0 };
        let a = between(c.max(1) + 1..=most, random);
        let (b, x) = (between(1..=constant, random), between(1..=solution, random));
        Problem { a, b, c, d: (a - c) * x + b }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let Problem { a, b, c, d } = *problem;
        if !(2..=20).contains(&a) || b == 0 || c == 1 || c >= a || d <= b || (d - b) % (a - c) != 0 {
            return None;
        }
        let fits = |level: &u32| {
            let (most, constant, solution) = largest(*level);
            (*level == 3) == (c > 0) && a <= most && b <= constant && problem.solution() <= solution
        };
        Self::LEVELS.into_iter().find(fits)
    }

    fn prompt(&self, problem: &Problem) -> String {
        format!("{}x+{}={}:", problem.a, problem.b, problem.right_side())
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let (left, right) = prompt.strip_suffix(':')?.split_once('=')?;
        let side = |text: &str| match text.split_once("x+") {
            Some((factor, constant)) => Some((factor.parse().ok()?, constant.parse().ok()?)),
            None => Some((0, text.parse().ok()?)),
        };
        let ((a, b), (c, d)) = (side(left)?, side(right)?);
        Some(Problem { a, b, c, d })
    }

    fn in_words(&self, problem: &Problem) -> String {
        let right = problem.right_side().replace('+', " + ");
        format!("Solve {}x + {} = {right} for x.", problem.a, problem.b)
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let Problem { a, b, c, d } = *problem;
        let mut steps = Vec::new();
        if c > 0 {
            steps.push(Step::number(format!("{a}-{c}"), a - c));
        }
        steps.push(Step::number(format!("{d}-{b}"), d - b));
        steps.push(Step::number(format!("{}/{}", d - b, a - c), problem.solution()));
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.solution().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Equation, "7x+5=3x+25:", "<think>7-3=4;25-5=20;20/4=5</think>5<end>");
        promises(&Equation, "3x+5=26:", "<think>26-5=21;21/3=7</think>7<end>");
    }
}
