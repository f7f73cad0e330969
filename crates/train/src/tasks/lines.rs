//! Tasks from files: JSON lines with a question and its answer, such as those of GSM8K, and a checker.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use minke_kernels::random::Random;
use minke_model::error::quoted;
use minke_model::{Error, Result};
use serde_json::{Value, json};

use super::checker::Checker;
use super::{Demonstration, Item, Split, Style, Task, split_of};
use crate::files::failed;
use crate::format::SPECIALS;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Most lines.
const MOST_LINES: usize = 1 << 20;
/// Largest file, in bytes.
const LARGEST: u64 = 1 << 30;
/// What stands between a solution and its answer in GSM8K's files.
const ANSWER: &str = "####";

/// A file's problems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    name: String,
    checker: Checker,
    alphabet: String,
    problems: Arc<Vec<Problem>>,
    /// Which of them are learnt from, and which are held out.
    sides: [Arc<Vec<u32>>; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    prompt: String,
    /// As its file has it, but for what stands before `####`.
    answer: String,
    /// What stands there.
    thought: String,
}

/// The keys of a line's question and answer.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// That of the question,
    pub question: &'a str,
    /// and that of its answer.
    pub answer: &'a str,
}

impl Lines {
    /// Reads a file.
    ///
    /// # Errors
    /// The file and the first line that is no problem, and why.
    pub fn open(path: &Path, checker: Checker, keys: Keys<'_>) -> Result<Lines> {
        let file = File::open(path).map_err(|e| failed("read", path, e))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let problems = read(BufReader::new(file.take(LARGEST)), checker, keys);
        let problems = problems.map_err(|what| Error::new(format!("{} {what}", path.display())))?;
        let side = |split| {
            let side: Vec<u32> =
                (0..problems.len()).filter(|&i| problems[i].split() == split).map(|i| i as u32).collect();
            if side.is_empty() {
                let few = "has too few problems to hold one in five of them out and learn from the others";
                return Err(Error::new(format!("{} {few}; give it some dozens of lines", path.display())));
            }
            Ok(Arc::new(side))
        };
        let sides = [side(Split::Train)?, side(Split::HeldOut)?];
        let characters: BTreeSet<char> =
            problems.iter().flat_map(|p| p.prompt.chars().chain(p.answer.chars()).chain(p.thought.chars())).collect();
        Ok(Lines { name, checker, alphabet: characters.into_iter().collect(), problems: Arc::new(problems), sides })
    }

    fn item(&self, index: usize) -> Item {
        let Problem { prompt, answer, .. } = &self.problems[index];
        Item { level: 1, prompt: prompt.clone(), facts: json!({ "problem": index, "answer": answer }) }
    }
}

impl Problem {
    fn split(&self) -> Split {
        split_of(self.prompt.as_bytes())
    }

    /// What a line says; blank lines say nothing.
    fn read(line: &[u8], checker: Checker, keys: Keys<'_>) -> std::result::Result<Option<Problem>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(line).map_err(|error| format!("is not JSON: {error}"))?;
        let text = |key: &str| match value.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(format!("has a {key} that is neither a text nor a number")),
            None => Err(format!("has no {key}")),
        };
        let mut prompt = text(keys.question)?;
        let written = text(keys.answer)?;
        let (thought, answer) = match written.rsplit_once(ANSWER) {
            Some((thought, answer)) => (without_calculations(thought.trim()), answer.trim()),
            None => (String::new(), &*written),
        };
        let expected =
            checker.expected(answer).map_err(|what| format!("has an answer that can't be used: it is {what}"))?;
        if let Some(choices) = value.get("choices").filter(|_| checker == Checker::Choice) {
            let texts =
                choices.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
            let texts =
                texts.filter(|list| (2..=26).contains(&list.len())).ok_or("has choices that aren't 2 to 26 texts")?;
            let letters = 'A'..='Z';
            if !letters.clone().take(texts.len()).any(|letter| expected.starts_with(letter)) {
                return Err(format!("has {} choices, and {expected} for an answer", texts.len()));
            }
            prompt.extend(letters.zip(texts).map(|(letter, text)| format!("\n{letter}. {text}")));
        }
        // Where a model from scratch reads them, these are no text but the frame around it.
        if let Some(tag) =
            SPECIALS.iter().find(|tag| [&prompt, answer, &thought].iter().any(|text| text.contains(**tag)))
        {
            return Err(format!("has the text {tag}, which stands around thoughts"));
        }
        Ok(Some(Problem { prompt, answer: answer.to_string(), thought }))
    }
}

