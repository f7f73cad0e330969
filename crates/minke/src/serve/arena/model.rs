//! `/arena/model`: what a model's rating rests on: its battles, and the run and the idea that it comes from.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use maud::{Markup, html};
use minke_arena::Outcome;
use minke_arena::board::Standing;
use minke_lab::RunId;
use serde::Deserialize;

use super::kept::{self, Battle};
use super::{AREA, Boards, boards, in_words, path_of, shortened, votes};
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
    let boards = boards(votes).await?;
    let (store, wanted) = (Arc::clone(&shared), name.clone());
    let entry = blocking(move || store.loaded.store().named(&wanted)).await?;
    let origin = match entry.and_then(|entry| entry.run()) {
        Some(run) => origin(&shared, run).await?,
        None => None,
    };
    Ok(page(&visitor, &name, &boards, origin.as_ref(), &battles, on_it))
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
    boards: &Boards,
    origin: Option<&Origin>,
    battles: &[Battle],
    votes: usize,
) -> Markup {
    let Boards { answers, thoughts, judged } = boards;
    let rated: Vec<(&str, &Standing)> =
        [("answers", answers), ("thoughts", thoughts), ("answers, by verifiers", judged)]
            .into_iter()
            .filter_map(|(what, board)| Some((what, board.as_ref()?.models.iter().find(|s| s.model == name)?)))
            .collect();
    let others = votes.saturating_sub(battles.len());
    let body = html! {
        main.arena id="main" {
            p.quiet.note { a href=(AREA) { "Arena" } }
            h1 { (name) }
            dl.facts {
                @for (what, s) in &rated {
                    dt { "Rated on " (what) }
                    dd {
                        (in_words(s)) "; rank " (s.rank) ", "
                        (s.votes) (if s.votes == 1 { " vote" } else { " votes" })
                    }
                }
                @if rated.is_empty() { dt { "Rated" } dd { "not yet: nobody has voted on it" } }
                @if let Some(Origin { run, idea, sentence }) = origin {
                    dt { "Made by" }
                    dd {
                        a href={ "/runs/" (run) } { "run " (run) } ", with "
                        a href={ "/runs/" (run) "/rollouts" } { "every rollout" }
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::credentials::Person;

    #[test]
    fn a_model_of_a_run_leads_to_the_run_and_its_idea() {
        let person = Person { id: 1, name: "ada".into(), interests: String::new() };
        let visitor = Visitor { person, session: String::new(), csrf: String::new(), asked: 0 };
        let boards = Boards { answers: None, thoughts: None, judged: None };
        let origin = Origin { run: 7, idea: 3, sentence: "sums <first>".into() };
        let page = page(&visitor, "r7", &boards, Some(&origin), &[], 2).into_string();
        for part in
            ["href=\"/runs/7\"", "href=\"/runs/7/rollouts\"", "href=\"/ideas/3\"", "sums &lt;first&gt;", "2 more votes"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
