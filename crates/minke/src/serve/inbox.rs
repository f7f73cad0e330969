//! The inbox: what one was asked, and what one has asked others.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use minke_lab::{Event, LinkId};

use super::error::Failure;
use super::guard::{Visitor, field};
use super::lab::api::{Answer, me, questions};
use super::lab::now;
use super::parts::{self, ago};
use super::{Shared, page};
use crate::told::Question;

/// Settled questions that are shown.
const SETTLED: usize = 50;

/// `GET /inbox`
pub async fn show(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Answer<Markup> {
    let all = questions(&shared, me(&visitor)).await?;
    let (pending, settled): (Vec<Question>, Vec<Question>) = all.into_iter().partition(|q| q.status == "pending");
    let (yours, mine): (Vec<Question>, Vec<Question>) = pending.into_iter().partition(|question| question.yours);
    let list = |questions: &[Question]| {
        html! {
            ul.questions {
                @for question in questions.iter().take(SETTLED) {
                    li {
                        p {
                            (parts::question(question)) " " span class={ "state " (question.status) } { (question.status) } " "
                            span.quiet.note { (ago(question.created, now())) }
                        }
                        @if !question.message.is_empty() { blockquote { (question.message) } }
                        (parts::answers(&visitor, question))
                    }
                }
            }
        }
    };
    let body = html! {
        main.narrow id="main" {
            h1 { "Inbox" }
            @if yours.is_empty() { p.quiet { "Nobody waits for your answer." } }
            (list(&yours))
            @if !mine.is_empty() { h2 { "You have asked" } (list(&mine)) }
            @if !settled.is_empty() { h2 { "Settled" } (list(&settled)) }
        }
    };
    Ok(page::full(&visitor, "/inbox", "Inbox", &[], &body))
}

/// `POST /inbox/N`
pub async fn answer(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    let yes = match field(&body, "answer").as_deref() {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err(Failure::bad_request("answer yes or no")),
    };
    shared.desk.tell(Event::Answer { by: me(&visitor), link: LinkId(id), yes }).await?;
    Ok(Redirect::to("/inbox"))
}

/// `POST /inbox/N/withdraw`
pub async fn withdraw(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<Redirect> {
    shared.desk.tell(Event::Withdraw { by: me(&visitor), link: LinkId(id) }).await?;
    Ok(Redirect::to("/inbox"))
}
