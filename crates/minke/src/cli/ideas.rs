//! People and what they want to find out: `minke ideas`, `idea`, `join`, `invite`, `accept`, `decline`, `withdraw`,
//! `leave`, `park`, `inbox`.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::runs::Runs;
use crate::client::Client;
use crate::output::{Show, print};
use crate::terminal::printable;
use crate::told;

#[derive(Args)]
pub struct List {
    /// Print them as a JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke idea 7")]
pub struct One {
    /// Its number
    idea: u32,
    /// Print it as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke join 7 -m \"I have the data for this\"")]
pub struct Join {
    /// The idea's number
    idea: u32,
    /// What to say to its authors
    #[arg(short, long, default_value = "")]
    message: String,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke invite 7 ben -m \"you know verifiers\"")]
pub struct Invite {
    /// The idea's number
    idea: u32,
    /// Whom
    person: String,
    /// What to say to them
    #[arg(short, long, default_value = "")]
    message: String,
}

#[derive(Args)]
pub struct Answer {
    /// The question's number, as `minke inbox` has it
    question: u32,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke leave 7\n\nIts runs go on.")]
pub struct Leave {
    /// The idea's number
    idea: u32,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  minke park 7\n  minke park 7 --resume\n\nIts runs go on.")]
pub struct Park {
    /// The idea's number
    idea: u32,
    /// Take it up again
    #[arg(long)]
    resume: bool,
}

pub fn list(arguments: &List) -> Result<()> {
    let ideas: Vec<told::Idea> = Client::connect()?.get("/api/ideas")?;
    print(&Ideas(ideas), arguments.json)
}

pub fn one(arguments: &One) -> Result<()> {
    let client = Client::connect()?;
    let idea: told::Idea = client.get(&format!("/api/ideas/{}", arguments.idea))?;
    let runs: Vec<told::Run> = client.get("/api/runs")?;
    let runs = runs.into_iter().filter(|run| run.idea == idea.id).collect();
    print(&Detail { idea, runs: Runs(runs) }, arguments.json)
}

pub fn join(arguments: &Join) -> Result<()> {
    let body = json!({ "kind": "join", "message": arguments.message });
    ask(arguments.idea, &body, "asked; `minke inbox` tells when they have answered")
}

pub fn invite(arguments: &Invite) -> Result<()> {
    let body = json!({ "kind": "invite", "to": arguments.person, "message": arguments.message });
    ask(arguments.idea, &body, "asked; it takes effect when they say yes")
}

fn ask(idea: u32, body: &Value, said: &'static str) -> Result<()> {
    tell(&format!("/api/ideas/{idea}/ask"), body, said)
}

pub fn answer(arguments: &Answer, yes: bool) -> Result<()> {
    let said = if yes { "accepted" } else { "declined" };
    tell(&format!("/api/inbox/{}", arguments.question), &json!({ "yes": yes }), said)
}

pub fn withdraw(arguments: &Answer) -> Result<()> {
    tell(&format!("/api/inbox/{}/withdraw", arguments.question), &json!({}), "taken back")
}

pub fn leave(arguments: &Leave) -> Result<()> {
    tell(&format!("/api/ideas/{}/leave", arguments.idea), &json!({}), "left; its runs go on")
}

pub fn park(arguments: &Park) -> Result<()> {
    let said = if arguments.resume { "taken up again" } else { "put aside; its runs go on" };
    tell(&format!("/api/ideas/{}/park", arguments.idea), &json!({ "parked": !arguments.resume }), said)
}

fn tell(path: &str, body: &Value, said: &'static str) -> Result<()> {
    let _: Value = Client::connect()?.post(path, body)?;
    print(&Said(said), false)
}

pub fn inbox(arguments: &List) -> Result<()> {
    let questions: Vec<told::Question> = Client::connect()?.get("/api/inbox")?;
    print(&Inbox(questions), arguments.json)
}

/// A word that it is done.
#[derive(Serialize)]
pub struct Said(pub &'static str);

impl Show for Said {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.0)
    }
}

#[derive(Serialize)]
struct Ideas(Vec<told::Idea>);

impl Show for Ideas {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.is_empty() {
            return writeln!(out, "no ideas yet; `minke try` has the first");
        }
        self.0.iter().try_for_each(|idea| {
            let told::Idea { id, sentence, authors, status, runs, .. } = idea;
            let line = format!("{id:>4}  {status:9} {:>3} runs  {sentence}  ({})", runs.len(), authors.join(", "));
            writeln!(out, "{}", printable(&line))
        })
    }
}

#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    idea: told::Idea,
    #[serde(rename = "its_runs")]
    runs: Runs,
}

impl Show for Detail {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let told::Idea { id, sentence, authors, status, parent, .. } = &self.idea;
        writeln!(out, "idea {id} ({status}): {}", printable(sentence))?;
        writeln!(out, "of {}", printable(&authors.join(", ")))?;
        if let Some(parent) = parent {
            writeln!(out, "grew out of idea {parent}")?;
        }
        self.runs.show(out)
    }
}

#[derive(Serialize)]
struct Inbox(Vec<told::Question>);

impl Show for Inbox {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.is_empty() {
            return writeln!(out, "nothing was asked of you, and you have asked nothing");
        }
        for told::Question { id, kind, from, to, idea, sentence, message, status, yours, .. } in &self.0 {
            let to = to.join(", ");
            let asks = match kind.as_str() {
                "invite" => format!("{from} invites {to} to idea {idea}"),
                "join" => format!("{from} asks {to} to join idea {idea}"),
                _ => format!("{from} asks {to} to merge into idea {idea}"),
            };
            writeln!(out, "{}", printable(&format!("{id:>4}  {status:9} {asks}: {sentence}")))?;
            if !message.is_empty() {
                writeln!(out, "                “{}”", printable(message))?;
            }
            if *yours && status == "pending" {
                writeln!(out, "                minke accept {id}   or   minke decline {id}")?;
            }
        }
        Ok(())
    }
}
