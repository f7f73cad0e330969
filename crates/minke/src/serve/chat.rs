//! The chat page: conversations that are kept here, and replies that are watched as they are written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use futures_util::stream::unfold;
use minke_model::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::conversations::{self, Written};
use super::error::Failure;
use super::guard::Visitor;
use super::loaded::blocking;
use super::models::object;
use super::parameters::Settings;
use super::reply::{End, Reply, Said};
use super::steps::Steps;
use super::{Shared, chat_page};
use crate::think::Part;

/// Lines that may wait for a slow reader before the writer does.
pub const LINES: usize = 256;
/// Between lines that keep a connection from looking dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A reply is kept as far as it has come this often.
const KEPT_EVERY: Duration = Duration::from_secs(2);

pub async fn start() -> Redirect {
    Redirect::to("/chat")
}

/// With which model a conversation is to begin.
#[derive(Deserialize)]
pub struct With {
    model: Option<String>,
}

pub async fn new(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(With { model }): Query<With>,
) -> Result<impl IntoResponse, Failure> {
    let person = visitor.person.id;
    let conversations = shared.database.with(move |c| conversations::of_person(c, person)).await?;
    let models = models(&shared).await?;
    Ok(chat_page::new(&visitor, &conversations, &models, model.as_deref()))
}

pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
) -> Result<impl IntoResponse, Failure> {
    let (person, id) = (visitor.person.id, id(&conversation)?);
    let found = shared.database.with(move |c| {
        let Some(conversation) = conversations::one(c, person, id)? else { return Ok(None) };
        let (turns, share) = (conversations::turns(c, id)?, conversations::share_of(c, person, id)?);
        Ok(Some((conversation, turns, share, conversations::of_person(c, person)?)))
    });
    let (conversation, turns, share, conversations) = found.await?.ok_or_else(missing)?;
    let models = models(&shared).await?;
    let share = share.map(|token| format!("{}/share/{token}", shared.site.url()));
    Ok(chat_page::one(&visitor, &conversations, &models, &conversation, &turns, share.as_deref()))
}

pub async fn create(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
) -> Result<impl IntoResponse, Failure> {
    let id = shared.database.with(move |c| conversations::create(c, visitor.person.id)).await?;
    Ok(object(&json!({ "id": id })))
}

pub async fn delete(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
) -> Result<Redirect, Failure> {
    let id = id(&conversation)?;
    let there = shared.database.with(move |c| conversations::delete(c, visitor.person.id, id)).await?;
    if !there {
        return Err(missing());
    }
    stop_writing(&shared, id);
    Ok(Redirect::to("/chat"))
}

pub async fn stop(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
) -> Result<impl IntoResponse, Failure> {
    let id = id(&conversation)?;
    let there = shared.database.with(move |c| conversations::one(c, visitor.person.id, id)).await?;
    there.ok_or_else(missing)?;
    stop_writing(&shared, id);
    Ok(object(&json!({})))
}

/// What the page says to a model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    text: String,
    model: String,
    think: bool,
    /// For whoever wants the same reply again; otherwise it is another each time.
    #[serde(default)]
    seed: Option<u64>,
}

/// Says something, and streams the reply: one JSON object a line.
pub async fn say(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
    body: Bytes,
) -> Result<impl IntoResponse, Failure> {
    let (person, id) = (visitor.person.id, id(&conversation)?);
    let words: Words = serde_json::from_slice(&body).map_err(|error| Failure::bad_request(error.to_string()))?;
    if words.text.trim().is_empty() {
        return Err(Failure::bad_request("there is nothing to say; write something first"));
    }
    shared.database.with(move |c| conversations::one(c, person, id)).await?.ok_or_else(missing)?;
    let pen = Pen::take(&shared, id)?;
    let (model, text) = (words.model.clone(), words.text.clone());
    let said = shared.database.with(move |c| conversations::say(c, person, id, &model, &text));
    let (before, turn) = said.await?.ok_or_else(missing)?;
    let mut messages = conversations::messages(&before);
    messages.push(Message::new("user", words.text));
    let (lines, receiver) = mpsc::channel(LINES);
    let writer = Writer { shared, pen, turn, lines, steps: Steps::default(), written: Written::default() };
    // A task of its own: what was written is kept also when nobody reads it any more.
    tokio::spawn(async move {
        let settings = Settings { think: words.think, seed: words.seed, ..Settings::default() };
        writer.run(&words.model, messages, settings).await;
    });
    Ok(streamed(receiver))
}

/// A response of lines as they come.
pub fn streamed(receiver: mpsc::Receiver<Bytes>) -> impl IntoResponse {
    let body = Body::from_stream(unfold(receiver, |mut receiver| async {
        let line = match timeout(KEEP_ALIVE, receiver.recv()).await {
            Ok(line) => line?,
            Err(_) => Bytes::from_static(b"\n"),
        };
        Some((Ok::<Bytes, Infallible>(line), receiver))
    }));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body)
}

/// Held by whoever writes in a conversation: one at a time.
struct Pen {
    shared: Shared,
    conversation: i64,
    /// Told when the reply is to be stopped.
    stop: Arc<Notify>,
}

