//! The ideas: all of them, and each with its people, its runs, what it is like and what can be done about it.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use minke_lab::launch::Kept;
use minke_lab::{Event, Idea, IdeaId, IdeaStatus, Lab, LinkKind, PersonId, RunId};
use serde::Deserialize;

use super::error::Failure;
use super::guard::{Visitor, field};
use super::lab::api::{Answer, me};
use super::lab::{answers, now};
use super::loaded::blocking;
use super::page::{self, csrf_field};
use super::parts::{self, PAGE, ago, live};
use super::{Shared, attempts, records};
use crate::told;

/// Characters of an idea where one of several is chosen.
const LABEL: usize = 100;

/// Which part of a list.
#[derive(Deserialize)]
pub struct Before {
    /// Only entries with lower numbers.
    pub before: Option<u32>,
}

/// An idea as a page shows it.
struct Seen {
    idea: told::Idea,
    runs: Vec<told::Run>,
    /// What those of its runs keep that came to a good end.
    kept: Vec<(u32, Kept)>,
}

/// `GET /ideas`
pub async fn list(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(Before { before }): Query<Before>,
) -> Answer<Markup> {
    let (mut seen, chips) = shared
        .desk
        .with(move |host| {
            let lab = host.lab();
            let ideas = lab.ideas().values().rev().filter(|idea| before.is_none_or(|before| idea.id.0 < before));
            let kept = |run| host.launcher().kept(run);
            Ok((ideas.take(PAGE + 1).map(|idea| look(lab, idea, kept)).collect::<Vec<Seen>>(), lab.chips()))
        })
        .await?;
    let older = seen.len() > PAGE;
    seen.truncate(PAGE);
    let now = now();
    let last = seen.last().map_or(0, |seen| seen.idea.id);
    let entries = blocking(move || Ok(seen.iter().map(|seen| entry(seen, best(&seen.kept), now)).collect())).await?;
    let entries: Vec<Markup> = entries;
    let body = html! {
        main.wide id="main" {
            h1 { "Ideas" }
            @if before.is_none() { (attempts::form(&visitor, None, chips)) }
            @if entries.is_empty() {
                p.quiet { "No ideas yet. Yours may be the first: nobody's approval is needed." }
            }
            (live("ideas", true, &html! { ul.cards { @for entry in &entries { (entry) } } }))
            @if older { p { a href={ "/ideas?before=" (last) } { "Older ideas" } } }
        }
    };
    Ok(page::full(&visitor, "/ideas", "Ideas", &["live.js"], &body))
}

fn look(lab: &Lab, idea: &Idea, kept: impl Fn(RunId) -> Kept) -> Seen {
    let mut seen = Seen { idea: answers::idea(lab, idea), runs: Vec::new(), kept: Vec::new() };
    for run in lab.runs().values().rev().filter(|run| run.idea == idea.id) {
        seen.runs.push(answers::run(lab, run, &[], now()));
        if run.state == minke_lab::State::Done {
            seen.kept.push((run.id.0, kept(run.id)));
        }
    }
    seen
}

/// The best result of an idea's runs: percent right, of how many problems, in which run.
fn best(kept: &[(u32, Kept)]) -> Option<(f64, usize, u32)> {
    let results = kept.iter().filter_map(|(run, kept)| {
        let last = records::report(kept)?.last.think;
        Some((100.0 * last.accuracy.clamp(0.0, 1.0), last.items, *run))
    });
    results.max_by(|a, b| a.0.total_cmp(&b.0))
}

fn best_line(best: Option<(f64, usize, u32)>) -> Markup {
    html! {
        @if let Some((percent, items, run)) = best {
            a href={ "/runs/" (run) } { "best " (format!("{percent:.1} %")) " of " (items) " held-out problems" }
        }
    }
}

fn entry(seen: &Seen, best: Option<(f64, usize, u32)>, now: u64) -> Markup {
    let told::Idea { id, sentence, authors, status, created, .. } = &seen.idea;
    html! {
        li {
            div.line { a.name href={ "/ideas/" (id) } { (sentence) } (parts::state(status)) }
            p.quiet.note { (id) " · " (people(authors)) " · " (ago(*created, now)) }
            @if !seen.runs.is_empty() {
                ul.runs {
                    @for run in &seen.runs {
                        li {
                            a href={ "/runs/" (run.id) } { "Run " (run.id) }
                            (parts::state(&run.state))
                            (parts::progress(run))
                        }
                    }
                    @if best.is_some() { li { (best_line(best)) } }
                }
            }
        }
    }
}

