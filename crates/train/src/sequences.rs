//! Text as a `pretrain` stage learns it: documents packed into sequences of equal length, one document in twenty held out.
//!
//! A sequence learns `length` tokens, without padding: it goes on with the next document where one ends, and the next sequence
//! goes on with a document that does not fit. Its documents see nothing of each other, and each begins at position 0.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use minke_kernels::random::fnv1a;
use minke_model::error::quoted;
use minke_model::{Error, Result};

use crate::corpus::Corpus;
use crate::documents::{self, Document};
use crate::format::{Format, SPECIALS};
use crate::learner::Example;
use crate::recipe::{Pretrain, Stage, Text};
use crate::tasks::Task;

/// One document in so many is held out.
const HELD_OUT: u64 = 20;

/// Documents in tokens, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    tokens: Vec<u32>,
    /// Where each document but the first begins and the last ends, in tokens that are learnt. The first token of a document
    /// is given, so that document i begins at token `ends[i - 1] + i`.
    ends: Vec<usize>,
}

/// A text to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Tokens that a sequence learns.
    pub length: usize,
    /// What is learnt.
    pub learnt: Packed,
    /// What is not, to be measured by.
    pub held_out: Packed,
}

/// The text of files, and what to know them by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The text, which a run's stages share.
    pub text: Arc<Sequences>,
    /// CRC-32 of each file, by its path.
    pub files: BTreeMap<String, u32>,
}

impl Packed {
    /// Adds a document; one of less than two tokens has nothing to learn.
    fn push(&mut self, mut document: Vec<u32>) {
        if document.len() > 1 {
            self.ends.push(self.learnt() + document.len() - 1);
            self.tokens.append(&mut document);
        }
    }

    /// Tokens that are learnt: all but the first of each document.
    pub fn learnt(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Documents.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// Sequence `index` of those that learn `length` tokens, the last one perhaps fewer: a part of each of its documents.
    ///
    /// # Panics
    /// Where it begins after the end.
    pub fn sequence(&self, index: usize, length: usize) -> Vec<Example> {
        let (mut at, end) = (index * length, self.learnt().min((index + 1) * length));
        assert!(at < end, "sequence {index} of {} tokens", self.learnt());
        let mut parts = Vec::new();
        let mut document = self.ends.partition_point(|&end| end <= at);
        while at < end {
            let stop = end.min(self.ends[document]);
            // A part begins with the token before the first that it learns.
            parts.push(Example { tokens: self.tokens[at + document..=stop + document].to_vec(), prompt: 1 });
            (at, document) = (stop, document + 1);
        }
        parts
    }
}

impl Sequences {
    /// An empty text.
    fn new(stage: &Pretrain) -> Sequences {
        let length = stage.length as usize;
        Sequences { length, learnt: Packed::default(), held_out: Packed::default() }
    }

    /// Adds a document, on the side that the hash of what makes it that document says.
    fn push(&mut self, essence: &str, document: Vec<u32>) {
        // Tasks hold problems out by a hash of their own, which this must not repeat.
        let hash = fnv1a("held out:".bytes().chain(essence.bytes()));
        // The high bits: every byte has reached them.
        let side = if (hash >> 32).is_multiple_of(HELD_OUT) { &mut self.held_out } else { &mut self.learnt };
        side.push(document);
    }

    /// That there is enough of it.
    fn check(self) -> Result<Sequences> {
        let (learnt, held_out) = (self.learnt.documents(), self.held_out.documents());
        if learnt == 0 || held_out == 0 {
            return Err(Error::new(format!(
                "the text has too few documents, {}, to hold one in {HELD_OUT} of them out and learn from the others; give \
                 it some hundreds, or say what stands between them (separator)",
                learnt + held_out
            )));
        }
        match self.learnt.learnt() {
            tokens if tokens < self.length => Err(Error::new(format!(
                "the text has {tokens} tokens to learn, fewer than one sequence of length {}; give more of it, or less \
                 length",
                self.length
            ))),
            _ => Ok(self),
        }
    }

    /// Sequences that a pass over the text has; what is left over at its end is not learnt.
    pub fn count(&self) -> usize {
        self.learnt.learnt() / self.length
    }

