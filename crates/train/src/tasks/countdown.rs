//! Countdown: make a target of three numbers, each used once: `3 7 12>33:` → `3*7+12`.
//!
//! A thought is a search: `3+7=10,10+12=22;no,try 3*7=21,21+12=33`. Each try joins two of the numbers, and then the
//! third in the way that comes nearest the target; after nine tries at most, every problem is solved.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use minke_model::error::quoted;

use serde::{Deserialize, Serialize};

use super::expression::evaluate;
use super::procedural::unordered;
use super::{Demonstration, Item, Split, Style, Task, split_of};

/// Three numbers up to 5 + 5 × `level`, and a target up to 99 that can be reached with `+ - *`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countdown {
    /// Longest search that a demonstration shows, in tries; within 1..=9. A search that takes longer is drawn anew.
    pub tries: u32,
}

/// Largest target.
const LARGEST_TARGET: u32 = 99;

fn largest_number(level: u32) -> u32 {
    5 + 5 * level
}

/// `left op right = value`, never below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    left: u32,
    op: char,
    right: u32,
    value: u32,
}

/// The three ways to join two numbers; the larger is never subtracted from the smaller, because with a target above
/// zero some other order of operations reaches the same value.
fn joins(a: u32, b: u32) -> [Operation; 3] {
    let (larger, smaller) = (a.max(b), a.min(b));
    [
        Operation { left: a, op: '+', right: b, value: a + b },
        Operation { left: larger, op: '-', right: smaller, value: larger - smaller },
        Operation { left: a, op: '*', right: b, value: a * b },
    ]
}

impl Operation {
    fn write(self) -> String {
        let Operation { left, op, right, value } = self;
        format!("{left}{op}{right}={value}")
    }
}

/// One branch of the search: two numbers joined, and the third still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Try {
    first: Operation,
    third: u32,
}

impl Try {
    /// Every branch, without repetitions, in the order of the numbers.
    fn all(numbers: &[u32]) -> Vec<Try> {
        let &[a, b, c] = numbers else { return Vec::new() };
        let mut tries = Vec::new();
        for (x, y, third) in [(a, b, c), (a, c, b), (b, c, a)] {
            for first in joins(x, y) {
                let new = Try { first, third };
                if !tries.contains(&new) {
                    tries.push(new);
                }
            }
        }
        tries
    }

    /// The way to join the third number that comes nearest `target`.
    fn second(self, target: u32) -> Operation {
        let [plus, minus, times] = joins(self.first.value, self.third);
        // On a draw the simpler operation, which comes later, wins.
        [times, minus, plus].into_iter().max_by_key(|o| Reverse(o.value.abs_diff(target))).unwrap_or(plus)
    }

    fn solves(self, target: u32) -> bool {
        self.second(target).value == target
    }

    fn write(self, target: u32) -> String {
        format!("{},{}", self.first.write(), self.second(target).write())
    }

    /// Both operations as one expression, with parentheses only where they matter.
    fn expression(self, target: u32) -> String {
        let (Operation { left, op, right, value }, second) = (self.first, self.second(target));
        let first_is_left = second.left == value;
        let bare = match second.op {
            '+' => true,
            '-' => first_is_left || op == '*',
            _ => op == '*',
        };
        let first = if bare { format!("{left}{op}{right}") } else { format!("({left}{op}{right})") };
        if first_is_left {
            format!("{first}{}{}", second.op, second.right)
        } else {
            format!("{}{}{first}", second.left, second.op)
        }
    }
}

/// The facts of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Problem {
    /// The numbers to use, in the prompt's order.
    numbers: Vec<u32>,
    /// The number to reach.
    target: u32,
}

impl Problem {
    fn of(item: &Item) -> Option<Problem> {
        Problem::deserialize(&item.facts).ok()
    }

    fn item(&self, level: u32) -> Item {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        let facts = serde_json::to_value(self).expect("numbers, which JSON can have");
        Item { level, prompt: format!("{}>{}:", numbers.join(" "), self.target), facts }
    }
}

impl Task for Countdown {
    fn name(&self) -> &str {
        "countdown"
    }

    fn alphabet(&self) -> &str {
        "0123456789+-*()=, >:;notry"
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=5
    }

