//! Formats: how a model reads problems and writes completions, in tokens and back, and what of a completion is judged.
//!
//! A model made from scratch for a task reads the bare prompt and writes `<think>THOUGHT</think>ANSWER<end>`, a token for
//! each tag. A published model reads the question as a user's turn of its chat template, writes the tags as any text, and
//! ends its turn in its own way. Nothing else of a task or a stage depends on which of the two it is.

mod settings;

use minke_model::{ChatTemplate, DecodeStream, Error, Message, Result, Tokenizer};
use serde_json::{Map, Value};

use crate::tasks::{Demonstration, Item, Task};

pub use settings::{Settings, is_right_leniently};

/// Opens a completion's thought.
pub const THINK: &str = "<think>";
/// Closes the thought; the answer follows.
pub const END_THINK: &str = "</think>";
/// Ends the completion of a model made from scratch.
pub const END: &str = "<end>";
/// Fills a batch up; never sampled by a model that has learnt anything.
pub const PAD: &str = "<pad>";
/// The strings that are one token each in the tokenizer of a model made from scratch.
pub const SPECIALS: [&str; 4] = [THINK, END_THINK, END, PAD];

/// How one model reads and writes.
pub struct Format {
    tokenizer: Tokenizer,
    kind: Kind,
    /// Tokens that end a completion.
    ends: Vec<u32>,
}

enum Kind {
    /// Made from scratch: with the tokens of the thought's tags.
    Bare { think: u32, end_think: u32 },
    /// Published. Some templates open the thought themselves, at the end of the prompt.
    Chat { template: Box<ChatTemplate>, settings: Settings, opened: bool },
}

/// A reward and why it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// 1 or 0.
    pub reward: f32,
    /// A few words.
    pub reason: String,
}

impl Score {
    fn of(verdict: std::result::Result<String, String>) -> Score {
        match verdict {
            Ok(answer) => Score { reward: 1.0, reason: format!("answer {answer} is right") },
            Err(reason) => Score { reward: 0.0, reason },
        }
    }
}