/// A solution of GSM8K without what a calculator was told, `<<48/2=24>>`.
fn without_calculations(solution: &str) -> String {
    let mut parts = solution.split("<<");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once(">>").map_or(part, |(_, rest)| rest))
}

fn read(mut reader: impl BufRead, checker: Checker, keys: Keys<'_>) -> std::result::Result<Vec<Problem>, String> {
    let mut problems = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = reader.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        match length.map_err(|error| format!("can't be read: {error}"))? {
            0 => break,
            length if length as u64 > LONGEST_LINE => return Err(format!("line {number} has more than 1 MiB")),
            _ if number > MOST_LINES => return Err(format!("has more than {MOST_LINES} lines")),
            _ => {}
        }
        problems.extend(Problem::read(&line, checker, keys).map_err(|what| format!("line {number} {what}"))?);
    }
    Ok(problems)
}

impl Task for Lines {
    fn name(&self) -> &str {
        &self.name
    }

    fn alphabet(&self) -> &str {
        &self.alphabet
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=1
    }

    fn prompt_length(&self, _: u32) -> usize {
        self.problems.iter().map(|problem| problem.prompt.chars().count()).max().unwrap_or(0)
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        assert_eq!(level, 1, "{} has no level {level}", self.name);
        let side = &self.sides[usize::from(split == Split::HeldOut)];
        self.item(side[random.below(side.len() as u32) as usize] as usize)
    }

    fn read(&self, prompt: &str) -> Option<Item> {
        self.problems.iter().position(|problem| problem.prompt == prompt).map(|index| self.item(index))
    }

    fn question(&self, item: &Item) -> String {
        let how = match self.checker {
            Checker::Number => " Answer with the number alone.",
            Checker::Choice => "\nAnswer with the letter alone.",
            Checker::Exact | Checker::Regex => "",
        };
        format!("{}{how}", item.prompt)
    }

    fn demonstrates(&self) -> bool {
        self.checker != Checker::Regex
    }

    fn demonstration(&self, item: &Item, style: Style, _: &mut Random) -> Demonstration {
        let index = item.facts["problem"].as_u64().and_then(|index| usize::try_from(index).ok());
        let problem = index.and_then(|index| self.problems.get(index)).expect("an item of this task");
        let thought = if style == Style::Direct { String::new() } else { problem.thought.clone() };
        Demonstration { thought, answer: problem.answer.clone() }
    }

