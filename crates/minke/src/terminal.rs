//! The terminal: what it can show, styled text that fits its width, and lines that are redrawn in place.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Stderr, Write};

use crossterm::cursor::MoveUp;
use crossterm::queue;
use crossterm::style::{Attribute, Color, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use unicode_width::UnicodeWidthChar;

/// Columns where the terminal doesn't say.
const COLUMNS: usize = 80;

/// Whether styles may be written to `stream`: it is a terminal that knows more than plain text, and nobody asked for
/// plain text (<https://no-color.org>).
pub fn is_styled(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns that a line on the terminal may take now.
pub fn columns() -> usize {
    // The last column stays free: some terminals wrap when it is written.
    crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| usize::from(columns)).max(2) - 1
}

/// A line on stderr; that nobody reads it is no failure.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Text in a dimmed style.
pub fn dim(text: &str) -> String {
    format!("{}{text}{}", Attribute::Dim, Attribute::Reset)
}

/// Text from a model or file as it may go to a terminal: control characters, which could move the cursor or worse,
/// become U+FFFD.
pub fn printable(text: &str) -> Cow<'_, str> {
    let dangerous = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(dangerous) { Cow::Owned(text.replace(dangerous, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Length in bytes of the longest beginning of `text` that takes at most `columns`.
fn fitting(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return at;
        }
    }
    text.len()
}

/// A text that takes at most `columns`: cut, with a mark that says so, where it is longer.
pub fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return text.into();
    }
    format!("{}…", &text[..fitting(text, columns.saturating_sub(1))]).into()
}

/// How a piece of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
    Accent,
}

/// A line of styled pieces.
#[derive(Clone, Debug, Default)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// An empty line.
    pub fn new() -> Line {
        Line::default()
    }

    /// Adds a piece.
    pub fn add(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    /// Adds spaces up to column `column`.
    pub fn to(self, column: usize) -> Line {
        let gap = column.saturating_sub(self.width());
        self.add(Style::Plain, " ".repeat(gap))
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width(text)).sum()
    }

    /// Its text without styles.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Writes what fits in `columns`; returns the columns taken.
    pub fn write(&self, out: &mut impl Write, columns: usize, styled: bool) -> io::Result<usize> {
        let mut left = columns;
        for (style, text) in &self.0 {
            let text = &text[..fitting(text, left)];
            left -= width(text);
            if !styled || *style == Style::Plain {
                out.write_all(text.as_bytes())?;
                continue;
            }
            match style {
                Style::Plain => {}
                Style::Dim => queue!(out, SetAttribute(Attribute::Dim))?,
                Style::Bold => queue!(out, SetAttribute(Attribute::Bold))?,
                Style::Good => queue!(out, SetForegroundColor(Color::DarkGreen))?,
                Style::Bad => queue!(out, SetForegroundColor(Color::DarkRed))?,
                Style::Accent => queue!(out, SetForegroundColor(Color::DarkCyan))?,
            }
            out.write_all(text.as_bytes())?;
            queue!(out, SetAttribute(Attribute::Reset), ResetColor)?;
        }
        Ok(columns - left)
    }
}

/// Lines at the end of the terminal on stderr that are redrawn in place.
pub struct Block {
    out: Stderr,
    styled: bool,
    /// Columns that each line took when it was last drawn.
    drawn: Vec<usize>,
}

impl Block {
    /// A block with nothing drawn yet, if stderr is a terminal where this works.
    pub fn new() -> Option<Block> {
        let out = io::stderr();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        (out.is_terminal() && !dumb).then(|| Block { styled: is_styled(&out), out, drawn: Vec::new() })
    }

    /// Columns that a line may take now.
    pub fn columns(&self) -> usize {
        columns()
    }

    /// Replaces what was drawn. That the terminal fails is no reason for whoever draws to stop.
    pub fn draw(&mut self, lines: &[Line]) {
        let columns = self.columns();
        let _ = self.try_draw(lines, columns);
    }

    fn try_draw(&mut self, lines: &[Line], columns: usize) -> io::Result<()> {
        let mut bytes = Vec::new();
        queue!(bytes, BeginSynchronizedUpdate)?;
        // Wherever an echoed Ctrl-C has moved the cursor.
        bytes.push(b'\r');
        // In a window that has become narrower, lines drawn before take several rows.
        let rows: usize = self.drawn.iter().map(|&width| width.div_ceil(columns + 1).max(1)).sum();
        if rows > 0 {
            queue!(bytes, MoveUp(rows.min(usize::from(u16::MAX)) as u16))?;
        }
        self.drawn.clear();
        for line in lines {
            self.drawn.push(line.write(&mut bytes, columns, self.styled)?);
            queue!(bytes, Clear(ClearType::UntilNewLine))?;
            bytes.extend_from_slice(b"\r\n");
        }
        queue!(bytes, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        self.out.write_all(&bytes)?;
        self.out.flush()
    }
}

/// A bar of `columns`, filled up to `fraction`, to an eighth of a column.
pub fn bar(columns: usize, fraction: f64) -> (String, String) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (fraction.clamp(0.0, 1.0) * (8 * columns) as f64) as usize;
    let filled = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    let rest = "░".repeat(columns - eighths.div_ceil(8));
    (filled, rest)
}

