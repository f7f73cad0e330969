//! Procedural tasks: problems drawn at random, each with one right answer that is written in one way. A family of
//! problems says what is its own; splits, thoughts and the check are the same for all and live here.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use minke_model::error::quoted;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Demonstration, Item, Split, Style, Task, split_of};

/// A family of problems. Whatever implements it is a [`Task`].
pub trait Procedural: Send + Sync {
    /// All that a problem is made of; its items keep it as their facts.
    type Problem: Serialize + DeserializeOwned;

    /// The name that recipes and reports call it by.
    const NAME: &'static str;
    /// Every character of its prompts, steps and answers, and of `;no`.
    const ALPHABET: &'static str;
    /// The levels it has, easiest first.
    const LEVELS: RangeInclusive<u32>;

    /// Characters of the longest prompt of a level.
    fn longest_prompt(&self, level: u32) -> usize;

    /// Draws a problem of a level that the family has.
    fn draw(&self, level: u32, random: &mut Random) -> Self::Problem;

    /// The lowest level that may pose a problem, whoever made it; none where it is no problem of this family. Nothing
    /// else is asked about a problem that has no level.
    fn level(&self, problem: &Self::Problem) -> Option<u32>;

    /// The problem in as few characters as it takes.
    fn prompt(&self, problem: &Self::Problem) -> String;

    /// The problem that has this prompt. More may be read than is ever written: what isn't written the same again is
    /// refused.
    fn parse(&self, prompt: &str) -> Option<Self::Problem>;

    /// The problem as people would put it, and how the answer is to be written.
    fn in_words(&self, problem: &Self::Problem) -> String;

    /// The way to the answer.
    fn steps(&self, problem: &Self::Problem) -> Vec<Step>;

    /// The answer.
    fn answer(&self, problem: &Self::Problem) -> String;

    /// What two problems have in common that must be on the same side of the split: the prompt, unless some prompts pose
    /// the same problem.
    fn essence(&self, problem: &Self::Problem) -> Vec<u8> {
        self.prompt(problem).into_bytes()
    }

    /// How thoughts write numbers.
    fn number(&self, number: i64) -> String {
        number.to_string()
    }
}

/// A step of a thought, written `WORK=RESULT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    work: String,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Number(i64),
    Word { right: String, wrong: Vec<String> },
}

impl Step {
    /// A step to a number; what it may be mistaken for is another number, wrong in one digit.
    pub fn number(work: impl Into<String>, value: impl Into<i64>) -> Step {
        Step { work: work.into(), result: Outcome::Number(value.into()) }
    }

    /// A step to anything else, and what it may be mistaken for; where that is nothing, no thought goes wrong here.
    pub fn word(
        work: impl Into<String>,
        right: impl Into<String>,
        wrong: impl IntoIterator<Item = impl Into<String>>,
    ) -> Step {
        let right = right.into();
        let wrong = wrong.into_iter().map(Into::into).filter(|wrong| *wrong != right).collect();
        Step { work: work.into(), result: Outcome::Word { right, wrong } }
    }

    fn can_go_wrong(&self) -> bool {
        !matches!(&self.result, Outcome::Word { wrong, .. } if wrong.is_empty())
    }

    fn right(&self, number: impl Fn(i64) -> String) -> String {
        match &self.result {
            Outcome::Number(value) => format!("{}={}", self.work, number(*value)),
            Outcome::Word { right, .. } => format!("{}={right}", self.work),
        }
    }

    fn wrong(&self, number: impl Fn(i64) -> String, random: &mut Random) -> String {
        match &self.result {
            Outcome::Number(value) => format!("{}={}", self.work, number(mistake(*value, random))),
            Outcome::Word { wrong, .. } => {
                format!("{}={}", self.work, wrong[random.below(wrong.len() as u32) as usize])
            }
        }
    }
}

/// A number that is wrong in one place: a carry forgotten or made up, or off by one.
fn mistake(value: i64, random: &mut Random) -> i64 {
    let size = value.unsigned_abs().max(1);
    let unit = 10_i64.pow(random.below(size.ilog10() + 1));
    let away = if size > unit.unsigned_abs() && random.below(2) == 0 { -unit } else { unit };
    if value < 0 { value - away } else { value + away }
}

/// A number of a range, each equally likely.
pub fn between(range: RangeInclusive<u32>, random: &mut Random) -> u32 {
    range.start() + random.below(range.end() - range.start() + 1)
}

/// Numbers as an essence that does not see their order.
pub fn unordered(numbers: &[u32]) -> Vec<u8> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The problem that an item is about; none where its facts are those of no problem of this family.
fn problem<P: Procedural>(task: &P, item: &Item) -> Option<P::Problem> {
    P::Problem::deserialize(&item.facts).ok().filter(|problem| task.level(problem).is_some())
}

