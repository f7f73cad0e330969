//! `minke arena export`: all votes, for other programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use minke_arena::Vote;
use minke_arena::formats::{write_csv, write_json_lines};
use serde::Serialize;

use super::log;
use crate::output::{Show, print};
use crate::units::grouped;

#[derive(Args)]
#[command(after_help = "Examples:
  minke arena export > votes.jsonl                 everything that is known of each vote
  minke arena export --format csv --out votes.csv  left, right and winner, as evalica reads them")]
pub struct Export {
    /// JSON lines with all there is, or CSV with left, right and winner
    #[arg(long, value_name = "jsonl|csv", default_value = "jsonl", hide_possible_values = true)]
    format: FormatArgument,
    /// A new file to write, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print a JSON object that says what was written
    #[arg(long, requires = "out")]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArgument {
    Jsonl,
    Csv,
}

fn write(format: FormatArgument, votes: &[Vote], out: &mut dyn Write) -> io::Result<()> {
    match format {
        FormatArgument::Jsonl => write_json_lines(votes, out),
        FormatArgument::Csv => write_csv(votes, out),
    }
}

/// Votes on stdout.
#[derive(Serialize)]
struct Votes<'a>(#[serde(skip)] FormatArgument, #[serde(skip)] &'a [Vote]);

impl Show for Votes<'_> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        write(self.0, self.1, out)
    }
}

#[derive(Serialize)]
struct Written {
    out: PathBuf,
    votes: u64,
}

impl Show for Written {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let votes = if self.votes == 1 { "1 vote".into() } else { format!("{} votes", grouped(self.votes)) };
        writeln!(out, "{votes} written to {}.", self.out.display())
    }
}

pub fn run(arguments: &Export) -> Result<()> {
    let log = log()?;
    if log.votes().is_empty() {
        bail!(
            "there are no votes in {} yet; `minke arena import` and `minke arena vote` add some",
            log.path().display()
        );
    }
    let Some(path) = &arguments.out else { return print(&Votes(arguments.format, log.votes()), false) };
    let mut out = BufWriter::new(create(path)?);
    write(arguments.format, log.votes(), &mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .with_context(|| format!("{} can't be written", path.display()))?;
    print(&Written { out: path.clone(), votes: log.votes().len() as u64 }, arguments.json)
}

/// A new file: one that exists, which might be the log itself, is not written over.
fn create(path: &Path) -> Result<File> {
    match File::create_new(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already; choose another --out, or delete it", path.display())
        }
        created => created.with_context(|| format!("{} can't be written", path.display())),
    }
}
