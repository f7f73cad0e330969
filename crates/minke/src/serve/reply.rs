//! A reply under way: from messages to a request that always leaves room for an answer, and from the engine's events to
//! text, told apart into thought and answer, with counts.

use std::sync::Arc;
use std::time::Instant;

use minke_engine::{EventKind, Reason, Request, RequestId, Sampling, Seed, ThoughtBudget, Token};
use minke_model::Message;
use tokio::sync::mpsc;

use super::Shared;
use super::engine_thread::{EngineThread, Happened, NotSent};
use super::error::Failure;
use super::loaded::blocking;
use super::metrics::Ending;
use super::parameters::Settings;
use super::stops::Stops;
use crate::talker::{NOT_NUMBERS, Pieces, Prompt, Reader, Talker};
use crate::think::Part;

/// Most tokens of a reply where the request doesn't say.
const MAX_TOKENS: usize = 4096;
/// Of the tokens of a reply a quarter is kept for the answer, but no more than this.
const RESERVE: usize = 512;

/// A reply under way. Dropping it cancels it.
pub struct Reply {
    shared: Shared,
    thread: Arc<EngineThread>,
    events: mpsc::Receiver<Happened>,
    reader: Reader,
    stops: Stops,
    begin: Instant,
    ended: bool,
    /// Counts so far.
    pub usage: Usage,
}

/// Tokens read and generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: usize,
    /// All that were generated, the thought's included.
    pub completion: usize,
    /// The thought's, without its tags.
    pub thought: usize,
}

/// What has been added to a reply.
#[derive(Debug, Default)]
pub struct Said {
    pub thought: String,
    pub answer: String,
    /// The token that was generated, and the part it is of.
    pub token: Option<(Token, Option<Part>)>,
    /// How the reply ended, if it has.
    pub end: Option<End>,
}

/// How a reply ends when nothing goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, or at a stop string.
    Stop,
    /// At its limit, or the model's.
    Length,
}

impl Reply {
    /// Asks a model to reply to `messages`; `begin` is when its client asked.
    pub async fn begin(
        shared: &Shared,
        thread: Arc<EngineThread>,
        messages: Vec<Message>,
        settings: Settings,
        begin: Instant,
    ) -> Result<Reply, Failure> {
        let stops = Stops::new(settings.stop.clone());
        let model = Arc::clone(thread.model());
        // A prompt may be long, and a template slow.
        let (request, inside) = blocking(move || Ok(request(&model, &messages, &settings))).await??;
        let usage = Usage { prompt: request.prompt.len(), ..Usage::default() };
        let events = thread.submit(request).map_err(|error| match error {
            NotSent::QueueFull => {
                shared.metrics.turned_away();
                Failure::busy()
            }
            NotSent::Stopped => {
                shared.loaded.forget(&thread);
                Failure::internal(&anyhow::anyhow!(
                    "the thread of a model has ended; the model is loaded again when asked for"
                ))
            }
        })?;
        shared.metrics.prompt(usage.prompt);
        let (shared, reader) = (Arc::clone(shared), Reader::new(inside));
        Ok(Reply { shared, thread, events, reader, stops, begin, ended: false, usage })
    }

    /// The model.
    pub fn model(&self) -> &Talker {
        self.thread.model()
    }

    /// Waits for what comes next. It may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Result<Said, Failure> {
        let happened = tokio::select! {
            biased;
            () = self.shared.closing() => Err(Failure::closing()),
            happened = self.events.recv() => Ok(happened),
        };
        let said = happened.and_then(|happened| self.take(happened));
        match &said {
            Ok(Said { end: Some(_), .. }) => self.end(Ending::Completed),
            Ok(_) => {}
            Err(_) => self.end(Ending::Failed),
        }
        said
    }

    fn take(&mut self, happened: Option<Happened>) -> Result<Said, Failure> {
        let mut said = Said::default();
        let model = Arc::clone(self.thread.model());
        match happened {
            Some(Happened::Event(EventKind::Token(token))) => {
                let (pieces, part) = self.reader.push(&model, token.id)?;
                self.count(part);
                said.token = Some((token, part));
                self.add(pieces, &mut said);
            }
            Some(Happened::Event(EventKind::Finished(reason))) => {
                said.end = match reason {
                    Reason::Stop => Some(End::Stop),
                    Reason::Limit | Reason::Context => Some(End::Length),
                    Reason::NotFinite => return Err(Failure::model(&anyhow::anyhow!(NOT_NUMBERS))),
                    // Only a dropped client cancels, and it does not listen any more.
                    Reason::Cancelled => return Err(Failure::unavailable("the request was cancelled")),
                };
                let pieces = self.reader.finish(&model)?;
                if !self.add(pieces, &mut said) {
                    said.answer += &self.stops.finish();
                }
            }
            Some(Happened::Refused(refused)) => return Err(Failure::bad_request(refused.to_string())),
            None => {
                self.shared.loaded.forget(&self.thread);
                return Err(Failure::internal(&anyhow::anyhow!(
                    "the thread of a model has ended in the middle of a reply"
                )));
            }
        }
        Ok(said)
    }

    /// Adds pieces of text; whether a stop string ended the reply.
    fn add(&mut self, pieces: Pieces, said: &mut Said) -> bool {
        for (part, text) in pieces {
            match part {
                Part::Thought => said.thought += &text,
                // Stop strings are for the answer: a thought may well have what a client does not want to read there.
                Part::Answer => {
                    let (text, stopped) = self.stops.push(&text);
                    said.answer += &text;
                    if stopped {
                        said.end = Some(End::Stop);
                        return true;
                    }
                }
            }
        }
        false
    }

    fn count(&mut self, part: Option<Part>) {
        if self.usage.completion == 0 {
            self.shared.metrics.first_token(self.begin.elapsed());
        }
        self.usage.completion += 1;
        self.usage.thought += usize::from(part == Some(Part::Thought));
        self.shared.metrics.token(part == Some(Part::Thought));
    }

    fn end(&mut self, ending: Ending) {
        if !std::mem::replace(&mut self.ended, true) {
            self.shared.metrics.ended(ending);
            // Also where the engine would go on, as after a stop string.
            self.events.close();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.end(Ending::Cancelled);
    }
}

