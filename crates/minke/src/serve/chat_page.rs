//! What the chat page and a shared conversation look like before the script wakes them up. Text of models and people stands
//! here as text; `chat.js` makes Markdown of it.

use maud::{Markup, html};

use super::conversations::{Conversation, From, Turn};
use super::guard::Visitor;
use super::page::{self, button};
use super::steps::Step;

const SCRIPTS: [&str; 3] = ["markdown.js", "thoughts.js", "chat.js"];

/// A conversation that has not begun; with this model, if one is named.
pub fn new(visitor: &Visitor, conversations: &[Conversation], models: &[String], model: Option<&str>) -> Markup {
    let middle = html! {
        header.bar { h1 { "New conversation" } }
        (log(&[], None))
        (composer(models, model))
    };
    around(visitor, conversations, None, "Chat", &middle)
}

/// A conversation that has; `share` is the link to it, if there is one.
pub fn one(
    visitor: &Visitor,
    conversations: &[Conversation],
    models: &[String],
    conversation: &Conversation,
    turns: &[Turn],
    share: Option<&str>,
) -> Markup {
    let Conversation { id, title } = conversation;
    let last = turns.iter().rev().find_map(|turn| match &turn.from {
        From::Model { model, .. } => Some(model.as_str()),
        From::User => None,
    });
    let middle = html! {
        header.bar {
            h1 { (title) }
            details.menu {
                summary { @if share.is_some() { "Shared" } @else { "Share" } }
                div {
                    @if let Some(link) = share {
                        p { "Whoever has this link can read the conversation with its thoughts." }
                        p { input #share-link readonly value=(link) aria-label="Link"; }
                        div.buttons {
                            button type="button" data-copy="share-link" { "Copy" }
                            (button(visitor, &format!("/chat/{id}/unshare"), "quiet", "Take it back"))
                        }
                    } @else {
                        p { "A link through which anybody who has it can read this conversation with its thoughts. You can take it back." }
                        (button(visitor, &format!("/chat/{id}/share"), "", "Make a link"))
                    }
                    hr;
                    (button(visitor, &format!("/chat/{id}/delete"), "quiet danger", "Delete the conversation"))
                }
            }
        }
        (log(turns, Some(*id)))
        (composer(models, last))
    };
    around(visitor, conversations, Some(*id), title, &middle)
}

/// A conversation for whoever has the link.
pub fn shared(conversation: &Conversation, turns: &[Turn]) -> Markup {
    let body = html! {
        main.conversation.shared id="main" {
            header.bar { h1 { (conversation.title) } }
            (log(turns, None))
            p.quiet.note { "A conversation that somebody shared, as it was when you opened this page." }
        }
    };
    page::public(&conversation.title, &SCRIPTS, &body)
}

fn around(
    visitor: &Visitor,
    conversations: &[Conversation],
    current: Option<i64>,
    title: &str,
    middle: &Markup,
) -> Markup {
    let list = html! {
        a.new href="/chat" { "New conversation" }
        ul {
            @for Conversation { id, title } in conversations {
                li { a href={ "/chat/" (id) } aria-current=[(current == Some(*id)).then_some("page")] { (title) } }
            }
        }
    };
    let body = html! {
        div.chat {
            nav.conversations aria-label="Conversations" {
                details.drawer { summary { "Conversations" } (list) }
                div.list { (list) }
            }
            main.conversation id="main" { (middle) }
        }
    };
    page::full(visitor, "/chat", title, &SCRIPTS, &body)
}

fn log(turns: &[Turn], id: Option<i64>) -> Markup {
    html! {
        // One polite line says what goes on; a screen reader that read every token would be of no use.
        div #log role="log" aria-live="off" tabindex="0" aria-label="Conversation" data-conversation=[id] {
            @if turns.is_empty() {
                p.empty { "Ask something, and watch it think." }
            }
            @for (at, turn) in turns.iter().enumerate() { (one_turn(at, turn)) }
        }
    }
}

fn one_turn(at: usize, turn: &Turn) -> Markup {
    match &turn.from {
        From::User => html! { article.turn.user aria-label="You" { div.text { (turn.content) } } },
        From::Model { model, steps, thought_ms, ended } => html! {
            article.turn.model aria-label=(model) {
                div.who { (model) }
                @if !steps.is_empty() { (thought(&format!("thought-{at}"), steps, Some(*thought_ms))) }
                div.answer data-markdown { (turn.content) }
                @if let Some(note) = note(ended.as_deref()) { p.quiet.note { (note) } }
            }
        },
    }
}

/// A thought's panel, step by step; without times, which would say who has thought, where `ms` is none.
pub fn thought(id: &str, steps: &[Step], ms: Option<i64>) -> Markup {
    let tokens: usize = steps.iter().map(|step| step.tokens).sum();
    html! {
        section.thought {
            button type="button" aria-expanded="false" aria-controls=(id) {
                @if let Some(ms) = ms {
                    "Thought for " (seconds(ms)) ", " (tokens) (if tokens == 1 { " token" } else { " tokens" })
                } @else {
                    "Thought"
                }
            }
            ol id=(id) hidden {
                @for step in steps {
                    li {
                        span.text { (step.text.trim_end()) }
                        @if ms.is_some() {
                            span.when title={ "begun after " (step.ms) " ms, " (step.tokens) " tokens" } {
                                (seconds(i64::try_from(step.ms).unwrap_or(i64::MAX))) " · " (step.tokens)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Milliseconds as the script writes them, too.
fn seconds(ms: i64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

fn note(ended: Option<&str>) -> Option<&'static str> {
    match ended {
        Some("length") => Some("Cut off: it was as long as it may be."),
        Some("stopped") => Some("Stopped."),
        Some("failed") => Some("This reply broke off."),
        Some(_) => None,
        None => Some("This reply is still being written; load the page again to see more of it."),
    }
}

fn composer(models: &[String], last: Option<&str>) -> Markup {
    html! {
        p #status role="status" {}
        @if models.is_empty() {
            p.notice {
                "There are no models yet. " code { "minke pull" } " brings one, " code { "minke train" } " makes one; then load "
                "this page again."
            }
        } @else {
            form #composer {
                label.hidden for="text" { "Your message" }
                textarea #text name="text" rows="1" placeholder="Write a message" autocomplete="off" autofocus {}
                div.controls {
                    label.hidden for="model" { "Model" }
                    select #model name="model" {
                        @for model in models {
                            option value=(model) selected[last == Some(model.as_str())] { (model) }
                        }
                    }
                    label.check { input #think type="checkbox" name="think" checked; "Think" }
                    span.space {}
                    button #stop type="button" hidden { "Stop" }
                    button #send.primary type="submit" { "Send" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_and_people_write_stays_text() {
        let hostile = "<script>alert(1)</script>\"'&";
        let steps = vec![Step { ms: 5, tokens: 2, text: hostile.into() }];
        let from = From::Model { model: hostile.into(), steps, thought_ms: 1500, ended: Some("stop".into()) };
        let turns = [Turn { from: From::User, content: hostile.into() }, Turn { from, content: hostile.into() }];
        let page = shared(&Conversation { id: 1, title: hostile.into() }, &turns).into_string();
        assert!(!page.contains("<script>alert") && page.matches("&lt;script&gt;alert").count() >= 5, "{page}");
        assert!(page.contains("Thought for 1.5 s, 2 tokens"), "{page}");
    }
}
