//! Knights, who always say what is true, and knaves, who never do: `A:B- B:A=C C:A+?` → who is which, by trial.
//!
//! `B-` says that B is a knave, `B+` that B is a knight, `A=C` that A and C are of a kind, `A#C` that they are not. A thought
//! tries one answer after the other and names the first whose words don't fit, until all do:
//! `<think>111=A;110=A;101=B;100=C;011=B;010=ok</think>010<end>`, a 1 for a knight.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step};

/// Puzzles with `level` people and one solution.
pub struct Knights;

/// What each says, in their order.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    words: Vec<Claim>,
}

/// What somebody says.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Claim {
    /// That one is a knight (or not).
    Knight(usize, bool),
    /// That two are of a kind (or not).
    Alike(usize, usize, bool),
}

fn name(person: usize) -> char {
    char::from(b'A' + person as u8)
}

fn person(name: &str) -> Option<usize> {
    let &[letter] = name.as_bytes() else { return None };
    Some(usize::from(letter.checked_sub(b'A')?))
}

impl Claim {
    fn draw(people: u32, random: &mut Random) -> Claim {
        let (one, yes) = (random.below(people), random.below(2) == 0);
        match random.below(2) {
            0 => Self::Knight(one as usize, yes),
            _ => Self::Alike(one as usize, ((one + 1 + random.below(people - 1)) % people) as usize, yes),
        }
    }

    /// Whether it is true where these are the knights.
    fn holds(self, knights: &[bool]) -> bool {
        match self {
            Self::Knight(one, yes) => knights[one] == yes,
            Self::Alike(one, other, yes) => (knights[one] == knights[other]) == yes,
        }
    }

    fn is_about(self, people: usize) -> bool {
        match self {
            Self::Knight(one, _) => one < people,
            Self::Alike(one, other, _) => one < people && other < people && one != other,
        }
    }

    fn write(self) -> String {
        match self {
            Self::Knight(one, yes) => format!("{}{}", name(one), if yes { '+' } else { '-' }),
            Self::Alike(one, other, yes) => format!("{}{}{}", name(one), if yes { '=' } else { '#' }, name(other)),
        }
    }

    fn read(text: &str) -> Option<Claim> {
        let two = |mark: char, yes| {
            let (one, other) = text.split_once(mark)?;
            Some(Self::Alike(person(one)?, person(other)?, yes))
        };
        let one = |mark: char, yes| Some(Self::Knight(person(text.strip_suffix(mark)?)?, yes));
        one('+', true).or_else(|| one('-', false)).or_else(|| two('=', true)).or_else(|| two('#', false))
    }

    fn in_words(self) -> String {
        match self {
            Self::Knight(one, yes) => format!("{} is a {}", name(one), if yes { "knight" } else { "knave" }),
            Self::Alike(one, other, yes) => {
                format!(
                    "{} and {} are {}",
                    name(one),
                    name(other),
                    if yes { "of the same kind" } else { "of different kinds" }
                )
            }
        }
    }
}

impl Problem {
    /// All answers, from all knights to all knaves.
    fn trials(&self) -> impl Iterator<Item = Vec<bool>> {
        let people = self.words.len();
        (0..1_u32 << people).rev().map(move |bits| (0..people).rev().map(|person| bits >> person & 1 == 1).collect())
    }

    /// The first whose words don't fit an answer.
    fn contradicted(&self, knights: &[bool]) -> Option<usize> {
        (0..self.words.len()).find(|&person| self.words[person].holds(knights) != knights[person])
    }

    fn solutions(&self) -> Vec<Vec<bool>> {
        self.trials().filter(|knights| self.contradicted(knights).is_none()).collect()
    }
}

fn digits(knights: &[bool]) -> String {
    knights.iter().map(|knight| if *knight { '1' } else { '0' }).collect()
}

impl Procedural for Knights {
    type Problem = Problem;

    const NAME: &'static str = "knights";
    const ALPHABET: &'static str = "ABCDE:+-=# ?01;nok";
    const LEVELS: RangeInclusive<u32> = 3..=5;

    fn longest_prompt(&self, level: u32) -> usize {
        (6 * level) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        loop {
            let problem = Problem { words: (0..level).map(|_| Claim::draw(level, random)).collect() };
            if problem.solutions().len() == 1 {
                return problem;
            }
        }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let people = problem.words.len();
        let level = u32::try_from(people).ok().filter(|level| Self::LEVELS.contains(level))?;
        let good = problem.words.iter().all(|claim| claim.is_about(people)) && problem.solutions().len() == 1;
        good.then_some(level)
    }

    fn prompt(&self, problem: &Problem) -> String {
        let words =
            problem.words.iter().enumerate().map(|(person, claim)| format!("{}:{}", name(person), claim.write()));
        words.collect::<Vec<String>>().join(" ") + "?"
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let words = prompt.strip_suffix('?')?.split(' ').map(|words| Claim::read(words.split_once(':')?.1));
        Some(Problem { words: words.collect::<Option<_>>()? })
    }

    fn in_words(&self, problem: &Problem) -> String {
        let said = |(person, claim): (usize, &Claim)| format!("{} says that {}.", name(person), claim.in_words());
        let said: Vec<String> = problem.words.iter().enumerate().map(said).collect();
        format!(
            "Knights always say what is true, knaves never do. {} Who is which? Answer with a digit for each in the order of \
             their letters, 1 for a knight and 0 for a knave, such as 110.",
            said.join(" ")
        )
    }

    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut steps = Vec::new();
        for knights in problem.trials() {
            let contradicted = problem.contradicted(&knights);
            let right = contradicted.map_or("ok".to_string(), |person| name(person).to_string());
            let wrong = (0..knights.len()).map(|person| name(person).to_string()).chain(["ok".to_string()]);
            steps.push(Step::word(digits(&knights), right, wrong));
            if contradicted.is_none() {
                break;
            }
        }
        steps
    }

    fn answer(&self, problem: &Problem) -> String {
        problem.solutions().first().map(|knights| digits(knights)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        let thought = "111=A;110=A;101=B;100=C;011=B;010=ok";
        promises(&Knights, "A:B- B:A=C C:A+?", &format!("<think>{thought}</think>010<end>"));
        // Two solutions, and a person who is not there.
        for prompt in ["A:B- B:A- C:A+?", "A:D- B:A=C C:A+?", "A:B- B:A=C?", "A:B=B B:A=C C:A+?"] {
            assert!(Knights.parse(prompt).is_none_or(|problem| Knights.level(&problem).is_none()), "{prompt}");
        }
    }
}