fn item<P: Procedural>(task: &P, level: u32, problem: &P::Problem) -> Item {
    let facts = serde_json::to_value(problem).expect("a problem is plain data, which JSON can have");
    Item { level, prompt: task.prompt(problem), facts }
}

impl<P: Procedural> Task for P {
    fn name(&self) -> &str {
        P::NAME
    }

    fn alphabet(&self) -> &str {
        P::ALPHABET
    }

    fn levels(&self) -> RangeInclusive<u32> {
        P::LEVELS
    }

    fn prompt_length(&self, level: u32) -> usize {
        self.longest_prompt(level)
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        assert!(P::LEVELS.contains(&level), "{} has no level {level}", P::NAME);
        loop {
            let problem = self.draw(level, random);
            if split_of(&self.essence(&problem)) == split {
                return item(self, level, &problem);
            }
        }
    }

    fn read(&self, prompt: &str) -> Option<Item> {
        let problem = self.parse(prompt)?;
        let level = self.level(&problem)?;
        Some(item(self, level, &problem)).filter(|item| item.prompt == prompt)
    }

    fn question(&self, item: &Item) -> String {
        problem(self, item).map_or_else(|| item.prompt.clone(), |problem| self.in_words(&problem))
    }

    fn demonstration(&self, item: &Item, style: Style, random: &mut Random) -> Demonstration {
        let problem = problem(self, item).expect("an item of this task");
        let number = |value| self.number(value);
        let steps = if style == Style::Direct { Vec::new() } else { self.steps(&problem) };
        let fallible: Vec<usize> = (0..steps.len()).filter(|&i| steps[i].can_go_wrong()).collect();
        let mistaken = match style {
            Style::Backtrack if !fallible.is_empty() => Some(fallible[random.below(fallible.len() as u32) as usize]),
            _ => None,
        };
        let mut thought = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            if mistaken == Some(i) {
                thought.extend([step.wrong(number, random), "no".to_string()]);
            }
            thought.push(step.right(number));
        }
        Demonstration { thought: thought.join(";"), answer: self.answer(&problem) }
    }

    fn check(&self, item: &Item, answer: &str) -> Result<(), String> {
        let Some(problem) = problem(self, item) else {
            return Err(format!("{} is no problem of {}", quoted(&item.prompt), P::NAME));
        };
        // Comparing text is the strictest check: no sign, space, leading zero or foreign digit can slip through.
        let right = self.answer(&problem);
        if answer == right {
            return Ok(());
        }
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        Err(if plain(&right) && !plain(answer) {
            format!("answer {} is not a plain whole number", quoted(answer))
        } else {
            format!("answer {} is not {right}", quoted(answer))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{keeps_its_promises, written};
    use super::*;

    /// What every family promises, and that `prompt` is answered, thinking, as its file says.
    pub fn promises<P: Procedural>(task: &P, prompt: &str, completion: &str) {
        keeps_its_promises(task, &|item| task.essence(&problem(task, item).unwrap()));
        let mut random = Random::new(3, [0; 3]);
        let item = task.read(prompt).unwrap_or_else(|| panic!("{prompt} is not read"));
        assert_eq!(written(&task.demonstration(&item, Style::Think, &mut random)), completion);
        for level in P::LEVELS {
            let (mut wrong, mut answers) = (0, std::collections::HashSet::new());
            for _ in 0..200 {
                let item = task.sample(Split::Train, level, &mut random);
                let text = task.demonstration(&item, Style::Backtrack, &mut random).thought;
                let steps: Vec<&str> = text.split(';').collect();
                if let Some(no) = steps.iter().position(|step| *step == "no") {
                    let [first, second] = [steps[no - 1], steps[no + 1]].map(|step| step.rsplit_once('=').unwrap());
                    assert!(first.0 == second.0 && first.1 != second.1, "{text}");
                    wrong += 1;
                }
                let question = task.question(&item);
                assert!(question.ends_with(['.', '?']) && question.len() > item.prompt.len(), "{question}");
                answers.insert(task.answer(&problem(task, &item).unwrap()));
            }
            assert!(wrong > 150, "{wrong} of 200 thoughts at level {level} go wrong and mend it");
            assert!(answers.len() > 5, "{} different answers at level {level}: guessing pays", answers.len());
        }
    }

    #[test]
    fn mistakes_are_near_and_never_right() {
        let mut random = Random::new(4, [0; 3]);
        for value in [-120, -1, 0, 1, 9, 10, 168, 4999] {
            for _ in 0..50 {
                let wrong = mistake(value, &mut random);
                assert!(wrong != value && (wrong < 0) == (value < 0), "{wrong} for {value}");
                assert!(wrong.abs_diff(value) <= value.unsigned_abs().max(1), "{wrong} for {value}");
            }
        }
    }
}