/// The engine's request for a reply to `messages`, and whether its prompt leaves a thought open.
fn request(model: &Talker, messages: &[Message], settings: &Settings) -> Result<(Request, bool), Failure> {
    let context = model.transformer().context();
    let (prompt, thought) = match thinking(model, messages, settings)? {
        Some((prompt, thought)) => (prompt, thought),
        None => (prompt(model, messages, false)?, None),
    };
    let tokens = prompt.tokens.len();
    if tokens >= context {
        let message =
            format!("the messages have {tokens} tokens, but with the reply there may be {context}; shorten them");
        return Err(Failure::parameter("messages", "context_length_exceeded", message));
    }
    let seed = settings.seed.map_or_else(random_seed, Ok)?;
    let request = Request {
        // The engine's thread chooses another.
        id: RequestId(0),
        sampling: Sampling {
            temperature: settings.temperature.unwrap_or(model.default_temperature()),
            top_k: settings.top_k,
            top_p: settings.top_p,
            min_p: settings.min_p,
            seed: Seed { seed, ..Seed::default() },
        },
        limit: limit(model, &prompt, settings),
        prompt: prompt.tokens,
        stop: model.tokenizer().eos.clone(),
        thought,
    };
    Ok((request, prompt.inside))
}

/// The prompt of a reply that may think, with the bound on its thought, if its tokens can be told; none if there is to be
/// no thought, or no room for one beside an answer.
fn thinking(
    model: &Talker,
    messages: &[Message],
    settings: &Settings,
) -> Result<Option<(Prompt, Option<ThoughtBudget>)>, Failure> {
    if !settings.think || settings.budget == Some(0) {
        return Ok(None);
    }
    let prompt = prompt(model, messages, true)?;
    let Some((open, close)) = model.tags() else {
        if settings.budget.is_some() {
            let message = "this model's vocabulary has no <think> and </think>, so there is no thought to bound; leave \
                           thinking_budget_tokens out";
            return Err(Failure::parameter("thinking_budget_tokens", "unsupported_parameter", message));
        }
        return Ok(Some((prompt, None)));
    };
    let limit = limit(model, &prompt, settings);
    let most = [settings.budget, settings.low.then_some(limit / 4), Some(thought_room(limit, prompt.inside))];
    let tokens = most.into_iter().flatten().min().unwrap_or(0);
    Ok((tokens > 0).then_some((prompt, Some(ThoughtBudget { open, close, tokens }))))
}

/// Tokens of a reply that its thought may take, so that an answer always follows.
fn thought_room(limit: usize, inside: bool) -> usize {
    let reserve = (limit / 4).clamp(1, RESERVE);
    let tags = if inside { 1 } else { 2 };
    limit.saturating_sub(reserve + tags)
}

fn limit(model: &Talker, prompt: &Prompt, settings: &Settings) -> usize {
    settings.max_tokens.unwrap_or(MAX_TOKENS).min(model.room(prompt.tokens.len()))
}

/// A template may refuse a conversation, and a vocabulary a letter: the client's doing, more often than not.
fn prompt(model: &Talker, messages: &[Message], think: bool) -> Result<Prompt, Failure> {
    model.prompt(messages, think).map_err(|error| {
        Failure::parameter("messages", "invalid_value", format!("the messages can't be put to this model: {error:#}"))
    })
}

/// A seed that nobody has chosen.
pub fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::internal(&anyhow::anyhow!("no random numbers: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_always_has_room() {
        for limit in 1..5000 {
            for inside in [false, true] {
                let thought = thought_room(limit, inside);
                let with_tags = if thought == 0 { 0 } else { thought + if inside { 1 } else { 2 } };
                assert!(with_tags < limit, "{thought} tokens of thought of {limit}");
                assert!(limit - with_tags >= (limit / 4).min(RESERVE), "{thought} of {limit}");
                assert!(limit < 8 || thought > 0, "no thought in {limit} tokens");
            }
        }
    }
}
