//! `minke arena vote`: one vote into the log.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use minke_arena::Outcome;
use serde::Serialize;

use super::{OutcomeArgument, writable_log};
use crate::output::{Show, print};
use crate::units::grouped;

#[derive(Args)]
#[command(after_help = "Examples:
  minke arena vote --left sums --right smollm2 --winner left
  minke arena vote --left sums --right smollm2 --winner tie --reasoning left --voter ada")]
pub struct Vote {
    /// The model whose answer was on the left
    #[arg(long, value_name = "MODEL")]
    left: String,
    /// The model whose answer was on the right
    #[arg(long, value_name = "MODEL")]
    right: String,
    /// Which answer is better
    #[arg(long, value_name = "left|right|tie|both-bad", hide_possible_values = true)]
    winner: OutcomeArgument,
    /// Which reasoning is better, whatever the answers
    #[arg(long, value_name = "left|right|tie|both-bad", hide_possible_values = true)]
    reasoning: Option<OutcomeArgument>,
    /// Who votes
    #[arg(long, value_name = "NAME")]
    voter: Option<String>,
    /// Which battle the vote is on
    #[arg(long, value_name = "ID")]
    battle: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Recorded {
    /// Where the vote went,
    log: PathBuf,
    /// and how many votes are there now.
    votes: u64,
    #[serde(skip)]
    sentence: String,
}

impl Show for Recorded {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} Vote {} in {}.", self.sentence, grouped(self.votes), self.log.display())
    }
}

pub fn run(arguments: &Vote) -> Result<()> {
    let Vote { left, right, winner, reasoning, voter, battle, json } = arguments;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let vote = minke_arena::Vote {
        reasoning: reasoning.map(Outcome::from),
        voter: voter.clone(),
        ms: now.ok().and_then(|now| u64::try_from(now.as_millis()).ok()),
        battle: battle.clone(),
        ..minke_arena::Vote::new(left, right, (*winner).into())
    };
    vote.check()?;
    let mut log = writable_log()?;
    log.append(&vote)?;
    let sentence = match vote.winner {
        Outcome::Left => format!("{left} is better than {right}."),
        Outcome::Right => format!("{right} is better than {left}."),
        Outcome::Tie => format!("{left} and {right} are equally good."),
        Outcome::BothBad => format!("Neither {left} nor {right} is any good."),
    };
    print(&Recorded { log: log.path().to_path_buf(), votes: log.votes().len() as u64, sentence }, *json)
}