fn people(authors: &[String]) -> String {
    if authors.is_empty() { "nobody any more".into() } else { authors.join(", ") }
}

/// All that an idea's page shows.
struct Whole {
    seen: Seen,
    authors: Vec<told::Person>,
    others: Vec<told::Person>,
    questions: Vec<told::Question>,
    alike: Vec<told::Alike>,
    /// Ideas that could go on as part of this one.
    ideas: Vec<(u32, String)>,
    mine: bool,
    settled: bool,
    chips: u32,
}

/// `GET /ideas/N`
pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<Markup> {
    let reader = me(&visitor);
    let whole = shared.desk.with(move |host| {
        let lab = host.lab();
        let kept = |run| host.launcher().kept(run);
        Ok(lab.ideas().get(&IdeaId(id)).map(|idea| gather(lab, idea, look(lab, idea, kept), reader)))
    });
    let whole = whole.await?.ok_or_else(|| Failure::not_found(format!("there is no idea {id}")))?;
    let (best, whole) = blocking(move || Ok((best(&whole.seen.kept), whole))).await?;
    Ok(render(&visitor, &whole, best))
}

fn gather(lab: &Lab, idea: &Idea, seen: Seen, reader: PersonId) -> Whole {
    let is_author = |person: PersonId| idea.authors.contains(&person);
    let (authors, others) = lab.people().values().partition::<Vec<_>, _>(|person| is_author(person.id));
    let told = |people: Vec<_>| people.into_iter().map(answers::person).collect();
    let questions = lab.links().values().rev().filter(|link| link.idea == idea.id);
    let questions = questions.map(|link| answers::question(lab, link, reader));
    // A no is between those two whom it concerns.
    let questions = questions.filter(|q| matches!(q.status.as_str(), "pending" | "accepted") || q.mine || q.yours);
    let print = lab.runs().values().find(|run| run.idea == idea.id).map(|run| run.fingerprint.clone());
    let alike = lab.repeats(&idea.sentence, &print.unwrap_or_default());
    let alike = alike.iter().filter(|repeat| repeat.idea != idea.id);
    let open = |other: &&Idea| other.id != idea.id && !matches!(other.status, IdeaStatus::Merged(_));
    Whole {
        authors: told(authors),
        others: told(others),
        questions: questions.collect(),
        alike: alike.map(|repeat| answers::alike(lab, repeat, now())).collect(),
        ideas: lab.ideas().values().rev().filter(open).map(|other| (other.id.0, other.sentence.clone())).collect(),
        mine: is_author(reader),
        settled: matches!(idea.status, IdeaStatus::Merged(_)),
        chips: lab.chips(),
        seen,
    }
}

fn render(visitor: &Visitor, whole: &Whole, best: Option<(f64, usize, u32)>) -> Markup {
    let Whole { seen: Seen { idea, runs, .. }, authors, questions, alike, mine, settled, chips, .. } = whole;
    let told::Idea { id, sentence, status, parent, created, .. } = idea;
    let now = now();
    let of_runs = html! {
        p.line {
            (parts::state(status))
            @if let Some(into) = status.strip_prefix("merged into ") { a href={ "/ideas/" (into) } { "idea " (into) } }
            (best_line(best))
        }
        @if runs.is_empty() { p.quiet { "Nothing was run for it yet." } }
        (parts::runs(runs, false, now))
    };
    let body = html! {
        main.wide id="main" {
            p.quiet.note { "Idea " (id) " · " (ago(*created, now)) @if let Some(parent) = parent {
                " · grew out of " a href={ "/ideas/" (parent) } { "idea " (parent) }
            } }
            h1 { (sentence) }
            (live("of-runs", runs.iter().any(|run| !parts::is_over(run)), &of_runs))
            section {
                h2 { "People" }
                @if authors.is_empty() { p.quiet { "Nobody is left in it." } }
                ul.names { @for person in authors { li title=(person.interests) { (person.name) } } }
                (parts::questions(visitor, questions, now))
                @if !settled { (actions(visitor, whole)) }
            }
            @if !alike.is_empty() {
                section {
                    h2 { "Much like it" }
                    ul.plain {
                        @for other in alike {
                            @let idea = other.repeat.idea.0;
                            li { (other.sentence) " " a href={ "/ideas/" (idea) } { "Idea " (idea) } }
                        }
                    }
                }
            }
            @if *mine && !settled { section { h2 { "Another run" } (attempts::form(visitor, Some((*id, runs)), *chips)) } }
        }
    };
    page::full(visitor, "/ideas", sentence, &["live.js"], &body)
}