    fn check(&self, item: &Item, answer: &str) -> std::result::Result<(), String> {
        let expected = item.facts["answer"].as_str().and_then(|answer| self.checker.expected(answer).ok());
        let Some(expected) = expected else { return Err(format!("{} has no answer here", quoted(&item.prompt))) };
        self.checker.check(&expected, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str, checker: Checker) -> Result<Lines> {
        let file = tempfile::NamedTempFile::with_prefix("sums").unwrap();
        std::fs::write(file.path(), text).unwrap();
        let opened = Lines::open(file.path(), checker, Keys { question: "question", answer: "answer" });
        opened.map(|lines| Lines { name: "sums".into(), ..lines })
    }

    /// Problems as GSM8K has them.
    fn gsm8k() -> String {
        let line = |n: u32| {
            let answer = format!("She has {n}+1000=<<{n}+1000={0}>>{0} of them.\n#### {1}", n + 1000, 1000 + n);
            json!({ "question": format!("Ada has {n} cards and finds 1000. How many has she?"), "answer": answer })
        };
        (0..60).map(|n| format!("{}\n", line(n))).collect()
    }

    #[test]
    fn gsm8k_is_read_as_it_is() {
        let task = open(&gsm8k(), Checker::Number).unwrap();
        let mut random = Random::new(1, [0; 3]);
        let item = task.read("Ada has 8 cards and finds 1000. How many has she?").unwrap();
        let shown = |style| {
            let Demonstration { thought, answer } = task.demonstration(&item, style, &mut Random::new(2, [0; 3]));
            (thought, answer)
        };
        assert_eq!(shown(Style::Think), ("She has 8+1000=1008 of them.".into(), "1008".into()));
        assert_eq!(shown(Style::Direct), (String::new(), "1008".into()));
        for (answer, right) in
            [("1008", true), ("1,008", true), ("$1,008.00", true), ("1009", false), ("8 1008", false)]
        {
            assert_eq!(task.check(&item, answer).is_ok(), right, "{answer}");
        }
        assert_eq!(task.question(&item), format!("{} Answer with the number alone.", item.prompt));
        // Both sides are drawn from, and have nothing in common.
        let mut draw = |split| (0..400).map(|_| task.sample(split, 1, &mut random).prompt).collect::<BTreeSet<_>>();
        let (train, held_out) = (draw(Split::Train), draw(Split::HeldOut));
        assert!(
            train.is_disjoint(&held_out) && train.len() + held_out.len() == 60,
            "{} {}",
            train.len(),
            held_out.len()
        );
        assert!((6..20).contains(&held_out.len()));
        let known = |text: &str| text.chars().all(|c| task.alphabet().contains(c));
        assert!(train.iter().all(|prompt| known(prompt) && prompt.len() <= task.prompt_length(1)));
    }

    #[test]
    fn choices_become_part_of_the_prompt() {
        let line =
            |n: u32| json!({ "question": format!("{n}?"), "choices": ["yes", "no"], "answer": "B" }).to_string() + "\n";
        let task = open(&(0..40).map(line).collect::<String>(), Checker::Choice).unwrap();
        let item = task.read("7?\nA. yes\nB. no").unwrap();
        assert_eq!((task.check(&item, "B"), task.check(&item, "A").is_err()), (Ok(()), true));
    }

    #[test]
    fn what_is_no_problem_is_named_with_its_line() {
        let after = |line: &str, checker| {
            let error = open(&format!("{}{line}\n", gsm8k()), checker).unwrap_err().to_string();
            let (_, what) = error.split_once(" line 61 ").unwrap_or_else(|| panic!("{error}"));
            assert!(!error.contains('\n'), "{error}");
            what.to_string()
        };
        for (line, sentence) in [
            ("{", "is not JSON: EOF while parsing an object at line 2 column 0"),
            ("[1]", "has no question"),
            ("{\"question\":\"a\"}", "has no answer"),
            ("{\"question\":\"\",\"answer\":1}", "has a question that is neither a text nor a number"),
            ("{\"question\":\"a\",\"answer\":null}", "has a answer that is neither a text nor a number"),
            (
                "{\"question\":\"a\",\"answer\":\"a lot\"}",
                "has an answer that can't be used: it is \"a lot\", which is no number: something other than digits",
            ),
            ("{\"question\":\"<think>\",\"answer\":1}", "has the text <think>, which stands around thoughts"),
        ] {
            assert_eq!(after(line, Checker::Number), sentence);
        }
        assert_eq!(after(&format!("\"{}\"", "a".repeat(1 << 20)), Checker::Exact), "has more than 1 MiB");
        assert!(after(&"[".repeat(1000), Checker::Exact).starts_with("is not JSON: recursion limit"));
        let few = open("{\"question\":\"a\",\"answer\":1}\n\n", Checker::Number).unwrap_err().to_string();
        assert!(few.ends_with("learn from the others; give it some dozens of lines"), "{few}");
        let bytes = open("", Checker::Number).unwrap_err().to_string();
        assert!(bytes.contains("has too few problems"), "{bytes}");
        let none = Lines::open(Path::new("no/such.jsonl"), Checker::Exact, Keys { question: "q", answer: "a" });
        assert!(none.unwrap_err().to_string().starts_with("could not read no/such.jsonl: "));
    }
}
