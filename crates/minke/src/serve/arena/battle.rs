//! `/arena/battle`: a prompt to two models that nobody names, and the vote on what they reply.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use maud::Markup;
use minke_arena::{Outcome, Vote, VoteLog};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::fight::Fight;
use super::kept::{self, Voted};
use super::{battle_page, boards, draw, votes};
use crate::serve::Shared;
use crate::serve::chat::{LINES, models, streamed};
use crate::serve::error::Failure;
use crate::serve::guard::{Visitor, field};
use crate::serve::lab;

pub async fn new(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Result<Markup, Failure> {
    Ok(battle_page::new(&visitor, models(&shared).await?.len()))
}

/// What the page asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    prompt: String,
}

/// Draws two models, and streams their replies: one JSON object a line.
pub async fn start(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Result<impl IntoResponse, Failure> {
    let Asked { prompt } = serde_json::from_slice(&body).map_err(|error| Failure::bad_request(error.to_string()))?;
    if prompt.trim().is_empty() {
        return Err(Failure::bad_request("there is nothing to ask; write something first"));
    }
    let (models, votes) = (models(&shared).await?, votes(&shared).await?);
    // What a verifier thinks of models says nothing of how sure people's ratings are.
    let votes: Arc<[Vote]> = votes.into_iter().filter(|vote| vote.judge.is_none()).collect();
    let sides = draw(models.clone(), Arc::clone(&votes)).await?;
    let (asked, drawn) = (prompt.clone(), sides.clone());
    let id = shared.database.with(move |c| kept::begin(c, visitor.person.id, &asked, &drawn)).await?;
    let (lines, receiver) = mpsc::channel(LINES);
    tokio::spawn(Fight { shared, id, prompt, sides, models, votes, lines }.run());
    Ok(streamed(receiver))
}

pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(battle): Path<String>,
) -> Result<Markup, Failure> {
    let person = visitor.person.id;
    let battle = shared.database.with(move |c| kept::one(c, &battle)).await?;
    let battle = battle.filter(|battle| battle.is_open_to(person)).ok_or_else(missing)?;
    if battle.verdict.is_none() {
        return Ok(battle_page::blind(&visitor, &battle));
    }
    let boards = boards(votes(&shared).await?).await?;
    Ok(battle_page::open(&visitor, &battle, boards.answers.as_ref()))
}

pub async fn vote(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(battle): Path<String>,
    body: Bytes,
) -> Result<Redirect, Failure> {
    let person = visitor.person;
    let (wanted, id) = (battle.clone(), person.id);
    let there = shared.database.with(move |c| kept::one(c, &wanted)).await?;
    there.filter(|battle| battle.is_open_to(id)).ok_or_else(missing)?;
    let named = |name: &str| field(&body, name).map(|word| Outcome::from_name(&word));
    let answers = named("answers").flatten().ok_or_else(|| {
        Failure::bad_request("say whose answer is better: answers must be left, right, tie or both-bad")
    })?;
    let thoughts = named("thoughts").map(|outcome| {
        outcome.ok_or_else(|| Failure::bad_request("thoughts must be left, right, tie or both-bad, or be left out"))
    });
    let (thoughts, log) = (thoughts.transpose()?, shared.loaded.store().votes_file());
    let id = battle.clone();
    let voted = shared.database.with(move |connection| {
        kept::vote(connection, person.id, &id, answers, thoughts, |battle, thoughts| {
            let mut log = VoteLog::open(&log)?;
            // After a crash between the two the log may know of the vote, and the database not.
            if log.votes().iter().any(|vote| vote.battle.as_ref() == Some(&battle.id)) {
                return Ok(false);
            }
            log.append(&Vote {
                reasoning: thoughts,
                voter: Some(person.name.clone()),
                ms: Some(lab::now()),
                battle: Some(battle.id.clone()),
                ..Vote::new(&*battle.sides[0].model, &*battle.sides[1].model, answers)
            })?;
            Ok(true)
        })
    });
    match voted.await? {
        Voted::Counted => Ok(Redirect::to(&format!("/arena/battle/{battle}"))),
        Voted::Missing => Err(Failure::conflict("this battle is somebody else's, who has voted on it")),
        Voted::Again => Err(Failure::conflict("there is a vote on this battle already; one is all that a battle has")),
        Voted::TooEarly => Err(Failure::conflict("both must have answered to their end before there is a vote")),
        Voted::Failed => Err(Failure::conflict("this battle broke off, so there is nothing to vote on; start another")),
    }
}

/// There is no such battle, or its vote is still to come.
fn missing() -> Failure {
    Failure::not_found("there is no such battle; somebody else's can be read once they have voted")
}