fn actions(visitor: &Visitor, whole: &Whole) -> Markup {
    let Whole { seen: Seen { idea, .. }, others, ideas, mine, .. } = whole;
    let to = |what: &str| format!("/ideas/{}/{what}", idea.id);
    let message = |id: &str| {
        html! {
            label.hidden for=(id) { "What to say" }
            input id=(id) name="message" placeholder="What to say (if you like)" autocomplete="off";
        }
    };
    let (park, parked) = if idea.status == "parked" { ("Take it up again", "no") } else { ("Put it aside", "yes") };
    html! {
        @if !mine {
            form.row method="post" action=(to("join")) {
                (csrf_field(visitor))
                (message("join-message"))
                button.primary { "Ask to join" }
            }
        } @else {
            @if !others.is_empty() {
                form.row method="post" action=(to("invite")) {
                    (csrf_field(visitor))
                    label.hidden for="person" { "Whom" }
                    select id="person" name="person" required {
                        option value="" { "Whom?" }
                        @for told::Person { id, name, interests } in others {
                            option value=(id) { (name) @if !interests.is_empty() { " – " (interests) } }
                        }
                    }
                    (message("invite-message"))
                    button { "Invite" }
                }
            }
            @if !ideas.is_empty() {
                form.row method="post" action=(to("merge")) {
                    (csrf_field(visitor))
                    label.hidden for="other" { "Which idea" }
                    select id="other" name="other" required {
                        option value="" { "Which idea goes on as part of this one?" }
                        @for (id, sentence) in ideas {
                            option value=(id) { (id) ": " (sentence.chars().take(LABEL).collect::<String>()) }
                        }
                    }
                    (message("merge-message"))
                    button { "Ask to merge" }
                }
            }
            div.buttons {
                form method="post" action=(to("park")) {
                    (csrf_field(visitor))
                    input type="hidden" name="parked" value=(parked);
                    button.quiet { (park) }
                }
                (page::button(visitor, &to("leave"), "quiet", "Leave it"))
            }
        }
    }
}

/// `POST /ideas/N/join`
pub async fn join(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    ask(&shared, &visitor, id, LinkKind::Join, None, &body).await
}

/// `POST /ideas/N/invite`
pub async fn invite(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    let person = number(&body, "person").ok_or_else(|| Failure::bad_request("choose whom to invite"))?;
    ask(&shared, &visitor, id, LinkKind::Invite, Some(PersonId(person)), &body).await
}

/// `POST /ideas/N/merge`
pub async fn merge(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    let other = number(&body, "other").ok_or_else(|| Failure::bad_request("choose an idea"))?;
    ask(&shared, &visitor, id, LinkKind::Merge(IdeaId(other)), None, &body).await
}

/// `POST /ideas/N/leave`
pub async fn leave(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<Redirect> {
    tell(&shared, id, Event::Leave { by: me(&visitor), idea: IdeaId(id) }).await
}

/// `POST /ideas/N/park`
pub async fn park(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    let parked = field(&body, "parked").as_deref() == Some("yes");
    tell(&shared, id, Event::Park { by: me(&visitor), idea: IdeaId(id), parked }).await
}

async fn ask(
    shared: &Shared,
    visitor: &Visitor,
    id: u32,
    kind: LinkKind,
    to: Option<PersonId>,
    body: &[u8],
) -> Answer<Redirect> {
    let message = field(body, "message").unwrap_or_default();
    tell(shared, id, Event::Ask { by: me(visitor), kind, idea: IdeaId(id), to, message }).await
}

async fn tell(shared: &Shared, id: u32, event: Event) -> Answer<Redirect> {
    shared.desk.tell(event).await?;
    Ok(Redirect::to(&format!("/ideas/{id}")))
}

/// A number in a form.
pub fn number(body: &[u8], name: &str) -> Option<u32> {
    field(body, name)?.trim().parse().ok()
}
