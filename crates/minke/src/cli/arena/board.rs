//! `minke arena board`: the leaderboard in the terminal, as JSON, or as a picture.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use minke_arena::board::{self, FirstPlace, Options, Standing};
use minke_arena::fit::Ties;
use minke_arena::formats::{self, Format};
use minke_arena::{Counts, Question, Vote};
use serde::Serialize;

use super::{log, open, picture, verified};
use crate::output::{Show, print};
use crate::terminal::{self, Line, Style, is_styled, shortened, width};
use crate::units::grouped;

/// Columns where the output goes to no terminal.
const COLUMNS: usize = 120;
/// Votes by which --reweight takes a pair for well known, as arena-rank does.
const WELL_KNOWN: f64 = 50.0;

#[derive(Args)]
#[command(after_help = "Examples:
  minke arena board                                  all votes in the store
  minke arena board --reasoning --ties davidson      votes on the reasoning; ties as an outcome of their own
  minke arena board --log human.json --svg board.svg votes of a file, and a picture of the ratings
  minke arena board --judged                         votes of tasks' verifiers, which are no people
  minke arena board --verified --svg verified.svg    accuracy on problems that can be checked, against cost
  minke arena board --json                           every number

Ratings are Bradley and Terry's: 400 points are odds of ten to one, and the mean is 1000. A model's rank is one more than
the number of models whose whole interval lies above its own.")]
pub struct Board {
    /// Votes of this file, in any form that can be imported, instead of the store's
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Rank by votes on the reasoning instead of the answers
    #[arg(long)]
    reasoning: bool,
    /// Rank by the votes of tasks' verifiers instead of people's
    #[arg(long, conflicts_with = "reasoning")]
    judged: bool,
    /// No votes: what models got right of problems that can be checked, as `minke eval --record` keeps it, and what an answer cost
    #[arg(long, conflicts_with_all = ["reasoning", "judged", "ties", "reweight", "bootstrap"])]
    verified: bool,
    /// Of these, take answers that a lenient reader finds right, whatever their form
    #[arg(long, requires = "verified")]
    lenient: bool,
    /// Count a tie as half a win for each, or as an outcome of its own (Davidson's model)
    #[arg(long, value_name = "half|davidson", default_value = "half", hide_possible_values = true)]
    ties: TiesArgument,
    /// Weigh votes so that each pair of models counts the same; pairs with fewer than 50 votes count less
    #[arg(long)]
    reweight: bool,
    /// Take intervals from this many random samples of the votes, as a check
    #[arg(long, value_name = "SAMPLES", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bootstrap: Option<u32>,
    /// Which random samples
    #[arg(long, value_name = "N", default_value_t = 1, requires = "bootstrap")]
    seed: u64,
    /// Draw the ratings and their intervals, or accuracy against cost, into this file
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Print {"models": [{"model": …, "rating": …, "lower": …, "upper": …, "rank": …, "votes": …, …}, …], …}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TiesArgument {
    Half,
    Davidson,
}

/// A board, and which question it is about.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    board: board::Board,
    question: &'static str,
    /// Whether the votes are those of verifiers; people's and theirs are never counted together.
    judged: bool,
    /// Votes of the other kind.
    left_out: usize,
}

/// No board.
#[derive(Serialize)]
struct NoVotes {
    models: [(); 0],
    votes: u64,
    question: &'static str,
    #[serde(skip)]
    sentence: String,
}

pub fn run(arguments: &Board) -> Result<()> {
    if arguments.verified {
        let log = arguments.log.as_deref().map_or_else(log, open)?;
        return verified::run(log.verified(), arguments.lenient, arguments.svg.as_deref(), arguments.json);
    }
    let (votes, place) = match &arguments.log {
        Some(path) => (votes_of(path)?, path.clone()),
        None => {
            let log = log()?;
            (log.votes().to_vec(), log.path().to_path_buf())
        }
    };
    let (question, asked) =
        if arguments.reasoning { (Question::Reasoning, "reasoning") } else { (Question::Answer, "answers") };
    let all = votes.len();
    let votes: Vec<Vote> = votes.into_iter().filter(|vote| vote.judge.is_some() == arguments.judged).collect();
    let left_out = all - votes.len();
    let mut counts = Counts::of(&votes, question)?;
    if counts.votes() == 0 {
        let sentence = match (votes.len(), place.display()) {
            (0, place) if all == 0 => format!(
                "There are no votes in {place} yet; `minke arena import` adds a file of them, `minke arena vote` one."
            ),
            (0, place) if arguments.judged => format!("No vote in {place} is a verifier's."),
            (0, place) => format!("All votes in {place} are verifiers'; --judged ranks by them."),
            (_, place) => format!("None of the votes in {place} says which reasoning is better."),
        };
        return print(&NoVotes { models: [], votes: 0, question: asked, sentence }, arguments.json);
    }
    if arguments.reweight {
        counts = counts.reweighted(WELL_KNOWN);
    }
    let options = Options {
        ties: match arguments.ties {
            TiesArgument::Half => Ties::Half,
            TiesArgument::Davidson => Ties::Davidson,
        },
        bootstrap: arguments.bootstrap.map(|samples| (samples as usize, arguments.seed)),
    };
    let board = board::board(&counts, options)?;
    if let Some(path) = &arguments.svg {
        fs::write(path, picture::svg(&board)).with_context(|| format!("{} can't be written", path.display()))?;
    }
    print(&Shown { board, question: asked, judged: arguments.judged, left_out }, arguments.json)
}