impl Format {
    /// For a model with this tokenizer and, where it has one, chat template. `settings` are a recipe's own, where it has any.
    ///
    /// # Errors
    /// When the model can do with neither form, or `settings` are for another kind of model.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>, settings: Option<Settings>) -> Result<Format> {
        let id = |tag| tokenizer.token_id(tag);
        let (kind, ends) = match (template, id(THINK), id(END_THINK), id(END)) {
            (None, Some(think), Some(end_think), Some(end)) => {
                if settings.is_some() {
                    return Err(Error::new(
                        "[format] and --shots are for models with a chat template, but this one is made from scratch; leave them out",
                    ));
                }
                (Kind::Bare { think, end_think }, vec![end])
            }
            (None, ..) => {
                return Err(Error::new(format!(
                    "the model has no chat template, and its tokenizer lacks one of {THINK}, {END_THINK} and {END}; \
                     choose another model, or train from scratch"
                )));
            }
            (Some(_), ..) if tokenizer.eos.is_empty() => {
                return Err(Error::new(
                    "the model's tokenizer names no token that ends a turn (eos_token); choose another model",
                ));
            }
            (Some(template), ..) => {
                let settings = settings.unwrap_or_default();
                let opened = render(&template, &settings, "?".into())?.trim_end().ends_with(THINK);
                (Kind::Chat { template: Box::new(template), settings, opened }, tokenizer.eos.clone())
            }
        };
        Ok(Format { tokenizer, kind, ends })
    }

    /// The model's tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text of the model's chat template, if it has one.
    pub fn template(&self) -> Option<&str> {
        match &self.kind {
            Kind::Bare { .. } => None,
            Kind::Chat { template, .. } => Some(template.source()),
        }
    }

    /// How a published model is spoken to and judged.
    pub fn settings(&self) -> Option<&Settings> {
        match &self.kind {
            Kind::Bare { .. } => None,
            Kind::Chat { settings, .. } => Some(settings),
        }
    }

    /// Whether the chat template opens the thought itself, so that completions begin inside it.
    pub fn opens_thought(&self) -> bool {
        matches!(self.kind, Kind::Chat { opened: true, .. })
    }

    /// Tokens that end a completion.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// What a model behind a chat API is asked in the place of this one: the question and what stands around it.
    pub fn messages(&self, task: &dyn Task, item: &Item) -> Vec<Message> {
        self.settings().unwrap_or(&Settings::default()).messages(task.question(item))
    }

    /// The tokens that a problem is put in.
    ///
    /// # Errors
    /// When the model's tokens can't express it, or the chat template refuses it.
    pub fn prompt(&self, task: &dyn Task, item: &Item) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Bare { .. } => self.tokenizer.encode(&item.prompt, true),
            Kind::Chat { template, settings, .. } => {
                self.tokenizer.encode(&render(template, settings, task.question(item))?, false)
            }
        }
    }

    /// The tokens of a right completion, with the one that ends it.
    ///
    /// # Errors
    /// When the model's tokens can't express it.
    pub fn completion(&self, shown: &Demonstration) -> Result<Vec<u32>> {
        let Demonstration { thought, answer } = shown;
        let text = match &self.kind {
            Kind::Chat { opened: true, .. } => format!("{thought}{END_THINK}{answer}"),
            Kind::Chat { settings, .. } => settings.completion(shown),
            Kind::Bare { .. } => format!("{THINK}{thought}{END_THINK}{answer}"),
        };
        let mut tokens = self.tokenizer.encode(&text, false)?;
        tokens.push(self.ends[0]);
        Ok(tokens)
    }

    /// The tokens of a document, with those that begin and end it. Special tokens that it writes out count as themselves.
    ///
    /// # Errors
    /// When the model's tokens can't express it.
    pub fn document(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(text, true)?;
        if tokens.last() != Some(&self.ends[0]) {
            tokens.push(self.ends[0]);
        }
        Ok(tokens)
    }

    /// A completion's tokens as text. How a published model ends its turn is left out; where its template has opened the thought,
    /// the missing tag is put before it, so that such a template costs nobody their reward.
    ///
    /// # Errors
    /// When the tokenizer's own decoder fails.
    pub fn text(&self, tokens: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Bare { .. } => self.tokenizer.decode(tokens, false),
            Kind::Chat { opened, .. } => {
                let body = match tokens {
                    [body @ .., last] if self.ends.contains(last) => body,
                    whole => whole,
                };
                let tag = if *opened { THINK } else { "" };
                Ok(format!("{tag}{}", self.tokenizer.decode(body, false)?))
            }
        }
    }

    /// Reward for a completion, given as text, that ended by itself or was cut off: 1 for a right answer in the right form,
    /// 0 for anything else.
    pub fn score(&self, task: &dyn Task, item: &Item, text: &str, finished: bool) -> Score {
        match &self.kind {
            Kind::Chat { settings, .. } => settings.score(task, item, text, finished),
            Kind::Bare { .. } => Score::of(Completion::parse(text).and_then(|parts| checked(task, item, parts))),
        }
    }

    /// The parts of a completion in the right form.
    ///
    /// # Errors
    /// What is wrong with its form, in a few words.
    pub fn parts<'t>(&self, text: &'t str, finished: bool) -> std::result::Result<Completion<'t>, String> {
        match &self.kind {
            Kind::Bare { .. } => Completion::parse(text),
            Kind::Chat { settings, .. } => settings.parts(text, finished),
        }
    }

    /// Tokens of a completion's thought: those between its tags, or to its end where it is never closed.
    ///
    /// # Errors
    /// When the tokenizer's own decoder fails.
    pub fn thought_tokens(&self, tokens: &[u32]) -> Result<usize> {
        let between = |open: usize, close: Option<usize>| close.unwrap_or(tokens.len()).saturating_sub(open);
        match self.kind {
            Kind::Bare { think, end_think } => {
                let Some(open) = tokens.iter().position(|&id| id == think) else { return Ok(0) };
                Ok(between(open + 1, tokens.iter().skip(open).position(|&id| id == end_think).map(|at| open + at)))
            }
            Kind::Chat { opened, .. } => {
                // Tags are text here: after how many tokens each is there.
                let (mut stream, mut text) = (DecodeStream::new(false), String::new());
                let mut open = opened.then_some(0);
                for (at, &id) in tokens.iter().enumerate() {
                    text.push_str(&stream.push(&self.tokenizer, id)?);
                    match open {
                        None if text.contains(THINK) => (open, text) = (Some(at + 1), String::new()),
                        Some(open) if text.contains(END_THINK) => {
                            // The tag's own tokens are no thought.
                            let tag = self.tokenizer.encode(END_THINK, false)?.len();
                            return Ok(between(open, Some((at + 1).saturating_sub(tag))));
                        }
                        _ => {}
                    }
                }
                Ok(open.map_or(0, |open| between(open, None)))
            }
        }
    }
}

