//! Sums of several numbers, added one at a time: `37+85+46=` → `<think>37+85=122;122+46=168</think>168<end>`.

use std::fmt::Display;
use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step, between, unordered};

/// Sums of `level` numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSum {
    /// Digits of each number, every count equally likely; within 1..=4.
    pub digits: RangeInclusive<u32>,
    /// How thoughts write their numbers; prompts and answers are always plain.
    pub scratchpad: Scratchpad,
}

/// How thoughts write numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratchpad {
    /// As people do: 122.
    Plain,
    /// Least significant digit first, so that a carry is known when it is needed: 221 (arXiv 2307.03381).
    Reversed,
}

impl Scratchpad {
    fn write(self, number: impl Display) -> String {
        let plain = number.to_string();
        match self {
            Self::Plain => plain,
            Self::Reversed => plain.chars().rev().collect(),
        }
    }
}

/// A sum to work out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is added, in the prompt's order.
    numbers: Vec<u32>,
    /// What it comes to.
    target: u32,
}

impl Procedural for ChainSum {
    type Problem = Problem;

    const NAME: &'static str = "chain_sum";
    const ALPHABET: &'static str = "0123456789+=;no";
    const LEVELS: RangeInclusive<u32> = 2..=10;

    fn longest_prompt(&self, level: u32) -> usize {
        (level * (self.digits.end() + 1)) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let number = |_| {
            let first = 10_u32.pow(between(self.digits.clone(), random) - 1);
            first + random.below(9 * first)
        };
        let numbers: Vec<u32> = (0..level).map(number).collect();
        Problem { target: numbers.iter().sum(), numbers }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let sum = problem.numbers.iter().try_fold(0_u32, |sum, number| sum.checked_add(*number))?;
        let level = u32::try_from(problem.numbers.len()).ok()?;
        (sum == problem.target && Self::LEVELS.contains(&level)).then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        let terms: Vec<String> = problem.numbers.iter().map(u32::to_string).collect();
        terms.join("+") + "="
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let terms = prompt.strip_suffix('=')?.split('+');
        let numbers = terms.map(|term| term.parse().ok()).collect::<Option<Vec<u32>>>()?;
        let target = numbers.iter().try_fold(0_u32, |sum, number| sum.checked_add(*number))?;
        Some(Problem { numbers, target })
    }

    fn in_words(&self, problem: &Problem) -> String {
        format!("What is {}?", self.prompt(problem).trim_end_matches('='))
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut total = problem.numbers[0];
        let step = |&number: &u32| {
            let [left, right] = [total, number].map(|n| self.scratchpad.write(n));
            total += number;
            Step::number(format!("{left}+{right}"), total)
        };
        problem.numbers[1..].iter().map(step).collect()
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.target.to_string()
    }

    fn essence(&self, problem: &Problem) -> Vec<u8> {
        unordered(&problem.numbers)
    }

