//! A conversation in the terminal: what was said becomes a prompt, the engine goes on from it, and what comes is told
//! apart into thought and answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use minke_engine::{
    Engine, EventKind, Limits, Reason, Request, RequestId, Sampling, Seed, Speculative, ThoughtBudget,
    TransformerDecoder,
};
use minke_kernels::kv::PAGE_POSITIONS;
use minke_model::Message;
use serde::Serialize;

use crate::talker::{NOT_NUMBERS, Prompt, Reader, Talker};
use crate::think::Part;
use crate::{machine, units};

/// How replies are made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether it may think before it answers.
    pub think: bool,
    /// Most tokens of a thought.
    pub budget: Option<usize>,
    /// 0 for the most likely token.
    pub temperature: f32,
    /// Keeps the likeliest tokens of together this probability.
    pub top_p: Option<f32>,
    /// Where random numbers come from.
    pub seed: u64,
    /// Most tokens of a reply.
    pub max_tokens: usize,
}

/// A conversation under way.
pub struct Session<'a> {
    model: &'a Talker,
    settings: Settings,
    budget: Option<ThoughtBudget>,
    decoder: Speculative<'a, TransformerDecoder<'a>>,
    engine: Engine,
    messages: Vec<Message>,
    turn: u32,
}

/// What was replied.
#[derive(Debug, Serialize)]
pub struct Reply {
    /// The text between `<think>` and `</think>`; empty if there was no thought.
    pub thought: String,
    /// The text after it.
    pub answer: String,
    /// Why it ended: `stop` (by itself), `limit`, `context` or `cancelled`.
    pub end: &'static str,
    /// Tokens of the prompt, the conversation before it included.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Tokens of the thought among them, without its tags.
    pub thought_tokens: usize,
    /// Tokens generated a second, from the first to the last.
    pub tokens_per_second: f64,
}

impl<'a> Session<'a> {
    /// The beginning of a conversation.
    pub fn new(model: &'a Talker, settings: Settings) -> Result<Session<'a>> {
        let tags = settings.budget.map(|tokens| {
            let missing = "this model's vocabulary has no <think> and </think>, so there is no thought to bound; \
                           leave --budget out, or bound the whole reply with --max-tokens";
            model.tags().context(missing).map(|(open, close)| ThoughtBudget { open, close, tokens })
        });
        let pages = model.transformer().context().div_ceil(PAGE_POSITIONS);
        let decoder = model.decoder(pages);
        let engine = Engine::new(&decoder, Limits { sequences: 1, batch_tokens: 512, pages, queue: 1 });
        Ok(Session { model, settings, budget: tags.transpose()?, decoder, engine, messages: Vec::new(), turn: 0 })
    }

    /// Whether something was said that later turns go on from.
    pub fn is_under_way(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Forgets what was said.
    pub fn start_anew(&mut self) {
        self.messages.clear();
    }

    /// Says `text`, and gives the reply's pieces to `give` as they come; `stop` ends it early. With a chat template the
    /// turn becomes part of the conversation.
    pub fn say(
        &mut self,
        text: &str,
        stop: &AtomicBool,
        mut give: impl FnMut(Part, &str) -> Result<()>,
    ) -> Result<Reply> {
        let mut messages = self.messages.clone();
        messages.push(Message::new("user", text));
        let Prompt { tokens, inside } = self.model.prompt(&messages, self.settings.think)?;
        // Later turns find the pages of those before them.
        let needed = if self.is_under_way() { 0 } else { self.model.kv_bytes(tokens.len()) };
        if let Some(free) = machine::available_memory().filter(|&free| free < needed) {
            bail!(
                "the prompt's {} tokens take {} of keys and values, and {} of memory are free; give a shorter one, or \
                 --kv int8",
                tokens.len(),
                units::bytes(needed),
                units::bytes(free)
            );
        }
        let request = self.request(tokens);
        let id = request.id;
        let mut reply = Reply {
            thought: String::new(),
            answer: String::new(),
            end: "",
            prompt_tokens: request.prompt.len(),
            tokens: 0,
            thought_tokens: 0,
            tokens_per_second: 0.0,
        };
        self.engine.submit(request)?;
        let mut reader = Reader::new(inside);
        let mut first: Option<Instant> = None;
        while reply.end.is_empty() {
            if stop.swap(false, Ordering::Relaxed) {
                self.engine.cancel(id);
            }
            for event in self.engine.step(&mut self.decoder) {
                let pieces = match event.kind {
                    EventKind::Token(token) => {
                        reply.tokens += 1;
                        let since = first.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
                        if since > 0.0 {
                            reply.tokens_per_second = (reply.tokens - 1) as f64 / since;
                        }
                        let (pieces, part) = reader.push(self.model, token.id)?;
                        reply.thought_tokens += usize::from(part == Some(Part::Thought));
                        pieces
                    }
                    EventKind::Finished(reason) => {
                        reply.end = match reason {
                            Reason::Stop => "stop",
                            Reason::Limit => "limit",
                            Reason::Context => "context",
                            Reason::Cancelled => "cancelled",
                            Reason::NotFinite => bail!(NOT_NUMBERS),
                        };
                        reader.finish(self.model)?
                    }
                };
                for (part, text) in pieces {
                    match part {
                        Part::Thought => reply.thought.push_str(&text),
                        Part::Answer => reply.answer.push_str(&text),
                    }
                    give(part, &text)?;
                }
            }
        }
        self.remember(text, &reply);
        Ok(reply)
    }

    fn request(&mut self, prompt: Vec<u32>) -> Request {
        let Settings { temperature, top_p, seed, max_tokens, .. } = self.settings;
        let turn = self.turn;
        self.turn += 1;
        Request {
            id: RequestId(u64::from(turn)),
            sampling: Sampling { temperature, top_p, seed: Seed { seed, stream: [turn, 0, 0] }, ..Sampling::default() },
            limit: max_tokens.min(self.model.room(prompt.len())),
            prompt,
            stop: self.model.tokenizer().eos.clone(),
            thought: self.budget,
        }
    }

    fn remember(&mut self, text: &str, reply: &Reply) {
        if self.model.has_template() {
            let thought = (!reply.thought.is_empty()).then(|| reply.thought.clone());
            self.messages.push(Message::new("user", text));
            self.messages
                .push(Message { reasoning_content: thought, ..Message::new("assistant", reply.answer.as_str()) });
        }
    }
}
