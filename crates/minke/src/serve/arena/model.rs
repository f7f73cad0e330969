//! `/arena/model`: what a model's rating rests on: its battles, and the run and the idea that it comes from.

use axum::Extension;
use axum::extract::{Query, State};
use maud::{Markup, html};
use minke_arena::board::Standing;
use minke_arena::{Board, Outcome, Question, Vote};
use minke_lab::RunId;
use serde::Deserialize;

use super::kept::{self, Battle};
use super::{AREA, in_words, path_of, rated, run_of, votes};
use crate::serve::Shared;
use crate::serve::chat::models;
use crate::serve::error::Failure;
use crate::serve::guard::Visitor;
use crate::serve::loaded::blocking;
use crate::serve::page::{self, time};

/// Which model.
#[derive(Deserialize)]
pub struct Asked {
    name: String,
}

/// A run on the lab, with its idea.
struct Origin {
    run: u32,
    idea: u32,
    sentence: String,
}

pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(Asked { name }): Query<Asked>,
) -> Result<Markup, Failure> {
    let (names, votes, model) = (models(&shared).await?, votes(&shared).await?, name.clone());
    let battles = shared.database.with(move |c| kept::of_model(c, &model)).await?;
    let on_it = votes.iter().filter(|vote| vote.left == name || vote.right == name).count();
    if on_it == 0 && !names.contains(&name) {
        return Err(Failure::not_found("there is no such model, neither in the store nor on the board"));
    }
    let boards = blocking(move || {
        let (judged, people): (Vec<Vote>, Vec<Vote>) = votes.into_iter().partition(|vote| vote.judge.is_some());
        Ok([rated(&people, Question::Answer)?, rated(&people, Question::Reasoning)?, rated(&judged, Question::Answer)?])
    });
    let origin = match run_of(&name) {
        Some(run) => origin(&shared, run).await?,
        None => None,
    };
    Ok(page(&visitor, &name, &boards.await?, origin.as_ref(), &battles, on_it))
}

async fn origin(shared: &Shared, run: u32) -> Result<Option<Origin>, Failure> {
    shared
        .desk
        .with(move |host| {
            let lab = host.lab();
            let idea = lab.runs().get(&RunId(run)).map(|run| run.idea);
            Ok(idea.map(|idea| {
                let sentence = lab.ideas().get(&idea).map_or_else(String::new, |idea| idea.sentence.clone());
                Origin { run, idea: idea.0, sentence }
            }))
        })
        .await
}

fn page(
    visitor: &Visitor,
    name: &str,
    boards: &[Option<Board>; 3],
    origin: Option<&Origin>,
    battles: &[Battle],
    votes: usize,
) -> Markup {
    let questions = ["answers", "thoughts", "answers, by verifiers"];
    let rated: Vec<(&str, &Standing)> = questions
        .into_iter()
        .zip(boards)
        .filter_map(|(what, board)| Some((what, board.as_ref()?.models.iter().find(|s| s.model == name)?)))
        .collect();
    let others = votes.saturating_sub(battles.len());
    let body = html! {
        main.wide id="main" {
            p.quiet.note { a href=(AREA) { "Arena" } }
            h1 { (name) }
            dl.facts {
                @for (what, s) in &rated {
                    dt { "Rated on " (what) }
                    dd { (in_words(s)) "; rank " (s.rank) ", " (s.votes) (if s.votes == 1 { " vote" } else { " votes" }) }
                }
                @if rated.is_empty() { dt { "Rated" } dd { "not yet: nobody has voted on it" } }
                @if let Some(Origin { run, idea, sentence }) = origin {
                    dt { "Made by" }
                    dd { a href={ "/runs/" (run) } { "run " (run) } ", where its rollouts are kept step by step" }
                    dt { "For the idea" }
                    dd { a href={ "/ideas/" (idea) } { (sentence) } }
                }
            }
            h2 { "Its battles" }
            @if battles.is_empty() { p.quiet { "None that was kept." } }
            ul.rows.battles { @for battle in battles { (row(battle, name)) } }
            @if others > 0 {
                p.quiet.note {
                    (others) (if others == 1 { " more vote" } else { " more votes" })
                    " came from the terminal or from files, or from battles long ago, and are in the log alone."
                }
            }
        }
    };
    page::full(visitor, AREA, name, &[], &body)
}

/// A battle from where this model stands.
fn row(battle: &Battle, name: &str) -> Markup {
    let is_left = battle.sides[0].model == name;
    let rival = &battle.sides[usize::from(is_left)].model;
    let mine = |outcome: Outcome| match if is_left { outcome } else { outcome.swapped() } {
        Outcome::Left => "won",
        Outcome::Right => "lost",
        Outcome::Tie => "tie",
        Outcome::BothBad => "both bad",
    };
    html! {
        li {
            div {
                a href={ "/arena/battle/" (battle.id) } { (shortened(&battle.prompt)) }
                @if let Some(verdict) = battle.verdict {
                    div.quiet {
                        "against " a href=(path_of(rival)) { (rival) } ", " (battle.name) ", " (time(verdict.at)) " UTC"
                    }
                }
            }
            @if let Some(verdict) = battle.verdict {
                span.outcome {
                    (mine(verdict.answers))
                    @if let Some(thoughts) = verdict.thoughts { span.quiet { " thoughts: " (mine(thoughts)) } }
                }
            }
        }
    }
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
