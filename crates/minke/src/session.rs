//! A model to talk to: what was said becomes a prompt, the engine goes on from it, and what comes is told apart into
//! thought and answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use minke_engine::{
    Engine, EventKind, Limits, Reason, Request, RequestId, Sampling, Seed, ThoughtBudget, TransformerDecoder,
};
use minke_kernels::kv::PAGE_POSITIONS;
use minke_kernels::{Cpu, Dtype};
use minke_model::{ChatTemplate, Checkpoint, DecodeStream, Message, Tokenizer, Transformer};
use serde::Serialize;

use crate::load;
use crate::think::{CLOSE, OPEN, Part, Splitter};

/// A model that can be talked to.
pub struct Model {
    cpu: Cpu,
    transformer: Transformer,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Model {
    /// Reads a model with everything around it.
    pub fn load(checkpoint: &Checkpoint, dtype: Dtype) -> Result<Model> {
        // What may be missing first: it is quickly said.
        let (tokenizer, template) = (checkpoint.tokenizer()?, checkpoint.chat_template()?);
        let cpu = load::cpu()?;
        let transformer = load::transformer(&cpu, checkpoint, dtype)?;
        Ok(Model { cpu, transformer, tokenizer, template })
    }

    /// Whether it was made for conversations; otherwise it goes on from bare text.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokens that open and close a thought, if its vocabulary has them.
    fn tags(&self) -> Option<(u32, u32)> {
        self.tokenizer.token_id(OPEN).zip(self.tokenizer.token_id(CLOSE))
    }

    /// Whether its template can be asked to leave thoughts out.
    fn template_knows_thoughts(&self) -> bool {
        self.template.as_ref().is_some_and(|t| ["enable_thinking", OPEN].iter().any(|word| t.source().contains(word)))
    }

    /// Whether it has thoughts that could be turned off.
    pub fn can_think(&self) -> bool {
        self.tags().is_some() || self.template_knows_thoughts()
    }
}

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
    model: &'a Model,
    settings: Settings,
    budget: Option<ThoughtBudget>,
    decoder: TransformerDecoder<'a>,
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
    pub fn new(model: &'a Model, settings: Settings) -> Result<Session<'a>> {
        let tags = settings.budget.map(|tokens| {
            let missing = "this model's vocabulary has no <think> and </think>, so there is no thought to bound; \
                           leave --budget out, or bound the whole reply with --max-tokens";
            model.tags().context(missing).map(|(open, close)| ThoughtBudget { open, close, tokens })
        });
        let decoder = TransformerDecoder::new(&model.cpu, &model.transformer);
        let pages = model.transformer.context().div_ceil(PAGE_POSITIONS);
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
        let Model { tokenizer, .. } = self.model;
        let (prompt, inside) = self.prompt(text)?;
        let request = self.request(prompt)?;
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
        let (mut splitter, mut text_of) = (Splitter::new(inside), DecodeStream::new(true));
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
                        let was_in_thought = splitter.in_thought();
                        let pieces = splitter.push(&piece(tokenizer, &mut text_of, token.id)?);
                        reply.thought_tokens += usize::from(was_in_thought && splitter.in_thought());
                        pieces
                    }
                    EventKind::Finished(reason) => {
                        reply.end = match reason {
                            Reason::Stop => "stop",
                            Reason::Limit => "limit",
                            Reason::Context => "context",
                            Reason::Cancelled => "cancelled",
                            Reason::NotFinite => bail!("the model's logits are not numbers: its weights are damaged"),
                        };
                        let mut pieces = splitter.push(&text_of.finish(tokenizer)?);
                        pieces.extend(splitter.finish());
                        pieces
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

    /// The prompt's tokens for saying `text` now, and whether it leaves a thought open.
    fn prompt(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let Settings { think, .. } = self.settings;
        let Some(template) = &self.model.template else {
            // A model for bare text, such as one trained on a task here.
            let no_thought =
                if think || self.model.tags().is_none() { String::new() } else { format!("{OPEN}{CLOSE}") };
            return Ok((self.model.tokenizer.encode(&format!("{text}{no_thought}"), true)?, false));
        };
        let mut messages = self.messages.clone();
        messages.push(Message::new("user", text));
        let mut variables = serde_json::Map::new();
        // The names that Qwen3's and DeepSeek-V3.1's templates give to it.
        for name in ["enable_thinking", "thinking"] {
            variables.insert(name.into(), think.into());
        }
        let mut prompt = template.render(&messages, true, &variables)?;
        let inside = prompt.trim_end().ends_with(OPEN);
        if !think && !prompt.trim_end().ends_with(CLOSE) {
            if inside {
                prompt.push_str(&format!("\n{CLOSE}\n\n"));
            } else if self.model.tags().is_some() {
                prompt.push_str(&format!("{OPEN}\n\n{CLOSE}\n\n"));
            }
        }
        Ok((self.model.tokenizer.encode(&prompt, false)?, inside && think))
    }

    fn request(&mut self, prompt: Vec<u32>) -> Result<Request> {
        let Settings { temperature, top_p, seed, max_tokens, .. } = self.settings;
        let turn = self.turn;
        self.turn += 1;
        Ok(Request {
            id: RequestId(u64::from(turn)),
            sampling: Sampling { temperature, top_p, seed: Seed { seed, stream: [turn, 0, 0] }, ..Sampling::default() },
            limit: max_tokens.min(self.model.transformer.context().saturating_sub(prompt.len()).max(1)),
            prompt,
            stop: self.model.tokenizer.eos.clone(),
            thought: self.budget,
        })
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

/// A token's text as far as it is certain; of special tokens only the tags of thoughts have one.
fn piece(tokenizer: &Tokenizer, text_of: &mut DecodeStream, id: u32) -> Result<String> {
    for tag in [OPEN, CLOSE] {
        if tokenizer.token_id(tag) == Some(id) {
            return Ok(text_of.finish(tokenizer)? + tag);
        }
    }
    if tokenizer.eos.contains(&id) { Ok(String::new()) } else { Ok(text_of.push(tokenizer, id)?) }
}
