//! What a battle looks like: before its vote without a word about who is who, and after it with names.

use maud::{Markup, html};
use minke_arena::{Board, Outcome};

use super::kept::{Battle, Side, Verdict, Written};
use super::{AREA, in_words, path_of};
use crate::serve::chat_page::thought;
use crate::serve::guard::Visitor;
use crate::serve::page::{self, csrf_field, time};

const SCRIPTS: [&str; 3] = ["markdown.js", "thoughts.js", "arena.js"];
/// What the two are called until they are named.
const SIDES: [&str; 2] = ["A", "B"];
/// What a vote may say, with the words on the buttons.
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Left, "A is better"),
    (Outcome::Right, "B is better"),
    (Outcome::Tie, "Tie"),
    (Outcome::BothBad, "Both are bad"),
];

/// A battle that has not begun, where there are so many models.
pub fn new(visitor: &Visitor, models: usize) -> Markup {
    let body = html! {
        main.arena id="main" {
            h1 { "A blind battle" }
            @if models < 2 {
                p.notice {
                    "A battle needs two models, and there " (if models == 1 { "is one" } else { "are none" }) ". "
                    code { "minke pull" } " brings another, " code { "minke train" } " makes one; then load this page "
                    "again."
                }
            } @else {
                p.quiet #about {
                    "Two models answer the same question. Which ones is said when you have voted; then everybody here "
                    "can read what you asked and what they answered."
                }
                form #ask {
                    label.hidden for="text" { "Your question" }
                    textarea #text name="prompt" rows="3" placeholder="Ask both something" autocomplete="off"
                        autofocus {}
                    div.controls { span.space {} button.primary type="submit" { "Ask both" } }
                }
                div #battle hidden {
                    p.asked {}
                    p #status role="status" {}
                    (duel(&html! {}, &html! {}))
                    form #vote method="post" hidden { (ballot(visitor, true)) }
                }
            }
        }
    };
    page::full(visitor, AREA, "A blind battle", &SCRIPTS, &body)
}

/// A battle that its person has not voted on.
pub fn blind(visitor: &Visitor, battle: &Battle) -> Markup {
    let reply = |side: usize| {
        let Written { answer, steps, ended, .. } = &battle.sides[side].written;
        html! {
            @if !steps.is_empty() { (thought(&format!("thought-{side}"), steps, None)) }
            div.answer data-markdown { (answer) }
            @if ended.as_deref() == Some("length") { (cut_off()) }
        }
    };
    let body = html! {
        main.arena id="main" {
            h1 { "A blind battle" }
            p.asked { (battle.prompt) }
            @if battle.is_complete() {
                (duel(&reply(0), &reply(1)))
                form #vote method="post" action={ "/arena/battle/" (battle.id) "/vote" } {
                    (ballot(visitor, battle.has_thoughts()))
                }
            } @else if battle.is_under_way() {
                p.notice { "Both are still answering; load this page again in a moment." }
            } @else {
                p.notice {
                    "This battle broke off, so there is nothing to vote on. "
                    a href="/arena/battle" { "Start another" } "."
                }
            }
        }
    };
    page::full(visitor, AREA, "A blind battle", &SCRIPTS, &body)
}

/// A battle with its vote.
pub fn open(visitor: &Visitor, battle: &Battle, board: Option<&Board>) -> Markup {
    let reply = |side: usize| {
        let Side { model, seed, written } = &battle.sides[side];
        let standing = board.and_then(|board| board.models.iter().find(|standing| standing.model == *model));
        let ms = i64::try_from(written.thought_ms).unwrap_or(i64::MAX);
        html! {
            p.unmasked {
                a href=(path_of(model)) { (model) }
                @if let Some(standing) = standing { span.quiet.note { " rated " (in_words(standing)) } }
            }
            @if !written.steps.is_empty() { (thought(&format!("thought-{side}"), &written.steps, Some(ms))) }
            div.answer data-markdown { (written.answer) }
            @if written.ended.as_deref() == Some("length") { (cut_off()) }
            p.quiet.note {
                "Seed " (seed)
                @if let Some(start) = written.checksum.get(..12) {
                    ", model " code title=(written.checksum) { (start) }
                }
            }
        }
    };
    let body = html! {
        main.arena id="main" {
            h1 { (battle.sides[0].model) " and " (battle.sides[1].model) }
            p.asked { (battle.prompt) }
            @if let Some(Verdict { answers, thoughts, at }) = battle.verdict {
                p.notice {
                    b { (battle.name) } " voted on " (time(at)) " (UTC) and found "
                    (found(battle, answers, "answer", "answers"))
                    @if let Some(thoughts) = thoughts { "; " (found(battle, thoughts, "thoughts", "thoughts")) }
                    ". The vote is in the log, and " a href=(AREA) { "the board" } " counts it."
                }
            }
            (duel(&reply(0), &reply(1)))
            p { a.do href="/arena/battle" { "Another battle" } }
        }
    };
    let title = format!("{} and {}", battle.sides[0].model, battle.sides[1].model);
    page::full(visitor, AREA, &title, &SCRIPTS, &body)
}

