//! The arena: blind battles between two models, votes, and the boards they make. This file has what its pages share.

pub mod battle;
mod battle_page;
pub mod board;
mod checksum;
mod fight;
pub mod kept;
pub mod model;
mod pace;
mod verified;

use std::sync::Arc;

use anyhow::{Context, Result};
use minke_arena::board::{Options, Standing};
use minke_arena::fit::Ties;
use minke_arena::pairing::next_pair;
use minke_arena::{Board, Counts, Question, Vote, VoteLog};

use super::Shared;
use super::error::Failure;
use super::loaded::blocking;
use super::reply::random_seed;
pub use checksum::Checksums;

/// The area in the navigation.
const AREA: &str = "/arena";

/// The store's log, as it is now.
async fn log(shared: &Shared) -> Result<VoteLog, Failure> {
    let path = shared.loaded.store().votes_file();
    blocking(move || Ok(VoteLog::open(path)?)).await
}

/// All votes in the log.
async fn votes(shared: &Shared) -> Result<Vec<Vote>, Failure> {
    Ok(log(shared).await?.votes().to_vec())
}

/// The two that meet next, A on the left, each with a seed.
async fn draw(models: Vec<String>, votes: Arc<[Vote]>) -> Result<[(String, u64); 2], Failure> {
    let (seed, seeds) = (random_seed()?, [random_seed()?, random_seed()?]);
    let drawn = blocking(move || Ok(next_pair(&models, &votes, seed))).await?;
    let (left, right) = drawn.map_err(|error| Failure::conflict(error.to_string()))?;
    Ok([(left, seeds[0]), (right, seeds[1])])
}

/// The leaderboard that votes make; none without votes on the question.
fn rated(votes: &[Vote], question: Question) -> Result<Option<Board>> {
    let counts = Counts::of(votes, question)?;
    let options = Options { ties: Ties::Half, bootstrap: None };
    let board = (counts.votes() > 0).then(|| minke_arena::board::board(&counts, options));
    board.transpose().context("the votes can't be rated")
}

/// The leaderboards there are.
struct Boards {
    answers: Option<Board>,
    thoughts: Option<Board>,
    /// By verifiers; what people like and what is right are never added up.
    judged: Option<Board>,
}

async fn boards(votes: Vec<Vote>) -> Result<Boards, Failure> {
    blocking(move || {
        let (judged, people): (Vec<Vote>, Vec<Vote>) = votes.into_iter().partition(|vote| vote.judge.is_some());
        Ok(Boards {
            answers: rated(&people, Question::Answer)?,
            thoughts: rated(&people, Question::Reasoning)?,
            judged: rated(&judged, Question::Answer)?,
        })
    })
    .await
}

/// The page of a model.
fn path_of(model: &str) -> String {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("name", model).finish();
    format!("{AREA}/model?{query}")
}

/// A rating with its interval, as a sentence says it.
fn in_words(Standing { rating, lower, upper, .. }: &Standing) -> String {
    format!("{rating:.0}, between {lower:.0} and {upper:.0}")
}

/// The beginning of a prompt, on one line.
fn shortened(prompt: &str) -> String {
    const SHOWN: usize = 100;
    let line = prompt.split_whitespace().collect::<Vec<&str>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
