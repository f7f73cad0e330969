//! `report.md`, `report.json` and `curves.svg`: what a run came to, for people and for programs.

mod table;

use std::fmt::Write;
use std::path::Path;

use minke_model::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::budget::Resolved;
use crate::checkpoint::Domain;
use crate::curves;
use crate::evaluation::{Difference, Evaluation};
use crate::files::write_whole;
use crate::intervals::Interval;
use crate::learning_curve::{self, Point};
use crate::pretrain::HeldOut;
use crate::progress::{StageKind, StepMetrics};
use crate::recipe;
use crate::rollouts::Rollout;
use crate::spent::{Price, Spent};

/// The version of `report.json`.
pub const VERSION: u32 = 1;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The recipe's name.
    pub recipe: String,
    /// The run's seed.
    pub seed: u64,
    /// Where the run's numbers were made.
    pub domain: Domain,
    /// The model's family.
    pub family: String,
    /// Its number of parameters.
    pub parameters: u64,
    /// The task's name.
    pub task: String,
    /// Results before the first step, where the model was a published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Results>,
    /// Results after each stage.
    pub stages: Vec<StageReport>,
    /// How it did as it went on, where the recipe asks for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<Point>,
    /// Results at the end, with the recipe's greedy decoding.
    #[serde(rename = "final")]
    pub last: Results,
    /// What it is compared with, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Seconds that the run took, from its start to this report.
    pub wall_s: f64,
    /// What it spent, all in all, without the control; where a kill undid something, without that.
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub spent: Spent,
    /// What a core is reckoned at, where the recipe says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// What the run and its control cost at that price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What a budget left of the stages, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Resolved>,
    /// What is worth knowing besides, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Rollouts of problems nobody trained on, whole.
    pub shown: Vec<Shown>,
}

/// One stage, and how the model did after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its kind.
    pub kind: StageKind,
    /// Steps it had.
    pub steps: u32,
    /// Tokens sampled and learnt from.
    pub tokens: u64,
    /// Seconds it took, without the evaluation after it,
    pub wall_s: f64,
    /// and what it spent.
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub spent: Spent,
    /// How well it predicts text that it held out, where it learnt from text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Results.
    #[serde(flatten)]
    pub results: Results,
}

/// Held-out results of a model that thinks before it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// At the level it was trained for.
    pub think: Evaluation,
    /// One level above, where the task has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Evaluation>,
}

/// What a run cost at the recipe's price.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The run, without the control.
    pub run: f64,
    /// The control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<f64>,
}

/// What the run is compared with: the same model, trained for as much of the cores' time in another way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// What it is.
    pub kind: recipe::Control,
    /// Steps it had.
    pub steps: u32,
    /// Seconds of training, evaluation not counted,
    pub wall_s: f64,
    /// and what was spent on that.
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub spent: Spent,
    /// What was spent on the control, all in all.
    #[serde(default, skip_serializing_if = "Spent::is_unknown")]
    pub total: Spent,
    /// The run at its end minus the control, on the same held-out problems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Held-out results at the level trained for.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// A rollout to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What it is an example of.
    pub title: String,
    /// What the model read,
    pub prompt: String,
    /// what it wrote,
    pub completion: String,
    /// and what that was worth,
    pub reward: f32,
    /// and why.
    pub reason: String,
}

impl Shown {
    /// A rollout under a title.
    pub fn of(title: impl Into<String>, rollout: &Rollout) -> Shown {
        Shown {
            title: title.into(),
            prompt: rollout.item.prompt.clone(),
            completion: rollout.text.clone(),
            reward: rollout.reward,
            reason: rollout.reason.clone(),
        }
    }
}

