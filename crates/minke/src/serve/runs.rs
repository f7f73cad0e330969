//! The runs: all of them, and each from its command to what it came to, as it goes.

use std::path::PathBuf;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use minke_lab::launch::Kept;
use minke_lab::{Event, RunId, span};
use minke_train::evaluation::Evaluation;
use minke_train::intervals::Interval;
use minke_train::report::Report;
use minke_train::rollouts::Rollout;

use super::error::Failure;
use super::guard::Visitor;
use super::ideas::Before;
use super::lab::api::{Answer, me};
use super::lab::{answers, now};
use super::loaded::blocking;
use super::page;
use super::parts::{self, PAGE, ago, live, utc};
use super::{Shared, curves, records, rollouts};
use crate::told;
use crate::units::duration;

/// Bytes of a run's output that its page shows.
const OUTPUT: u64 = 16 << 10;

/// Bytes of the last step's rollouts among which it finds some to show; a page that is live is made again and again.
const SOME: u64 = 1 << 20;

/// `GET /runs`
pub async fn list(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(Before { before }): Query<Before>,
) -> Answer<Markup> {
    let runs = shared.desk.with(move |host| {
        let lab = host.lab();
        let runs = lab.runs().values().rev().filter(|run| before.is_none_or(|before| run.id.0 < before));
        Ok(runs.take(PAGE + 1).map(|run| answers::run(lab, run, &[], now())).collect())
    });
    let mut runs: Vec<told::Run> = runs.await?;
    let older = runs.len() > PAGE;
    runs.truncate(PAGE);
    let last = runs.last().map_or(0, |run| run.id);
    let body = html! {
        main.wide id="main" {
            h1 { "Runs" }
            @if runs.is_empty() { p.quiet { "No runs yet. " a href="/ideas" { "Try an idea." } } }
            (live("runs", true, &parts::runs(&runs, true, now())))
            @if older { p { a href={ "/runs?before=" (last) } { "Older runs" } } }
        }
    };
    Ok(page::full(&visitor, "/runs", "Runs", &["live.js"], &body))
}

/// What a run has written.
struct Written {
    curves: Vec<Markup>,
    /// The last step with rollouts, how many steps have some, and some of that step's.
    thoughts: Option<(u64, usize, Vec<Rollout>)>,
    report: Option<Report>,
    report_text: Option<String>,
    output: String,
    has_model: bool,
}

/// `GET /runs/N`
pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<Markup> {
    let reader = me(&visitor);
    let found = shared.desk.with(move |host| {
        let lab = host.lab();
        let Some(run) = lab.runs().get(&RunId(id)) else { return Ok(None) };
        let decisions = host.store().decisions(Some(run.id))?;
        let authors = lab.ideas().get(&run.idea).map_or(&[][..], |idea| &idea.authors);
        let mine = authors.contains(&reader) || run.owners.iter().any(|owner| owner.person == reader);
        let logs: Vec<PathBuf> = (0..run.segments.len()).map(|i| host.launcher().log(run.id, i)).collect();
        let told = answers::whole_run(lab, run, &decisions, now());
        Ok(Some((told, mine, logs, host.launcher().kept(run.id))))
    });
    let (run, mine, logs, kept) = found.await?.ok_or_else(|| missing(id))?;
    let written = blocking(move || Ok(written(&kept, &logs))).await?;
    Ok(render(&visitor, &run, mine, &written))
}

/// There is no such run.
pub fn missing(id: u32) -> Failure {
    Failure::not_found(format!("there is no run {id}"))
}

fn written(kept: &Kept, logs: &[PathBuf]) -> Written {
    let steps = records::steps(kept);
    let last = steps.last().and_then(|step| Some((*step, records::rollouts(kept, *step, SOME)?.0)));
    Written {
        curves: curves::curves(kept),
        thoughts: last.map(|(step, read)| (step, steps.len(), rollouts::some(read))),
        report: records::report(kept),
        report_text: records::report_text(kept),
        output: records::tail(logs, OUTPUT),
        has_model: records::has_model(kept),
    }
}

fn render(visitor: &Visitor, run: &told::Run, mine: bool, written: &Written) -> Markup {
    let id = run.id;
    let lives = !parts::is_over(run);
    let body = html! {
        main.wide id="main" {
            p.quiet.note { a href={ "/ideas/" (run.idea) } { "Idea " (run.idea) } ": " (run.sentence) }
            (live("now", lives, &head(visitor, run, mine, written.has_model)))
            (live("curves", lives, &html! {
                @if !written.curves.is_empty() {
                    section { h2 { "Curves" } div.curves { @for curve in &written.curves { (curve) } } }
                }
            }))
            (live("results", lives, &html! {
                @if let Some(report) = &written.report { (results(report)) }
                @if let Some(text) = &written.report_text { details { summary { "The report" } pre.text { (text) } } }
            }))
            (live("thoughts", lives, &html! {
                @if let Some((step, steps, some)) = &written.thoughts {
                    section {
                        h2 { "Thoughts" }
                        p {
                            "Of step " (step) ". "
                            a href={ "/runs/" (id) "/rollouts" } {
                                "All rollouts of " (steps) (if *steps == 1 { " step" } else { " steps" })
                            }
                        }
                        @for rollout in some { (rollouts::card(rollout, true)) }
                    }
                }
            }))
            (live("output", lives, &html! {
                section {
                    h2 { "Output" }
                    @if written.output.is_empty() { p.quiet { "It has printed nothing." } }
                    @else { pre.output tabindex="0" aria-label="Output" { (written.output) } }
                }
            }))
            (live("why", lives, &history(run)))
        }
    };
    page::full(visitor, "/runs", &format!("Run {id}"), &["live.js"], &body)
}

