//! Tasks that are programs, anybody's: they speak JSON lines on stdin and stdout, as `docs/recipes.md` has it. A program that
//! hangs, floods, crashes or lies is named, its answer is worth nothing, and it is started again; only one that does so time
//! after time ends a run.

mod journal;
mod program;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use minke_kernels::random::Random;
use minke_model::error::quoted;
use minke_model::{Error, Result};
use serde_json::{Value, json};

use self::journal::Journal;
use self::program::Program;
use super::{Demonstration, Item, Split, Style, Task, split_of};
use crate::format::SPECIALS;

/// The version of the protocol that is spoken.
const VERSION: u64 = 1;
/// How long a program may take until it speaks at all.
const STARTUP: Duration = Duration::from_secs(120);
/// Failures in a row after which a program is given up.
const FAILURES: u32 = 5;
/// Problems that are asked for until one is on the side of the split that is wanted.
const DRAWS: u32 = 1000;
/// Longest prompt, question, thought or answer, in bytes.
const LONGEST: usize = 1 << 16;

/// How a program is started, and what it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Longest time for an answer, in seconds.
    pub timeout_s: u32,
    /// Most memory of each process, in MiB (address space; Linux only).
    pub memory_mb: u32,
}

/// A task that is a program; its clones share the program.
#[derive(Clone, Debug)]
pub struct External {
    settings: Settings,
    hello: Hello,
    state: Arc<Mutex<State>>,
}

impl PartialEq for External {
    fn eq(&self, other: &External) -> bool {
        (&self.settings, &self.hello) == (&other.settings, &other.hello)
    }
}

impl Eq for External {}

/// What a program says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hello {
    name: String,
    levels: (u32, u32),
    alphabet: String,
    prompt_length: usize,
    demonstrations: bool,
    splits: bool,
}

/// The program at the moment.
#[derive(Debug, Default)]
struct State {
    program: Option<Program>,
    /// Requests so far.
    requests: u64,
    /// Failures since the last answer.
    failures: u32,
    /// Why it was given up.
    given_up: Option<String>,
    /// What it has said in the run that it works for.
    journal: Option<Journal>,
}

type Told<T> = std::result::Result<T, String>;

