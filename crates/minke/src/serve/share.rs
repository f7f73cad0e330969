//! Links that show one conversation, thoughts and all, to whoever has them, until they are taken back.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};

use super::chat::{id, missing};
use super::error::Failure;
use super::guard::Visitor;
use super::{Shared, chat_page, conversations};

pub async fn make(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
) -> Result<Redirect, Failure> {
    let id = id(&conversation)?;
    let there = shared.database.with(move |c| conversations::share(c, visitor.person.id, id)).await?;
    if there { Ok(Redirect::to(&format!("/chat/{id}"))) } else { Err(missing()) }
}

pub async fn revoke(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(conversation): Path<String>,
) -> Result<Redirect, Failure> {
    let id = id(&conversation)?;
    let there = shared.database.with(move |c| conversations::unshare(c, visitor.person.id, id)).await?;
    if there { Ok(Redirect::to(&format!("/chat/{id}"))) } else { Err(missing()) }
}

pub async fn show(State(shared): State<Shared>, Path(token): Path<String>) -> Result<impl IntoResponse, Failure> {
    let found = shared.database.with(move |c| {
        let Some(conversation) = conversations::shared(c, &token)? else { return Ok(None) };
        let turns = conversations::turns(c, conversation.id)?;
        Ok(Some((conversation, turns)))
    });
    let (conversation, turns) =
        found.await?.ok_or_else(|| Failure::not_found("this link shows nothing; it may have been taken back"))?;
    Ok(chat_page::shared(&conversation, &turns))
}
