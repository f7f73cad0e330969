//! A battle under way: two models reply, and their replies are shown side by side without saying which is whose.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::StatusCode;
use minke_arena::Vote;
use minke_model::Message;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::draw;
use super::kept::{self, Written};
use super::pace::{Pace, Piece, Place};
use crate::serve::Shared;
use crate::serve::chat::send;
use crate::serve::engine_thread::EngineThread;
use crate::serve::error::Failure;
use crate::serve::loaded::blocking;
use crate::serve::parameters::Settings;
use crate::serve::reply::{End, Reply};
use crate::serve::steps::Steps;
use crate::terminal::say;
use crate::think::Part;

/// Pieces that may wait to be shown.
const PIECES: usize = 256;
/// What its reader is told of a battle that failed; the reason could say which model it is.
const FAILED: &str = "One of the two could not answer, so there is nothing to vote on. Start another battle, perhaps with \
                      another prompt; whoever runs the server finds the reason in its terminal.";

/// A battle to be fought.
pub struct Fight {
    pub shared: Shared,
    pub id: String,
    pub prompt: String,
    /// The models of A and B, with their seeds.
    pub sides: [(String, u64); 2],
    /// Who else could be drawn, and by what votes.
    pub models: Vec<String>,
    pub votes: Arc<[Vote]>,
    /// One JSON object a line, for the page.
    pub lines: mpsc::Sender<Bytes>,
}

/// What a side has to show.
enum Heard {
    Text(Place, String),
    Ended(&'static str),
}

impl Fight {
    /// Fights it, and keeps what both have said.
    pub async fn run(mut self) {
        send(&self.lines, &json!({ "battle": self.id })).await;
        let closed = self.lines.clone();
        let fought = tokio::select! {
            biased;
            () = closed.closed() => None,
            fought = self.fight_on() => Some(fought),
        };
        let Fight { shared, id, lines, .. } = &self;
        let battle = id.clone();
        let kept = match fought {
            Some(Ok(written)) => shared.database.with(move |c| kept::finish(c, &battle, &written)).await,
            Some(Err((side, failure))) => {
                let model = &self.sides[side].0;
                say(&format!(
                    "minke: {model} could not answer in battle {id}: {}",
                    failure.object()["error"]["message"]
                ));
                let given_up = shared.database.with(move |c| kept::give_up(c, &battle, "failed")).await;
                given_up.and(Err(failure))
            }
            None => shared.database.with(move |c| kept::give_up(c, &battle, "stopped")).await,
        };
        let last = match kept {
            Ok(()) => json!({ "done": true }),
            Err(_) => json!({ "error": { "message": FAILED } }),
        };
        send(lines, &last).await;
    }

    /// Fights it with others for those that can't read the prompt: not every model knows every letter, or as many.
    async fn fight_on(&mut self) -> Result<[Written; 2], (usize, Failure)> {
        loop {
            match self.fight().await {
                Err((side, failure)) if failure.status == StatusCode::BAD_REQUEST && self.models.len() > 2 => {
                    // Nothing has been shown: the other side waits for this one's first word.
                    let unable = self.sides[side].0.clone();
                    self.models.retain(|model| *model != unable);
                    let redrawn = draw(self.models.clone(), Arc::clone(&self.votes)).await;
                    self.sides = redrawn.map_err(|failure| (side, failure))?;
                    let (id, sides) = (self.id.clone(), self.sides.clone());
                    let kept = self.shared.database.with(move |c| kept::redraw(c, &id, &sides)).await;
                    kept.map_err(|failure| (side, failure))?;
                }
                fought => return fought,
            }
        }
    }

