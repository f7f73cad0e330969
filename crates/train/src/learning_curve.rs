//! The learning curve: held-out accuracy as a run goes on, beside what training has taken up to there.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::evaluation::Evaluation;
use crate::intervals::Interval;
use crate::report::{Results, percent};

/// One measurement: a line of `metrics.jsonl`, between those of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Which stage it is in, or was the end of, from 1.
    pub stage: usize,
    /// Steps of the stage behind it,
    pub step: u32,
    /// and of the whole run.
    pub number: u64,
    /// At the level trained for,
    pub held_out: Accuracy,
    /// and one above, where the task has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Accuracy>,
    /// Seconds of training behind it, without any measuring,
    pub wall_s: f64,
    /// and seconds of cores' time, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_s: Option<f64>,
}

/// How many held-out problems of a level were right, greedily.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// The level.
    pub level: u32,
    /// Number of problems.
    pub items: usize,
    /// Fraction of them whose greedy completion was right,
    pub accuracy: f64,
    /// and its interval.
    pub interval: Interval,
}

impl Accuracy {
    fn of(evaluation: &Evaluation) -> Accuracy {
        let Evaluation { level, items, accuracy, interval, .. } = *evaluation;
        Accuracy { level, items, accuracy, interval }
    }

    /// What people are told.
    fn words(&self) -> String {
        format!("{} of {}", percent(self.accuracy, self.interval), self.items)
    }
}

impl Point {
    /// Results after `step` steps of a stage (from 1), `number` of the whole run, that took `wall_s` and `core_s` to train.
    pub fn of(
        results: &Results,
        stage: usize,
        (step, number): (u32, u64),
        (wall_s, core_s): (f64, Option<f64>),
    ) -> Point {
        let (held_out, above) = (Accuracy::of(&results.think), results.above.as_ref().map(Accuracy::of));
        Point { stage, step, number, held_out, above, wall_s, core_s }
    }
}

/// Writes the curve as a table; nothing where there is none.
pub(crate) fn write(curve: &[Point], out: &mut String) -> std::fmt::Result {
    if curve.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Learning curve\n\nGreedy, on held-out problems; seconds are of training alone.\n")?;
    writeln!(out, "| stage | step | level | greedy | one level above | seconds | core-seconds |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for Point { stage, step, held_out, above, wall_s, core_s, .. } in curve {
        let above = above.map_or(String::new(), |above| above.words());
        let core_s = core_s.map_or(String::new(), |seconds| format!("{seconds:.1}"));
        let (level, words) = (held_out.level, held_out.words());
        writeln!(out, "| {stage} | {step} | {level} | {words} | {above} | {wall_s:.1} | {core_s} |")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::StageReport;

    impl Point {
        /// A measurement for tests, after so many steps of the run.
        pub(crate) fn example(number: u64) -> Point {
            Point::of(&StageReport::example().results, 2, (5, number), (12.34, Some(20.0)))
        }
    }

    #[test]
    fn curves_are_told_to_programs_and_people() {
        let point = Point::example(25);
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
        assert!(text.contains(r#""held_out":{"level":3,"items":4,"accuracy":0.75"#), "{text}");
        let mut table = String::new();
        write(&[], &mut table).unwrap();
        assert_eq!(table, "");
        let alone = Point { above: None, core_s: None, ..point.clone() };
        write(&[point, alone], &mut table).unwrap();
        for row in [
            "| 2 | 5 | 3 | 75.0 % (30.1 to 95.4) of 4 | 75.0 % (30.1 to 95.4) of 4 | 12.3 | 20.0 |\n",
            "| 2 | 5 | 3 | 75.0 % (30.1 to 95.4) of 4 |  | 12.3 |  |\n",
        ] {
            assert!(table.contains(row), "{row} is not in {table}");
        }
    }
}