fn render(template: &ChatTemplate, settings: &Settings, question: String) -> Result<String> {
    // The names that Qwen3's and DeepSeek-V3.1's templates give to it.
    let variables: Map<String, Value> =
        ["enable_thinking", "thinking"].into_iter().map(|name| (name.into(), settings.think.into())).collect();
    template.render(&settings.messages(question), true, &variables)
}

/// The parts of a well-formed completion, `<think>THOUGHT</think>ANSWER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'a> {
    /// Between the tags; may be empty.
    pub thought: &'a str,
    /// After the thought; never empty.
    pub answer: &'a str,
}

impl<'a> Completion<'a> {
    /// Splits the completion of a model made from scratch, which must end with `<end>`.
    ///
    /// # Errors
    /// What is wrong with its form, in a few words.
    pub fn parse(text: &'a str) -> std::result::Result<Completion<'a>, String> {
        let Some(body) = text.strip_suffix(END) else {
            let found = text.contains(END);
            return Err(if found { format!("text after {END}") } else { format!("truncated: no {END}") });
        };
        Completion::of(body)
    }

    /// Splits a completion without its end: one of each tag, nothing before and nothing after.
    ///
    /// # Errors
    /// As [`Completion::parse`].
    pub fn of(body: &'a str) -> std::result::Result<Completion<'a>, String> {
        let Some(body) = body.strip_prefix(THINK) else { return Err(format!("does not begin with {THINK}")) };
        let Some((thought, answer)) = body.split_once(END_THINK) else { return Err(format!("no closing {END_THINK}")) };
        for tag in SPECIALS {
            if thought.contains(tag) {
                return Err(format!("{tag} inside the thought"));
            }
            if answer.contains(tag) {
                return Err(format!("{tag} inside the answer"));
            }
        }
        if answer.is_empty() {
            return Err("no answer".into());
        }
        Ok(Completion { thought, answer })
    }
}

/// The answer of a completion in the right form, if it is right.
fn checked(
    task: &dyn Task,
    item: &Item,
    Completion { answer, .. }: Completion<'_>,
) -> std::result::Result<String, String> {
    task.check(item, answer).map(|()| answer.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tasks::chain_sum::{ChainSum, Scratchpad};

    #[test]
    fn the_form_is_strict() {
        let parts = Completion::parse("<think>a;b</think>12<end>");
        assert_eq!(parts, Ok(Completion { thought: "a;b", answer: "12" }));
        assert_eq!(Completion::parse("<think></think>1<end>"), Ok(Completion { thought: "", answer: "1" }));
        for (text, reason) in [
            ("", "truncated: no <end>"),
            ("<end>", "does not begin with <think>"),
            ("<think>1+1=2", "truncated: no <end>"),
            ("<think>1+1=2</think>2", "truncated: no <end>"),
            ("<think>1+1=2</think>2<end>;", "text after <end>"),
            ("<think>1+1=2</think>2<end><pad>", "text after <end>"),
            ("2<end>", "does not begin with <think>"),
            (" <think></think>2<end>", "does not begin with <think>"),
            ("1+1=2</think>2<end>", "does not begin with <think>"),
            ("<think>1+1=2<end>", "no closing </think>"),
            ("<think>1</think>2</think>2<end>", "</think> inside the answer"),
            ("<think><think>1</think>2<end>", "<think> inside the thought"),
            ("<think>1</think><think>2<end>", "<think> inside the answer"),
            ("<think>1<end></think>2<end>", "<end> inside the thought"),
            ("<think>1</think>2<end><end>", "<end> inside the answer"),
            ("<think>1<pad></think>2<end>", "<pad> inside the thought"),
            ("<think>1</think>2<pad><end>", "<pad> inside the answer"),
            ("<think>1</think><end>", "no answer"),
        ] {
            assert_eq!(Completion::parse(text), Err(reason.to_string()), "{text}");
        }
    }

    /// The task, a problem, and how a published model speaks: a template that may open the thought by itself.
    fn chat(opens: bool, settings: Settings) -> (ChainSum, Item, Format) {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama-chat");
        let files = minke_model::Checkpoint::open(&files).unwrap();
        let source = files.chat_template().unwrap().unwrap().source().to_string();
        let source = if opens { source + "<think>\n" } else { source };
        let template = ChatTemplate::new(&source, None, None).unwrap();
        let task = ChainSum { digits: 1..=1, scratchpad: Scratchpad::Plain };
        let item = task.read("3+4=").unwrap();
        (task, item, Format::new(files.tokenizer().unwrap(), Some(template), Some(settings)).unwrap())
    }

    #[test]
    fn a_published_model_is_spoken_to_in_its_own_template() {
        let told =
            Settings { system: Some("Be brief.".into()), instruction: Some("Now!".into()), ..Settings::default() };
        let (task, item, format) = chat(false, told);
        let text = format.tokenizer().decode(&format.prompt(&task, &item).unwrap(), false).unwrap();
        let system = "<|im_start|>system\nBe brief.<|im_end|>\n";
        assert_eq!(text, format!("{system}<|im_start|>user\nWhat is 3+4?\nNow!<|im_end|>\n<|im_start|>assistant\n"));
        let (task, item, format) = chat(false, Settings::default());
        let text = format.tokenizer().decode(&format.prompt(&task, &item).unwrap(), false).unwrap();
        assert!(text.contains(&Settings::default().instruction.unwrap()) && !text.contains("system"), "{text}");
    }

    #[test]
    fn a_published_model_learns_what_it_is_judged_by() {
        let shown = |thought: &str| Demonstration { thought: thought.into(), answer: "7".into() };
        for (opens, think) in [(false, true), (true, true), (false, false), (true, false)] {
            let (task, item, format) = chat(opens, Settings { think, ..Settings::default() });
            assert!(matches!(format.kind, Kind::Chat { opened, .. } if opened == opens));
            for (thought, tokens) in [("3+4=7", 5), ("", 0)] {
                let completion = format.completion(&shown(thought)).unwrap();
                assert!(format.ends().contains(completion.last().unwrap()));
                let text = format.text(&completion).unwrap();
                let tagged = think || opens || !thought.is_empty();
                assert_eq!(text, if tagged { format!("<think>{thought}</think>7") } else { "7".into() });
                assert_eq!(format.score(&task, &item, &text, true).reward, 1.0, "{text}");
                assert_eq!(format.thought_tokens(&completion).unwrap(), tokens, "{text}");
                // What was cut off earns nothing.
                assert_eq!(format.score(&task, &item, &text, false).reward, 0.0);
            }
        }
    }

    #[test]
    fn a_published_models_form_is_strict_unless_asked() {
        let (task, item, format) = chat(false, Settings::default());
        let score = |text: &str| format.score(&task, &item, text, true);
        for right in ["<think>3+4=7</think>7", "<think>\n3+4\n</think>\n\n7\n", "  <think></think>7"] {
            assert_eq!(score(right).reward, 1.0, "{right}");
        }
        for (wrong, reason) in [
            ("7", "does not begin with <think>"),
            ("The answer is 7.", "does not begin with <think>"),
            ("<think>3+4=7", "no closing </think>"),
            ("<think>a</think>The answer is 7", "answer \"The answer is 7\" is not a plain whole number"),
            ("<think>a</think>7</think>7", "</think> inside the answer"),
            ("<think>a</think>7 7", "answer \"7 7\" is not a plain whole number"),
            ("<think>a</think>7<end>", "<end> inside the answer"),
            ("<think>a</think> \n", "no answer"),
            ("<think>a</think>8", "answer \"8\" is not 7"),
        ] {
            assert_eq!((score(wrong).reward, score(wrong).reason.as_str()), (0.0, reason), "{wrong}");
        }
        let (task, item, format) = chat(false, Settings { think: false, ..Settings::default() });
        let score = |text: &str| format.score(&task, &item, text, true);
        assert_eq!(["7", " 7\n", "<think>a</think>7"].map(|text| score(text).reward), [1.0; 3]);
        assert_eq!(["", "7.", "It is 7", "<think>a</think>", "a</think>7"].map(|text| score(text).reward), [0.0; 5]);
        let (task, item, format) = chat(false, Settings { lenient: true, ..Settings::default() });
        for (text, reward) in [
            ("The sum is **7**.", 1.0),
            ("3 + 4 = 7", 1.0),
            ("<think>7</think>The answer is 8", 0.0),
            ("7 is not 8", 0.0),
            ("", 0.0),
            ("<think>7", 1.0),
        ] {
            assert_eq!(format.score(&task, &item, text, false).reward, reward, "{text}");
        }
    }

    #[test]
    fn a_model_that_can_do_neither_is_refused() {
        let plain = Tokenizer::characters(&['1'], &["<think>"]).unwrap();
        let error = Format::new(plain, None, None).err().unwrap().to_string();
        assert!(error.contains("no chat template, and its tokenizer lacks one of"), "{error}");
        let bare = Tokenizer::characters(&['1'], &SPECIALS).unwrap();
        let error = Format::new(bare, None, Some(Settings::default())).err().unwrap().to_string();
        assert!(error.contains("[format] and --shots are for models with a chat template"), "{error}");
    }
}