    /// Both replies, or the side that could not reply and why.
    async fn fight(&self) -> Result<[Written; 2], (usize, Failure)> {
        let (heard, mut all) = mpsc::channel(PIECES);
        let (over, left_is_over) = oneshot::channel();
        // The left one first: where memory is short, it is the right one that waits.
        let thread = self.shared.loaded.get(&self.sides[0].0).await.map_err(|failure| (0, failure))?;
        let left = async {
            let written = self.reply(0, thread, &heard).await;
            // Whatever it is, the other side may go on.
            let _ = over.send(());
            written.map_err(|failure| (0, failure))
        };
        let right = async {
            let mut thread = self.shared.loaded.get(&self.sides[1].0).await;
            if thread.as_ref().is_err_and(Failure::is_passing) {
                let _ = left_is_over.await;
                thread = self.shared.loaded.get(&self.sides[1].0).await;
            }
            let reply = async { self.reply(1, thread?, &heard).await };
            reply.await.map_err(|failure| (1, failure))
        };
        let show = async {
            let mut pace = Pace::default();
            let mut told = [None; 2];
            while told.iter().any(|told| *told != Some("")) {
                let Some((side, heard)) = all.recv().await else { break };
                match heard {
                    Heard::Text(place, text) => pace.push(side, place, &text),
                    Heard::Ended(how) => {
                        pace.end(side);
                        told[side] = Some(how);
                    }
                }
                for piece in pace.release() {
                    send(&self.lines, &line(&piece)).await;
                }
                for (side, told) in told.iter_mut().enumerate() {
                    if let Some(how) = told.filter(|how| !how.is_empty() && pace.is_over(side)) {
                        send(&self.lines, &json!({ "side": side, "end": how })).await;
                        *told = Some("");
                    }
                }
            }
            Ok(())
        };
        let (left, right, ()) = tokio::try_join!(left, right, show)?;
        Ok([left, right])
    }

    /// A side's reply.
    async fn reply(
        &self,
        side: usize,
        thread: Arc<EngineThread>,
        heard: &mpsc::Sender<(usize, Heard)>,
    ) -> Result<Written, Failure> {
        let (model, seed) = &self.sides[side];
        let (shared, name) = (Arc::clone(&self.shared), model.clone());
        let checksum = tokio::spawn(blocking(move || match shared.loaded.store().named(&name)? {
            Some(entry) => shared.checksums.of(&entry.path),
            None => anyhow::bail!("{name} has gone from the store"),
        }));
        let messages = vec![Message::new("user", self.prompt.as_str())];
        let settings = Settings { seed: Some(*seed), ..Settings::default() };
        let mut reply = Reply::begin(&self.shared, thread, messages, settings, Instant::now()).await?;
        let (mut steps, mut written, mut begin) = (Steps::default(), Written::default(), None);
        let ended = loop {
            let said = reply.next().await?;
            let ms = begin.get_or_insert_with(Instant::now).elapsed().as_millis();
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            let of_thought = matches!(said.token, Some((_, Some(Part::Thought))));
            if of_thought {
                steps.token();
            }
            if of_thought || !said.thought.is_empty() {
                written.thought_ms = ms;
            }
            for (at, text) in steps.added(&said.thought, ms) {
                let _ = heard.send((side, Heard::Text(Place::Step(at), text))).await;
            }
            if !said.answer.is_empty() {
                written.answer += &said.answer;
                let _ = heard.send((side, Heard::Text(Place::Answer, said.answer))).await;
            }
            match said.end {
                Some(End::Stop) => break "stop",
                Some(End::Length) => break "length",
                None => {}
            }
        };
        drop(reply);
        let _ = heard.send((side, Heard::Ended(ended))).await;
        written.checksum = checksum.await.map_err(|error| Failure::internal(&error.into()))??;
        written.steps = steps.as_slice().to_vec();
        written.ended = Some(ended.into());
        Ok(written)
    }
}

/// A piece of a reply for the page: neither times nor tokens, which differ from model to model.
fn line(Piece { side, place, text }: &Piece) -> Value {
    match place {
        Place::Step(at) => json!({ "side": side, "step": at, "text": text }),
        Place::Answer => json!({ "side": side, "answer": text }),
    }
}
