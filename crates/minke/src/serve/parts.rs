//! What the lab's pages have in common: times, states, how far a run is, lists of runs, questions.

use maud::{Markup, html};
use minke_lab::span;

use super::guard::Visitor;
use super::page::{self, csrf_field};
use crate::told;
use crate::units::duration;

/// Entries of a list on one page.
pub const PAGE: usize = 100;

/// How long ago something was, with its time for those who want it.
pub fn ago(at: u64, now: u64) -> Markup {
    html! { time title=(utc(at)) { (span(now.saturating_sub(at))) " ago" } }
}

/// A time in milliseconds since 1970.
pub fn utc(at: u64) -> String {
    format!("{} UTC", page::time(i64::try_from(at / 1000).unwrap_or(i64::MAX)))
}

/// A run's or an idea's state.
pub fn state(state: &str) -> Markup {
    let kind = state.split(' ').next().unwrap_or_default();
    html! { span class={ "state " (kind) } { (state) } }
}

/// Whether nothing more happens to a run.
pub fn is_over(run: &told::Run) -> bool {
    matches!(run.state.as_str(), "done" | "failed" | "stopped")
}

/// How far a run is, if it has told.
pub fn progress(run: &told::Run) -> Markup {
    let told = run.progress.filter(|(_, steps)| *steps > 0);
    html! {
        @if let Some((step, steps)) = told {
            div.progress {
                progress max=(steps) value=(step.min(steps)) aria-label={ "Progress of run " (run.id) } {}
                span {
                    "step " (step) " of " (steps)
                    @if let Some(left) = run.left_s.filter(|_| run.state == "running") { ", " (duration(left)) " left" }
                }
            }
        }
    }
}

/// Chips in words.
pub fn chips(count: u32) -> String {
    if count == 1 { "1 chip".into() } else { format!("{count} chips") }
}

/// A list of runs; `with_idea` says what they are for.
pub fn runs(runs: &[told::Run], with_idea: bool, now: u64) -> Markup {
    html! {
        ul.cards {
            @for run in runs {
                li {
                    div.line {
                        a.name href={ "/runs/" (run.id) } { "Run " (run.id) }
                        (state(&run.state))
                        (progress(run))
                    }
                    @if with_idea { p.sentence { a href={ "/ideas/" (run.idea) } { (run.sentence) } } }
                    @if let Some(what) = &run.ended_for { p.failed { (what) } }
                    @if !is_over(run) { p { (run.why) } }
                    p.quiet.note {
                        (run.owners.join(", ")) " · " (chips(run.chips)) " · " (duration(run.chip_s))
                        " of chip time · asked for " (ago(run.submitted, now))
                    }
                }
            }
        }
    }
}

/// What a question asks, with a link to the idea.
fn question(question: &told::Question) -> Markup {
    let told::Question { kind, from, to, idea, sentence, merge, .. } = question;
    let link = html! { a href={ "/ideas/" (idea) } { "“" (sentence) "”" } };
    html! {
        @match (kind.as_str(), merge) {
            ("invite", _) => { strong { (from) } " invites " (to.join(", ")) " to " (link) }
            ("join", _) => { strong { (from) } " would like to join " (link) }
            (_, other) => {
                strong { (from) } " would like "
                @if let Some(other) = other { a href={ "/ideas/" (other) } { "idea " (other) } } @else { "another idea" }
                " to go on as part of " (link)
            }
        }
    }
}

/// Questions with what was said, and what their reader can do about each.
pub fn questions(visitor: &Visitor, questions: &[told::Question], now: u64) -> Markup {
    html! {
        ul.questions {
            @for question in questions {
                li {
                    p {
                        (self::question(question)) " " (state(&question.status)) " "
                        span.quiet.note { (ago(question.created, now)) }
                    }
                    @if !question.message.is_empty() { blockquote { (question.message) } }
                    (answers(visitor, question))
                }
            }
        }
    }
}

/// The buttons of whoever may answer a question, or take it back.
fn answers(visitor: &Visitor, question: &told::Question) -> Markup {
    let told::Question { id, yours, mine, .. } = question;
    html! {
        @if question.status == "pending" && (*yours || *mine) {
            div.buttons {
                @if *yours {
                    @for (answer, class, label) in [("yes", "primary", "Accept"), ("no", "", "Decline")] {
                        form method="post" action={ "/inbox/" (id) } {
                            (csrf_field(visitor))
                            input type="hidden" name="answer" value=(answer);
                            button class=(class) { (label) }
                        }
                    }
                }
                @if *mine { (page::button(visitor, &format!("/inbox/{id}/withdraw"), "quiet", "Withdraw")) }
            }
        }
    }
}

/// A part of a page that `live.js` keeps up to date, where there is anything new to come.
pub fn live(id: &str, lives: bool, part: &Markup) -> Markup {
    html! { div id=(id) data-live[lives] { (part) } }
}
