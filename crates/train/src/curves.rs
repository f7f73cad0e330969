//! The picture of a run: an SVG that needs nothing beside it.

use std::fmt::Write;

use crate::learning_curve::Point;
use crate::progress::{RolloutMetrics, StageKind, StepMetrics};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 26.0;

/// One curve: a title, and values over the steps of the whole run.
struct Panel {
    title: &'static str,
    points: Vec<(f64, f64)>,
    /// The top of the scale, where the values have one.
    most: Option<f64>,
}

/// Draws loss, reward, held-out accuracy, the levels of a curriculum, thought length and entropy over the steps; whatever a run
/// hasn't measured is left out.
pub fn svg(metrics: &[StepMetrics], curve: &[Point]) -> String {
    let steps = || (1..).map(f64::from).zip(metrics);
    let of_rollouts = |title, most, value: fn(&RolloutMetrics) -> f64| Panel {
        title,
        points: steps().filter_map(|(x, m)| Some((x, value(m.rollouts.as_ref()?)))).collect(),
        most,
    };
    let levels = steps().filter_map(|(x, m)| Some((x, m.rollouts.as_ref()?.level?))).collect();
    let text = steps().filter(|(_, m)| m.kind == StageKind::Pretrain).map(|(x, m)| (x, m.loss)).collect();
    let demonstrated = |m: &StepMetrics| m.rollouts.is_none() && m.kind != StageKind::Pretrain;
    let demonstrations = steps().filter(|(_, m)| demonstrated(m)).map(|(x, m)| (x, m.loss)).collect();
    let held_out = curve.iter().map(|point| (point.number as f64, point.held_out.accuracy)).collect();
    let panels = [
        Panel { title: "loss on text (nats per token)", points: text, most: None },
        Panel { title: "loss on demonstrations (nats per token)", points: demonstrations, most: None },
        of_rollouts("reward (mean of the step's rollouts)", Some(1.0), |r| r.reward),
        Panel { title: "held-out accuracy (greedy)", points: held_out, most: Some(1.0) },
        Panel { title: "level of the problems (mean)", points: levels, most: None },
        of_rollouts("length of thoughts (tokens)", None, |r| r.thought_tokens),
        of_rollouts("entropy (nats per token)", None, |r| r.entropy),
    ];
    let panels: Vec<Panel> = panels.into_iter().filter(|panel| panel.points.len() > 1).collect();
    let height = (panels.len() as f64 * HEIGHT).max(1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        panel.draw(i as f64 * HEIGHT, &mut svg);
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self, above: f64, svg: &mut String) {
        let (first, last) = (self.points[0].0, self.points[self.points.len() - 1].0);
        let largest = self.points.iter().map(|p| p.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
        let most = self.most.unwrap_or(if largest > 0.0 { round_up(largest) } else { 1.0 });
        let (floor, ceiling) = (above + HEIGHT - BOTTOM, above + TOP);
        let x = |step: f64| LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| floor - (value / most).clamp(0.0, 1.0) * (floor - ceiling);
        let line = |points: &[(f64, f64)]| {
            let finite = points.iter().filter(|p| p.1.is_finite());
            finite.map(|&(a, b)| format!("{:.1},{:.1}", x(a), y(b))).collect::<Vec<String>>().join(" ")
        };
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"#444\">{text}</text>");
        };
        text(LEFT, above + 16.0, "start", self.title);
        text(LEFT - 6.0, floor + 4.0, "end", "0");
        text(LEFT - 6.0, ceiling + 4.0, "end", &most.to_string());
        text(LEFT, floor + 16.0, "start", &format!("step {first}"));
        text(WIDTH - RIGHT, floor + 16.0, "end", &last.to_string());
        let frame = format!("M{LEFT},{ceiling}V{floor}H{}", WIDTH - RIGHT);
        let _ = writeln!(svg, "<path d=\"{frame}\" fill=\"none\" stroke=\"#999\"/>");
        for (points, style) in [
            (line(&self.points), "stroke=\"#9bc1e6\" stroke-width=\"1\""),
            (line(&self.smoothed()), "stroke=\"#1f6fb4\" stroke-width=\"2\""),
        ] {
            let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" {style}/>");
        }
    }

    /// Means over a window of a twentieth of the points around each.
    fn smoothed(&self) -> Vec<(f64, f64)> {
        let (count, reach) = (self.points.len(), self.points.len() / 40);
        let mean = |i: usize| {
            let window = &self.points[i.saturating_sub(reach)..count.min(i + reach + 1)];
            (self.points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
        };
        (0..count).map(mean).collect()
    }
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn round_up(x: f64) -> f64 {
    let mut power = 1e-9;
    while power * 10.0 < x {
        power *= 10.0;
    }
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= x).unwrap_or(10.0);
    // Away with the error of the powers.
    format!("{:.3e}", factor * power).parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round() {
        for (x, expected) in [(0.7, 1.0), (1.2, 2.0), (4.0, 5.0), (37.0, 50.0), (99.0, 100.0), (0.013, 0.02)] {
            assert_eq!(round_up(x), expected);
        }
    }

    #[test]
    fn pictures_have_what_was_measured() {
        let reward = StepMetrics::example();
        let demonstration = StepMetrics { rollouts: None, kind: StageKind::Sft, loss: 2.0, ..reward.clone() };
        let steps = [demonstration.clone(), demonstration.clone(), reward.clone(), reward.clone()];
        let both = svg(&steps, &[]);
        assert_eq!(both.matches("<polyline").count(), 8);
        assert!(!both.contains("held-out accuracy"));
        let followed = svg(&steps, &[Point::example(2), Point::example(4)]);
        assert_eq!(followed.matches("<polyline").count(), 10);
        assert!(followed.contains("held-out accuracy (greedy)") && followed.contains("step 2<"));
        assert!(both.contains("loss on demonstrations") && both.contains("step 3<") && both.ends_with("</svg>\n"));
        let one = svg(&[demonstration.clone(), demonstration.clone(), reward], &[]);
        assert_eq!(one.matches("<polyline").count(), 2);
        let diverged = StepMetrics { loss: f64::NAN, ..demonstration.clone() };
        assert!(!svg(&[demonstration, diverged.clone()], &[]).contains("NaN"));
        assert!(!svg(&[diverged.clone(), diverged], &[]).contains("NaN"));
        assert_eq!(svg(&[], &[]).matches("<polyline").count(), 0);
    }
}