    fn number(&self, number: i64) -> String {
        self.scratchpad.write(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::procedural::tests::promises;
    use super::super::tests::{bare, hostile, score, written};
    use super::super::{Item, Style, Task};
    use super::*;

    const PLAIN: ChainSum = ChainSum { digits: 1..=2, scratchpad: Scratchpad::Plain };

    fn item() -> Item {
        Item { level: 3, prompt: "37+85+46=".into(), facts: json!({ "numbers": [37, 85, 46], "target": 168 }) }
    }

    #[test]
    fn thoughts_are_written_as_documented() {
        let mut random = Random::new(3, [0; 3]);
        let mut text = |task: &ChainSum, style| written(&task.demonstration(&item(), style, &mut random));
        assert_eq!(text(&PLAIN, Style::Direct), "<think></think>168<end>");
        assert_eq!(text(&PLAIN, Style::Think), "<think>37+85=122;122+46=168</think>168<end>");
        let reversed = ChainSum { scratchpad: Scratchpad::Reversed, ..PLAIN };
        assert_eq!(text(&reversed, Style::Think), "<think>73+58=221;221+64=861</think>168<end>");
        for _ in 0..50 {
            let text = text(&PLAIN, Style::Backtrack);
            let steps: Vec<&str> = text[7..].split("</think>").next().unwrap().split(';').collect();
            let no = steps.iter().position(|&s| s == "no").unwrap();
            assert_eq!(steps.len(), 4);
            let (wrong, right) = (steps[no - 1].split_once('=').unwrap(), steps[no + 1].split_once('=').unwrap());
            assert!(wrong.0 == right.0 && wrong.1 != right.1, "{text}");
        }
    }

    #[test]
    fn it_keeps_its_promises() {
        let [plain, reversed] =
            ["37+85=122;122+46=168", "73+58=221;221+64=861"].map(|thought| format!("<think>{thought}</think>168<end>"));
        for digits in [1..=1, 1..=2, 2..=3, 4..=4] {
            let task = ChainSum { digits, scratchpad: Scratchpad::Plain };
            promises(&task, "37+85+46=", &plain);
            promises(&ChainSum { scratchpad: Scratchpad::Reversed, ..task }, "37+85+46=", &reversed);
        }
    }

    #[test]
    fn the_verifier_says_why() {
        let given = score(&PLAIN, &item(), "<think>anything</think>168<end>");
        assert_eq!((given.reward, given.reason.as_str()), (1.0, "answer 168 is right"));
        for (answer, reason) in [
            ("12", "answer \"12\" is not 168"),
            ("0", "answer \"0\" is not 168"),
            ("99999999999999999999999", "answer \"99999999999999999999999\" is not 168"),
            ("0168", "answer \"0168\" is not a plain whole number"),
            ("+168", "answer \"+168\" is not a plain whole number"),
            ("-168", "answer \"-168\" is not a plain whole number"),
            ("168 ", "answer \"168 \" is not a plain whole number"),
            ("\n168", "answer \"\\n168\" is not a plain whole number"),
            ("168.0", "answer \"168.0\" is not a plain whole number"),
            ("１６８", "answer \"１６８\" is not a plain whole number"),
            ("١٦٨", "answer \"١٦٨\" is not a plain whole number"),
            ("122+46", "answer \"122+46\" is not a plain whole number"),
            ("168;168", "answer \"168;168\" is not a plain whole number"),
        ] {
            let given = score(&PLAIN, &item(), &format!("<think>x</think>{answer}<end>"));
            assert_eq!((given.reward, given.reason.as_str()), (0.0, reason));
        }
    }

    #[test]
    fn only_the_right_answer_in_the_right_form_scores() {
        let mut random = Random::new(4, [0; 3]);
        let (mut right, mut wrong) = (0, 0);
        let format = bare(&PLAIN);
        for _ in 0..100_000 {
            let text = hostile("<think>37+85=122;122+46=168</think>168<end>", PLAIN.alphabet(), &mut random);
            let thought = text.strip_prefix("<think>").and_then(|t| t.strip_suffix("</think>168<end>"));
            let expected =
                thought.is_some_and(|t| !["<think>", "</think>", "<end>", "<pad>"].iter().any(|s| t.contains(s)));
            assert_eq!(format.score(&PLAIN, &item(), &text, true).reward == 1.0, expected, "{text}");
            *(if expected { &mut right } else { &mut wrong }) += 1;
        }
        assert!(right > 1000 && wrong > 1000, "{right} right, {wrong} wrong: too easy to be a test");
    }

    #[test]
    fn prompts_are_read_back_and_nothing_else_is() {
        assert_eq!(PLAIN.read("37+85+46="), Some(item()));
        for wrong in ["", "=", "37=", "37+85", "37+=", "a+b=", "37-85=", " 37+85=", "4294967295+1=", "3+4=7", "why?"] {
            assert_eq!(PLAIN.read(wrong), None, "{wrong}");
        }
    }
}
