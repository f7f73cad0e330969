//! How a published model is spoken to and judged: strictly, or as a lenient reader would.

use minke_kernels::random::Random;
use minke_model::Message;

use super::{Completion, END, END_THINK, Score, THINK, checked};
use crate::tasks::{Demonstration, Item, Style, Task, training_item};

/// First word of the random streams of what is shown.
const SHOWN: u32 = 0x7368_6f77;

/// What a published model is asked to do, besides the question.
const INSTRUCTION: &str = "Think between <think> and </think>, then write only the answer.";

/// How a published model is spoken to and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A system message before the question; the template's own where there is none.
    pub system: Option<String>,
    /// A line below the question.
    pub instruction: Option<String>,
    /// A completion must begin with a thought in its tags; otherwise all of it is the answer, unless it does so anyway.
    pub think: bool,
    /// The last number or line of a completion counts as its answer, whatever it looks like besides.
    pub lenient: bool,
    /// Questions and right completions, in turns, that stand before each question.
    pub shown: Vec<Message>,
}

impl Settings {
    /// What a model is asked: the question and what stands around it.
    pub fn messages(&self, question: String) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain(self.shown.iter().cloned()).chain([self.turn(question)]).collect()
    }

    /// A question as a turn of the conversation.
    fn turn(&self, question: String) -> Message {
        let lines: Vec<String> = [Some(question), self.instruction.clone()].into_iter().flatten().collect();
        Message::new("user", lines.join("\n"))
    }

    /// The same, and right completions of `shots` problems of a level that are shown first (arXiv 2005.14165, section 2): the same
    /// ones before every question, none of them held out.
    pub fn showing(mut self, task: &dyn Task, level: u32, shots: u32, seed: u32) -> Settings {
        let shot = |shot| {
            let mut random = Random::new(u64::from(seed), [SHOWN, shot, 0]);
            let item = training_item(task, &[level], &mut random);
            let style = if self.think { Style::Think } else { Style::Direct };
            let completion = self.completion(&task.demonstration(&item, style, &mut random));
            [self.turn(task.question(&item)), Message::new("assistant", completion)]
        };
        self.shown = (0..shots).flat_map(shot).collect();
        self
    }

    /// A right completion, without what ends it.
    pub fn completion(&self, Demonstration { thought, answer }: &Demonstration) -> String {
        if !self.think && thought.is_empty() { answer.clone() } else { format!("{THINK}{thought}{END_THINK}{answer}") }
    }

    /// As [`Format::score`](super::Format::score).
    pub fn score(&self, task: &dyn Task, item: &Item, text: &str, finished: bool) -> Score {
        if self.lenient {
            return Score::of(lenient_answer(task, item, text));
        }
        Score::of(self.parts(text, finished).and_then(|parts| checked(task, item, parts)))
    }

    /// As [`Format::parts`](super::Format::parts).
    ///
    /// # Errors
    /// What is wrong with its form, in a few words.
    pub fn parts<'t>(&self, text: &'t str, finished: bool) -> std::result::Result<Completion<'t>, String> {
        if !finished {
            return Err("truncated: it did not end by itself".into());
        }
        let text = text.trim();
        let parts = match self.think || text.starts_with(THINK) {
            true => Completion::of(text)?,
            false => Completion { thought: "", answer: text },
        };
        let (thought, answer) = (parts.thought.trim(), parts.answer.trim());
        if answer.is_empty() { Err("no answer".into()) } else { Ok(Completion { thought, answer }) }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { system: None, instruction: Some(INSTRUCTION.into()), think: true, lenient: false, shown: Vec::new() }
    }
}

/// Whether the right answer stands where a reader would look for it, whatever the completion's form.
pub fn is_right_leniently(task: &dyn Task, item: &Item, text: &str) -> bool {
    lenient_answer(task, item, text).is_ok()
}

/// The answer that a lenient reader finds: what follows the thought (or the thought, if nothing does), its last line, or its last number.
fn lenient_answer(task: &dyn Task, item: &Item, text: &str) -> std::result::Result<String, String> {
    let text = text.strip_suffix(END).unwrap_or(text);
    let rest = match text.rsplit_once(END_THINK) {
        Some((thought, rest)) if rest.trim().is_empty() => thought.trim_start().trim_start_matches(THINK),
        Some((_, rest)) => rest,
        None => text,
    };
    let rest = rest.trim();
    let line = rest.lines().last().unwrap_or_default().trim();
    let found = [Some(rest.to_string()), Some(line.to_string()), last_number(rest)].into_iter().flatten();
    let right = found.into_iter().find(|answer| task.check(item, answer).is_ok());
    right.ok_or_else(|| "neither the last line nor the last number is right".into())
}

/// The last number of a text, a sign before it and commas in it allowed.
fn last_number(text: &str) -> Option<String> {
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let inside = |c: char| c.is_ascii_digit() || ",.".contains(c);
    let start =
        text[..end].rfind(|c| !inside(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let sign = if text[..start].ends_with('-') { "-" } else { "" };
    Some(format!("{sign}{}", text[start..end].trim_start_matches([',', '.']).replace(',', "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::chain_sum::{ChainSum, Scratchpad};
    use crate::tasks::held_out_items;

    #[test]
    fn what_is_shown_is_right_and_not_held_out() {
        let task = ChainSum { digits: 1..=1, scratchpad: Scratchpad::Plain };
        let items = held_out_items(&task, 2, 10);
        let settings = Settings { system: Some("Add.".into()), ..Settings::default() };
        let messages = |shots| settings.clone().showing(&task, 2, shots, 3).messages(task.question(&items[0]));
        assert_eq!(messages(0), settings.messages(task.question(&items[0])));
        let shown = messages(2);
        let roles: Vec<&str> = shown.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user", "assistant", "user"]);
        for turns in shown[1..5].chunks(2) {
            let question = turns[0].content.lines().next().unwrap();
            let sum = question.trim_start_matches("What is ").trim_end_matches('?');
            let shot = task.read(&format!("{sum}=")).unwrap();
            assert_eq!(settings.score(&task, &shot, &turns[1].content, true).reward, 1.0, "{turns:?}");
            assert!(!items.contains(&shot), "{question} is held out");
        }
        assert_ne!(shown[1], shown[3]);
    }

    #[test]
    fn a_lenient_reader_looks_where_people_would() {
        let task = ChainSum { digits: 1..=1, scratchpad: Scratchpad::Plain };
        let item = task.read("3+4=").unwrap();
        for (text, right) in [
            ("<think>3+4=7</think>7", true),
            ("<think>7</think>", true),
            ("<think>3+4=7</think> \n", true),
            ("The sum is 7.", true),
            ("<think>7</think>8", false),
            ("<think>7 or 8</think>", false),
            ("<think></think>", false),
        ] {
            assert_eq!(is_right_leniently(&task, &item, text), right, "{text}");
        }
    }

    #[test]
    fn the_last_number_is_found_whatever_stands_around_it() {
        for (text, number) in [
            ("so it is 12.", Some("12")),
            ("12 and -3", Some("-3")),
            ("**1,204**", Some("1204")),
            ("é3.50€", Some("3.50")),
            ("..5", Some("5")),
            ("nothing", None),
            ("٣", None),
        ] {
            assert_eq!(last_number(text).as_deref(), number, "{text}");
        }
    }
}