impl Pen {
    fn take(shared: &Shared, conversation: i64) -> Result<Pen, Failure> {
        let stop = Arc::new(Notify::new());
        match writing(shared).entry(conversation) {
            Entry::Vacant(place) => place.insert(Arc::clone(&stop)),
            Entry::Occupied(_) => {
                return Err(Failure::conflict("the reply before is still being written; stop it first, or wait"));
            }
        };
        Ok(Pen { shared: Arc::clone(shared), conversation, stop })
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        writing(&self.shared).remove(&self.conversation);
    }
}

/// Writes a reply: to the page, and into the database.
struct Writer {
    shared: Shared,
    pen: Pen,
    turn: i64,
    lines: mpsc::Sender<Bytes>,
    steps: Steps,
    written: Written,
}

impl Writer {
    async fn run(mut self, model: &str, messages: Vec<Message>, settings: Settings) {
        let outcome = self.write(model, messages, settings).await;
        let ended = *outcome.as_ref().unwrap_or(&"failed");
        self.written.ended = Some(ended);
        self.keep().await;
        let thought_ms = self.written.thought_ms;
        let tokens: usize = self.written.steps.iter().map(|step| step.tokens).sum();
        // Whoever reads the last line may say the next thing.
        let Writer { pen, lines, .. } = self;
        drop(pen);
        if let Err(failure) = outcome {
            send(&lines, &failure.object()).await;
        }
        let done = json!({ "ended": ended, "thought_ms": thought_ms, "thought_tokens": tokens });
        send(&lines, &json!({ "done": done })).await;
    }

    /// Writes it, and says how it ended.
    async fn write(
        &mut self,
        model: &str,
        messages: Vec<Message>,
        settings: Settings,
    ) -> Result<&'static str, Failure> {
        let (shared, stop, lines) = (Arc::clone(&self.shared), Arc::clone(&self.pen.stop), self.lines.clone());
        let stopped = async {
            tokio::select! {
                () = stop.notified() => Ok("stopped"),
                () = lines.closed() => Ok("stopped"),
                // The reply would say so itself, if it is not the page that keeps us waiting.
                () = shared.closing() => Err(Failure::closing()),
            }
        };
        tokio::select! {
            biased;
            ended = stopped => ended,
            ended = self.write_all(model, messages, settings) => ended,
        }
    }

    /// Writes all of it. It may be dropped while it waits: what has been said until then is in `written`.
    async fn write_all(
        &mut self,
        model: &str,
        messages: Vec<Message>,
        settings: Settings,
    ) -> Result<&'static str, Failure> {
        let state = if self.shared.loaded.has(model) { "waiting" } else { "loading" };
        send(&self.lines, &json!({ "state": state })).await;
        let thread = self.shared.loaded.get(model).await?;
        let mut reply = Reply::begin(&self.shared, thread, messages, settings, Instant::now()).await?;
        let (mut begin, mut kept) = (None, Instant::now());
        loop {
            let said = reply.next().await?;
            let begin: &mut Instant = begin.get_or_insert_with(Instant::now);
            for line in self.take(&said, begin) {
                send(&self.lines, &line).await;
            }
            match said.end {
                Some(End::Stop) => return Ok("stop"),
                Some(End::Length) => return Ok("length"),
                None => {}
            }
            if kept.elapsed() > KEPT_EVERY {
                self.keep().await;
                kept = Instant::now();
            }
        }
    }

    /// Adds to what is written; the lines that tell the page.
    fn take(&mut self, said: &Said, begin: &Instant) -> Vec<Value> {
        let mut lines = Vec::new();
        let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let of_thought = matches!(said.token, Some((_, Some(Part::Thought))));
        if of_thought {
            self.steps.token();
        }
        if of_thought || !said.thought.is_empty() {
            self.written.thought_ms = ms;
        }
        for (at, text) in self.steps.added(&said.thought, ms) {
            let step = &self.steps.as_slice()[at];
            lines.push(json!({ "step": at, "ms": step.ms, "tokens": step.tokens, "text": text }));
        }
        if !said.answer.is_empty() {
            self.written.answer += &said.answer;
            lines.push(json!({ "answer": said.answer }));
        }
        lines
    }

    /// Keeps what is written so far.
    async fn keep(&mut self) {
        self.written.steps = self.steps.as_slice().to_vec();
        let (id, turn, written) = (self.pen.conversation, self.turn, self.written.clone());
        // The failure has been told on the terminal; the page can't do anything about it.
        let _ = self.shared.database.with(move |c| conversations::write(c, id, turn, &written)).await;
    }
}

/// Sends the page a line; that nobody reads it any more is noticed elsewhere.
pub async fn send(lines: &mpsc::Sender<Bytes>, value: &Value) {
    let _ = lines.send(format!("{value}\n").into()).await;
}

/// Replies that are being written, by conversation.
pub fn writing(shared: &Shared) -> MutexGuard<'_, BTreeMap<i64, Arc<Notify>>> {
    shared.writing.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stop_writing(shared: &Shared, id: i64) {
    if let Some(stop) = writing(shared).get(&id) {
        // Kept for the writer where it does not wait just now.
        stop.notify_one();
    }
}

/// The names of all models.
pub async fn models(shared: &Shared) -> Result<Vec<String>, Failure> {
    let shared = Arc::clone(shared);
    let entries = blocking(move || shared.loaded.store().all()).await?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

/// A conversation's number.
pub fn id(text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| missing())
}

/// There is no such conversation, or it is another's.
pub fn missing() -> Failure {
    Failure::not_found("you have no such conversation")
}
