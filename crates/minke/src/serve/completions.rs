//! `/v1/chat/completions`: OpenAI's shapes, with thoughts in `reasoning_content` as DeepSeek has them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use minke_engine::Token;
use serde_json::{Value, json};

use super::Shared;
use super::credentials::random;
use super::error::Failure;
use super::models::object;
use super::parameters::{self, Asked};
use super::reply::{End, Reply, Said, Usage};
use crate::talker::Talker;
use crate::think::Part;

/// Between comments that keep a connection from looking dead while nothing is said.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub async fn complete(State(shared): State<Shared>, body: Bytes) -> Result<Response, Failure> {
    let begin = Instant::now();
    let Asked { model, messages, settings, stream, include_usage, logprobs } = parameters::parse(&body)?;
    let thread = shared.loaded.get(&model).await?;
    let reply = Reply::begin(&shared, thread, messages, settings, begin).await?;
    let head = Head::new(&shared, model)?;
    if !stream {
        return whole(reply, &head, logprobs).await;
    }
    let first = head.chunk(&json!({ "role": "assistant", "content": null, "reasoning_content": "" }), None);
    let chunks = VecDeque::from([first.to_string()]);
    let state = Chunks { reply, head, include_usage, logprobs: logprobs.then(Vec::new), chunks, complete: false };
    let events = unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok::<Event, Infallible>(Event::default().data(chunk)), state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")).into_response())
}

/// What all parts of a response begin with.
struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Head {
    fn new(shared: &Shared, model: String) -> Result<Head, Failure> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (version, isa) = (env!("CARGO_PKG_VERSION"), shared.loaded.cpu().isa().name());
        let (precision, kv) = (shared.loaded.precision().name(), shared.loaded.kv().name());
        let id = format!("chatcmpl-{}", &random()?[..24]);
        // What the same seed gives the same reply on.
        Ok(Head { id, created, model, fingerprint: format!("minke-{version}-{precision}-kv-{kv}-{isa}") })
    }

    fn object(&self, kind: &str, choices: &Value, usage: &Value) -> Value {
        let Head { id, created, model, fingerprint } = self;
        json!({
            "id": id, "object": kind, "created": created, "model": model, "system_fingerprint": fingerprint,
            "choices": choices, "usage": usage,
        })
    }

    /// A chunk of a stream; the last one says why it ended, and the usage.
    fn chunk(&self, delta: &Value, end: Option<(End, Usage)>) -> Value {
        let reason = end.map(|(end, _)| finish_reason(end));
        let choices = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }]);
        self.object("chat.completion.chunk", &choices, &end.map_or(Value::Null, |(_, usage)| as_object(usage)))
    }
}

/// A stream's chunks: what is ready, and how to get more. Dropped with its response, it drops the reply.
struct Chunks {
    reply: Reply,
    head: Head,
    include_usage: bool,
    /// Log-probabilities that wait for text to go with, if they are asked for.
    logprobs: Option<Vec<(Part, Value)>>,
    chunks: VecDeque<String>,
    complete: bool,
}

impl Chunks {
    async fn next(&mut self) -> Option<String> {
        while self.chunks.is_empty() && !self.complete {
            match self.reply.next().await {
                Ok(said) => self.take(&said),
                Err(failure) => {
                    self.chunks.push_back(failure.object().to_string());
                    self.complete = true;
                }
            }
        }
        self.chunks.pop_front()
    }

    fn take(&mut self, said: &Said) {
        if let (Some(waiting), Some((token, Some(part)))) = (&mut self.logprobs, said.token) {
            waiting.push((part, scored(self.reply.model(), token)));
        }
        if !said.thought.is_empty() {
            self.push(&json!({ "content": null, "reasoning_content": said.thought }), Some(Part::Thought));
        }
        if !said.answer.is_empty() {
            self.push(&json!({ "content": said.answer, "reasoning_content": null }), Some(Part::Answer));
        }
        if let Some(end) = said.end {
            let usage = self.reply.usage;
            let mut last = self.head.chunk(&json!({ "content": "", "reasoning_content": null }), Some((end, usage)));
            self.add_logprobs(&mut last, None);
            self.chunks.push_back(last.to_string());
            if self.include_usage {
                let usage = self.head.object("chat.completion.chunk", &json!([]), &as_object(usage));
                self.chunks.push_back(usage.to_string());
            }
            self.chunks.push_back("[DONE]".into());
            self.complete = true;
        }
    }

    fn push(&mut self, delta: &Value, part: Option<Part>) {
        let mut chunk = self.head.chunk(delta, None);
        self.add_logprobs(&mut chunk, part);
        self.chunks.push_back(chunk.to_string());
    }

    /// Puts the log-probabilities of a part, or of all, to a chunk.
    fn add_logprobs(&mut self, chunk: &mut Value, part: Option<Part>) {
        if let Some(waiting) = &mut self.logprobs {
            let now = waiting.extract_if(.., |(of, _)| part.is_none_or(|part| part == *of)).collect();
            chunk["choices"][0]["logprobs"] = by_parts(now);
        }
    }
}

/// A response in one piece.
async fn whole(mut reply: Reply, head: &Head, logprobs: bool) -> Result<Response, Failure> {
    let (mut thought, mut answer, mut scores) = (String::new(), String::new(), Vec::new());
    let end = loop {
        let said = reply.next().await?;
        thought += &said.thought;
        answer += &said.answer;
        if let (true, Some((token, Some(part)))) = (logprobs, said.token) {
            scores.push((part, scored(reply.model(), token)));
        }
        if let Some(end) = said.end {
            break end;
        }
    };
    let reasoning = if thought.is_empty() { Value::Null } else { thought.into() };
    let choices = json!([{
        "index": 0,
        "message": { "role": "assistant", "content": answer, "reasoning_content": reasoning },
        "logprobs": if logprobs { by_parts(scores) } else { Value::Null },
        "finish_reason": finish_reason(end),
    }]);
    Ok(object(&head.object("chat.completion", &choices, &as_object(reply.usage))).into_response())
}

fn finish_reason(end: End) -> &'static str {
    match end {
        End::Stop => "stop",
        End::Length => "length",
    }
}

/// The engine does not tell yet what it found in its cache.
fn as_object(usage: Usage) -> Value {
    let Usage { prompt, completion, thought } = usage;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": thought },
    })
}

/// A token with the logarithm of the probability that it was drawn with: after temperature and filters.
fn scored(model: &Talker, token: Token) -> Value {
    let text = model.tokenizer().decode(&[token.id], false).unwrap_or_default();
    // A part of a character has no text of its own.
    let bytes = (!text.contains('\u{fffd}')).then_some(text.as_bytes());
    json!({ "token": text, "logprob": token.log_prob, "bytes": bytes, "top_logprobs": [] })
}

/// Log-probabilities of the answer where OpenAI has them, those of the thought beside them.
fn by_parts(scores: Vec<(Part, Value)>) -> Value {
    let (thought, answer): (Vec<_>, Vec<_>) = scores.into_iter().partition(|(part, _)| *part == Part::Thought);
    let values = |scores: Vec<(Part, Value)>| scores.into_iter().map(|(_, value)| value).collect::<Vec<Value>>();
    json!({ "content": values(answer), "reasoning_content": values(thought) })
}
