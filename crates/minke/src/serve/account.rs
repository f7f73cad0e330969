//! The account page: API keys, login links for one's other devices and for other people.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use minke_lab::{Action, Event, INTERESTS_MAX, NAME_MAX, PersonId, is_name};

use super::credentials::{self, Key, Kind, Person, issue, keys, people};
use super::error::Failure;
use super::guard::{Visitor, field};
use super::page::{self, csrf_field, time};
use super::{Shared, Site};

/// Days that an invitation is good for.
const INVITATION_DAYS: i64 = 7;
/// Days that a link for another device is good for.
const DEVICE_DAYS: i64 = 1;
pub async fn show(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Result<Markup, Failure> {
    render(&shared, &visitor, None).await
}

pub async fn new_key(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Result<Markup, Failure> {
    let label = name_field(&body, "label", "key")?;
    let person = visitor.person.id;
    let key = shared.database.with(move |c| issue(c, Kind::Key, person, &label, None)).await?;
    let once = html! {
        p { "Your new API key, shown this once:" }
        p { code.secret { (key) } }
    };
    render(&shared, &visitor, Some(once)).await
}

pub async fn delete_key(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(key): Path<String>,
) -> Result<Redirect, Failure> {
    let missing = || Failure::not_found("you have no such key");
    let key: i64 = key.parse().map_err(|_| missing())?;
    let there = shared.database.with(move |c| credentials::revoke(c, visitor.person.id, key)).await?;
    if there { Ok(Redirect::to("/account")) } else { Err(missing()) }
}

pub async fn new_device(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Markup, Failure> {
    let person = visitor.person.id;
    let link = shared.database.with(move |c| issue(c, Kind::Link, person, "", Some(DEVICE_DAYS))).await?;
    let once = html! {
        p { "Open this on your other device within a day; it works once:" }
        p { code.secret { (login_url(&shared.site, &link)) } }
    };
    render(&shared, &visitor, Some(once)).await
}

pub async fn invite(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Result<Markup, Failure> {
    let name = name_field(&body, "name", "person")?;
    // A link for somebody who is here already would let whoever made it log in as them: the lab refuses their name.
    let link = match shared.desk.tell(Event::Arrived { name: name.clone() }).await {
        Ok(Action::Welcome(person)) => {
            let issued = move |c: &mut _| issue(c, Kind::Link, person.0, "", Some(INVITATION_DAYS));
            Some(shared.database.with(issued).await?)
        }
        _ => None,
    };
    let once = match link {
        Some(link) => html! {
            p { "Give this link to " (name) "; it works once, within " (INVITATION_DAYS) " days:" }
            p { code.secret { (login_url(&shared.site, &link)) } }
        },
        None => html! { p { "There is somebody called " (name) " already; choose another name." } },
    };
    render(&shared, &visitor, Some(once)).await
}

/// Keeps a line on what its writer would like to be asked about.
pub async fn introduce(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Result<Redirect, Failure> {
    let interests = field(&body, "interests").unwrap_or_default();
    shared.desk.tell(Event::Introduced { by: PersonId(visitor.person.id), interests }).await?;
    Ok(Redirect::to("/account"))
}

fn login_url(site: &Site, link: &str) -> String {
    format!("{}/login/{link}", site.url())
}

fn name_field(body: &[u8], name: &str, what: &str) -> Result<String, Failure> {
    let value = field(body, name).unwrap_or_default().trim().to_string();
    let message = || Failure::bad_request(format!("give the {what} a name of at most {NAME_MAX} characters"));
    is_name(&value).then_some(value).ok_or_else(message)
}

async fn render(shared: &Shared, visitor: &Visitor, once: Option<Markup>) -> Result<Markup, Failure> {
    let person = visitor.person.id;
    let (keys, people): (Vec<Key>, Vec<Person>) =
        shared.database.with(move |c| Ok((keys(c, person)?, people(c)?))).await?;
    let mine = people.iter().find(|other| other.id == person).map_or("", |me| &me.interests);
    let body = html! {
        main.narrow id="main" {
            h1 { (visitor.person.name) }
            @if let Some(once) = once { div.notice role="status" { (once) } }
            section {
                h2 { "Interests" }
                form.row method="post" action="/account/interests" {
                    (csrf_field(visitor))
                    label for="interests" {
                        "What you would like to be asked about; others see it when they choose whom to invite"
                    }
                    input id="interests" name="interests" maxlength=(INTERESTS_MAX) value=(mine) autocomplete="off";
                    button { "Keep it" }
                }
            }
            section {
                h2 { "API keys" }
                p { "For programs that speak OpenAI's API. Base URL: " code { (shared.site.url()) "/v1" } }
                @if !keys.is_empty() {
                    ul.rows {
                        @for key in &keys {
                            li {
                                div {
                                    strong { (key.label) }
                                    div.quiet {
                                        "made " (time(key.created)) " · "
                                        @match key.used { Some(used) => { "used " (time(used)) } None => { "not used yet" } }
                                    }
                                }
                                (page::button(visitor, &format!("/account/keys/{}/delete", key.id), "quiet", "Delete"))
                            }
                        }
                    }
                }
                form.row method="post" action="/account/keys" {
                    (csrf_field(visitor))
                    label for="label" { "Name of a new key" }
                    input id="label" name="label" required maxlength=(NAME_MAX) placeholder="laptop" autocomplete="off";
                    button { "Make a key" }
                }
            }
            section {
                h2 { "People" }
                ul.names { @for person in &people { li { (person.name) } } }
                form.row method="post" action="/account/invite" {
                    (csrf_field(visitor))
                    label for="name" { "Invite somebody called" }
                    input id="name" name="name" required maxlength=(NAME_MAX) autocomplete="off";
                    button { "Make a login link" }
                }
            }
            section {
                h2 { "Devices" }
                p { "A login link for another browser of yours, or log out of this one." }
                div.buttons {
                    (page::button(visitor, "/account/device", "", "Make a login link"))
                    (page::button(visitor, "/logout", "quiet", "Log out"))
                }
            }
        }
    };
    Ok(page::full(visitor, "/account", "Account", &[], &body))
}
