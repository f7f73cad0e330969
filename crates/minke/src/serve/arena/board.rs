//! `/arena`: the leaderboards, on answers and on thoughts, by people and by verifiers.

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use minke_arena::Board;
use minke_arena::board::{FirstPlace, Standing};

use super::{AREA, Boards, boards, in_words, kept, log, path_of, shortened, verified};
use crate::serve::Shared;
use crate::serve::chat::models;
use crate::serve::error::Failure;
use crate::serve::guard::Visitor;
use crate::serve::page;
use crate::units::grouped;

/// Width and height of the drawing of an interval.
const WIDTH: f64 = 180.0;
const HEIGHT: f64 = 18.0;

pub async fn show(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Result<Markup, Failure> {
    let (names, log) = (models(&shared).await?, log(&shared).await?);
    let person = visitor.person.id;
    let waiting = shared.database.with(move |c| kept::waiting(c, person)).await?;
    let Boards { answers, thoughts, judged } = boards(log.votes().to_vec()).await?;
    let voted = |name: &String| answers.iter().any(|board| board.models.iter().any(|s| s.model == *name));
    let new: Vec<&String> = names.iter().filter(|name| !voted(name)).collect();
    let body = html! {
        main.arena id="main" {
            header.lead {
                h1 { "Arena" }
                a.do href="/arena/battle" { "Start a battle" }
            }
            p.quiet { "Two models answer the same question, nobody knows which they are, and a person votes." }
            @if !waiting.is_empty() {
                h2 { "Waiting for your vote" }
                ul.rows {
                    @for battle in &waiting {
                        li { a href={ "/arena/battle/" (battle.id) } { (shortened(&battle.prompt)) } }
                    }
                }
            }
            h2 { "Answers" }
            @match &answers {
                Some(board) => (table(board)),
                None => p.notice { "No votes yet: the first battle makes the board." },
            }
            @if let Some(board) = &thoughts { h2 { "Thoughts" } (table(board)) }
            @if let Some(board) = &judged {
                h2 { "By verifiers" }
                p.quiet { "Battles on tasks whose answers can be checked, voted on by the tasks' own verifiers." }
                (table(board))
            }
            (verified::section(log.verified()))
            @if !new.is_empty() {
                h2 { "Not voted on yet" }
                ul.names { @for name in new { li { a href=(path_of(name)) { (name) } } } }
            }
        }
    };
    Ok(page::full(&visitor, AREA, "Arena", &[], &body))
}

fn table(board: &Board) -> Markup {
    let ends =
        |fold: fn(f64, f64) -> f64, of: fn(&Standing) -> f64| board.models.iter().map(of).reduce(fold).unwrap_or(0.0);
    let scale = (ends(f64::min, |s| s.lower), ends(f64::max, |s| s.upper));
    html! {
        div.scroll {
            table.board {
                thead {
                    tr {
                        th { "Rank" } th { "Model" } th.number { "Rating" } th { "95 % interval" } th.number { "Votes" }
                    }
                }
                tbody {
                    @for standing in &board.models {
                        tr {
                            td { (standing.rank) }
                            th scope="row" { a href=(path_of(&standing.model)) { (standing.model) } }
                            td.number { (format!("{:.0}", standing.rating)) }
                            td {
                                div.range {
                                    (interval(standing, scale))
                                    span { (format!("{:.0}–{:.0}", standing.lower, standing.upper)) }
                                }
                            }
                            td.number { (grouped(standing.votes)) }
                        }
                    }
                }
            }
        }
        @for note in notes(board) { p.quiet.note { (note) } }
    }
}

/// A rating on its interval, on the table's scale.
fn interval(standing: &Standing, (low, high): (f64, f64)) -> Markup {
    let x = |rating: f64| 5.0 + (rating - low) / (high - low).max(1.0) * (WIDTH - 10.0);
    let (lower, rating, upper, y) = (x(standing.lower), x(standing.rating), x(standing.upper), HEIGHT / 2.0);
    let line = format!("M{lower:.1} {y}H{upper:.1}M{lower:.1} {}v8M{upper:.1} {}v8", y - 4.0, y - 4.0);
    html! {
        svg.interval viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT) role="img"
            aria-label=(in_words(standing)) {
            path d=(line) {}
            circle cx=(format!("{rating:.1}")) cy=(y) r="4" {}
        }
    }
}

/// How far the numbers may be trusted.
fn notes(board: &Board) -> Vec<String> {
    let mut notes = Vec::new();
    let first: Vec<&str> = board.models.iter().filter(|s| s.rank == 1).map(|s| s.model.as_str()).collect();
    if let [others @ .., last] = first.as_slice()
        && !others.is_empty()
    {
        notes.push(format!(
            "{} and {last} share the first place: their intervals overlap, so votes do not tell yet which is better.",
            others.join(", ")
        ));
    }
    if let Some(FirstPlace { model, rival, flips }) = &board.first_place {
        notes.push(match flips {
            0 => format!("{model} and {rival} are level."),
            1 => format!("If one vote had gone another way, {rival} would stand above {model}."),
            n => format!(
                "If {} votes had gone another way, {rival} would stand above {model}; fewer might do.",
                grouped(*n)
            ),
        });
    }
    if board.models.iter().any(|s| s.upper - s.lower < 1.0) {
        notes.push(
            "Where all votes are ties, intervals have no width; that is no certainty, votes that decide are missing."
                .into(),
        );
    }
    if board.half_vote_prior {
        notes.push(
            "Votes alone leave some rating without bound, so half a vote was added for each model, half won and half lost."
                .into(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::arena::rated;
    use minke_arena::{Outcome, Question, Vote};

    #[test]
    fn what_can_not_be_told_apart_is_said_to_be_so() {
        let board = |times: usize| {
            let vote = |left: &str, winner| vec![Vote::new(left, "<b>", winner); times];
            rated(
                &[vote("a", Outcome::Left), vote("a", Outcome::Tie), vec![Vote::new("a", "<b>", Outcome::Right)]]
                    .concat(),
                Question::Answer,
            )
        };
        let few = board(2).unwrap().unwrap();
        let said = notes(&few).join(" ");
        assert!(said.contains("a and <b> share the first place") && said.contains("had gone another way"), "{said}");
        let many = board(400).unwrap().unwrap();
        let said = notes(&many).join(" ");
        assert!(!said.contains("share"), "{said}");
        let page = table(&many).into_string();
        assert!(page.matches("<circle").count() == 2 && page.contains("&lt;b&gt;") && !page.contains("NaN"), "{page}");
        assert_eq!(rated(&[], Question::Answer).unwrap(), None);
        let ties = rated(&[Vote::new("a", "b", Outcome::Tie)], Question::Answer).unwrap().unwrap();
        assert!(notes(&ties).join(" ").contains("no certainty"), "{:?}", notes(&ties));
    }
}
