//! A day as a picture (SVG): how many chips each person held, one over the other.

use std::fmt::Write as _;

use minke_lab::simulate::{Stint, Trace};

/// Size of all, and of what is around the picture.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 36.0;
/// The day is cut into so many pieces; of each the mean is shown.
const PIECES: usize = 240;
/// Colours of people, those who held most first; whoever comes later shares the last.
const COLOURS: [&str; 9] =
    ["#1f6fb4", "#e08a1e", "#3a9d5d", "#b8484c", "#8064b0", "#8a6a4f", "#d178a8", "#4fb0b8", "#9a9a9a"];
/// Longest name that is shown whole.
const NAME: usize = 14;

/// Draws who held chips when.
pub fn svg(trace: &Trace, chips: u32, stints: &[Stint]) -> String {
    let end = stints.iter().map(|stint| stint.until).max().unwrap_or(0).max(1) as f64;
    let piece = end / PIECES as f64;
    let mut held = vec![[0.0; PIECES]; trace.people.len()];
    for stint in stints {
        let job = &trace.jobs[stint.job];
        let (from, until) = (stint.from as f64, stint.until as f64);
        let (first, last) = ((from / piece) as usize, ((until / piece) as usize).min(PIECES - 1));
        for at in first..=last {
            let overlap = until.min((at + 1) as f64 * piece) - from.max(at as f64 * piece);
            held[job.person.0 as usize][at] += f64::from(job.chips) * overlap.max(0.0) / piece;
        }
    }
    let mut order: Vec<usize> = (0..held.len()).collect();
    let total = |person: usize| held[person].iter().sum::<f64>();
    order.sort_by(|a, b| total(*b).total_cmp(&total(*a)));
    let x = |at: f64| LEFT + at * (WIDTH - LEFT - RIGHT) / PIECES as f64;
    let y = |held: f64| HEIGHT - BOTTOM - held / f64::from(chips) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Chips held by each person</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, what: &str| {
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#444\">{what}</text>");
    };
    let mut below = [0.0; PIECES];
    for (place, person) in order.iter().enumerate() {
        let colour = COLOURS[place.min(COLOURS.len() - 1)];
        let mut path = String::new();
        for at in 0..PIECES {
            let top = y(below[at] + held[*person][at]);
            let start = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{start}{:.1},{top:.1}H{:.1}", x(at as f64), x((at + 1) as f64));
        }
        for at in (0..PIECES).rev() {
            let _ = write!(path, "L{:.1},{:.1}H{:.1}", x((at + 1) as f64), y(below[at]), x(at as f64));
            below[at] += held[*person][at];
        }
        let _ = writeln!(svg, "<path d=\"{path}Z\" fill=\"{colour}\"/>");
        let row = TOP + 18.0 * place as f64;
        if place + 1 < COLOURS.len() || order.len() == COLOURS.len() {
            let name = escaped(&trace.people[*person]);
            let _ = writeln!(svg, "<path d=\"M{:.1},{row:.1}h12v12h-12z\" fill=\"{colour}\"/>", WIDTH - RIGHT + 12.0);
            text(&mut svg, WIDTH - RIGHT + 30.0, row + 10.5, "start", &name);
        } else if place + 1 == COLOURS.len() {
            let others = format!("{} others", order.len() - place);
            let _ = writeln!(svg, "<path d=\"M{:.1},{row:.1}h12v12h-12z\" fill=\"{colour}\"/>", WIDTH - RIGHT + 12.0);
            text(&mut svg, WIDTH - RIGHT + 30.0, row + 10.5, "start", &others);
        }
    }
    let _ =
        writeln!(svg, "<path d=\"M{LEFT},{TOP}V{:.1}H{:.1}\" fill=\"none\" stroke=\"#999\"/>", y(0.0), WIDTH - RIGHT);
    text(&mut svg, LEFT - 6.0, y(f64::from(chips)) + 5.0, "end", &chips.to_string());
    text(&mut svg, LEFT - 6.0, y(0.0) + 4.0, "end", "0");
    text(&mut svg, LEFT, HEIGHT - 12.0, "start", "chips held, by person");
    text(&mut svg, WIDTH - RIGHT, HEIGHT - 12.0, "end", &format!("{:.0} hours", end / 3_600_000.0));
    svg + "</svg>\n"
}

fn escaped(name: &str) -> String {
    let short: String = name.chars().take(NAME).collect();
    short.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_place() {
        let csv = "submit_s,duration_s,chips,person\n0,10,1,a<b>&c\n0,10,1,Ben\n";
        let trace = Trace::parse(csv, 2).unwrap();
        let stint = |job| Stint { job, from: 0, until: 10_000 };
        let picture = svg(&trace, 2, &[stint(0), stint(1)]);
        assert!(picture.contains("a&lt;b&gt;&amp;c") && picture.contains(">Ben<"), "{picture}");
        assert_eq!(picture.matches("Z\"").count(), 2);
        // Both chips were held all day: one area ends where the scale does.
        assert!(picture.contains(&format!("M{LEFT:.1},{TOP:.1}H")), "{picture}");
    }
}