    /// The text of a stage, if it learns from text: what its files have, or now drawn from the task.
    ///
    /// # Errors
    /// When a demonstration can't be written in the model's tokens, or there are too few.
    pub fn of(
        stage: &Stage,
        read: Option<&Read>,
        task: &dyn Task,
        format: &Format,
        seed: u64,
    ) -> Result<Option<Arc<Sequences>>> {
        let Stage::Pretrain(stage) = stage else { return Ok(None) };
        let (examples, levels, mixture) = match (&stage.text, read) {
            (Text::Files { .. }, Some(read)) => return Ok(Some(read.text.clone())),
            (Text::Files { .. }, None) => unreachable!("files are read before the run begins"),
            (Text::Demonstrations { examples, levels, mixture }, _) => (*examples, levels, mixture),
        };
        let mut text = Sequences::new(stage);
        for example in Corpus::draw(task, levels, examples, mixture, seed).examples() {
            let mut tokens = format.prompt(task, &example.item)?;
            tokens.extend(format.completion(&example.shown)?);
            text.push(&example.item.prompt, tokens);
        }
        task.health()?;
        Ok(Some(Arc::new(text.check()?)))
    }
}

impl Read {
    /// Reads the files of each stage that has some.
    ///
    /// # Errors
    /// One sentence: the stage or the file and its line, and what is wrong.
    pub fn all(stages: &[Stage], format: &Format) -> Result<Vec<Option<Read>>> {
        let read = |(i, stage): (usize, &Stage)| {
            let Stage::Pretrain(stage) = stage else { return Ok(None) };
            let Text::Files { paths, separator } = &stage.text else { return Ok(None) };
            Read::one(stage, paths, separator, format, &format!("stage {}", i + 1)).map(Some)
        };
        stages.iter().enumerate().map(read).collect()
    }

