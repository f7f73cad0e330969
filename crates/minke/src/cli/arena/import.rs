//! `minke arena import`: a file's votes into the log, each once.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use minke_arena::formats::{self, Contents, Format, SHOWN};
use minke_arena::{Vote, VoteLog};
use serde::Serialize;

use super::writable_log;
use crate::cli::pull::digest_of;
use crate::output::{Show, print};
use crate::terminal::{printable, say};
use crate::units::grouped;

#[derive(Args)]
#[command(after_help = "Examples:
  minke arena import human.json       Chatbot Arena's JSON lines: model_a, model_b, winner
  minke arena import votes.csv        CSV with columns left, right, winner; others are ignored
  minke arena import votes.jsonl      another log of minke's

A file that was imported before is refused. Of another file, votes that have a battle or a time and are in the log
already are left out.")]
pub struct Import {
    /// A file of votes; what it is written in is found out
    file: PathBuf,
    /// Import the other votes of a file that has bad lines, and say which lines those are
    #[arg(long)]
    skip_bad: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Imported {
    file: PathBuf,
    format: Format,
    /// Votes that were added,
    added: u64,
    /// those that were in the log,
    duplicates: u64,
    /// and lines that are none.
    bad_lines: u64,
    /// Models that the added votes are on.
    models: usize,
    log: PathBuf,
    /// Votes that are in the log now.
    votes: u64,
}

impl Show for Imported {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Imported { file, format, added, duplicates, models, log, .. } = self;
        let (file, log) = (file.display(), log.display());
        match (added, duplicates) {
            (0, 1..) => return writeln!(out, "Nothing was added: all votes of {file} are in {log} already."),
            (0, 0) => return writeln!(out, "Nothing was added: {file} has no votes."),
            (1, _) => writeln!(out, "1 vote from {file} ({format}) added to {log}.")?,
            _ => writeln!(out, "{} votes on {models} models from {file} ({format}) added to {log}.", grouped(*added))?,
        }
        match duplicates {
            0 => Ok(()),
            1 => writeln!(out, "1 vote was left out: it is there already."),
            n => writeln!(out, "{} votes were left out: they are there already.", grouped(*n)),
        }
    }
}

pub fn run(arguments: &Import) -> Result<()> {
    let file = &arguments.file;
    let bytes = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
    let contents = formats::read(&bytes).with_context(|| file.display().to_string())?;
    check(arguments, &contents)?;
    let mut log = writable_log()?;
    let sha256 = digest_of(&bytes);
    if let Some(before) = log.imports().iter().find(|import| import.sha256 == sha256) {
        bail!(
            "{} was imported into {} before, as {}; nothing was added",
            file.display(),
            log.path().display(),
            printable(&before.file)
        );
    }
    let fresh = fresh(&log, &contents.votes);
    let models: BTreeSet<&str> = fresh.iter().flat_map(|vote| [&*vote.left, &*vote.right]).collect();
    let imported = Imported {
        file: file.clone(),
        format: contents.format,
        added: fresh.len() as u64,
        duplicates: (contents.votes.len() - fresh.len()) as u64,
        bad_lines: contents.bad_lines,
        models: models.len(),
        log: log.path().to_path_buf(),
        votes: (log.votes().len() + fresh.len()) as u64,
    };
    if !fresh.is_empty() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        log.import(&name, &sha256, &fresh)?;
    }
    print(&imported, arguments.json)
}

/// That all lines are votes, or that the others may be skipped; then they are told.
fn check(arguments: &Import, contents: &Contents) -> Result<()> {
    let Some(first) = contents.bad.first() else { return Ok(()) };
    let file = arguments.file.display();
    if !arguments.skip_bad {
        let others = match contents.bad_lines - 1 {
            0 => String::new(),
            1 => " (and one more line is bad)".to_string(),
            n => format!(" (and {} more lines are bad)", grouped(n)),
        };
        bail!("{file} {first}{others}; nothing was imported; --skip-bad imports the other lines");
    }
    contents.bad.iter().for_each(|bad| say(&format!("{file} {bad}")));
    if contents.bad_lines > SHOWN as u64 {
        say(&format!("{file}: {} more lines are bad", grouped(contents.bad_lines - SHOWN as u64)));
    }
    Ok(())
}

/// The votes that are not in the log. Only what has a battle or a time can be known to be the same vote: two others that
/// read the same are two people's.
fn fresh(log: &VoteLog, votes: &[Vote]) -> Vec<Vote> {
    let known: HashSet<&Vote> = log.votes().iter().collect();
    let marked = |vote: &Vote| vote.battle.is_some() || vote.ms.is_some();
    votes.iter().filter(|vote| !(marked(vote) && known.contains(vote))).cloned().collect()
}
