//! The cluster as it is now: who holds which chip, who waits and why; and what the way of working is worth.

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use minke_lab::{Lab, Run, RunId, Worth, span};

use super::guard::Visitor;
use super::lab::api::Answer;
use super::lab::{answers, now};
use super::parts::{self, live, utc};
use super::{Shared, page};
use crate::told;

/// A chip.
struct Chip {
    number: u32,
    held: Option<Held>,
}

/// Who holds it.
struct Held {
    run: told::Run,
    since: u64,
    /// Until when at least.
    until: Option<u64>,
}

/// `GET /cluster`
pub async fn show(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Answer<Markup> {
    let now = now();
    let (chips, waiting, worth) = shared
        .desk
        .with(move |host| {
            let lab = host.lab();
            let queue = lab.queue(now).into_iter().filter_map(|run| lab.runs().get(&run));
            let waiting: Vec<told::Run> = queue.map(|run| answers::run(lab, run, &[], now)).collect();
            Ok((chips(lab, now), waiting, lab.worth(now)))
        })
        .await?;
    let (free, all) = (chips.iter().filter(|chip| chip.held.is_none()).count(), chips.len());
    let body = html! {
        main.wide id="main" {
            h1 { "Cluster" }
            (live("chips", true, &html! {
                p.quiet { (free) " of " (parts::chips(all as u32)) " free" }
                ul.chips { @for chip in &chips { (one_chip(chip, waiting.is_empty(), now)) } }
                h2 { "Waiting" }
                @if waiting.is_empty() { p.quiet { "Nobody waits." } }
                ol.queue {
                    @for run in &waiting {
                        li {
                            div.line {
                                a.name href={ "/runs/" (run.id) } { "Run " (run.id) }
                                span.quiet { (run.owners.join(", ")) " · " (parts::chips(run.chips)) }
                            }
                            p { (run.why) }
                        }
                    }
                }
            }))
            section { h2 { "What it is worth" } (worth_of(&worth)) }
        }
    };
    Ok(page::full(&visitor, "/cluster", "Cluster", &["live.js"], &body))
}

fn chips(lab: &Lab, now: u64) -> Vec<Chip> {
    let holds = |run: &&Run, chip: u32| {
        run.state.holds_chips() && run.segments.last().is_some_and(|segment| segment.chips.contains(&chip))
    };
    let held = |run: &Run| Held {
        since: run.segments.last().map_or(now, |segment| segment.reserved),
        until: lab.keeps_until(RunId(run.id.0), now),
        run: answers::run(lab, run, &[], now),
    };
    (0..lab.chips())
        .map(|number| Chip { number, held: lab.runs().values().find(|run| holds(run, number)).map(held) })
        .collect()
}

fn one_chip(chip: &Chip, nobody_waits: bool, now: u64) -> Markup {
    html! {
        li class=(if chip.held.is_some() { "held" } else { "free" }) {
            strong { "Chip " (chip.number) }
            @match &chip.held {
                None => p.quiet { "free" },
                Some(Held { run, since, until }) => {
                    div.line { a.name href={ "/runs/" (run.id) } { "Run " (run.id) } (parts::state(&run.state)) }
                    p.sentence { (run.sentence) }
                    (parts::progress(run))
                    p.quiet.note {
                        (run.owners.join(", ")) " · " time title=(utc(*since)) { "for " (span(now.saturating_sub(*since))) }
                        @match until {
                            Some(until) => { ", and " (span(until.saturating_sub(now))) " more, unless a new idea comes" }
                            None if run.state != "running" && run.state != "starting" => { ", and about to give it back" }
                            None if nobody_waits => { "; nobody else wants it" }
                            None => { "; it may be wanted back at any time" }
                        }
                    }
                }
            }
        }
    }
}

fn worth_of(worth: &Worth) -> Markup {
    let percent = |x: f64| format!("{:.0} %", 100.0 * x);
    let time = |s: f64| span((s * 1000.0) as u64);
    let hours = |h: f64| if h < 10.0 { format!("{h:.2}") } else { format!("{h:.0}") };
    let figures = [
        (
            "From asking to the first step",
            worth.first_step_p50_s.map(time),
            worth.first_step_p95_s.map(|s| format!("95 of 100 runs within {}", time(s))),
        ),
        ("Runs that began within a minute", worth.within_a_minute.map(percent), None),
        (
            "Repeats pointed out",
            Some(worth.repeats_shown.to_string()),
            Some(format!("{} of them not run again: {} chip-hours", worth.repeats_spared, hours(worth.spared_chip_h))),
        ),
        (
            "Joins that both sides wanted",
            Some(worth.joins.to_string()),
            Some(format!("{} people, {} ideas", worth.people, worth.ideas)),
        ),
        (
            "Results per chip-hour",
            worth.done_per_chip_h.map(hours),
            Some(format!("{} of {} runs done, in {} chip-hours", worth.done, worth.runs, hours(worth.chip_h))),
        ),
        ("Chips busy while somebody wanted them", worth.busy.map(percent), None),
    ];
    html! {
        dl.figures {
            @for (what, value, more) in figures {
                div {
                    dt { (what) }
                    dd {
                        strong { (value.unwrap_or_else(|| "–".into())) }
                        @if let Some(more) = more { span.quiet.note { (more) } }
                    }
                }
            }
        }
    }
}
