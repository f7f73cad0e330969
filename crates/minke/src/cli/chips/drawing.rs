//! Rooflines: what chips reach with so many operations for each byte that they read, and where models stand.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Chip, Predicted};

/// Operations for each byte, from left to right: powers of two.
const FROM: f64 = -2.0;
const TO: f64 = 12.0;
/// Columns and rows of the terminal's.
const COLUMNS: usize = 57;
const LINES: usize = 14;
/// Pixels of the file's.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 96.0;
const COLOURS: [&str; 3] = ["#1f6fb4", "#c2571a", "#3f8f4f"];
/// A chip's in the terminal.
const MARKS: [char; 3] = ['·', 'o', '*'];

/// Powers of ten of operations a second that the chips' roofs lie between.
fn powers(chips: &[Chip]) -> (f64, f64) {
    let low = chips.iter().map(|chip| chip.limits.reach(FROM.exp2())).fold(f64::MAX, f64::min);
    let high = chips.iter().map(|chip| chip.limits.flop_s).fold(1.0, f64::max);
    (low.max(1.0).log10().floor(), high.log10().ceil())
}

/// Draws them with characters.
pub fn show(chips: &[Chip], models: &[Predicted], out: &mut dyn Write) -> io::Result<()> {
    let (low, high) = powers(chips);
    let mut grid = vec![vec![' '; COLUMNS]; LINES];
    for (chip, mark) in chips.iter().zip(MARKS) {
        for column in 0..COLUMNS {
            let intensity = (FROM + (TO - FROM) * column as f64 / (COLUMNS - 1) as f64).exp2();
            let up = (chip.limits.reach(intensity).log10() - low) / (high - low);
            let line = ((1.0 - up.clamp(0.0, 1.0)) * (LINES - 1) as f64).round() as usize;
            grid[line][column] = mark;
        }
    }
    let legend: Vec<String> = (chips.iter().zip(MARKS))
        .map(|(chip, mark)| format!("{mark} {} (flat from {:.0} on)", chip.name, chip.limits.ridge()))
        .collect();
    writeln!(out, "\nRoofline, FLOP/s by FLOP/byte:  {}", legend.join("   "))?;
    for (i, line) in grid.iter().enumerate() {
        let power = high - (high - low) * i as f64 / (LINES - 1) as f64;
        writeln!(out, "  10^{power:<4.1} │{}", line.iter().collect::<String>().trim_end())?;
    }
    writeln!(out, "         └{}", "─".repeat(COLUMNS))?;
    let at = |intensity: f64| {
        let share = (intensity.max(1e-9).log2() - FROM) / (TO - FROM);
        (share.clamp(0.0, 1.0) * (COLUMNS - 1) as f64).round() as usize
    };
    let mut axis = [' '; COLUMNS + 4];
    for power in (FROM as i32..=TO as i32).step_by(2) {
        let text = format!("{}", f64::from(power).exp2());
        for (i, c) in text.chars().enumerate() {
            axis[at(f64::from(power).exp2()) + i] = c;
        }
    }
    writeln!(out, "          {}", axis.iter().collect::<String>().trim_end())?;
    for model in models {
        let mut line = [' '; COLUMNS];
        // Where two stand at one place the later hides the earlier.
        for (work, mark) in model.work.iter().zip(['1', '8', '3', 'P']) {
            line[at(work.intensity)] = mark;
        }
        writeln!(out, "          {}  {}", line.iter().collect::<String>(), model.model)?;
    }
    writeln!(out, "          1, 8, 3: decode of 1, 8, 32 sequences; P: prefill")
}

/// Draws them as a picture that needs nothing beside it.
pub fn svg(chips: &[Chip], models: &[Predicted]) -> String {
    let (low, high) = powers(chips);
    let height = HEIGHT + 18.0 * models.len() as f64;
    let floor = HEIGHT - BOTTOM;
    let x = |intensity: f64| {
        let share = (intensity.max(1e-9).log2() - FROM) / (TO - FROM);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let y = |flop_s: f64| floor - ((flop_s.max(1.0).log10() - low) / (high - low)).clamp(0.0, 1.0) * (floor - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, fill: &str, text: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{}</text>",
            text.replace('&', "&amp;").replace('<', "&lt;")
        );
    };
    text(LEFT, 20.0, "start", "#444", "operations a second that a chip reaches, by operations for each byte read");
    for (i, (chip, colour)) in chips.iter().zip(COLOURS).enumerate() {
        text(
            LEFT + 110.0 * i as f64,
            36.0,
            "start",
            colour,
            &format!("— {}, ridge {:.0}", chip.name, chip.limits.ridge()),
        );
    }
    for power in low as i32..=high as i32 {
        let name = match power.rem_euclid(3) {
            0 => "1",
            1 => "10",
            _ => "100",
        };
        let unit = ["", "k", "M", "G", "T", "P"].get(power.div_euclid(3).max(0) as usize).unwrap_or(&"");
        text(LEFT - 6.0, y(10_f64.powi(power)) + 4.0, "end", "#444", &format!("{name} {unit}FLOP/s"));
    }
    for power in (FROM as i32..=TO as i32).step_by(2) {
        let intensity = f64::from(power).exp2();
        text(x(intensity), floor + 16.0, "middle", "#444", &intensity.to_string());
    }
    text(LEFT, floor + 34.0, "start", "#444", "● decode of 1, 8 and 32 sequences; ○ prefill of 512 tokens");
    for (i, model) in models.iter().enumerate() {
        text(LEFT - 6.0, floor + 58.0 + 18.0 * i as f64, "end", "#444", &shortened(&model.model));
    }
    let _ = writeln!(svg, "<path d=\"M{LEFT},{TOP}V{floor}H{}\" fill=\"none\" stroke=\"#999\"/>", WIDTH - RIGHT);
    for (chip, colour) in chips.iter().zip(COLOURS) {
        let corner = chip.limits.ridge();
        let points = [FROM.exp2(), corner, TO.exp2()]
            .map(|intensity| format!("{:.1},{:.1}", x(intensity), y(chip.limits.reach(intensity))))
            .join(" ");
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }
    for (i, model) in models.iter().enumerate() {
        let line = floor + 54.0 + 18.0 * i as f64;
        let _ = writeln!(svg, "<path d=\"M{LEFT},{line}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        for work in &model.work {
            let fill = if work.name == "prefill" { "#fff" } else { "#444" };
            let at = x(work.intensity);
            let _ = writeln!(svg, "<circle cx=\"{at:.1}\" cy=\"{line}\" r=\"4\" fill=\"{fill}\" stroke=\"#444\"/>");
        }
    }
    svg + "</svg>\n"
}

/// As much of a name as stands beside a line.
fn shortened(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.strip_suffix(".gguf").unwrap_or(name);
    if name.chars().count() <= 12 { name.to_string() } else { name.chars().take(11).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::{H20, H800};
    use super::*;

    #[test]
    fn rooflines_are_drawn() {
        let chips = [Chip { name: "H20", limits: H20 }, Chip { name: "H800", limits: H800 }];
        let picture = svg(&chips, &[]);
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.contains("H20, ridge 37") && picture.ends_with("</svg>\n"), "{picture}");
        let mut out = Vec::new();
        show(&chips, &[], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("· H20 (flat from 37 on)") && text.contains("10^11.0"), "{text}");
    }
}
