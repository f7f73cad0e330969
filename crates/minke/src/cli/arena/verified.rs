//! `minke arena board --verified`: what models got right of problems that can be checked, and what an answer cost.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use minke_arena::Verified;
use minke_arena::verified::{self, Standing};
use serde::Serialize;

use crate::frontier;
use crate::output::{Show, print};
use crate::terminal::{Line, Style, is_styled, shortened, width};

/// Longest name that is shown whole, and columns of a model's accuracy in the table of problems.
const NAME: usize = 32;
const CELL: usize = 18;
/// Columns that a line may take.
const COLUMNS: usize = 200;

/// A board, and who judged.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    board: verified::Board,
    /// What the answers had to be.
    judged: &'static str,
}

/// Prints the board of measurements, and draws it where a picture is wanted.
pub fn run(measured: &[Verified], leniently: bool, picture: Option<&Path>, json: bool) -> Result<()> {
    let board = verified::board(measured, leniently)?;
    if let Some(path) = picture {
        let Some(svg) = frontier::svg(&board) else {
            bail!(
                "there is no model whose cost is known, so there is nothing to draw; `minke eval … --record NAME` measures one"
            );
        };
        fs::write(path, svg.into_string()).with_context(|| format!("{} can't be written", path.display()))?;
    }
    print(&Shown { board, judged: if leniently { "leniently" } else { "strictly" } }, json)
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

impl Show for Shown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Shown { board, judged } = self;
        if board.models.is_empty() {
            return writeln!(
                out,
                "Nothing was measured yet; `minke eval MODEL --task TASK --record NAME` keeps a result."
            );
        }
        let styled = is_styled(&io::stdout());
        let mut write = |line: Line| {
            line.write(&mut &mut *out, COLUMNS, styled)?;
            writeln!(out)
        };
        let name = board.models.iter().map(|s| width(&s.model)).max().unwrap_or(0).clamp(5, NAME);
        let row = |style, [model, accuracy, interval, cost, note]: [&str; 5]| {
            let cells = format!("{accuracy:>10}{interval:>16}{cost:>12}  ");
            Line::new()
                .add(style, shortened(model, name))
                .to(name)
                .add(style, cells)
                .add(Style::Accent, note.to_string())
        };
        write(row(Style::Dim, ["model", "accuracy", "95 % interval", "core-s", ""]))?;
        for Standing { model, accuracy, lower, upper, core_s, frontier, .. } in &board.models {
            let interval = format!("{:.1}–{:.1}", 100.0 * lower, 100.0 * upper);
            let cost = core_s.map_or("–".into(), |core_s| format!("{core_s:.3}"));
            let note = if *frontier { "●" } else { "" };
            write(row(Style::Plain, [model, &percent(*accuracy), &interval, &cost, note]))?;
        }
        write(Line::new())?;
        let problems = board.problems.iter().map(|problems| width(problems)).max().unwrap_or(0).clamp(8, NAME);
        let cells = |style, cell: &dyn Fn(&Standing) -> String, head: &str| {
            let cells = board.models.iter().map(|standing| format!("{:>CELL$}", shortened(&cell(standing), CELL - 2)));
            Line::new().add(style, shortened(head, problems)).to(problems).add(style, cells.collect::<String>())
        };
        write(cells(Style::Dim, &|standing| standing.model.clone(), "problems"))?;
        for (at, problems) in board.problems.iter().enumerate() {
            write(cells(Style::Plain, &|standing| percent(standing.parts[at]), problems))?;
        }
        write(Line::new())?;
        writeln!(
            out,
            "Held-out problems, judged {judged} by the tasks' verifiers; each kind weighs the same. core-s: seconds of cores' time"
        )?;
        writeln!(out, "that an answer took. ●: no other model gets as many right for as little.")
    }
}
