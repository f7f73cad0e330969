//! The brackets that close what is open: `([]{:` → `<think>(=(;[=([;]=(;{=({</think>})<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step};

/// 4 × `level` brackets of four kinds, some of them still open.
pub struct Brackets;

/// Brackets, each of those that close being of the kind last opened.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    text: String,
}

const PAIRS: [(char, char); 4] = [('(', ')'), ('[', ']'), ('{', '}'), ('<', '>')];

impl Problem {
    /// What is open after each bracket; none where one closes what isn't open.
    fn open(&self) -> Option<Vec<String>> {
        let mut open = String::new();
        let after = |bracket: char| {
            let (opening, closing) = PAIRS.into_iter().find(|pair| bracket == pair.0 || bracket == pair.1)?;
            if bracket == closing {
                return open.pop().filter(|last| *last == opening).map(|_| open.clone());
            }
            open.push(bracket);
            Some(open.clone())
        };
        self.text.chars().map(after).collect()
    }
}

impl Procedural for Brackets {
    type Problem = Problem;

    const NAME: &'static str = "brackets";
    const ALPHABET: &'static str = "()[]{}<>:=;no";
    const LEVELS: RangeInclusive<u32> = 1..=6;

    fn longest_prompt(&self, level: u32) -> usize {
        (4 * level + 1) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let (mut text, mut open) = (String::new(), Vec::new());
        for place in 0..4 * level {
            // The last opens, so that something is left to close.
            let closing = if place < 4 * level - 1 && random.below(2) == 0 { open.pop() } else { None };
            let (bracket, closing) = match closing {
                Some(closing) => (closing, None),
                None => {
                    let pair = PAIRS[random.below(4) as usize];
                    (pair.0, Some(pair.1))
                }
            };
            text.push(bracket);
            open.extend(closing);
        }
        Problem { text }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let level = u32::try_from(problem.text.len()).ok().filter(|length| length % 4 == 0)? / 4;
        let is_open = problem.open()?.last().is_some_and(|open| !open.is_empty());
        (is_open && Self::LEVELS.contains(&level)).then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        format!("{}:", problem.text)
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        Some(Problem { text: prompt.strip_suffix(':')?.into() })
    }

    fn in_words(&self, problem: &Problem) -> String {
        format!(
            "Which brackets close those that are still open in {} in the right order? Answer with them alone.",
            problem.text
        )
    }

    /// What goes wrong is a bracket left open that was closed, or one that was opened and is forgotten.
    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut before = String::new();
        let step = |(bracket, open): (char, String)| {
            let wrong = [before.clone()].into_iter().filter(|before| !before.is_empty());
            let step = Step::word(bracket, open.clone(), wrong);
            before = open;
            step
        };
        problem.text.chars().zip(problem.open().unwrap_or_default()).map(step).collect()
    }

    fn answer(&self, problem: &Problem) -> String {
        let open = problem.open().and_then(|mut open| open.pop()).unwrap_or_default();
        let closing = |bracket| PAIRS.iter().find(|pair| pair.0 == bracket).map(|pair| pair.1);
        open.chars().rev().filter_map(closing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&Brackets, "([]{:", "<think>(=(;[=([;]=(;{=({</think>})<end>");
        for text in [")(((", "(]((", "()[]", "((", "((((("] {
            assert_eq!(Brackets.level(&Problem { text: text.into() }), None, "{text}");
        }
    }
}