    fn prompt_length(&self, level: u32) -> usize {
        let digits = |n: u32| n.to_string().len();
        3 * (digits(largest_number(level)) + 1) + digits(LARGEST_TARGET) + 1
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        assert!(self.levels().contains(&level), "countdown has no level {level}");
        loop {
            let numbers: Vec<u32> = (0..3).map(|_| 1 + random.below(largest_number(level))).collect();
            if split_of(&unordered(&numbers)) != split {
                continue;
            }
            let tries = Try::all(&numbers);
            let chosen = tries[random.below(tries.len() as u32) as usize];
            let target = joins(chosen.first.value, chosen.third)[random.below(3) as usize].value;
            if (1..=LARGEST_TARGET).contains(&target) {
                return Problem { numbers, target }.item(level);
            }
        }
    }

    fn read(&self, prompt: &str) -> Option<Item> {
        let (numbers, target) = prompt.strip_suffix(':')?.split_once('>')?;
        let numbers = numbers.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?;
        let target = target.parse().ok().filter(|target| (1..=LARGEST_TARGET).contains(target))?;
        let may_pose = |level: &u32| numbers.iter().all(|number| (1..=largest_number(*level)).contains(number));
        let level = self.levels().find(may_pose).filter(|_| numbers.len() == 3)?;
        Some(Problem { numbers, target }.item(level)).filter(|item| item.prompt == prompt)
    }

    fn question(&self, item: &Item) -> String {
        let Some(Problem { numbers, target }) = Problem::of(item) else { return item.prompt.clone() };
        let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
        format!(
            "Make {target} of the numbers {}, each used once, with +, -, * and parentheses. Write the expression \
             without spaces.",
            numbers.join(", ")
        )
    }

    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration {
        let Problem { numbers, target } = Problem::of(item).expect("an item of this task");
        let mut tries = Try::all(&numbers);
        let found = loop {
            random.shuffle(&mut tries);
            match tries.iter().position(|t| t.solves(target)) {
                Some(i) if i < self.tries as usize => break i,
                // Every item that was sampled has a solution, so that some order finds it first.
                Some(_) => {}
                None => panic!("{} has no solution", item.prompt),
            }
        };
        let thought = match style {
            Style::Direct => String::new(),
            Style::Think => tries[found].write(target),
            Style::Backtrack => {
                let shown: Vec<String> = tries[..=found].iter().map(|t| t.write(target)).collect();
                shown.join(";no,try ")
            }
        };
        Demonstration { thought, answer: tries[found].expression(target) }
    }