impl External {
    /// Starts a program and lets it introduce itself.
    ///
    /// # Errors
    /// What it did instead.
    pub fn start(settings: Settings) -> Result<External> {
        let mut state = State::default();
        let hello = state.start(&settings).map_err(|what| Error::new(format!("{} {what}", settings.title())))?;
        Ok(External { settings, hello, state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the program answers, or has answered before, as `read` understands it. All that is said goes through here.
    fn ask<T>(&self, request: &Value, read: impl Fn(&Value) -> Told<T>) -> Told<T> {
        let mut state = self.state();
        if let Some(told) = state.journal.as_ref().and_then(|journal| journal.recall(request)) {
            return told.and_then(|reply| read(&reply));
        }
        if let Some(why) = &state.given_up {
            return Err(why.clone());
        }
        let patience = Duration::from_secs(u64::from(self.settings.timeout_s));
        let title = self.settings.title();
        let told = state.restart(&self.settings, &self.hello).and_then(|()| state.ask(request, patience));
        // A reply that can't be understood is kept as a failure: it is none to go by later either.
        let told = match told.and_then(|reply| read(&reply).map(|read| (reply, read))) {
            Ok((reply, read)) => {
                state.failures = 0;
                Ok((reply, read))
            }
            Err(what) => {
                state.program = None;
                state.failures += 1;
                if state.failures == FAILURES {
                    state.given_up = Some(format!("{title} failed {FAILURES} times in a row; the last time it {what}"));
                }
                Err(format!("{title} {what}"))
            }
        };
        if let Some(journal) = &mut state.journal {
            journal.keep(request, &told.as_ref().map(|(reply, _)| reply.clone()).map_err(String::clone));
        }
        told.map(|(_, read)| read)
    }

    fn draw(&self, split: Split, level: u32, random: &mut Random) -> Told<Option<Item>> {
        let mut request = json!({ "op": "sample", "seed": random.next_u32(), "level": level });
        if self.hello.splits {
            request["split"] = json!(if split == Split::Train { "train" } else { "held_out" });
        }
        let item = self.ask(&request, |reply| self.item(level, reply))?;
        Ok(Some(item).filter(|item| self.hello.splits || split_of(item.prompt.as_bytes()) == split))
    }

    fn item(&self, level: u32, reply: &Value) -> Told<Item> {
        let prompt = text(reply, "prompt")?.ok_or("gave a problem without a prompt")?;
        let mut facts = json!({ "item": reply.get("item").ok_or("gave a problem without an item")? });
        for key in ["question", "thought", "answer"] {
            if let Some(text) = text(reply, key)? {
                facts[key] = text.into();
            }
        }
        if self.hello.demonstrations && facts.get("answer").is_none() {
            return Err("gave a problem without an answer, though it said that it has demonstrations".into());
        }
        Ok(Item { level, prompt: prompt.into(), facts })
    }
}

impl Settings {
    /// What the program is called in sentences.
    fn title(&self) -> String {
        let command = self.command.join(" ");
        let short: String = command.chars().take(80).collect();
        format!("the task's program {}", if short.len() < command.len() { short + "…" } else { short })
    }
}

impl State {
    /// Starts the program.
    fn start(&mut self, settings: &Settings) -> Told<Hello> {
        self.program = Some(Program::start(&settings.command, u64::from(settings.memory_mb) << 20)?);
        let reply = self.ask(&json!({ "op": "hello", "version": VERSION }), STARTUP)?;
        Hello::read(&reply, settings)
    }

    /// Starts it again where it doesn't run.
    fn restart(&mut self, settings: &Settings, hello: &Hello) -> Told<()> {
        if self.program.is_some() || self.start(settings)? == *hello {
            return Ok(());
        }
        Err("introduced itself otherwise when it was started again".into())
    }

    fn ask(&mut self, request: &Value, patience: Duration) -> Told<Value> {
        self.requests += 1;
        let mut request = request.clone();
        request["id"] = self.requests.into();
        let program = self.program.as_mut().ok_or("does not run")?;
        let line = program.ask(&request.to_string(), patience)?;
        let reply: Value =
            serde_json::from_str(&line).map_err(|_| format!("said {}, which is not JSON", quoted(line.trim_end())))?;
        match reply.get("id") {
            _ if !reply.is_object() => Err(format!("said {}, which is no object", quoted(line.trim_end()))),
            _ if reply.get("op").is_some() => Err("said no more than it was asked".into()),
            Some(id) if *id != request["id"] => Err("answered another request than it was sent".into()),
            _ => match text(&reply, "error")? {
                Some(error) => Err(format!("reported an error: {}", quoted(error))),
                None => Ok(reply),
            },
        }
    }
}

impl Hello {
    fn read(reply: &Value, settings: &Settings) -> Told<Hello> {
        let version = reply.get("version").and_then(Value::as_u64);
        if version != Some(VERSION) {
            return Err(format!("did not say that it speaks version {VERSION} of the protocol"));
        }
        let level = |i: usize| reply["levels"][i].as_u64().and_then(|level| u32::try_from(level).ok());
        let levels = match (reply.get("levels"), level(0), level(1)) {
            (None, ..) => (1, 1),
            (Some(list), Some(first), Some(last)) if first <= last && list[2].is_null() => (first, last),
            _ => return Err("gave levels that are not the first and the last, such as [1, 5]".into()),
        };
        let splits = match reply.get("splits") {
            None => false,
            Some(splits) if *splits == json!(["train", "held_out"]) => true,
            Some(_) => return Err("gave splits that are not [\"train\", \"held_out\"]".into()),
        };
        let last = settings.command.last().map_or("", |last| last.rsplit('/').next().unwrap_or(last));
        let name = text(reply, "name")?.unwrap_or(last);
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err("has a name that is not from 1 to 64 bytes of one line".into());
        }
        let printable: String = ('\n'..='\n').chain(' '..='~').collect();
        Ok(Hello {
            name: name.into(),
            levels,
            alphabet: text(reply, "alphabet")?.map_or(printable, str::to_string),
            prompt_length: reply.get("prompt_length").and_then(Value::as_u64).map_or(0, |n| n.min(1 << 20) as usize),
            demonstrations: reply.get("demonstrations").and_then(Value::as_bool).unwrap_or(false),
            splits,
        })
    }
}

/// A text of a reply; none where it has no such key.
fn text<'v>(reply: &'v Value, key: &str) -> Told<Option<&'v str>> {
    let text = match reply.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().ok_or_else(|| format!("gave a value of {key} that is no text"))?,
    };
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LONGEST {
        return Err(format!("gave a {key} of more than {LONGEST} bytes"));
    }
    // Where a model from scratch reads them, these are no text but the frame around it.
    match SPECIALS.iter().find(|tag| text.contains(**tag)) {
        Some(tag) => Err(format!("has {tag} in its {key}, which stands around thoughts")),
        None => Ok(Some(text)),
    }
}

