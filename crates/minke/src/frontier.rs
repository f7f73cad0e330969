//! Verified accuracy against cost as a picture (SVG): a dot for each model, and the line of those that nothing cheaper beats.

use maud::{Markup, html};
use minke_arena::verified::Board;

/// Width and height of all, and of what stands around the plot.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Beyond this part of the width, names stand left of their dots.
const NAMES_LEFT: f64 = 0.6;
/// Height of a name, and about the width of one of its letters.
const LINE: f64 = 16.0;
const LETTER: f64 = 7.5;

/// Draws a board; models whose cost is not known are left out. None where that is all of them.
pub fn svg(board: &Board) -> Option<Markup> {
    let mut dots: Vec<_> = board.models.iter().filter_map(|s| Some((s, s.core_s?.max(1e-3)))).collect();
    dots.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (first, last) = (dots.first()?.1.log10().floor(), dots.last()?.1.log10().ceil());
    let last = last.max(first + 1.0);
    let x = |cost: f64| LEFT + (cost.log10() - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    let y = |part: f64| TOP + (1.0 - part) * (HEIGHT - TOP - BOTTOM);
    // What the least expensive of the best so far gets right is the most that can be had for a cost, up to the next.
    let frontier = dots.iter().filter(|(standing, _)| standing.frontier).enumerate();
    let line = frontier.map(|(i, (standing, cost))| match i {
        0 => format!("M{:.1} {:.1}", x(*cost), y(standing.accuracy)),
        _ => format!("H{:.1}V{:.1}", x(*cost), y(standing.accuracy)),
    });
    let line = line.collect::<String>();
    let bottom = HEIGHT - BOTTOM;
    Some(html! {
        svg.frontier xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } font-family="sans-serif" font-size="13"
            role="img" aria-label="Verified accuracy against the cost of an answer" {
            rect.ground width=(WIDTH) height=(HEIGHT) fill="#fff" {}
            @for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                path.grid d={ "M" (LEFT) " " (y(part)) "H" (WIDTH - RIGHT) } stroke="#ddd" {}
                text.quiet x=(LEFT - 8.0) y=(y(part) + 4.5) text-anchor="end" fill="#777" { (100.0 * part) " %" }
            }
            @for power in first as i32..=last as i32 {
                path.grid d={ "M" (format!("{:.1}", x(10f64.powi(power)))) " " (TOP) "V" (bottom) } stroke="#ddd" {}
                text.quiet x=(format!("{:.1}", x(10f64.powi(power)))) y=(bottom + 18.0) text-anchor="middle" fill="#777" { (10f64.powi(power)) }
            }
            text.quiet x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" fill="#777" { "core-seconds an answer" }
            path.best d=(line) fill="none" stroke="#1f6fb4" stroke-dasharray="4 4" {}
            @for (standing, cost) in &dots {
                path.interval d=(format!("M{0:.1} {1:.1}V{2:.1}", x(*cost), y(standing.lower), y(standing.upper))) stroke="#1f6fb4" stroke-width="2" {}
                circle.dot cx=(format!("{:.1}", x(*cost))) cy=(format!("{:.1}", y(standing.accuracy))) r="4.5" fill="#1f6fb4" {}
            }
            @for name in names(dots.iter().map(|(standing, cost)| (standing.model.as_str(), x(*cost), y(standing.accuracy)))) { (name) }
        }
    })
}

/// Names beside their dots, each above what it would cover.
fn names<'a>(dots: impl Iterator<Item = (&'a str, f64, f64)>) -> Vec<Markup> {
    let mut dots: Vec<(&str, f64, f64)> = dots.collect();
    dots.sort_by(|a, b| b.2.total_cmp(&a.2));
    // Where dots and names stand: from, to, and at which height.
    let mut taken: Vec<_> = dots.iter().map(|&(_, x, y)| (x - 8.0, x + 8.0, y)).collect();
    let name = |(model, x, y): (&str, f64, f64)| {
        let is_left = x > NAMES_LEFT * WIDTH;
        let (side, anchor) = if is_left { (-10.0, "end") } else { (10.0, "start") };
        let begin = x + side;
        let end = begin + side.signum() * LETTER * model.chars().count() as f64;
        let (from, to) = (begin.min(end), begin.max(end));
        let mut above = y;
        while let Some(other) = taken.iter().find(|t| t.0 < to && from < t.1 && (t.2 - above).abs() < LINE) {
            above = other.2 - LINE;
        }
        taken.push((from, to, above));
        html! {
            @if above < y {
                path.grid d=(format!("M{x:.1} {y:.1}L{:.1} {above:.1}", x + 0.8 * side)) stroke="#ddd" {}
            }
            text x=(format!("{begin:.1}")) y=(format!("{:.1}", above + 4.5)) text-anchor=(anchor) fill="#222" { (model) }
        }
    };
    dots.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use minke_arena::Verified;
    use minke_arena::verified::board;

    use super::svg;

    #[test]
    fn every_model_whose_cost_is_known_has_its_dot() {
        let one = |model: &str, right, core_ms| {
            let (model, problems) = (model.to_string(), "letters 3".to_string());
            Verified { model, problems, items: 50, right, lenient: right, core_ms }
        };
        let measured = [
            one("a<b>", 40, Some(9_000)),
            one("large", 50, Some(500_000)),
            one("far", 1, None),
            one("free", 0, Some(0)),
        ];
        let picture = svg(&board(&measured, false).unwrap()).unwrap().into_string();
        assert_eq!(picture.matches("<circle").count(), 3, "{picture}");
        assert!(picture.contains("a&lt;b&gt;") && !picture.contains("far") && !picture.contains("NaN"), "{picture}");
        assert!(!picture.contains("inf") && picture.contains("text-anchor=\"end\" fill=\"#222\">large"), "{picture}");
        assert!(svg(&board(&measured[2..3], false).unwrap()).is_none());
    }
}