/// The votes of a file that is named: a log, or what could be imported.
fn votes_of(path: &Path) -> Result<Vec<Vote>> {
    let bytes = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let contents = formats::read(&bytes).with_context(|| path.display().to_string())?;
    if contents.format == Format::Log {
        return Ok(open(path)?.votes().to_vec());
    }
    if let Some(bad) = contents.bad.first() {
        bail!("{} {bad}; take the line out, or put it right", path.display());
    }
    Ok(contents.votes)
}

impl Show for NoVotes {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.sentence)
    }
}

/// A column of the table: its head, whether it may be left out, and what stands in it.
type Column = (&'static str, fn(&Standing) -> String);

/// Behind rank and name, the most important first.
const TABLE: [Column; 5] = [
    ("rating", |s| format!("{:.0}", s.rating)),
    ("95 % interval", |s| format!("{:.0}–{:.0}", s.lower, s.upper)),
    ("votes", |s| grouped(s.votes)),
    ("beats next", |s| s.beats_next.as_ref().map_or(String::new(), |b| format!("{:.1} %", 100.0 * b.probability))),
    ("both bad", |s| s.both_bad.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share))),
];
/// Of these, so many are always there.
const KEPT: usize = 2;
/// Columns of the picture of intervals, at least and at most.
const BARS: (usize, usize) = (16, 40);
/// Longest name that is shown whole.
const NAME: usize = 32;

impl Show for Shown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let stdout = io::stdout();
        let columns = if stdout.is_terminal() { terminal::columns() } else { COLUMNS };
        for line in table(&self.board.models, columns) {
            line.write(&mut &mut *out, columns, is_styled(&stdout))?;
            writeln!(out)?;
        }
        writeln!(out)?;
        self.notes().into_iter().try_for_each(|note| writeln!(out, "{note}"))
    }
}

impl Shown {
    /// What the numbers mean.
    fn notes(&self) -> Vec<String> {
        let board = &self.board;
        let ties = match board.nu {
            None => "a tie is half a win for each".to_string(),
            Some(nu) => format!("ties are an outcome of their own, with ν = {nu:.3}"),
        };
        let votes = if board.votes == 1 { "1 vote".into() } else { format!("{} votes", grouped(board.votes)) };
        let mut notes = vec![format!("{votes} on {}; {ties}. Intervals: {}, 95 %.", self.question, board.intervals)];
        if self.left_out > 0 {
            let left_out = grouped(self.left_out as u64);
            notes.push(match self.judged {
                true => format!("All by tasks' verifiers. Not counted: {left_out} by people."),
                false => format!("Not counted: {left_out} by tasks' verifiers; --judged ranks by those."),
            });
        }
        if board.models.len() > 2 {
            notes.push("Beats next: the share of votes that this model gets against the next one below.".into());
        }
        if let Some(FirstPlace { model, rival, flips }) = &board.first_place {
            notes.push(match flips {
                0 => format!("First place: {model} and {rival} are level."),
                1 => format!("First place: if 1 vote had gone another way, {rival} would have it instead of {model}."),
                n => format!(
                    "First place: if {} votes had gone another way, {rival} would have it instead of {model}; fewer might \
                     do.",
                    grouped(*n)
                ),
            });
        }
        if board.models.iter().any(|s| s.upper - s.lower < 1.0) {
            notes.push(
                "Where all votes are ties, intervals have no width; that is no certainty, votes that decide are missing."
                    .into(),
            );
        }
        if board.half_vote_prior {
            notes.push(
                "Half a vote was added for each model, half won and half lost: votes alone leave some rating without \
                 bound."
                    .into(),
            );
        }
        notes
    }
}

