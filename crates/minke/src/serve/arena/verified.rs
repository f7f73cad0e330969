//! The arena's section of verified accuracy against cost.

use maud::{Markup, html};
use minke_arena::VoteLog;
use minke_arena::verified::{Board, Standing, board};

use crate::frontier;
use crate::serve::Shared;
use crate::serve::error::Failure;
use crate::serve::loaded::blocking;

/// What models got right of problems that can be checked; nothing where nothing was measured.
pub async fn section(shared: &Shared) -> Result<Markup, Failure> {
    let path = shared.loaded.store().votes_file();
    let made = blocking(move || {
        let log = VoteLog::open(path)?;
        // Models that were asked different things are no failure of the page.
        Ok(board(log.verified(), false).map_err(|error| error.to_string()))
    });
    Ok(match made.await? {
        Ok(board) if board.models.is_empty() => html! {},
        made => html! {
            h2 { "Right on problems that can be checked" }
            @match &made {
                Ok(board) => (shown(board)),
                Err(sentence) => p.notice { (sentence) },
            }
        },
    })
}

fn shown(board: &Board) -> Markup {
    html! {
        p.quiet { "Held-out problems, judged strictly by the tasks' verifiers; each kind weighs the same." }
        @if let Some(picture) = frontier::svg(board) { div.scroll { (picture) } }
        div.scroll {
            table.board.verified {
                thead {
                    tr { th { "" } th { "Model" } th.number { "Right" } th { "95 % interval" } th.number { "Core-seconds an answer" } }
                }
                tbody {
                    @for (number, standing) in (1..).zip(&board.models) {
                        @let Standing { model, accuracy, lower, upper, core_s, .. } = standing;
                        tr {
                            td { (number) }
                            th scope="row" { (model) }
                            td.number { (format!("{:.1} %", 100.0 * accuracy)) }
                            td { (format!("{:.1}–{:.1}", 100.0 * lower, 100.0 * upper)) }
                            td.number { (core_s.map_or("–".into(), |core_s| format!("{core_s:.2}"))) }
                        }
                    }
                }
            }
        }
        @if board.problems.len() > 1 {
            div.scroll {
                table.board.verified {
                    thead { tr { th { "Problems" } @for number in 1..=board.models.len() { th.number { (number) } } } }
                    tbody {
                        @for (at, problems) in board.problems.iter().enumerate() {
                            tr {
                                th scope="row" { (problems) }
                                @for Standing { parts, .. } in &board.models {
                                    td.number { (format!("{:.1} %", 100.0 * parts[at])) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
