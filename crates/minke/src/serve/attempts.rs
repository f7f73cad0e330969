//! Trying an idea from the browser: the form, and what is like the idea, shown before a chip is spent.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use minke_lab::{AdviceId, Choice, Event, IdeaId, LinkKind};

use super::Shared;
use super::error::Failure;
use super::guard::{Visitor, field};
use super::ideas::number;
use super::lab::api::{Answer, attempt, me};
use super::page::{self, csrf_field};
use super::runs::shown;
use crate::told::{self, Alike, Attempt, CodeFile, Tried};

/// What a recipe that is given along is called.
const RECIPE: &str = "recipe.toml";

/// What somebody wants to try, as the form has it.
struct Draft {
    sentence: String,
    idea: Option<u32>,
    command: String,
    chips: u32,
    /// The run whose code it is given.
    code: Option<u32>,
    recipe: String,
}

impl Draft {
    fn of_form(body: &[u8]) -> Answer<Draft> {
        let text = |name| field(body, name).unwrap_or_default();
        let chips = number(body, "chips").ok_or_else(|| Failure::bad_request("say how many chips it runs on"))?;
        // Browsers end lines as printers do.
        let recipe = text("recipe").replace("\r\n", "\n");
        let (idea, code) = (number(body, "idea"), number(body, "code"));
        Ok(Draft { sentence: text("sentence"), idea, command: text("command"), chips, code, recipe })
    }

    fn attempt(&self, advice: Option<(u32, Choice)>) -> Answer<Attempt> {
        let mut files = BTreeMap::new();
        if !self.recipe.trim().is_empty() {
            files.insert(RECIPE.into(), CodeFile { text: Some(self.recipe.clone()), base64: None, executable: false });
        }
        Ok(Attempt {
            sentence: self.idea.is_none().then(|| self.sentence.clone()),
            idea: self.idea,
            parent: None,
            command: words(&self.command).map_err(Failure::bad_request)?,
            chips: self.chips,
            files,
            code_of: self.code,
            advice,
        })
    }

    /// All of it, for another form.
    fn fields(&self, advice: u32, choice: &str, idea: Option<u32>) -> Markup {
        let chips = self.chips.to_string();
        let texts =
            [("sentence", &self.sentence), ("command", &self.command), ("chips", &chips), ("recipe", &self.recipe)];
        html! {
            @for (name, value) in texts { input type="hidden" name=(name) value=(value); }
            @if let Some(idea) = idea { input type="hidden" name="idea" value=(idea); }
            input type="hidden" name="advice" value=(advice);
            input type="hidden" name="choice" value=(choice);
        }
    }
}

/// The form for an idea, or for another run of one like its latest; there are so many chips.
pub fn form(visitor: &Visitor, idea: Option<(u32, &[told::Run])>, chips: u32) -> Markup {
    let runs = idea.map_or(&[][..], |(_, runs)| runs);
    let command = runs.first().map_or_else(|| format!("minke train {RECIPE}"), |run| shown(&run.command));
    html! {
        form.panel.attempt method="post" action="/ideas" {
            (csrf_field(visitor))
            @match idea {
                Some((idea, _)) => { input type="hidden" name="idea" value=(idea); }
                None => {
                    label for="sentence" { "What do you want to find out?" }
                    input id="sentence" name="sentence" required maxlength="2000" autocomplete="off"
                        placeholder="Longer thoughts help with sums";
                }
            }
            div.fields {
                div.grows {
                    label for="command" { "Command" }
                    input.code id="command" name="command" required autocomplete="off" spellcheck="false"
                        value=(command);
                }
                div {
                    label for="chips" { "Chips" }
                    input id="chips" name="chips" type="number" min="1" max=(chips) value="1" required;
                }
                button.primary { @if idea.is_some() { "Run it" } @else { "Try it" } }
            }
            @if !runs.is_empty() {
                label for="code" { "Code that goes along" }
                select id="code" name="code" {
                    @for run in runs { option value=(run.id) { "that of run " (run.id) } }
                    option value="" { "none" }
                }
            }
            details {
                summary { "A recipe, which the command finds as " code { (RECIPE) } }
                label.hidden for="recipe" { "Recipe" }
                textarea.code id="recipe" name="recipe" rows="12" spellcheck="false" {}
            }
            p.quiet.note {
                "It runs at once, or as soon as it is its turn. To send code along, use " code { "minke try" }
                " in its directory."
            }
        }
    }
}