/// What a vote found, in words; of one it is called `one`, of both `all`.
fn found(battle: &Battle, outcome: Outcome, one: &str, all: &str) -> String {
    let better = |side: usize| format!("the {one} of {} ({}) better", battle.sides[side].model, SIDES[side]);
    match outcome {
        Outcome::Left => better(0),
        Outcome::Right => better(1),
        Outcome::Tie => format!("the {all} equally good"),
        Outcome::BothBad => format!("both {all} bad"),
    }
}

fn cut_off() -> Markup {
    html! { p.quiet.note { "Cut off: it was as long as it may be." } }
}

/// Two replies side by side.
fn duel(left: &Markup, right: &Markup) -> Markup {
    html! {
        div.duel {
            @for (name, reply) in SIDES.iter().zip([left, right]) {
                section.side aria-label=(name) { h2 { (name) } (reply) }
            }
        }
    }
}

/// The questions of a vote.
fn ballot(visitor: &Visitor, thoughts: bool) -> Markup {
    let question = |name: &str, legend: &str, required: bool| {
        html! {
            fieldset.ballot id={ "on-" (name) } {
                legend { (legend) }
                @for (outcome, words) in OUTCOMES {
                    label { input type="radio" name=(name) value=(outcome.name()) required[required]; span { (words) } }
                }
            }
        }
    };
    html! {
        (csrf_field(visitor))
        (question("answers", "Which answer is better?", true))
        @if thoughts {
            (question("thoughts", "Whose thoughts are better, whatever the answers? (if you can say)", false))
        }
        button.primary type="submit" { "Vote, and see who they are" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::credentials::Person;
    use crate::serve::steps::Step;

    fn battle() -> Battle {
        let side = |model: &str, tokens, ended: &str| Side {
            model: model.into(),
            seed: 77_001,
            written: Written {
                answer: "<script>alert(1)</script>".into(),
                steps: vec![Step { ms: 4321, tokens, text: "<b>hm".into() }],
                thought_ms: 9876,
                checksum: "c0ffee".repeat(8),
                ended: Some(ended.into()),
            },
        };
        let sides = [side("grampus", 31, "stop"), side("orca", 57, "length")];
        let (person, name, created) = (1, "ada".into(), 0);
        Battle { id: "7f".into(), person, name, prompt: "why?".into(), created, sides, verdict: None }
    }

    fn visitor() -> Visitor {
        let person = Person { id: 1, name: "ada".into(), interests: String::new() };
        Visitor { person, session: String::new(), csrf: String::new(), asked: 0 }
    }

    #[test]
    fn nothing_tells_who_is_who_before_the_vote_and_everything_does_after_it() {
        let mut battle = battle();
        let page = blind(&visitor(), &battle).into_string();
        for secret in ["grampus", "orca", "77001", "c0ffee", "4321", "4.3", "9.8", "31", "57 "] {
            assert!(!page.contains(secret), "{secret}: {page}");
        }
        assert!(!page.contains("<script>alert") && page.contains("&lt;b&gt;hm"), "{page}");
        battle.verdict = Some(Verdict { answers: Outcome::Right, thoughts: Some(Outcome::Tie), at: 0 });
        let page = open(&visitor(), &battle, None).into_string();
        for secret in
            ["/arena/model?name=grampus", "the answer of orca (B) better", "77001", "c0ffee", "9.9 s, 31 tokens"]
        {
            assert!(page.contains(secret), "{secret}: {page}");
        }
        assert!(!page.contains("<script>alert"), "{page}");
    }

    #[test]
    fn what_can_not_be_voted_on_has_no_ballot() {
        let mut battle = battle();
        assert!(blind(&visitor(), &battle).into_string().contains("id=\"on-thoughts\""));
        for side in &mut battle.sides {
            side.written.steps.clear();
        }
        let page = blind(&visitor(), &battle).into_string();
        assert!(page.contains("id=\"on-answers\"") && !page.contains("id=\"on-thoughts\""), "nobody has thought");
        for (ended, says) in [(None, "still answering"), (Some("failed"), "broke off")] {
            battle.sides[1].written.ended = ended.map(str::to_string);
            let page = blind(&visitor(), &battle).into_string();
            assert!(page.contains(says) && !page.contains("<form id=\"vote\""), "{page}");
        }
    }
}