    fn check(&self, item: &Item, answer: &str) -> Result<(), String> {
        let Some(problem) = Problem::of(item) else {
            return Err(format!("{} is no problem of countdown", quoted(&item.prompt)));
        };
        let evaluated =
            evaluate(answer).map_err(|reason| format!("answer {} can't be read: {reason}", quoted(answer)))?;
        if unordered(&evaluated.numbers) != unordered(&problem.numbers) {
            return Err(format!("answer {} does not use each given number once", quoted(answer)));
        }
        if evaluated.value != i64::from(problem.target) {
            return Err(format!("answer {} is {}, not {}", quoted(answer), evaluated.value, problem.target));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tests::{bare, hostile, keeps_its_promises, score, written};
    use super::*;

    const TASK: Countdown = Countdown { tries: 9 };

    fn item() -> Item {
        Problem { numbers: vec![3, 7, 12], target: 33 }.item(2)
    }

    #[test]
    fn thoughts_are_written_as_documented() {
        let mut random = Random::new(5, [0; 3]);
        let mut text = |style| written(&TASK.demonstration(&item(), style, &mut random));
        assert_eq!(text(Style::Direct), "<think></think>3*7+12<end>");
        assert_eq!(text(Style::Think), "<think>3*7=21,21+12=33</think>3*7+12<end>");
        let lengths: HashSet<usize> = (0..300)
            .map(|_| {
                let text = text(Style::Backtrack);
                let tries: Vec<&str> = text[7..].split("</think>").next().unwrap().split(";no,try ").collect();
                assert_eq!(tries.iter().collect::<HashSet<_>>().len(), tries.len(), "{text} repeats itself");
                assert_eq!(*tries.last().unwrap(), "3*7=21,21+12=33");
                assert!(tries.len() == 1 || tries[..tries.len() - 1].iter().all(|t| !t.ends_with("=33")), "{text}");
                tries.len()
            })
            .collect();
        assert_eq!(lengths.len(), 9);
    }

    #[test]
    fn a_search_is_no_longer_than_asked_for() {
        let mut random = Random::new(6, [0; 3]);
        let task = Countdown { tries: 3 };
        let tries = |text: String| 1 + text.matches("no,try").count();
        let longest = (0..200).map(|_| tries(task.demonstration(&item(), Style::Backtrack, &mut random).thought)).max();
        assert_eq!(longest, Some(3));
    }

    #[test]
    fn promises() {
        let essence = |item: &Item| unordered(&Problem::of(item).unwrap().numbers);
        keeps_its_promises(&TASK, &essence);
        keeps_its_promises(&Countdown { tries: 1 }, &essence);
    }

    /// Never subtracting the larger from the smaller loses no problem: every target that any expression reaches is
    /// reached by a try.
    #[test]
    fn the_search_is_complete() {
        for numbers in [[3, 7, 12], [1, 1, 1], [5, 5, 9], [30, 2, 29], [4, 6, 10]] {
            let reached: HashSet<u32> =
                Try::all(&numbers).iter().flat_map(|t| joins(t.first.value, t.third)).map(|o| o.value).collect();
            for [a, b, c] in
                [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].map(|p| p.map(|i| numbers[i]))
            {
                for (p, q) in ["+", "-", "*"].iter().flat_map(|p| ["+", "-", "*"].map(|q| (p, q))) {
                    for text in [format!("({a}{p}{b}){q}{c}"), format!("{a}{p}({b}{q}{c})")] {
                        let value = evaluate(&text).unwrap().value;
                        assert!(value < 1 || reached.contains(&u32::try_from(value).unwrap()), "{text} = {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn expressions_have_the_parentheses_they_need() {
        for numbers in [[3, 7, 12], [5, 5, 9], [30, 2, 29], [1, 2, 2]] {
            for branch in Try::all(&numbers) {
                // Aim at each of its ends, so that each is the nearest.
                for end in joins(branch.first.value, branch.third) {
                    let text = branch.expression(end.value);
                    assert_eq!(evaluate(&text).unwrap().value, i64::from(end.value), "{text}");
                }
            }
        }
    }

    #[test]
    fn the_verifier_says_why() {
        for answer in ["3*7+12", "12+3*7", "(7*3)+12", "((12)+7*3)"] {
            assert_eq!(score(&TASK, &item(), &format!("<think></think>{answer}<end>")).reward, 1.0, "{answer}");
        }
        for (answer, reason) in [
            ("3+7+12", "answer \"3+7+12\" is 22, not 33"),
            ("33", "answer \"33\" does not use each given number once"),
            ("3*7", "answer \"3*7\" does not use each given number once"),
            ("3*7+12+0", "answer \"3*7+12+0\" does not use each given number once"),
            ("3*7+12+7-7", "answer \"3*7+12+7-7\" does not use each given number once"),
            ("37-2*2", "answer \"37-2*2\" does not use each given number once"),
            ("3*7+12=33", "answer \"3*7+12=33\" can't be read: unexpected = at 7"),
            ("3*7+12 ", "answer \"3*7+12 \" can't be read: unexpected character at 7"),
            ("03*7+12", "answer \"03*7+12\" can't be read: a number with a leading zero"),
            ("yes", "answer \"yes\" can't be read: unexpected y at 1"),
        ] {
            let given = score(&TASK, &item(), &format!("<think></think>{answer}<end>"));
            assert_eq!((given.reward, given.reason.as_str()), (0.0, reason));
        }
    }

    /// The oracle is a list: every way to write a right answer without spare parentheses.
    #[test]
    fn only_the_right_answer_in_the_right_form_scores() {
        let right = ["3*7+12", "7*3+12", "12+3*7", "12+7*3"];
        let mut random = Random::new(7, [0; 3]);
        let (mut good, mut bad) = (0, 0);
        let format = bare(&TASK);
        for _ in 0..100_000 {
            let start = format!("<think>3*7=21</think>{}<end>", right[random.below(4) as usize]);
            let text = hostile(&start, TASK.alphabet(), &mut random);
            if format.score(&TASK, &item(), &text, true).reward == 0.0 {
                bad += 1;
                continue;
            }
            good += 1;
            let (thought, answer) = text[7..].strip_suffix("<end>").unwrap().split_once("</think>").unwrap();
            assert!(text.starts_with("<think>") && !thought.contains("<think>"), "{text}");
            let bare: String = answer.chars().filter(|c| !"()".contains(*c)).collect();
            assert!(right.contains(&bare.as_str()), "{text}");
        }
        assert!(good > 1000 && bad > 1000, "{good} right, {bad} wrong: too easy to be a test");
    }
}