fn head(visitor: &Visitor, run: &told::Run, mine: bool, has_model: bool) -> Markup {
    let told::Run { id, state, why, owners, chips, chip_s, submitted, command, .. } = run;
    html! {
        div.line { h1 { "Run " (id) } (parts::state(state)) }
        @if let Some(what) = &run.ended_for { div.notice.bad role="alert" { p { (what) } } }
        p { (why) }
        (parts::progress(run))
        pre.command { (shown(command)) }
        p.quiet.note {
            (owners.join(", ")) " · " (parts::chips(*chips)) " · " (duration(*chip_s)) " of chip time · asked for "
            (ago(*submitted, now()))
        }
        div.buttons {
            @if has_model { a.button href={ "/chat?model=r" (id) } { "Talk to its model" } }
            @if mine && !parts::is_over(run) && state != "ending" {
                (page::button(visitor, &format!("/runs/{id}/stop"), "danger", "Stop it; it saves first"))
            }
        }
    }
}

/// A command as it could be typed.
pub fn shown(command: &[String]) -> String {
    let plain = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./=:,+@%".contains(c));
    let quoted = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) };
    command.iter().map(quoted).collect::<Vec<String>>().join(" ")
}

fn results(report: &Report) -> Markup {
    let base = report.base.iter().map(|base| ("base model".to_string(), &base.think, base.above.as_ref()));
    let stages = report.stages.iter().enumerate().map(|(i, stage)| {
        let name = format!("stage {}: {}, {} steps", i + 1, stage.kind.name(), stage.steps);
        (name, &stage.results.think, stage.results.above.as_ref())
    });
    let control = report.control.iter().map(|c| (format!("control, {} steps", c.steps), &c.evaluation, None));
    let percent = |x: f64| format!("{:.1}", 100.0 * x.clamp(0.0, 1.0));
    let row = |name: &str, evaluation: &Evaluation| {
        let Evaluation { level, items, accuracy, interval: Interval { low, high }, thought_tokens, .. } = evaluation;
        html! {
            tr {
                th scope="row" { (name) }
                td { (level) }
                td { (percent(*accuracy)) " %" span.quiet { " (" (percent(*low)) " to " (percent(*high)) ") of " (items) } }
                td { (format!("{thought_tokens:.1}")) }
            }
        }
    };
    html! {
        section {
            h2 { "Held-out problems" }
            div.scrolls {
                table {
                    thead {
                        tr { @for name in ["after", "level", "right", "tokens of thought"] { th scope="col" { (name) } } }
                    }
                    tbody {
                        @for (name, at, above) in base.chain(stages).chain(control) {
                            (row(&name, at))
                            @if let Some(above) = above { (row("", above)) }
                        }
                    }
                }
            }
        }
    }
}

/// What was decided, and the stints that came of it.
fn history(run: &told::Run) -> Markup {
    html! {
        section {
            h2 { "What was decided, and why" }
            ol.timeline {
                @for told::Decision { at, sentence } in &run.decisions {
                    li { time title=(utc(*at)) { "after " (span(at.saturating_sub(run.submitted))) } p { (sentence) } }
                }
                @if !parts::is_over(run) { li.now { time { "now" } p { (run.why) } } }
            }
            @if !run.stints.is_empty() {
                h2 { "Stints" }
                ul.plain {
                    @for told::Stint { chips, from, until, end } in &run.stints {
                        li {
                            (if chips.len() == 1 { "Chip " } else { "Chips " })
                            (chips.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")) " from " (utc(*from))
                            @match until {
                                Some(until) => { " for " (span(until.saturating_sub(*from))) }
                                None => { ", and still" }
                            }
                            @if let Some(end) = end { ": " (end) }
                            "."
                        }
                    }
                }
            }
        }
    }
}

/// `POST /runs/N/stop`
pub async fn stop(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<Redirect> {
    shared.desk.tell(Event::Stop { by: me(&visitor), run: RunId(id) }).await?;
    Ok(Redirect::to(&format!("/runs/{id}")))
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn commands_are_shown_as_they_could_be_typed() {
        let words = |words: &[&str]| shown(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(words(&["minke", "train", "a.toml", "--seed=3"]), "minke train a.toml --seed=3");
        assert_eq!(words(&["sh", "-c", "echo 'a'; ls", ""]), r"sh -c 'echo '\''a'\''; ls' ''");
    }
}
