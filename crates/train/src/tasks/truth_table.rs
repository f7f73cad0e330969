//! Truth tables, an operation at a time: `a&!b|c:` → `<think>a&!b=00001100;00001100|c=01011101</think>01011101<end>`.

use std::ops::RangeInclusive;

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use super::procedural::{Procedural, Step};

/// Formulas in a, b and c with `level` operations, read from left to right.
pub struct TruthTable;

/// The first literal, and what is joined to it.
#[derive(Serialize, Deserialize)]
pub struct Problem {
    first: String,
    operations: Vec<(char, String)>,
}

const LITERALS: [&str; 6] = ["a", "b", "c", "!a", "!b", "!c"];
const OPERATIONS: [(char, &str); 3] = [('&', "and"), ('|', "or"), ('^', "xor")];

/// The values of a literal for all values of a, b and c, from 000 to 111: a bit each, that of 000 first.
fn column(literal: &str) -> u8 {
    let values = match literal.trim_start_matches('!') {
        "a" => 0b0000_1111,
        "b" => 0b0011_0011,
        _ => 0b0101_0101,
    };
    if literal.starts_with('!') { !values } else { values }
}

impl Problem {
    /// The values after each operation.
    fn columns(&self) -> Vec<u8> {
        let mut values = column(&self.first);
        let join = |(operation, literal): &(char, String)| {
            match operation {
                '&' => values &= column(literal),
                '|' => values |= column(literal),
                _ => values ^= column(literal),
            }
            values
        };
        self.operations.iter().map(join).collect()
    }
}

impl Procedural for TruthTable {
    type Problem = Problem;

    const NAME: &'static str = "truth_table";
    const ALPHABET: &'static str = "abc!&|^:=01;no";
    const LEVELS: RangeInclusive<u32> = 2..=6;

    fn longest_prompt(&self, level: u32) -> usize {
        (3 * level + 3) as usize
    }

    fn draw(&self, level: u32, random: &mut Random) -> Problem {
        let mut literal = || LITERALS[random.below(6) as usize].to_string();
        let first = literal();
        let literals: Vec<String> = (0..level).map(|_| literal()).collect();
        let operations = literals.into_iter().map(|literal| (OPERATIONS[random.below(3) as usize].0, literal));
        Problem { first, operations: operations.collect() }
    }

    fn level(&self, problem: &Problem) -> Option<u32> {
        let level = u32::try_from(problem.operations.len()).ok()?;
        let mut literals = problem.operations.iter().map(|(_, literal)| literal).chain([&problem.first]);
        let known = |operation: &char| OPERATIONS.iter().any(|(known, _)| known == operation);
        let good = literals.all(|literal| LITERALS.contains(&literal.as_str()))
            && problem.operations.iter().all(|(operation, _)| known(operation));
        (good && Self::LEVELS.contains(&level)).then_some(level)
    }

    fn prompt(&self, Problem { first, operations }: &Problem) -> String {
        let operations: String =
            operations.iter().map(|(operation, literal)| format!("{operation}{literal}")).collect();
        format!("{first}{operations}:")
    }

    fn parse(&self, prompt: &str) -> Option<Problem> {
        let formula = prompt.strip_suffix(':')?;
        let mut literals = formula.split(['&', '|', '^']).map(str::to_string);
        let first = literals.next()?;
        let signs = formula.chars().filter(|c| "&|^".contains(*c));
        Some(Problem { first, operations: signs.zip(literals).collect() })
    }

    fn in_words(&self, Problem { first, operations }: &Problem) -> String {
        let literal = |literal: &str| literal.replace('!', "not ");
        let join = |formula: String, (i, (sign, right)): (usize, &(char, String))| {
            let word = OPERATIONS.iter().find(|(known, _)| known == sign).map_or("", |(_, word)| word);
            let left = if i == 0 { formula } else { format!("({formula})") };
            format!("{left} {word} {}", literal(right))
        };
        let formula = operations.iter().enumerate().fold(literal(first), join);
        format!(
            "Write the truth table of the formula {formula}: its values, 0 or 1, for abc = 000, 001, 010, 011, 100, 101, \
             110 and 111. Answer with the eight digits alone."
        )
    }

    /// What goes wrong is one value.
    fn steps(&self, problem: &Problem) -> Vec<Step> {
        let mut left = problem.first.clone();
        let step = |((operation, literal), values): (&(char, String), u8)| {
            let wrong = (0..8).map(|bit| format!("{:08b}", values ^ (1 << bit)));
            let right = format!("{values:08b}");
            let work = format!("{left}{operation}{literal}");
            left.clone_from(&right);
            Step::word(work, right, wrong)
        };
        problem.operations.iter().zip(problem.columns()).map(step).collect()
    }

    fn answer(&self, problem: &Problem) -> String {
        format!("{:08b}", problem.columns().last().copied().unwrap_or(column(&problem.first)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::procedural::tests::promises;
    use super::super::{Item, Task};
    use super::*;

    #[test]
    fn it_keeps_its_promises() {
        promises(&TruthTable, "a&!b|c:", "<think>a&!b=00001100;00001100|c=01011101</think>01011101<end>");
        let question = |item: Item| TruthTable.question(&item);
        let asked = question(TruthTable.read("a&!b|c:").unwrap());
        assert!(asked.contains("the formula (a and not b) or c:"), "{asked}");
    }
}
