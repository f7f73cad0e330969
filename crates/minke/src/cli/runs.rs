//! `minke runs`, `run`, `logs`, `why`, `stop`: what runs on the lab, and why.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::ideas::{List, Said};
use crate::client::Client;
use crate::output::{Show, print};
use crate::terminal::printable;
use crate::told;
use crate::units::duration;

#[derive(Args)]
pub struct One {
    /// Its number
    run: u32,
    /// Print it as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke logs 12 -f")]
pub struct Logs {
    /// The run's number
    run: u32,
    /// Go on until the run is over
    #[arg(short, long)]
    follow: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  minke stop 12\n\nThe run is asked to save first.")]
pub struct Stop {
    /// The run's number
    run: u32,
}

pub fn list(arguments: &List) -> Result<()> {
    print(&Runs(Client::connect()?.get("/api/runs")?), arguments.json)
}

pub fn one(arguments: &One) -> Result<()> {
    print(&Detail(Client::connect()?.get(&format!("/api/runs/{}", arguments.run))?), arguments.json)
}

pub fn why(arguments: &One) -> Result<()> {
    print(&Why(Client::connect()?.get(&format!("/api/runs/{}", arguments.run))?), arguments.json)
}

pub fn stop(arguments: &Stop) -> Result<()> {
    let _: Value = Client::connect()?.post(&format!("/api/runs/{}/stop", arguments.run), &json!({}))?;
    print(&Said("asked to save and end"), false)
}

pub fn logs(arguments: &Logs) -> Result<()> {
    let client = Client::connect()?;
    let mut from = 0;
    loop {
        let told::Log { text, next, over } = client.get(&format!("/api/runs/{}/log?from={from}", arguments.run))?;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if over || (text.is_empty() && !arguments.follow) {
            return Ok(());
        }
        if text.is_empty() {
            sleep(Duration::from_millis(300));
        }
        from = next;
    }
}

/// A list of runs.
#[derive(Serialize)]
pub struct Runs(pub Vec<told::Run>);

impl Show for Runs {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.is_empty() {
            return writeln!(out, "no runs yet");
        }
        self.0.iter().try_for_each(|run| {
            let done = run.progress.filter(|(_, steps)| *steps > 0);
            let done = done.map_or_else(String::new, |(step, steps)| format!("{} %", 100 * step / steps));
            let told::Run { id, state, chips, sentence, owners, .. } = run;
            let line = format!("{id:>4}  {state:10} {done:>5}  {chips} chips  {sentence}  ({})", owners.join(", "));
            writeln!(out, "{}", printable(&line))
        })
    }
}

#[derive(Serialize)]
struct Detail(told::Run);

impl Show for Detail {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let run = &self.0;
        writeln!(out, "run {} of idea {}: {}", run.id, run.idea, printable(&run.sentence))?;
        writeln!(out, "{}", printable(&run.command.join(" ")))?;
        if let Some(what) = &run.ended_for {
            writeln!(out, "{}", printable(what))?;
        }
        if let Some((step, steps)) = run.progress {
            let left = run.left_s.map_or_else(String::new, |left| format!(", {} left", duration(left)));
            writeln!(out, "step {step} of {steps}{left}")?;
        }
        writeln!(out, "{} of chip time so far", duration(run.chip_s))?;
        writeln!(out, "{}", printable(&run.why))
    }
}

#[derive(Serialize)]
struct Why(told::Run);

impl Show for Why {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let told::Run { submitted, why, decisions, .. } = &self.0;
        for told::Decision { at, sentence } in decisions {
            let after = at.saturating_sub(*submitted) as f64 / 1000.0;
            writeln!(out, "{:>9}  {}", duration(after), printable(sentence))?;
        }
        writeln!(out, "      now  {}", printable(why))
    }
}