/// The lines of the table, head first.
fn table(models: &[Standing], columns: usize) -> Vec<Line> {
    let widest = |column: &Column| {
        let cells = models.iter().map(|standing| width(&(column.1)(standing)));
        2 + cells.chain([width(column.0)]).max().unwrap_or(0)
    };
    let name = models.iter().map(|standing| width(&standing.model)).max().unwrap_or(0).clamp(5, NAME);
    let mut used = 6 + name + TABLE[..KEPT].iter().map(widest).sum::<usize>();
    let optional = TABLE[KEPT..].iter().take_while(|column| {
        used += widest(column);
        used + 2 + BARS.0 <= columns
    });
    let kept: Vec<&Column> = TABLE[..KEPT].iter().chain(optional).collect();
    let used = 6 + name + kept.iter().map(|column| widest(column)).sum::<usize>();
    let bars = columns.saturating_sub(used + 2).clamp(BARS.0, BARS.1);

    let ends = |fold: fn(f64, f64) -> f64, of: fn(&Standing) -> f64| models.iter().map(of).reduce(fold).unwrap_or(0.0);
    let (low, high) = (ends(f64::min, |s| s.lower), ends(f64::max, |s| s.upper));
    let row = |rank: &str, model: &str, style: Style, cell: &dyn Fn(&Column) -> String, bar: String| {
        let mut line = Line::new().add(style, format!("{rank:>4}  ")).add(style, shortened(model, name)).to(6 + name);
        for column in &kept {
            let (wide, cell) = (widest(column), cell(column));
            line = line.add(style, format!("{}{cell}", " ".repeat(wide - width(&cell))));
        }
        line.add(Style::Plain, "  ").add(if style == Style::Plain { Style::Accent } else { style }, bar)
    };
    let (left, right) = (format!("{low:.0}"), format!("{high:.0}"));
    let scale = format!("{left}{}{right}", " ".repeat(bars.saturating_sub(left.len() + right.len())));
    let head = row("rank", "model", Style::Dim, &|column| column.0.to_string(), scale);
    let lines = models.iter().map(|standing| {
        let bar = bar(standing, (low, high), bars);
        row(&standing.rank.to_string(), &standing.model, Style::Plain, &|column| (column.1)(standing), bar)
    });
    std::iter::once(head).chain(lines).collect()
}

/// An interval on a scale of `columns`: `├──●──┤`.
fn bar(standing: &Standing, (low, high): (f64, f64), columns: usize) -> String {
    let last = columns.saturating_sub(1);
    let place = |x: f64| ((x - low) / (high - low).max(f64::MIN_POSITIVE) * last as f64).round() as usize;
    let (lower, rating, upper) = (place(standing.lower), place(standing.rating), place(standing.upper).min(last));
    let cell = |column: usize| match column {
        c if c == rating.min(last) => '●',
        c if c == lower => '├',
        c if c == upper => '┤',
        c if lower < c && c < upper => '─',
        _ => ' ',
    };
    (0..=upper).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(model: &str, lower: f64, rating: f64, upper: f64) -> Standing {
        let (rank, votes, wins, ties) = (1, 1200, 600, 0);
        let (both_bad, beats_next) = (Some(0.125), None);
        Standing { model: model.into(), rating, lower, upper, rank, votes, wins, ties, both_bad, beats_next }
    }

    #[test]
    fn intervals_are_drawn_on_one_scale() {
        let bar = |lower, rating, upper| super::bar(&standing("m", lower, rating, upper), (900.0, 1100.0), 21);
        assert_eq!(bar(900.0, 1000.0, 1100.0), "├─────────●─────────┤");
        assert_eq!(bar(1080.0, 1090.0, 1100.0), "                  ├●┤");
        assert_eq!(bar(949.0, 950.0, 951.0), "     ●");
        assert_eq!(super::bar(&standing("m", 7.0, 7.0, 7.0), (7.0, 7.0), 21), "●");
    }

    #[test]
    fn tables_fit_their_columns() {
        let models = [(); 2].map(|()| standing("a model with a name that is much too long", 990.0, 1000.0, 1010.0));
        for (columns, heads) in [(200, 5), (120, 5), (90, 3), (70, 2)] {
            let lines = table(&models, columns);
            let head = lines[0].text();
            assert_eq!(TABLE.iter().filter(|(name, _)| head.contains(name)).count(), heads, "{head}");
            assert!(lines.iter().all(|line| line.width() <= columns.max(79)), "{head}");
            let cells = lines[1].text();
            assert!(cells.contains("is muc…") && cells.contains("990–1010") && cells.contains('●'), "{cells}");
        }
    }
}