impl Task for External {
    fn name(&self) -> &str {
        &self.hello.name
    }

    fn alphabet(&self) -> &str {
        &self.hello.alphabet
    }

    fn levels(&self) -> RangeInclusive<u32> {
        self.hello.levels.0..=self.hello.levels.1
    }

    fn prompt_length(&self, _: u32) -> usize {
        self.hello.prompt_length
    }

    fn sample(&self, split: Split, level: u32, random: &mut Random) -> Item {
        for _ in 0..DRAWS {
            match self.draw(split, level, random) {
                Ok(Some(item)) => return item,
                Ok(None) => {}
                Err(_) if self.state().given_up.is_some() => break,
                // It was started again, and is asked for another.
                Err(_) => {}
            }
        }
        let title = self.settings.title();
        let none =
            || format!("{title} has given {DRAWS} problems of level {level}, none on the {split:?} side of the split");
        self.state().given_up.get_or_insert_with(none);
        Item { level, prompt: String::new(), facts: Value::Null }
    }

    fn read(&self, _: &str) -> Option<Item> {
        None
    }

    fn question(&self, item: &Item) -> String {
        item.facts["question"].as_str().unwrap_or(&item.prompt).to_string()
    }

    fn demonstrates(&self) -> bool {
        self.hello.demonstrations
    }

    fn demonstration(&self, item: &Item, style: Style, _: &mut Random) -> Demonstration {
        let part = |key: &str| item.facts[key].as_str().unwrap_or_default().to_string();
        let thought = if style == Style::Direct { String::new() } else { part("thought") };
        Demonstration { thought, answer: part("answer") }
    }

    fn check(&self, item: &Item, answer: &str) -> Told<()> {
        let request = json!({ "op": "score", "item": item.facts["item"], "answer": answer });
        let (reward, reason) = self.ask(&request, |reply| {
            let reward = reply.get("reward").ok_or("gave no reward")?;
            let known = reward.as_f64().filter(|reward| (0.0..=1.0).contains(reward));
            let reward = known.ok_or_else(|| format!("gave a reward of {reward}, which is not from 0 to 1"))?;
            let reason = reply.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
            Ok((reward, reason.map(|reason| reason.chars().take(200).collect::<String>())))
        })?;
        // Half right is not right: what is learnt from must not be worth more than it is.
        if reward == 1.0 {
            return Ok(());
        }
        Err(reason.unwrap_or_else(|| format!("answer {} is worth {reward} to the task's program", quoted(answer))))
    }

    fn remember(&self, path: &Path, more: bool) -> Result<()> {
        self.state().journal = Some(if more { Journal::open(path)? } else { Journal::read(path)? });
        Ok(())
    }

    fn health(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(journal) = &mut state.journal {
            journal.save()?;
        }
        match &state.given_up {
            Some(why) => Err(Error::new(format!("{why}; mend it, and go on with --resume"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
