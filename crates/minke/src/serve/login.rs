//! Logging in by a link that works once, and out again. Whoever opens the link is asked before it is used up: programs
//! that look at links in messages only look.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use maud::html;

use super::credentials::{self, Kind, SESSION_DAYS, owner};
use super::error::Failure;
use super::guard::{Visitor, cookie_name};
use super::{Shared, Site, page};

pub async fn explain() -> impl IntoResponse {
    let body = html! {
        h1 { "Log in" }
        p { "Open a login link: " code { "minke serve" } " prints one when it starts, and whoever is logged in can make one "
            "for you on their account page." }
    };
    page::bare("Log in", &body)
}

pub async fn offer(State(shared): State<Shared>, Path(link): Path<String>) -> Result<Response, Failure> {
    let secret = link.clone();
    let person = shared.database.with(move |c| owner(c, Kind::Link, &secret)).await?;
    let Some(person) = person else { return Ok(used_up()) };
    let body = html! {
        h1 { "Welcome, " (person.name) }
        p { "This link logs you in on this browser, for " (SESSION_DAYS) " days. It works once." }
        form method="post" action={ "/login/" (link) } { button.primary { "Log in" } }
    };
    Ok(page::bare("Log in", &body).into_response())
}

pub async fn log_in(State(shared): State<Shared>, Path(link): Path<String>) -> Result<Response, Failure> {
    let session = shared.database.with(move |c| credentials::log_in(c, &link)).await?;
    let Some(session) = session else { return Ok(used_up()) };
    let cookie = cookie(&shared.site, &session, SESSION_DAYS * 24 * 60 * 60);
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to("/")).into_response())
}

pub async fn log_out(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
) -> Result<impl IntoResponse, Failure> {
    shared.database.with(move |c| credentials::log_out(c, &visitor.session)).await?;
    Ok((AppendHeaders([(header::SET_COOKIE, cookie(&shared.site, "", 0))]), Redirect::to("/login")))
}

fn used_up() -> Response {
    let body = html! {
        h1 { "This link can't be used" }
        p { "It has been used already, or has expired. Ask whoever gave it to you for another; starting "
            code { "minke serve" } " anew prints one, too." }
    };
    (StatusCode::NOT_FOUND, page::bare("Log in", &body)).into_response()
}

fn cookie(site: &Site, session: &str, seconds: i64) -> String {
    let secure = if site.tls { "; Secure" } else { "" };
    format!("{}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", cookie_name(site))
}
