//! The arena's section of verified accuracy against cost.

use maud::{Markup, html};
use minke_arena::Verified;
use minke_arena::verified::{Board, Standing, board};

use crate::frontier;

/// What models got right of problems that can be checked; nothing where nothing was measured.
pub fn section(measured: &[Verified]) -> Markup {
    if measured.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Right on problems that can be checked" }
        @match board(measured, false) {
            Ok(board) => (shown(&board)),
            // Models that were asked different things are no failure of the page.
            Err(error) => p.notice { (error.to_string()) },
        }
    }
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
