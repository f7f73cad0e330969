//! Completions that try to be paid for nothing, against every verifier: none is.
//!
//! `adversarial.jsonl` has them, a text a line, in groups; what stands in braces is put in for each problem.

use std::path::Path;

use minke_kernels::random::Random;

use super::chain_sum::{ChainSum, Scratchpad};
use super::checker::Checker;
use super::lines::{Keys, Lines};
use super::tests::bare;
use super::{Demonstration, Item, Split, Style, Task, built_in, built_in_names};
use crate::format::{Format, Settings};

const CORPUS: &str = include_str!("adversarial.jsonl");

/// The texts, and whether an answer that is only written otherwise is what they try.
fn corpus() -> Vec<(String, bool)> {
    let mut texts = Vec::new();
    let mut otherwise = false;
    for line in CORPUS.lines() {
        match line.strip_prefix("# ") {
            Some(title) => otherwise = title.starts_with("answers written otherwise"),
            None => texts.push((serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")), otherwise)),
        }
    }
    texts
}

/// `text` with each character that `range` has replaced by the one that is as far from `to`.
fn shifted(text: &str, range: std::ops::RangeInclusive<char>, to: u32) -> String {
    let shift = |c: char| char::from_u32(c as u32 - *range.start() as u32 + to).unwrap();
    text.chars().map(|c| if range.contains(&c) { shift(c) } else { c }).collect()
}

/// What is put in for a problem.
fn filled(text: &str, task: &dyn Task, item: &Item, thought: &str, answer: &str, wrong: &str) -> String {
    let digits = |zero: u32| shifted(answer, '0'..='9', zero);
    text.replace("{answer}", answer)
        .replace("{thought}", thought)
        .replace("{wrong}", wrong)
        .replace("{prompt}", &item.prompt)
        .replace("{question}", &task.question(item))
        .replace("{wide}", &shifted(answer, '!'..='~', 0xff01))
        .replace("{arabic}", &digits(0x660))
        .replace("{devanagari}", &digits(0x966))
        .replace("{bold}", &digits(0x1d7ce))
        .replace("{super}", &digits(0x2080))
        .replace("{circled}", &shifted(answer, '1'..='9', 0x2460))
        .replace("{roman_wide}", &shifted(answer, '1'..='9', 0x2160))
        .replace("{words}", &format!("{answer} (in words)"))
        .replace("{long}", &"9".repeat(10_000))
}

/// How a published model writes.
fn published(think: bool) -> Format {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama-chat");
    let files = minke_model::Checkpoint::open(&files).unwrap();
    let settings = Settings { think, ..Settings::default() };
    Format::new(files.tokenizer().unwrap(), files.chat_template().unwrap(), Some(settings)).unwrap()
}

/// Whether a text is right after all: with other digits, an answer without digits stays what it is; around the parts that a
/// published model writes, white space does not matter.
fn is_right_after_all(text: &str, thought: &str, answer: &str, is_published: bool) -> bool {
    let (before, after) = text.split_once("</think>").unwrap_or_default();
    match is_published {
        true => text.trim() == answer || (before.trim(), after.trim()) == (&format!("<think>{thought}"), answer),
        false => text == format!("<think>{thought}</think>{answer}<end>"),
    }
}

/// Scores all texts for some problems of a task; says how many it tried.
fn none_is_rewarded(task: &dyn Task, format: &Format, skip_otherwise: bool) -> usize {
    let is_published = format.template().is_some();
    let (mut random, mut tried) = (Random::new(11, [0; 3]), 0);
    for level in [*task.levels().start(), *task.levels().end()] {
        for _ in 0..5 {
            let item = task.sample(Split::Train, level, &mut random);
            let Demonstration { thought, answer } = task.demonstration(&item, Style::Think, &mut random);
            let end = if is_published { "" } else { "<end>" };
            let right = format!("<think>{thought}</think>{answer}{end}");
            assert_eq!(format.score(task, &item, &right, true).reward, 1.0, "{right}");
            // Another problem's answer, which is none of this one.
            let wrong = loop {
                let other = task.sample(Split::Train, level, &mut random);
                let other = task.demonstration(&other, Style::Direct, &mut random).answer;
                if task.check(&item, &other).is_err() {
                    break other;
                }
            };
            for (text, otherwise) in corpus() {
                // A countdown may have parentheses.
                let bracketed = task.name() == "countdown" && text.contains("({answer})<end>");
                if bracketed || otherwise && skip_otherwise {
                    continue;
                }
                let text = filled(&text, task, &item, &thought, &answer, &wrong);
                // A published model ends its turn with a token that is no text.
                let (written, finished) = match text.strip_suffix("<end>") {
                    Some(written) if is_published => (written, true),
                    _ => (&*text, !is_published),
                };
                if is_right_after_all(written, &thought, &answer, is_published) {
                    continue;
                }
                let score = format.score(task, &item, written, finished);
                assert_eq!(score.reward, 0.0, "{}: {} {written:?}", task.name(), item.prompt);
                assert!(!score.reason.is_empty() && score.reason.len() < 2000, "{written:?}: {}", score.reason);
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn the_corpus_is_large() {
    let texts: std::collections::HashSet<String> = corpus().into_iter().map(|(text, _)| text).collect();
    assert!(texts.len() == corpus().len() && texts.len() >= 300, "{} different texts", texts.len());
}

#[test]
fn no_built_in_task_pays_for_nothing() {
    for name in built_in_names() {
        let task = built_in(name).unwrap();
        for format in [bare(&*task), published(true), published(false)] {
            let tried = none_is_rewarded(&*task, &format, false);
            assert!(tried > 10 * 280, "{name}: {tried}");
        }
    }
    let task = ChainSum { digits: 4..=4, scratchpad: Scratchpad::Reversed };
    none_is_rewarded(&task, &bare(&task), false);
}

#[test]
fn no_checker_pays_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("problems.jsonl");
    for (checker, answers) in [
        (Checker::Number, ["1234", "-7", "0.5", "12"]),
        (Checker::Exact, ["cat", "a dog", "7", "Bird"]),
        (Checker::Choice, ["A", "B", "C", "D"]),
    ] {
        let line = |n: usize| {
            let answer = format!("Such is the case.\n#### {}", answers[n % 4]);
            serde_json::json!({ "question": format!("Question {n}?"), "answer": answer })
        };
        std::fs::write(&path, (0..60).map(|n| format!("{}\n", line(n))).collect::<String>()).unwrap();
        let task = Lines::open(&path, checker, Keys { question: "question", answer: "answer" }).unwrap();
        for format in [bare(&task), published(true), published(false)] {
            none_is_rewarded(&task, &format, checker != Checker::Exact);
        }
    }
}
