//! `minke arena`: votes on which model is better, and the leaderboard they make.

mod battle;
mod board;
mod contestant;
mod export;
mod import;
mod picture;
mod verified;
mod vote;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use minke_arena::{Outcome, VoteLog};

use crate::store::Store;
use crate::terminal::say;

#[derive(Subcommand)]
pub enum Arena {
    /// Let two models answer, without saying which they are, and vote
    Battle(battle::Battle),
    /// Record one vote on two models' answers
    Vote(vote::Vote),
    /// Rank the models by all votes, with intervals
    Board(board::Board),
    /// Add the votes of a file
    Import(import::Import),
    /// Write all votes for other programs
    Export(export::Export),
}

pub fn run(command: &Arena) -> Result<()> {
    match command {
        Arena::Battle(arguments) => battle::run(arguments),
        Arena::Vote(arguments) => vote::run(arguments),
        Arena::Board(arguments) => board::run(arguments),
        Arena::Import(arguments) => import::run(arguments),
        Arena::Export(arguments) => export::run(arguments),
    }
}

/// An [`Outcome`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum OutcomeArgument {
    Left,
    Right,
    Tie,
    BothBad,
}

impl From<OutcomeArgument> for Outcome {
    fn from(outcome: OutcomeArgument) -> Outcome {
        match outcome {
            OutcomeArgument::Left => Outcome::Left,
            OutcomeArgument::Right => Outcome::Right,
            OutcomeArgument::Tie => Outcome::Tie,
            OutcomeArgument::BothBad => Outcome::BothBad,
        }
    }
}

/// The store's log, to be read.
fn log() -> Result<VoteLog> {
    let path = Store::open()?.votes_file();
    if let Some(home) = path.parent().filter(|home| home.exists() && !home.is_dir()) {
        bail!("{} is not a directory; set MINKE_HOME to one", home.display());
    }
    open(&path)
}

/// The store's log, to be written: with a directory to be in.
pub fn writable_log() -> Result<VoteLog> {
    let path = Store::open()?.votes_file();
    let home = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(home)
        .with_context(|| format!("{} can't be made; set MINKE_HOME to another directory", home.display()))?;
    open(&path)
}

/// Opens a log; what a crash has cut off is told.
fn open(path: &Path) -> Result<VoteLog> {
    let log = VoteLog::open(path)?;
    if let Some(torn) = log.torn() {
        say(&format!("{}: {torn}", path.display()));
    }
    Ok(log)
}
