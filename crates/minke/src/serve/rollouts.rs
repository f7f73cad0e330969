//! Every rollout of a run by its step: what was asked, thought and answered, and what it was worth.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use minke_lab::RunId;
use minke_train::rollouts::Rollout;
use serde::Deserialize;

use super::error::Failure;
use super::guard::Visitor;
use super::lab::api::Answer;
use super::loaded::blocking;
use super::{Shared, page, records, runs};
use crate::think::{CLOSE, OPEN};

/// Most bytes of a step's rollouts that are read, unpacked.
const BYTES: u64 = 32 << 20;
/// Prompts on one page.
const PROMPTS: usize = 10;
/// Rollouts of one prompt on a page.
const SAMPLES: usize = 64;
/// Characters of a text that are shown.
const TEXT: usize = 20_000;
/// How a completion ends that ends by itself, where its model was made from scratch.
const END: &str = minke_train::format::END;

/// Which step, and from which of its prompts on.
#[derive(Deserialize)]
pub struct Which {
    step: Option<u64>,
    #[serde(default)]
    from: usize,
}

/// `GET /runs/N/rollouts`
pub async fn show(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    Query(Which { step, from }): Query<Which>,
) -> Answer<Markup> {
    let found = shared.desk.with(move |host| {
        let run = host.lab().runs().get(&RunId(id));
        let idea = run.and_then(|run| host.lab().ideas().get(&run.idea));
        Ok(idea.map(|idea| (idea.sentence.clone(), host.launcher().kept(RunId(id)))))
    });
    let (sentence, kept) = found.await?.ok_or_else(|| runs::missing(id))?;
    let (steps, read) = blocking(move || {
        let steps = records::steps(&kept);
        let step = step.or_else(|| steps.last().copied());
        let read = step.and_then(|step| Some((step, records::rollouts(&kept, step, BYTES)?)));
        Ok((steps, read))
    })
    .await?;
    let missing = || match step {
        Some(step) => Failure::not_found(format!("run {id} has kept no rollouts of step {step}")),
        None => Failure::not_found(format!("run {id} has kept no rollouts so far")),
    };
    let (step, (rollouts, wrong)) = read.ok_or_else(missing)?;
    let mut prompts: BTreeMap<u32, Vec<&Rollout>> = BTreeMap::new();
    for rollout in &rollouts {
        prompts.entry(rollout.prompt).or_default().push(rollout);
    }
    let here = |step: u64, from: usize| format!("/runs/{id}/rollouts?step={step}&from={from}");
    let body = html! {
        main.wide id="main" {
            p.quiet.note { a href={ "/runs/" (id) } { "Run " (id) } ": " (sentence) }
            h1 { "Rollouts of step " (step) }
            (choose(id, step, &steps))
            @if let Some(wrong) = &wrong { div.notice.bad { p { "Not all of it can be read: its file " (wrong) "." } } }
            @for samples in prompts.values().skip(from).take(PROMPTS) {
                section.prompt {
                    h2 { (cut(&samples[0].item.prompt)) }
                    @for rollout in samples.iter().take(SAMPLES) { (card(rollout, false)) }
                    @if samples.len() > SAMPLES { p.quiet { "and " (samples.len() - SAMPLES) " more" } }
                }
            }
            nav.pages aria-label="Prompts" {
                @if from > 0 { a href=(here(step, from.saturating_sub(PROMPTS))) { "Prompts before these" } }
                @if from.saturating_add(PROMPTS) < prompts.len() {
                    a href=(here(step, from + PROMPTS)) { "Prompts after these" }
                }
            }
        }
    };
    Ok(page::full(&visitor, "/runs", &format!("Rollouts of run {id}"), &[], &body))
}

/// Other steps.
fn choose(id: u32, step: u64, steps: &[u64]) -> Markup {
    let before = steps.iter().rev().find(|other| **other < step);
    let after = steps.iter().find(|other| **other > step);
    let link = |label: &str, other: Option<&u64>| {
        html! {
            @if let Some(other) = other {
                a.button href={ "/runs/" (id) "/rollouts?step=" (other) } { (label) (other) }
            }
        }
    };
    html! {
        form.row method="get" action={ "/runs/" (id) "/rollouts" } {
            (link("← ", before))
            (link("→ ", after))
            label.hidden for="step" { "Step" }
            input.short id="step" name="step" type="number" value=(step) min=[steps.first()] max=[steps.last()];
            button { "Show" }
        }
    }
}

/// One rollout; with its prompt, where that does not stand above it already.
pub fn card(rollout: &Rollout, with_prompt: bool) -> Markup {
    let Rollout { item, text, tokens, thought_tokens, finished, reward, reason, advantage, .. } = rollout;
    let (thought, answer) = parted(text);
    html! {
        article.rollout {
            @if with_prompt { p.asked { (cut(&item.prompt)) } }
            @if let Some(thought) = thought.filter(|thought| !thought.is_empty()) { p.thinking { (cut(thought)) } }
            p.answered { @if answer.is_empty() { span.quiet { "no answer" } } @else { (cut(answer)) } }
            p.quiet.note {
                span class=(if *reward > 0.0 { "reward good" } else { "reward" }) { "reward " (reward) }
                ": " (reason) " · advantage " (format!("{advantage:+.3}")) " · " (thought_tokens) " of " (tokens.len())
                " tokens thought"
                @if !finished { " · cut off at the limit" }
            }
        }
    }
}

/// A completion's thought and answer.
fn parted(text: &str) -> (Option<&str>, &str) {
    let text = text.trim();
    let text = text.strip_suffix(END).unwrap_or(text);
    match (text.strip_prefix(OPEN), text.split_once(CLOSE)) {
        (opened, Some((thought, answer))) => {
            (Some(if opened.is_some() { &thought[OPEN.len()..] } else { thought }), answer)
        }
        (Some(thought), None) => (Some(thought), ""),
        (None, None) => (None, text),
    }
}

/// The beginning of a text that may be of any length.
fn cut(text: &str) -> Markup {
    let (shown, rest) = text.split_at(text.char_indices().nth(TEXT).map_or(text.len(), |(at, _)| at));
    html! { (shown) @if !rest.is_empty() { span.quiet { " … and " (rest.chars().count()) " characters more" } } }
}

/// A few rollouts of a step that say most: the best, and one that got nothing.
pub fn some(rollouts: Vec<Rollout>) -> Vec<Rollout> {
    let best = rollouts.iter().max_by(|a, b| a.advantage.total_cmp(&b.advantage)).cloned();
    let worst = rollouts.into_iter().min_by(|a, b| a.advantage.total_cmp(&b.advantage));
    let different = worst.filter(|worst| best.as_ref() != Some(worst));
    best.into_iter().chain(different).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_have_a_thought_and_an_answer() {
        for (text, expected) in [
            ("<think>1+2=3</think>3<end>", (Some("1+2=3"), "3")),
            ("1+2=3</think>3", (Some("1+2=3"), "3")),
            ("<think>1+2", (Some("1+2"), "")),
            ("3<end>", (None, "3")),
            ("", (None, "")),
            ("<think></think></think>", (Some(""), "</think>")),
        ] {
            assert_eq!(parted(text), expected, "{text}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let page = cut(&"é".repeat(TEXT + 7)).into_string();
        assert!(page.ends_with(" … and 7 characters more</span>") && page.starts_with("éé"), "{}", page.len());
        assert_eq!(cut("<b>").into_string(), "&lt;b&gt;");
    }
}