    fn one(stage: &Pretrain, paths: &[String], separator: &str, format: &Format, name: &str) -> Result<Read> {
        let (mut text, mut files) = (Sequences::new(stage), BTreeMap::new());
        for file in paths {
            let path = Path::new(file);
            let read = documents::read(path, separator)?;
            for document in &read.list {
                let tokens = format.document(&document.text);
                text.push(&document.text, tokens.map_err(|error| unwritable(path, document, format, error))?);
            }
            files.insert(file.clone(), read.crc32);
        }
        Ok(Read { text: Arc::new(text.check().map_err(|error| error.at(name))?), files })
    }
}

/// That a run goes on with the files that it began with.
///
/// # Errors
/// The file that is another now.
pub fn check_files(then: &BTreeMap<String, u32>, now: &BTreeMap<String, u32>) -> Result<()> {
    match now.iter().find(|(path, crc32)| then.get(*path) != Some(crc32)) {
        None => Ok(()),
        Some((path, _)) => Err(Error::new(format!(
            "{path} is not the text that the run began with; put that one back, or start anew elsewhere (--out)"
        ))),
    }
}

/// Why a document can't be written in the model's tokens: the first character that can't, with its line.
fn unwritable(path: &Path, document: &Document, format: &Format, error: Error) -> Error {
    let has_token = |c: char| format.tokenizer().encode(c.encode_utf8(&mut [0; 4]), false).is_ok();
    // Their characters have no tokens of their own.
    let plain = SPECIALS.iter().fold(document.text.clone(), |text, tag| text.replace(tag, ""));
    let Some((at, c)) = plain.char_indices().find(|&(_, c)| !has_token(c)) else {
        return error.at(format!("{} line {}", path.display(), document.line));
    };
    let within = if documents::is_json_lines(path) { 0 } else { plain[..at].matches('\n').count() };
    let or = if c == '\n' { "; or, if each line is a document, give the stage separator = \"\\n\"" } else { "" };
    Error::new(format!(
        "{} line {} has {}, for which the model has no token (one made from scratch knows the task's characters alone); \
         leave it out{or}",
        path.display(),
        document.line + within,
        quoted(&c.to_string()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use crate::tasks::tests::bare;

    fn pack(documents: &[Vec<u32>]) -> Packed {
        let mut packed = Packed::default();
        documents.iter().for_each(|document| packed.push(document.clone()));
        packed
    }

    /// Every token but the first of each document is learnt once, after all of its document that the sequence has.
    #[test]
    fn every_token_is_learnt_once_and_nothing_is_padded() {
        let documents: Vec<Vec<u32>> =
            [3, 9, 2, 1, 0, 2, 31, 4].iter().map(|&n| (0..n).map(|i| 100 * n + i).collect()).collect();
        let packed = pack(&documents);
        assert_eq!((packed.learnt(), packed.documents()), (2 + 8 + 1 + 1 + 30 + 3, 6));
        for length in [1, 2, 5, 7, 45, 100] {
            let mut learnt: Vec<u32> = Vec::new();
            for index in 0..packed.learnt().div_ceil(length) {
                let parts = packed.sequence(index, length);
                let count: usize = parts.iter().map(Example::learnt).sum();
                assert_eq!(count, length.min(packed.learnt() - index * length));
                for Example { tokens, prompt } in &parts {
                    assert!(*prompt == 1 && tokens.windows(2).all(|pair| pair[1] == pair[0] + 1), "{tokens:?}");
                    learnt.extend(&tokens[1..]);
                }
            }
            let all: Vec<u32> = documents.iter().flat_map(|document| document.iter().skip(1).copied()).collect();
            assert_eq!(learnt, all, "length {length}");
        }
    }

    fn stage(length: u32, text: Text) -> Pretrain {
        let tiny = include_str!("../../../recipes/tiny.toml");
        let recipe = Recipe::parse("tiny", tiny).unwrap();
        Pretrain { steps: 4, batch: 2, length, text, mtp: 0.0, learning: *recipe.stages[0].learning() }
    }

    fn read(text: &str, name: &str, separator: &str, length: u32) -> std::result::Result<Read, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let task = crate::tasks::built_in("chain_sum").unwrap();
        let paths = vec![path.to_string_lossy().into_owned()];
        let stage = Stage::Pretrain(stage(length, Text::Files { paths, separator: separator.into() }));
        let read = Read::all(&[stage], &bare(&*task)).map_err(|error| error.to_string());
        read.map(|mut all| all.remove(0).unwrap()).map_err(|e| e.replace(&*directory.path().to_string_lossy(), ""))
    }

    #[test]
    fn documents_are_held_out_by_what_they_say() {
        let line = |i: u32| format!("{i}+{i}=<think></think>{}\n", 2 * i);
        let lines: String = (0..2000).map(line).collect();
        let Read { text, .. } = read(&lines, "sums.txt", "\n", 32).unwrap();
        let Sequences { learnt, held_out, .. } = &*text;
        assert_eq!(learnt.documents() + held_out.documents(), 2000);
        assert!((70..130).contains(&held_out.documents()), "{}", held_out.documents());
        // Whatever is beside it, a document is on the same side.
        let twice = read(&format!("{lines}{lines}"), "sums.txt", "\n", 32).unwrap().text;
        assert_eq!(twice.held_out.tokens, [&*held_out.tokens, &*held_out.tokens].concat());
        assert_eq!(text.count(), learnt.learnt() / 32);
        // A tag is one token, and so is the end.
        let format = bare(&*crate::tasks::built_in("chain_sum").unwrap());
        assert_eq!(format.document(line(1).trim()).unwrap().len(), 4 + 2 + 1 + 1);
        assert_eq!(format.document("1<end>").unwrap(), format.document("1").unwrap());
    }

    #[test]
    fn what_the_model_has_no_token_for_is_named() {
        let good = "1+1=<think></think>2\n".repeat(40);
        let no_token =
            "for which the model has no token (one made from scratch knows the task's characters alone); leave it out";
        for (text, name, separator, sentence) in [
            (format!("{good}1+é\n"), "a.txt", "\n", format!("/a.txt line 41 has \"é\", {no_token}")),
            (
                good.clone(),
                "a.txt",
                "\n\n",
                format!(
                    "/a.txt line 1 has \"\\n\", {no_token}; or, if each line is a document, give the stage separator = \"\\n\""
                ),
            ),
            (
                "{\"text\":\"1\"}\n{\"text\":\"1<end>x\"}".into(),
                "a.jsonl",
                "",
                format!("/a.jsonl line 2 has \"x\", {no_token}"),
            ),
            (
                good.clone(),
                "a.txt",
                "!",
                format!(
                    "/a.txt line 1 has \"\\n\", {no_token}; or, if each line is a document, give the stage separator = \"\\n\""
                ),
            ),
            (
                good,
                "a.txt",
                "\n",
                "stage 1: the text has too few documents, 40, to hold one in 20 of them out and learn from the others; give \
                 it some hundreds, or say what stands between them (separator)"
                    .into(),
            ),
        ] {
            assert_eq!(read(&text, name, separator, 8), Err(sentence));
        }
        let few: String = (0..200).map(|i| format!("{i}\n")).collect();
        let error = read(&few, "a.txt", "\n", 10_000).unwrap_err();
        assert!(error.contains(" tokens to learn, fewer than one sequence of length 10000; give more"), "{error}");
    }

    #[test]
    fn demonstrations_are_text_too() {
        let task = crate::tasks::built_in("chain_sum").unwrap();
        let mixture = vec![crate::recipe::Share { style: crate::tasks::Style::Think, share: 1.0 }];
        let stage = stage(64, Text::Demonstrations { examples: 400, levels: vec![2], mixture });
        let format = bare(&*task);
        let stage = Stage::Pretrain(stage);
        let text = Sequences::of(&stage, None, &*task, &format, 1).unwrap().unwrap();
        assert_eq!(text.learnt.documents() + text.held_out.documents(), 400);
        let first = &text.learnt.sequence(0, 64)[0];
        let shown = format.tokenizer().decode(&first.tokens, false).unwrap();
        assert!(shown.contains("=<think>") && shown.ends_with("<end>"), "{shown}");
        assert_eq!(Sequences::of(&stage, None, &*task, &format, 1).unwrap().unwrap(), text);
        assert_ne!(Sequences::of(&stage, None, &*task, &format, 2).unwrap().unwrap(), text);
    }

    #[test]
    fn another_file_is_noticed() {
        let files = |list: &[(&str, u32)]| list.iter().map(|&(path, crc)| (path.to_string(), crc)).collect();
        let then = files(&[("a", 1), ("b", 2)]);
        assert_eq!(check_files(&then, &then), Ok(()));
        let error = check_files(&then, &files(&[("a", 1), ("b", 3)])).unwrap_err().to_string();
        assert_eq!(
            error,
            "b is not the text that the run began with; put that one back, or start anew elsewhere (--out)"
        );
        assert!(check_files(&BTreeMap::new(), &then).is_err());
    }
}