impl Report {
    /// Writes the report's three files into a run's directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, run: &Path, metrics: &[StepMetrics]) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::new(format!("report can't be written: {e}")))?;
        write_whole(&run.join("curves.svg"), curves::svg(metrics, &self.curve).as_bytes())?;
        write_whole(&run.join("report.md"), self.markdown().as_bytes())?;
        write_whole(&run.join("report.json"), &json)
    }

    /// The report for people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let Domain { binary, isa, dtype } = &self.domain;
        let think = &self.last.think;
        writeln!(out, "# {}\n", self.recipe)?;
        writeln!(
            out,
            "A {} of {} parameters, `{}`, seed {}: **{}** of {} held-out problems at level {}, in {} all in all \
             ({binary}, {isa}, {dtype}).\n",
            self.family,
            count(self.parameters),
            self.task,
            self.seed,
            percent(think.accuracy, think.interval),
            think.items,
            think.level,
            duration(self.wall_s),
        )?;
        for note in &self.notes {
            let (first, rest) = note.split_at(note.chars().next().map_or(0, char::len_utf8));
            writeln!(out, "{}{rest}.\n", first.to_uppercase())?;
        }
        if let Some(control) = &self.control {
            let Evaluation { accuracy, interval, .. } = control.evaluation;
            writeln!(
                out,
                "The control, {} for {} ({} steps): **{}**.{}\n",
                match control.kind {
                    recipe::Control::Direct => "the same model trained to answer without a thought",
                    recipe::Control::Sft =>
                        "the model after its first stage, trained further on the same demonstrations",
                },
                duration(control.wall_s),
                control.steps,
                percent(accuracy, interval),
                control.difference.map_or(String::new(), |difference| format!(" {}", difference.sentence())),
            )?;
        }
        table::write(self, out)?;
        for (number, stage) in (1..).zip(&self.stages) {
            let Some(HeldOut { tokens, loss, perplexity }) = stage.held_out else { continue };
            writeln!(
                out,
                "After stage {number}, text that it held out has a loss of {loss:.4} nats a token, a perplexity of \
                 {perplexity:.2} ({tokens} tokens).\n"
            )?;
        }
        writeln!(
            out,
            "Accuracy is of greedy decoding, lenient of the same completions whatever their form; core-seconds are those of \
             training. The last column is the run at its end minus this row, in points, on the same problems. Intervals are of \
             95 %: Wilson's, and of differences Agresti and Min's for pairs.\n"
        )?;
        let price = self.price.as_ref();
        if !self.spent.is_unknown() {
            writeln!(out, "Spent, measuring included: {}.", self.spent.words(price))?;
            if let Some(control) = self.control.as_ref().filter(|control| !control.total.is_unknown()) {
                writeln!(out, "The control: {}.", control.total.words(price))?;
            }
            writeln!(out, "What was done between a checkpoint and a kill, and done again, counts once.\n")?;
        }
        learning_curve::write(&self.curve, out)?;
        writeln!(out, "![Curves](curves.svg)\n")?;
        for Shown { title, prompt, completion, reward, reason } in &self.shown {
            let fence = fence(&[prompt, completion]);
            writeln!(out, "## {title}\n\n{fence}\n{prompt}{completion}\n{fence}\n\nReward {reward}: {reason}\n")?;
        }
        Ok(())
    }

    /// What the run and its control cost at the recipe's price, if it has one.
    pub fn reckon(&mut self) {
        let control = self.control.as_ref().map(|control| control.total);
        self.cost = self.price.as_ref().and_then(|price| {
            Some(Cost { run: price.of(&self.spent)?, control: control.and_then(|spent| price.of(&spent)) })
        });
    }
}

/// A fraction and its interval, as people say them.
pub(crate) fn percent(fraction: f64, Interval { low, high }: Interval) -> String {
    format!("{:.1} % ({:.1} to {:.1})", 100.0 * fraction, 100.0 * low, 100.0 * high)
}

