//! The live view of a run: on a terminal a few lines redrawn in place, elsewhere a line now and then.

use std::path::Path;
use std::time::{Duration, Instant};

use minke_kernels::Cpu;
use minke_train::Recipe;
use minke_train::curriculum::LevelMetrics;
use minke_train::evaluation::Evaluation;
use minke_train::learning_curve::Point;
use minke_train::progress::{Progress, RolloutMetrics, StepMetrics};
use minke_train::report::StageReport;
use minke_train::rollouts::Rollout;

use crate::terminal::{Block, Line, Style, bar, printable, say, sparkline};
use crate::units::{count, duration};

/// Time from one line to the next where there is no terminal.
const QUIET: Duration = Duration::from_secs(10);
/// Time from one drawing to the next: as often as eyes follow.
const DRAWING: Duration = Duration::from_millis(100);
/// Columns of curves, and of what stands before them.
const CURVE: usize = 32;
const NAME: usize = 15;

/// What is on show.
pub struct View {
    /// What is about to run, and where; `None` once it was said.
    opening: Option<String>,
    /// `None` without a terminal.
    block: Option<Block>,
    last: Option<Instant>,
    stages: usize,
    /// Of the stage under way.
    stage: usize,
    losses: Vec<f64>,
    rewards: Vec<f64>,
    thoughts: Vec<f64>,
    /// Held-out accuracies, of the whole run.
    held_out: Vec<f64>,
    /// What stages came to, to be seen until the end.
    results: Vec<String>,
    control: bool,
}

impl View {
    /// Of a run that is about to begin.
    pub fn new(cpu: &Cpu, recipe: &Recipe, directory: &Path) -> View {
        let opening = format!(
            "{}: {} stages on {}, {}, {} threads; kept in {}",
            recipe.name,
            recipe.stages.len(),
            cpu.isa().name(),
            recipe.kept(recipe.dtype.name()),
            cpu.pool().threads(),
            directory.display()
        );
        View {
            opening: Some(opening),
            block: Block::new(),
            last: None,
            stages: recipe.stages.len(),
            stage: 0,
            losses: Vec::new(),
            rewards: Vec::new(),
            thoughts: Vec::new(),
            held_out: Vec::new(),
            results: Vec::new(),
            control: false,
        }
    }

    /// Shows the moment.
    pub fn show(&mut self, progress: &Progress<'_>) {
        match *progress {
            Progress::Begun => {
                if let Some(opening) = self.opening.take() {
                    say(&opening);
                }
            }
            Progress::Note(note) => self.lasting(note.to_string()),
            Progress::Timing { stage } => {
                self.draw(true, || vec![dim(format!("timing stage {stage}, to fit the budget"))]);
            }
            Progress::Step { metrics, seconds, sample, .. } => self.step(metrics, seconds, sample),
            Progress::Teaching { done, of } => self.problems("the teacher's problems", done, of),
            Progress::Measuring { level, done, of } => {
                self.problems(&format!("held-out problems of level {level}"), done, of);
            }
            Progress::Base(results) => self.lasting(format!("base model: {}", held_out(&results.think))),
            Progress::Point(point) => self.point(point),
            Progress::Measured(report) => self.measured(report),
            Progress::Control => {
                self.control = true;
                self.held_out.clear();
                self.lasting("now the control, for as much of the cores' time".into());
            }
        }
    }

    /// How many problems somebody has done.
    fn problems(&mut self, name: &str, done: usize, of: usize) {
        self.draw(done == 0, || {
            let (filled, rest) = bar(CURVE, done as f64 / of.max(1) as f64);
            let line = Line::new().add(Style::Plain, format!("{name}  "));
            let line = line.add(Style::Accent, filled).add(Style::Dim, rest);
            vec![line.add(Style::Plain, format!(" {done} of {of}"))]
        });
    }

    fn step(&mut self, metrics: &StepMetrics, (behind, ahead): (f64, f64), sample: Option<&Rollout>) {
        if metrics.stage != self.stage || metrics.step == 1 {
            self.stage = metrics.stage;
            (self.losses, self.rewards, self.thoughts) = Default::default();
        }
        self.losses.push(metrics.loss);
        if let Some(rollouts) = &metrics.rollouts {
            self.rewards.push(rollouts.reward);
            self.thoughts.push(rollouts.thought_tokens);
        }
        let View { losses, rewards, thoughts, held_out, stages, control, .. } = self;
        let (stages, control) = (if *control { 1 } else { *stages }, *control);
        let (losses, rewards, thoughts, held_out) = (&losses[..], &rewards[..], &thoughts[..], &held_out[..]);
        // A reward of next to nothing must look like it.
        let scales = [None, Some((0.0, 1.0)), None];
        let curves = [losses, rewards, thoughts].into_iter().zip(scales);
        let curves: Vec<String> = curves.map(|(values, scale)| sparkline(values, CURVE, scale)).collect();
        let followed = held_out.last().map(|last| {
            let curve = sparkline(held_out, CURVE, Some((0.0, 1.0)));
            figure("held out", format!("{:.1} %", 100.0 * last)).add(Style::Good, curve)
        });
        let lines = || {
            let mut lines = vec![head(metrics, stages, control, behind, ahead)];
            lines.extend(figures(metrics, &curves));
            lines.extend(followed);
            if let Some(sample) = sample {
                lines.push(Line::new());
                lines.extend(rollout(sample));
            }
            lines
        };
        self.draw(metrics.step == metrics.steps, lines);
    }