/// `POST /ideas`: runs an idea, or shows what is like it.
pub async fn make(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Answer<Response> {
    let draft = Draft::of_form(&body)?;
    let advice = match (number(&body, "advice"), field(&body, "choice").as_deref()) {
        (Some(advice), Some("split")) => Some((advice, Choice::Split)),
        (Some(advice), _) => Some((advice, Choice::GoOn)),
        (None, _) => None,
    };
    match attempt(&shared, me(&visitor), draft.attempt(advice)?).await? {
        Tried::Run { run, .. } => Ok(Redirect::to(&format!("/runs/{run}")).into_response()),
        Tried::Repeats { advice, repeats } => {
            let reader = me(&visitor);
            let ideas: Vec<IdeaId> = repeats.iter().map(|alike| alike.repeat.idea).collect();
            let mine = shared.desk.with(move |host| {
                let ideas = ideas.iter().map(|idea| host.lab().ideas().get(idea));
                Ok(ideas.map(|idea| idea.is_some_and(|idea| idea.authors.contains(&reader))).collect::<Vec<bool>>())
            });
            Ok(advise(&visitor, &draft, advice, &repeats, &mine.await?).into_response())
        }
    }
}

fn advise(visitor: &Visitor, draft: &Draft, advice: u32, repeats: &[Alike], mine: &[bool]) -> Markup {
    let instead = |choice: &str, alike: &Alike, class: &str, label: &str| {
        html! {
            form method="post" action={ "/advice/" (advice) } {
                (csrf_field(visitor))
                input type="hidden" name="choice" value=(choice);
                input type="hidden" name="idea" value=(alike.repeat.idea.0);
                @if let Some(run) = alike.repeat.run { input type="hidden" name="run" value=(run.0); }
                button class=(class) { (label) }
            }
        }
    };
    let on = |choice: &str, idea: Option<u32>, class: &str, label: &str| {
        html! {
            form method="post" action="/ideas" {
                (csrf_field(visitor))
                (draft.fields(advice, choice, idea))
                button class=(class) { (label) }
            }
        }
    };
    let body = html! {
        main.narrow id="main" {
            h1 { "There is something like it" }
            p { "“" (draft.sentence) "”" }
            p.quiet { "Nothing was run yet." }
            ul.cards {
                @for (alike, mine) in repeats.iter().zip(mine) {
                    li {
                        p { (alike.sentence) }
                        div.buttons {
                            @if *mine {
                                (on("go_on", Some(alike.repeat.idea.0), "", "Run it for that idea, which is yours"))
                            } @else {
                                (instead("join", alike, "primary", "Ask to join"))
                            }
                            @let watch = if alike.repeat.run.is_some() { "Watch that run" } else { "See that idea" };
                            (instead("watch", alike, "", watch))
                        }
                    }
                }
            }
            div.buttons {
                (on("split", None, "", "Split: I run another part of the question"))
                (on("go_on", None, "", "Go on all the same"))
            }
        }
    };
    page::full(visitor, "/ideas", "There is something like it", &[], &body)
}

/// `POST /advice/N`: joins or watches what is there, instead of running it again.
pub async fn choose(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(advice): Path<u32>,
    body: Bytes,
) -> Answer<Redirect> {
    let idea = number(&body, "idea").ok_or_else(|| Failure::bad_request("say which idea"))?;
    let choice = match field(&body, "choice").as_deref() {
        Some("join") => Choice::Join,
        Some("watch") => Choice::Watch,
        _ => return Err(Failure::bad_request("choose to join or to watch")),
    };
    let by = me(&visitor);
    shared.desk.tell(Event::Choose { by, advice: AdviceId(advice), choice }).await?;
    let there = format!("/ideas/{idea}");
    if choice == Choice::Join {
        let (kind, message) = (LinkKind::Join, String::new());
        shared.desk.tell(Event::Ask { by, kind, idea: IdeaId(idea), to: None, message }).await?;
        return Ok(Redirect::to(&there));
    }
    Ok(Redirect::to(&number(&body, "run").map_or(there, |run| format!("/runs/{run}"))))
}

/// A command's words, as a shell would cut it: blanks part them, unless quotes or a backslash hold them together. Nothing
/// else has a meaning.
fn words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '\'' | '"' => {
                let quoted = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(format!("the command has a {c} that is not closed; close it")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some(next @ ('"' | '\\')) => quoted.push(next),
                            other => quoted.extend(['\\'].into_iter().chain(other)),
                        },
                        Some(other) => quoted.push(other),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_as_a_shell_would() {
        for (command, expected) in [
            ("minke train recipe.toml", &["minke", "train", "recipe.toml"][..]),
            ("  sh -c 'echo \"a  b\"; sleep 1' \n", &["sh", "-c", "echo \"a  b\"; sleep 1"]),
            (r#"a "b \"c\" \d" e\ f"#, &["a", r#"b "c" \d"#, "e f"]),
            (r"a''b '' $HOME *", &["ab", "", "$HOME", "*"]),
            ("", &[]),
        ] {
            assert_eq!(words(command).unwrap(), expected, "{command}");
        }
        for command in ["a 'b", "a \"b", "\"\\"] {
            assert!(words(command).unwrap_err().contains("not closed"), "{command}");
        }
    }
}