/// Seconds, as people say them.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A code fence that no text within can close.
fn fence(texts: &[&String]) -> String {
    let longest = texts.iter().flat_map(|text| text.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// A number of parameters, in millions where there are as many.
fn count(parameters: u64) -> String {
    if parameters < 1_000_000 { parameters.to_string() } else { format!("{:.1} million", parameters as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Outcome;

    impl StageReport {
        /// A stage for tests.
        pub(crate) fn example() -> StageReport {
            let outcome =
                |greedy| Outcome { greedy, finished: true, lenient: true, thought_tokens: 12, samples: 8, right: 3 };
            let think = Evaluation::of(3, &[outcome(true), outcome(true), outcome(false), outcome(true)]);
            let above = Some(Evaluation { level: 4, ..think.clone() });
            let results = Results { think, above };
            let spent = Spent { core_s: Some(140.4), joules: None, sampled_tokens: 0, learnt_tokens: 1 << 20 };
            StageReport {
                kind: StageKind::Sft,
                steps: 100,
                tokens: 1 << 20,
                wall_s: 75.3,
                spent,
                held_out: None,
                results,
            }
        }
    }

    fn report() -> Report {
        let stage = StageReport::example();
        let control = Evaluation { right: "0001".into(), ..stage.results.think.clone() };
        let mut report = Report {
            version: VERSION,
            recipe: "sums".into(),
            seed: 1,
            domain: Domain { binary: "minke 0.1.0".into(), isa: "avx2".into(), dtype: "bf16".into() },
            family: "deepseek_v3".into(),
            parameters: 1_000_000,
            task: "chain_sum".into(),
            base: Some(stage.results.clone()),
            last: stage.results.clone(),
            control: Some(Control {
                kind: recipe::Control::Direct,
                steps: 300,
                wall_s: 75.0,
                spent: stage.spent,
                total: stage.spent + stage.spent,
                difference: stage.results.think.minus(&control),
                evaluation: control,
            }),
            wall_s: 3725.0,
            spent: Spent { core_s: Some(7200.0), joules: Some(2500.0), ..stage.spent },
            price: Some(Price { per_core_hour: 0.5, currency: "EUR".into() }),
            cost: None,
            budget: None,
            notes: vec!["it is a test".into()],
            curve: vec![Point::example(50), Point::example(100)],
            stages: vec![stage],
            shown: vec![Shown::of("A sum nobody trained it on", &Rollout::example())],
        };
        report.reckon();
        report
    }

    #[test]
    fn programs_find_what_they_look_for() {
        let run = tempfile::tempdir().unwrap();
        report().write(run.path(), &[]).unwrap();
        let bytes = std::fs::read(run.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        for path in
            ["/final/think/accuracy", "/control/accuracy", "/stages/0/think/accuracy", "/stages/0/above/accuracy"]
        {
            assert_eq!(json.pointer(path).and_then(|x| x.as_f64()), Some(0.75), "{path}");
        }
        for path in ["/wall_s", "/stages/0/wall_s", "/final/think/interval/low", "/control/interval/high"] {
            assert!(json.pointer(path).is_some_and(|x| x.is_f64()), "{path}");
        }
        assert_eq!(json.pointer("/final/think/sampled/k"), Some(&8.into()));
        for (path, expected) in
            [("/cost/run", 1.0), ("/stages/0/spent/core_s", 140.4), ("/control/difference/mean", 0.5)]
        {
            assert_eq!(json.pointer(path).and_then(|x| x.as_f64()), Some(expected), "{path}");
        }
        assert_eq!(json.pointer("/stages/0/spent/joules"), None);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report());
    }

    #[test]
    fn people_find_what_they_look_for() {
        let text = report().markdown();
        for part in [
            "# sums\n",
            "A deepseek_v3 of 1.0 million parameters, `chain_sum`, seed 1: **75.0 % (30.1 to 95.4)** of 4 held-out problems \
             at level 3, in 1 h 2 min all in all (minke 0.1.0, avx2, bf16).",
            "\nIt is a test.\n",
            "The control, the same model trained to answer without a thought for 1 min 15 s (300 steps): **75.0 % (30.1 to \
             95.4)**. The run at its end minus the control, on the same 4 problems: +50.0 points (95 %: -16.6 to +83.2), which \
             may be noise.\n",
            "\n## Learning curve\n",
            "|---|\n| base model | 3 | 75.0 % (30.1 to 95.4) of 4 | 100.0 % | 37.5 %",
            "| 12.0 | 0.0 % |  | 0.0 (-32.7 to +32.7) |\n",
            "| stage 1: sft, 100 steps, 1 min 15 s | 3 | 75.0 % (30.1 to 95.4) of 4 | 100.0 % | 37.5 %",
            "| 12.0 | 0.0 % | 140 |  |\n",
            "| control, 300 steps, 1 min 15 s | 3 |",
            "| 12.0 | 0.0 % | 140 | +50.0 (-16.6 to +83.2) |\n",
            "Spent, measuring included: 7200 core-seconds (2.000 core-hours, 1.00 EUR at 0.5 EUR a core-hour), 0 tokens sampled \
             and 1048576 learnt, 2.5 kJ of the machine's processors.\nThe control: 281 core-seconds",
            "![Curves](curves.svg)",
            "## A sum nobody trained it on\n\n```\n1+2=<think>1+2=3</think>3<end>\n```\n\nReward 1: answer 3 is right\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn no_text_escapes_its_fence() {
        assert_eq!(fence(&[&"a".into()]), "```");
        assert_eq!(fence(&[&"a````b`".into(), &"``".into()]), "`````");
        assert_eq!([0.0, 59.4, 60.0, 7384.0].map(duration), ["0.0 s", "59.4 s", "1 min 0 s", "2 h 3 min"]);
    }
}
