//! Sums of several numbers, added one at a time: `37+85+46=` → `<think>37+85=122;122+46=168</think>168<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use minke_model::error::quoted;

use super::{Demonstration, Item, Split, Style, Task, split_of};

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
    fn write(self, number: u32) -> String {
        let plain = number.to_string();
        match self {
            Self::Plain => plain,
            Self::Reversed => plain.chars().rev().collect(),
        }
    }
}

impl ChainSum {
    fn step(&self, left: u32, right: u32, sum: u32) -> String {
        let [left, right, sum] = [left, right, sum].map(|n| self.scratchpad.write(n));
        format!("{left}+{right}={sum}")
    }
}

impl Task for ChainSum {
    fn name(&self) -> &str {
        "chain_sum"
    }

    fn alphabet(&self) -> &str {
        "0123456789+=;no"
    }

    fn levels(&self) -> RangeInclusive<u32> {
        2..=10
    }

    fn prompt_length(&self, level: u32) -> usize {
        (level * (self.digits.end() + 1)) as usize
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        assert!(self.levels().contains(&level), "chain_sum has no level {level}");
        let (fewest, most) = (*self.digits.start(), *self.digits.end());
        loop {
            let numbers: Vec<u32> = (0..level)
                .map(|_| {
                    let first = 10_u32.pow(fewest + random.below(most - fewest + 1) - 1);
                    first + random.below(9 * first)
                })
                .collect();
            if split_of(&numbers) == split {
                let terms: Vec<String> = numbers.iter().map(u32::to_string).collect();
                let (prompt, target) = (terms.join("+") + "=", numbers.iter().sum());
                return Item { level, prompt, numbers, target };
            }
        }
    }

    fn read(&self, prompt: &str) -> Option<Item> {
        let terms = prompt.strip_suffix('=')?.split('+');
        let numbers = terms.map(|term| term.parse().ok()).collect::<Option<Vec<u32>>>()?;
        let target = numbers.iter().try_fold(0_u32, |sum, number| sum.checked_add(*number))?;
        let level = u32::try_from(numbers.len()).ok().filter(|level| self.levels().contains(level))?;
        Some(Item { level, prompt: prompt.into(), numbers, target })
    }

    fn question(&self, item: &Item) -> String {
        format!("What is {}?", item.prompt.trim_end_matches('='))
    }

    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration {
        let answer = item.target.to_string();
        let mistaken = match style {
            Style::Direct => return Demonstration { thought: String::new(), answer },
            Style::Think => None,
            Style::Backtrack => Some(1 + random.below(item.numbers.len() as u32 - 1) as usize),
        };
        let mut steps = Vec::new();
        let mut total = item.numbers[0];
        for (i, &number) in item.numbers.iter().enumerate().skip(1) {
            let sum = total + number;
            if mistaken == Some(i) {
                steps.push(self.step(total, number, mistake(sum, random)));
                steps.push("no".to_string());
            }
            steps.push(self.step(total, number, sum));
            total = sum;
        }
        Demonstration { thought: steps.join(";"), answer }
    }

    fn check(&self, item: &Item, answer: &str) -> Result<(), String> {
        // Comparing text is the strictest check: no sign, space, leading zero or foreign digit can slip through.
        if answer == item.target.to_string() {
            return Ok(());
        }
        let digits = answer.bytes().all(|b| b.is_ascii_digit()) && (answer == "0" || !answer.starts_with('0'));
        Err(if digits {
            format!("answer {} is not {}", quoted(answer), item.target)
        } else {
            format!("answer {} is not a plain whole number", quoted(answer))
        })
    }
}

/// A sum that is wrong in one place: a carry forgotten or made up, or off by one.
fn mistake(sum: u32, random: &mut Random) -> u32 {
    let unit = 10_u32.pow(random.below(sum.ilog10() + 1));
    if sum > unit && random.below(2) == 0 { sum - unit } else { sum + unit }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bare, hostile, keeps_its_promises, score, written};
    use super::*;

    const PLAIN: ChainSum = ChainSum { digits: 1..=2, scratchpad: Scratchpad::Plain };

    fn item() -> Item {
        Item { level: 3, prompt: "37+85+46=".into(), numbers: vec![37, 85, 46], target: 168 }
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
    fn promises() {
        for digits in [1..=1, 1..=2, 2..=3, 4..=4] {
            keeps_its_promises(&ChainSum { digits: digits.clone(), scratchpad: Scratchpad::Plain });
            keeps_its_promises(&ChainSum { digits, scratchpad: Scratchpad::Reversed });
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
