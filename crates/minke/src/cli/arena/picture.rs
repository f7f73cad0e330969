//! The leaderboard as a picture (SVG): a row for each model, its rating as a dot on its interval.

use std::fmt::Write as _;

use minke_arena::Board;

/// Height of a row, and of the scale above them.
const ROW: f64 = 24.0;
const TOP: f64 = 40.0;
/// Width of all, of the names on the left, and of the numbers on the right.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 150.0;
/// Distances between marks of the scale; the least that gives no more than eight of them is taken.
const STEPS: [f64; 9] = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// Draws a board.
pub fn svg(board: &Board) -> String {
    let low = board.models.iter().map(|s| s.lower).fold(f64::INFINITY, f64::min);
    let high = board.models.iter().map(|s| s.upper).fold(f64::NEG_INFINITY, f64::max);
    let step = STEPS.into_iter().find(|step| (high - low) / step <= 8.0).unwrap_or(10_000.0);
    let (first, last) = ((low / step).floor() * step, (high / step).ceil() * step);
    let x = |rating: f64| LEFT + (rating - first) / (last - first).max(step) * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * board.models.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>Ratings with 95 % intervals</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let marks = ((last - first) / step).round().clamp(1.0, 10.0) as usize;
    for mark in (0..=marks).map(|i| first + step * i as f64) {
        let (x, end) = (x(mark), height - 8.0);
        let _ = writeln!(svg, "<path d=\"M{x:.1},{}V{end}\" stroke=\"#ddd\"/>", TOP - 8.0);
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">{mark}</text>", TOP - 16.0);
    }
    for (i, standing) in board.models.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        let name = escaped(&shortened(&standing.model));
        let (lower, rating, upper) = (x(standing.lower), x(standing.rating), x(standing.upper));
        let text = |x: f64, anchor: &str, fill: &str, text: &str| {
            format!("<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{text}</text>\n", y + 4.5)
        };
        svg += &text(26.0, "end", "#777", &standing.rank.to_string());
        svg += &text(36.0, "start", "#222", &name);
        let ends = format!("M{lower:.1},{y}H{upper:.1}M{lower:.1},{}v8M{upper:.1},{}v8", y - 4.0, y - 4.0);
        let _ = writeln!(svg, "<path d=\"{ends}\" stroke=\"#1f6fb4\" stroke-width=\"2\" fill=\"none\"/>");
        let _ = writeln!(svg, "<circle cx=\"{rating:.1}\" cy=\"{y}\" r=\"4\" fill=\"#1f6fb4\"/>");
        let numbers = format!("{:.0} ({:.0}–{:.0})", standing.rating, standing.lower, standing.upper);
        svg += &text(WIDTH - 10.0, "end", "#444", &numbers);
    }
    svg + "</svg>\n"
}

/// A name that fits its place.
fn shortened(name: &str) -> String {
    const SHOWN: usize = 24;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_arena::board::{Options, board};
    use minke_arena::fit::Ties;
    use minke_arena::{Counts, Outcome, Question, Vote};

    #[test]
    fn every_model_has_its_row() {
        let votes = [("a<b>&c", "b", 3), ("b", "a<b>&c", 1), ("b", "x", 2), ("x", "b", 2)];
        let votes = votes.map(|(left, right, times)| vec![Vote::new(left, right, Outcome::Left); times]).concat();
        let counts = Counts::of(&votes, Question::Answer).unwrap();
        let picture = svg(&board(&counts, Options { ties: Ties::Half, bootstrap: None }).unwrap());
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(picture.contains(">a&lt;b&gt;&amp;c</text>") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn level_models_can_be_drawn() {
        let counts = Counts::of(&[Vote::new("a", "b".repeat(99), Outcome::Tie)], Question::Answer).unwrap();
        let picture = svg(&board(&counts, Options { ties: Ties::Half, bootstrap: None }).unwrap());
        assert!(picture.contains(&format!("{}…", "b".repeat(24))) && !picture.contains("NaN"), "{picture}");
    }
}
