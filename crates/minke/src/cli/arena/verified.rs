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

/// Longest name that is shown whole.
const NAME: usize = 44;
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
        let longest =
            |names: &mut dyn Iterator<Item = &String>| names.map(|name| width(name)).max().unwrap_or(0).clamp(8, NAME);
        let name = longest(&mut board.models.iter().map(|standing| &standing.model));
        let row = |style, number: &str, model: &str, cells: [&str; 3], mark: &str| {
            let cells = format!("{:>10}{:>16}{:>10}  ", cells[0], cells[1], cells[2]);
            let line = Line::new().add(style, format!("{number:>3}  {}", shortened(model, name)));
            line.to(5 + name).add(style, cells).add(Style::Accent, mark)
        };
        write(row(Style::Dim, "", "model", ["accuracy", "95 % interval", "core-s"], ""))?;
        for (number, standing) in (1..).zip(&board.models) {
            let Standing { model, accuracy, lower, upper, core_s, frontier, .. } = standing;
            let interval = format!("{:.1}–{:.1}", 100.0 * lower, 100.0 * upper);
            let cost = core_s.map_or("–".into(), |core_s| format!("{core_s:.3}"));
            let mark = if *frontier { "●" } else { "" };
            write(row(Style::Plain, &number.to_string(), model, [&percent(*accuracy), &interval, &cost], mark))?;
        }
        write(Line::new())?;
        let problems = longest(&mut board.problems.iter());
        let cells = |style, head: &str, cells: &mut dyn Iterator<Item = String>| {
            let line = Line::new().add(style, shortened(head, problems)).to(problems);
            line.add(style, cells.map(|cell| format!("{cell:>9}")).collect::<String>())
        };
        write(cells(Style::Dim, "problems", &mut (1..=board.models.len()).map(|number| number.to_string())))?;
        for (at, problems) in board.problems.iter().enumerate() {
            write(cells(Style::Plain, problems, &mut board.models.iter().map(|standing| percent(standing.parts[at]))))?;
        }
        write(Line::new())?;
        writeln!(
            out,
            "Held-out problems, judged {judged} by the tasks' verifiers; each kind weighs the same. core-s: seconds of cores' time"
        )?;
        writeln!(out, "that an answer took. ●: no other model gets as many right for as little.")
    }
}