    /// The learning curve has another point.
    fn point(&mut self, point: &Point) {
        let accuracy = point.held_out.accuracy;
        self.held_out.push(accuracy);
        if self.block.is_none() {
            let Point { stage, step, wall_s, .. } = point;
            let (level, percent, trained) = (point.held_out.level, 100.0 * accuracy, duration(*wall_s));
            say(&format!(
                "stage {stage}, step {step}, {trained} trained: held out at level {level}: greedy {percent:.1} %"
            ));
        }
    }

    fn measured(&mut self, StageReport { kind, steps, wall_s, held_out: text, results, .. }: &StageReport) {
        let text = text.map_or(String::new(), |text| format!("; held-out text: perplexity {:.2}", text.perplexity));
        self.lasting(format!(
            "{}{}: {steps} steps in {}{text}; {}",
            if self.control { "control, " } else { "" },
            kind.name(),
            duration(*wall_s),
            held_out(&results.think),
        ));
    }

    /// A line that stays.
    fn lasting(&mut self, line: String) {
        if self.block.is_none() {
            say(&line);
        }
        self.results.push(line);
    }

    /// Draws the lines under the lasting ones, if it is time; `now` makes it so.
    fn draw(&mut self, now: bool, lines: impl FnOnce() -> Vec<Line>) {
        let pause = if self.block.is_some() { DRAWING } else { QUIET };
        if !now && self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        match &mut self.block {
            Some(block) => {
                let lasting = self.results.iter().map(|line| Line::new().add(Style::Plain, line.as_str()));
                block.draw(&lasting.chain(lines()).collect::<Vec<_>>());
            }
            // One line says it all, with the numbers next to each other.
            None => say(&lines().iter().map(|line| line.text()).collect::<Vec<_>>().join("  ")),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let results = std::mem::take(&mut self.results);
        if let Some(block) = &mut self.block {
            block.draw(&results.into_iter().map(|line| Line::new().add(Style::Plain, line)).collect::<Vec<_>>());
        }
    }
}

fn head(metrics: &StepMetrics, stages: usize, control: bool, behind: f64, ahead: f64) -> Line {
    let StepMetrics { stage, kind, step, steps, .. } = metrics;
    let name = match control {
        true => "control".to_string(),
        false => format!("stage {stage} of {stages}: {}", kind.name()),
    };
    let (filled, rest) = bar(CURVE, f64::from(*step) / f64::from(*steps));
    Line::new()
        .add(Style::Bold, format!("{name}  "))
        .add(Style::Accent, filled)
        .add(Style::Dim, rest)
        .add(Style::Plain, format!("  step {step} of {steps}"))
        .add(Style::Dim, format!("  {} trained, {} left", duration(behind), duration(ahead)))
}

/// A number and its name; a curve may follow.
fn figure(name: &str, value: String) -> Line {
    Line::new().add(Style::Dim, format!("  {name}")).to(NAME).add(Style::Plain, value).to(NAME + 8)
}

/// What was measured, with curves of [loss, reward, thought].
fn figures(metrics: &StepMetrics, curves: &[String]) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(rollouts) = &metrics.rollouts {
        let RolloutMetrics { reward: mean, thought_tokens, truncated, zero_variance, entropy, .. } = rollouts;
        lines.push(figure("reward", format!("{mean:.3}")).add(Style::Good, curves[1].as_str()));
        lines.push(figure("thought", format!("{thought_tokens:.1}")).add(Style::Accent, curves[2].as_str()));
        lines.push(figure("entropy", format!("{entropy:.3}")).add(
            Style::Dim,
            format!(
                "{:.0} % of groups agree, {:.0} % of completions are cut off",
                100.0 * zero_variance,
                100.0 * truncated
            ),
        ));
        if let Some(level) = rollouts.level {
            let of = |l: &LevelMetrics| format!("{}: {:.0} % of {}", l.level, 100.0 * l.rate, l.problems);
            let levels = rollouts.levels.iter().map(of).collect::<Vec<String>>().join(", ");
            lines.push(figure("level", format!("{level:.1}")).add(Style::Dim, levels));
        }
    } else {
        lines.push(figure("loss", format!("{:.4}", metrics.loss)).add(Style::Accent, curves[0].as_str()));
    }
    lines.push(figure("gradient", format!("{:.3}", metrics.gradient_norm)));
    lines.push(figure("tokens/s", count(metrics.tokens_per_second())));
    lines
}

/// A rollout on one line, and what it was worth.
fn rollout(sample: &Rollout) -> [Line; 2] {
    let text = printable(&sample.text).replace(['\n', '\t'], " ");
    let thought = text.rfind(crate::think::CLOSE).map_or(text.len(), |at| at + crate::think::CLOSE.len());
    let (style, mark) = if sample.reward > 0.0 { (Style::Good, "✓") } else { (Style::Bad, "✗") };
    [
        Line::new()
            .add(Style::Bold, format!("  {}", printable(&sample.item.prompt).replace(['\n', '\t'], " ")))
            .add(Style::Dim, &text[..thought])
            .add(Style::Plain, &text[thought..]),
        Line::new().add(style, format!("  {mark} {}", printable(&sample.reason))),
    ]
}

/// What was measured, in half a line.
fn held_out(evaluation: &Evaluation) -> String {
    let Evaluation { level, accuracy, thought_tokens, .. } = evaluation;
    let sampled = evaluation.sampled.as_ref().map_or(String::new(), |sampled| {
        let (one, all) = (100.0 * sampled.pass_at_1, 100.0 * sampled.pass_at_k);
        format!(", sampled {one:.1} %, any of {} {all:.1} %", sampled.k)
    });
    let greedy = 100.0 * accuracy;
    format!("held out at level {level}: greedy {greedy:.1} %{sampled}; {thought_tokens:.1} tokens of thought")
}

fn dim(text: String) -> Line {
    Line::new().add(Style::Dim, text)
}
