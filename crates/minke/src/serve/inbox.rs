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
use super::parts;
use super::{Shared, page};
use crate::told::Question;

/// Settled questions that are shown.
const SETTLED: usize = 50;

/// `GET /inbox`
pub async fn show(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Answer<Markup> {
    let all = questions(&shared, me(&visitor)).await?;
    let (pending, mut settled): (Vec<Question>, Vec<Question>) = all.into_iter().partition(|q| q.status == "pending");
    settled.truncate(SETTLED);
    let (yours, mine): (Vec<Question>, Vec<Question>) = pending.into_iter().partition(|question| question.yours);
    let now = now();
    let body = html! {
        main.narrow id="main" {
            h1 { "Inbox" }
            @if yours.is_empty() { p.quiet { "Nobody waits for your answer." } }
            (parts::questions(&visitor, &yours, now))
            @if !mine.is_empty() { h2 { "You have asked" } (parts::questions(&visitor, &mine, now)) }
            @if !settled.is_empty() { h2 { "Settled" } (parts::questions(&visitor, &settled, now)) }
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