/// Values as a row of blocks of eight heights, at most `columns` of them: neighbours are averaged where there are more.
/// The scale goes from the least to the greatest, or as `scale` says.
pub fn sparkline(values: &[f64], columns: usize, scale: Option<(f64, f64)>) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    let count = finite.len().min(columns);
    let means: Vec<f64> = (0..count)
        .map(|i| &finite[i * finite.len() / count..(i + 1) * finite.len() / count])
        .map(|part| part.iter().sum::<f64>() / part.len() as f64)
        .collect();
    let range = || means.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let (low, high) = scale.unwrap_or_else(range);
    let height = |x: f64| if high > low { ((x - low) / (high - low) * 7.0).round().min(7.0) as usize } else { 0 };
    means.into_iter().map(|x| HEIGHTS[height(x)]).collect()
}

/// A bar that says how far some work has come, on a terminal; nothing elsewhere.
pub struct Bar {
    block: Option<Block>,
    label: String,
    drawn: Option<std::time::Instant>,
}

impl Bar {
    /// A bar behind `label`, not drawn yet.
    pub fn new(label: impl Into<String>) -> Bar {
        Bar { block: Block::new(), label: label.into(), drawn: None }
    }

    /// Draws it, but not more often than eyes follow; `note` stands behind it.
    pub fn update(&mut self, fraction: f64, note: impl FnOnce() -> String) {
        let Some(block) = &mut self.block else { return };
        if self.drawn.is_some_and(|drawn| drawn.elapsed().as_millis() < 100) {
            return;
        }
        self.drawn = Some(std::time::Instant::now());
        let note = note();
        let columns = block.columns().saturating_sub(width(&self.label) + width(&note) + 2).min(40);
        let (filled, rest) = bar(columns, fraction);
        let line = Line::new()
            .add(Style::Plain, format!("{} ", self.label))
            .add(Style::Accent, filled)
            .add(Style::Dim, rest)
            .add(Style::Plain, format!(" {note}"));
        block.draw(&[line]);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let (Some(block), Some(_)) = (&mut self.block, self.drawn) {
            block.draw(&[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_by_eighths() {
        assert_eq!(bar(4, 0.0), (String::new(), "░░░░".into()));
        assert_eq!(bar(4, 0.5), ("██".into(), "░░".into()));
        assert_eq!(bar(4, 0.54), ("██▏".into(), "░".into()));
        for (fraction, full) in [(1.0, 4), (7.0, 4), (-1.0, 0), (f64::NAN, 0)] {
            assert_eq!(width(&bar(4, fraction).0), full);
        }
    }

    #[test]
    fn sparklines_average_what_does_not_fit() {
        let free = |values: &[f64], columns| sparkline(values, columns, None);
        assert_eq!(free(&[0.0, 0.5, 1.0], 10), "▁▅█");
        assert_eq!(free(&[0.0, 0.0, 1.0, 1.0], 2), "▁█");
        assert_eq!(free(&[3.0, 3.0, f64::NAN], 9), "▁▁");
        assert_eq!(free(&[], 9), "");
        assert_eq!(free(&[1.0], 0), "");
        assert_eq!(sparkline(&[-1.0, 0.0, 0.01, 0.5, 2.0], 9, Some((0.0, 1.0))), "▁▁▁▅█");
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(free(&many, 8), "▁▂▃▄▅▆▇█");
    }

    #[test]
    fn lines_are_cut_to_the_width() {
        let line = Line::new().add(Style::Dim, "ab").to(4).add(Style::Bold, "鯨鯨");
        assert_eq!((line.text().as_str(), line.width()), ("ab  鯨鯨", 8));
        for (columns, expected) in [(9, "ab  鯨鯨"), (7, "ab  鯨"), (5, "ab  "), (1, "a"), (0, "")] {
            let mut out = Vec::new();
            let taken = line.write(&mut out, columns, false).unwrap();
            assert_eq!((String::from_utf8(out).unwrap().as_str(), taken), (expected, width(expected)));
        }
    }

    #[test]
    fn controls_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\u{9b}d\n\té"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\n\té");
        assert!(matches!(printable("plain\n"), Cow::Borrowed(_)));
    }
}
