//! The report's table: a row for each model that was measured, next to each other.

use std::fmt::{Result, Write};

use super::{Report, Results, StageReport, duration, percent};
use crate::evaluation::{Difference, Evaluation};

const HEADS: [&str; 10] = [
    "after",
    "level",
    "accuracy",
    "lenient",
    "pass@1 sampled",
    "pass@k",
    "thought tokens",
    "truncated",
    "core-seconds",
    "the end minus this",
];

/// Writes the base model, the stages and the control, each with the level above where that was measured.
pub(super) fn write(report: &Report, out: &mut String) -> Result {
    let Report { base, stages, control, last, .. } = report;
    writeln!(out, "| {} |\n|{}", HEADS.join(" | "), "---|".repeat(HEADS.len()))?;
    let base = base.iter().map(|results| ("base model".to_string(), None, &results.think, results.above.as_ref()));
    let stages = stages.iter().enumerate().map(|(i, stage)| {
        let StageReport { kind, steps, wall_s, spent, results: Results { think, above }, .. } = stage;
        let name = format!("stage {}: {}, {steps} steps, {}", i + 1, kind.name(), duration(*wall_s));
        (name, spent.core_s, think, above.as_ref())
    });
    let control = control.iter().map(|control| {
        let name = format!("control, {} steps, {}", control.steps, duration(control.wall_s));
        (name, control.spent.core_s, &control.evaluation, None)
    });
    let is_last = |i: usize| report.base.iter().len() + report.stages.len() == i + 1;
    for (i, (name, core_s, think, above)) in base.chain(stages).chain(control).enumerate() {
        let since = |last: Option<&Evaluation>, this| last.filter(|_| !is_last(i)).and_then(|last| last.minus(this));
        row(out, &name, think, core_s, since(Some(&last.think), think))?;
        if let Some(above) = above {
            row(out, "", above, None, since(last.above.as_ref(), above))?;
        }
    }
    writeln!(out)
}

fn row(
    out: &mut String,
    name: &str,
    evaluation: &Evaluation,
    core_s: Option<f64>,
    since: Option<Difference>,
) -> Result {
    let Evaluation { level, items, accuracy, interval, lenient, thought_tokens, truncated, sampled, .. } = evaluation;
    let greedy = percent(*accuracy, *interval);
    let lenient = lenient.map_or(String::new(), |part| format!("{:.1} %", 100.0 * part));
    let (one, all) = match sampled {
        None => (String::new(), String::new()),
        Some(s) => (
            percent(s.pass_at_1, s.pass_at_1_interval),
            format!("{} (k = {})", percent(s.pass_at_k, s.pass_at_k_interval), s.k),
        ),
    };
    let truncated = 100.0 * truncated;
    let core_s = core_s.map_or(String::new(), |seconds| format!("{seconds:.*}", usize::from(seconds < 10.0)));
    let since = since.map_or(String::new(), |difference| difference.points());
    writeln!(
        out,
        "| {name} | {level} | {greedy} of {items} | {lenient} | {one} | {all} | {thought_tokens:.1} | {truncated:.1} % | \
         {core_s} | {since} |"
    )
}

impl Difference {
    /// In points of a hundred, with its interval.
    fn points(&self) -> String {
        let [mean, low, high] = [self.mean, self.interval.low, self.interval.high].map(signed);
        format!("{mean} ({low} to {high})")
    }

    /// What is to be said of the run and its control.
    pub fn sentence(&self) -> String {
        let [mean, low, high] = [self.mean, self.interval.low, self.interval.high].map(signed);
        let verdict = if self.is_more_than_noise() { "more than noise" } else { "which may be noise" };
        let items = self.items;
        format!(
            "The run at its end minus the control, on the same {items} problems: {mean} points (95 %: {low} to {high}), {verdict}."
        )
    }
}

/// In points of a hundred; a difference of nothing has no sign.
fn signed(fraction: f64) -> String {
    let points = format!("{:+.1}", 100.0 * fraction);
    if points.trim_start_matches(['+', '-']) == "0.0" { "0.0".into() } else { points }
}
