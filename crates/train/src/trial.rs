//! One training, from its first step to its last: its stages, checkpoints and measurements.

mod follow;
mod teaching;
mod text;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use minke_kernels::random::Random;
use minke_model::dequantize::DataType;
use minke_model::{Error, Result, huggingface};

use crate::base::Base;
use crate::checkpoint::{self, Arenas, State};
use crate::format::Format;
use crate::generate::Generator;
use crate::learner::Learner;
use crate::measure::measure;
use crate::metrics::MetricsFile;
use crate::progress::{Progress, StageKind, StepMetrics, Watch};
use crate::recipe::{Eval, Stage};
use crate::remote::Chat;
use crate::report::{Results, StageReport};
use crate::rollouts::{self, Rollout};
use crate::sequences::Read;
use crate::spent::{Meter, Spent};
use crate::step::{At, Material, advance};
use crate::tasks::{Task, held_out_items};
use crate::{distillation, reference};

/// What a training goes by, the same from its start to its end.
pub struct Plan<'a> {
    /// What is learnt.
    pub task: &'a dyn Task,
    /// How the model reads and writes.
    pub format: &'a Format,
    /// Finds a model by its reference.
    pub find: &'a dyn Fn(&str) -> Result<PathBuf>,
    /// Asks a teacher that is elsewhere.
    pub chat: &'a Chat<'a>,
    /// The frozen model, where adapters are trained.
    pub base: Option<&'a Base>,
    /// In which stages; how many steps each has is in the state.
    pub stages: Vec<Stage>,
    /// What those of the recipe's that read files have read.
    pub texts: &'a [Option<Read>],
    /// How results are measured.
    pub eval: Eval,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u32,
    /// Bytes that checkpoints may take.
    pub checkpoint_bytes: u64,
    /// Where everything is kept.
    pub directory: PathBuf,
}

/// A training under way.
pub struct Trial<'a> {
    plan: Plan<'a>,
    learner: Learner<'a>,
    generator: Generator<'a>,
    state: State,
    metrics: MetricsFile,
    /// What the stage under way learns from.
    material: Material,
    /// Seconds that a step of each kind of stage took lately.
    pace: [f64; 2],
    /// Steps that the last checkpoint keeps.
    saved: u64,
    /// What is spent and not yet in the state.
    meter: Meter,
}

impl<'a> Trial<'a> {
    /// A training that stands at `state`, whose learner has that state's values.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be opened.
    pub fn new(plan: Plan<'a>, learner: Learner<'a>, state: State) -> Result<Trial<'a>> {
        let metrics = MetricsFile::open(&plan.directory.join("metrics.jsonl"), state.metrics_lines)?;
        let generator = Generator::new(plan.task, plan.format);
        Ok(Trial {
            saved: state.total_steps,
            plan,
            learner,
            generator,
            state,
            metrics,
            material: Material::default(),
            pace: [0.0; 2],
            meter: Meter::start(),
        })
    }

    /// How far it has come.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was spent up to now, all in all.
    pub fn spent(&mut self) -> Spent {
        self.state.measuring += self.meter.lap();
        self.state.training + self.state.measuring
    }

    /// The model that learns.
    pub fn learner(&self) -> &Learner<'a> {
        &self.learner
    }

    /// Trains to the end, or until `stop` is set; says whether it came to the end. Either way everything is saved.
    ///
    /// # Errors
    /// What the file system says, or a defect that a step found.
    pub fn train(&mut self, stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<bool> {
        while let Some(stage) = &self.plan.stages.get(self.state.stage).cloned() {
            while self.state.step < self.state.plan[self.state.stage] {
                if stop.load(Ordering::Relaxed) {
                    self.save()?;
                    return Ok(false);
                }
                if !self.follow(stop, watch)? || !self.teach(stage, stop, watch)? {
                    self.save()?;
                    return Ok(false);
                }
                self.step(stage, watch)?;
                if self.state.total_steps.is_multiple_of(u64::from(self.plan.checkpoint_every)) {
                    self.save()?;
                }
            }
            let measured = self.finish_stage(stage, stop, watch)?;
            self.save()?;
            if !measured {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn step(&mut self, stage: &Stage, watch: &mut Watch<'_>) -> Result<()> {
        let start = Instant::now();
        let (index, steps) = (self.state.step, self.state.plan[self.state.stage]);
        if index == 0 {
            // A stage begins with an optimiser that remembers nothing.
            self.learner.reset_optimizer();
            self.state.curriculum = stage.curriculum();
        }
        self.hold(stage)?;
        let at = At { seed: self.seed(), index, steps, number: self.state.total_steps + 1 };
        self.read(stage)?;
        let curriculum = self.state.curriculum.as_mut();
        let done = advance(&mut self.learner, &mut self.generator, &mut self.material, curriculum, stage, at)?;
        if let Some(step) = &done.rollouts {
            rollouts::write(&self.plan.directory, at.number, &step.rollouts)?;
        }
        let wall_s = start.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            stage: self.state.stage + 1,
            kind: stage.kind(),
            step: index + 1,
            steps,
            learning_rate: stage.learning().rate(index, steps),
            loss: done.loss,
            mtp_loss: done.mtp_loss,
            gradient_norm: done.gradient_norm,
            tokens: done.tokens,
            wall_s,
            rollouts: done.rollouts.as_ref().map(|step| step.metrics.clone()),
        };
        self.metrics.append(&metrics)?;
        self.state.step += 1;
        self.state.total_steps += 1;
        self.state.updates = self.learner.updates;
        self.state.tokens += done.tokens;
        self.state.metrics_lines = self.metrics.lines();
        self.state.wall_s += wall_s;
        self.state.training += done.spent(self.meter.lap());
        let pace = &mut self.pace[usize::from(stage.kind() == StageKind::Grpo)];
        *pace = if *pace == 0.0 { wall_s } else { 0.9 * *pace + 0.1 * wall_s };
        let sample = done.rollouts.as_ref().map(|step| moment(&step.rollouts, self.state.total_steps));
        watch(&Progress::Step {
            metrics: &metrics,
            run: (self.state.total_steps, self.state.plan.iter().map(|&steps| u64::from(steps)).sum()),
            checkpoint: self.saved,
            seconds: (self.state.wall_s, self.left_s()),
            sample,
        });
        Ok(())
    }

    /// Before a step: the model as it was when the stage began is there, if the stage is held to it; or a teacher, if its
    /// distributions are learnt.
    fn hold(&mut self, stage: &Stage) -> Result<()> {
        if self.material.reference.is_none() {
            let (cpu, config, Plan { find, format, .. }) =
                (self.learner.cpu(), self.learner.transformer().config(), &self.plan);
            self.material.reference = distillation::teacher(cpu, stage, *find, config, format.tokenizer())?;
        }
        if !stage.has_reference() {
            return Ok(());
        }
        let (run, number, values) = (&self.plan.directory, self.state.stage + 1, &self.learner.values);
        if self.state.step == 0 {
            // On disk before any checkpoint that counts on it.
            self.state.reference = Some(reference::write(run, number, values)?);
            self.material.reference = Some(self.learner.with(values));
        } else if self.material.reference.is_none() {
            let crc32 = self.state.reference.ok_or_else(|| {
                Error::new(format!(
                    "the checkpoint lacks the reference of stage {number}; start anew elsewhere (--out)"
                ))
            })?;
            let values = reference::read(run, number, values.len(), crc32)?;
            self.material.reference = Some(self.learner.with(&values));
        }
        Ok(())
    }

    /// Seconds that the stages ahead will take at the pace so far; a kind that has not been seen yet counts like the other.
    fn left_s(&self) -> f64 {
        let pace = |kind: StageKind| {
            let own = self.pace[usize::from(kind == StageKind::Grpo)];
            if own > 0.0 { own } else { self.pace[0].max(self.pace[1]) }
        };
        let ahead = self.plan.stages.iter().zip(&self.state.plan).enumerate().skip(self.state.stage);
        ahead
            .map(|(i, (stage, &steps))| {
                let done = if i == self.state.stage { self.state.step } else { 0 };
                f64::from(steps - done) * pace(stage.kind())
            })
            .sum()
    }

    /// Measures and exports what a stage came to; false where `stop` came first.
    fn finish_stage(&mut self, stage: &Stage, stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<bool> {
        let start = Instant::now();
        let wall_before: f64 = self.state.reports.iter().map(|report| report.wall_s).sum();
        let tokens_before: u64 = self.state.reports.iter().map(|report| report.tokens).sum();
        let spent_before: Spent = self.state.reports.iter().map(|report| report.spent).sum();
        let Some(held_out) = self.predict(stage, stop)? else { return Ok(false) };
        let Some(results) = self.results(stop, watch)? else { return Ok(false) };
        self.point(&results, watch)?;
        let number = self.state.stage + 1;
        let directory = self.plan.directory.join(format!("stages/{number}"));
        match self.plan.base {
            Some(base) => base.write_adapters(&directory, &self.learner.values)?,
            None => self.export(&directory)?,
        }
        self.state.reports.push(StageReport {
            kind: stage.kind(),
            steps: self.state.plan[self.state.stage],
            tokens: self.state.tokens - tokens_before,
            wall_s: self.state.wall_s - wall_before,
            spent: self.state.training - spent_before,
            held_out,
            results,
        });
        if let Some(report) = self.state.reports.last() {
            watch(&Progress::Measured(report));
        }
        self.material = Material::default();
        self.state.reference = None;
        self.state.curriculum = None;
        self.state.stage += 1;
        self.state.step = 0;
        self.state.measuring_s += start.elapsed().as_secs_f64();
        Ok(true)
    }

    /// Held-out results of the model as it is now; `None` where `stop` came first.
    fn results(&mut self, stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<Option<Results>> {
        let Plan { task, eval, .. } = self.plan;
        let (cpu, transformer) = (self.learner.cpu(), self.learner.transformer());
        measure(&mut self.generator, task, eval, cpu, transformer, self.state.seed as u32, stop, watch)
    }

    /// Held-out problems as the model answers them now, greedily: at the level trained for, and one above.
    ///
    /// # Errors
    /// Those of [`Generator::complete`].
    pub fn answers(&mut self) -> Result<[Vec<Rollout>; 2]> {
        let eval = self.plan.eval;
        let mut levels = eval.levels(self.plan.task).map(|level| {
            let items = held_out_items(self.plan.task, level, eval.items as usize);
            let (cpu, transformer) = (self.learner.cpu(), self.learner.transformer());
            self.generator.greedy(cpu, transformer, &items, eval.max_new_tokens as usize)
        });
        let at = levels.next().transpose()?.unwrap_or_default();
        Ok([at, levels.next().transpose()?.unwrap_or_default()])
    }

    /// Writes the model as it is, for transformers and for `minke chat`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn export(&self, directory: &Path) -> Result<()> {
        self.write(directory).map_err(|error| {
            let place = directory.display();
            Error::new(format!(
                "the model can't be kept in {place} ({error}); nothing is lost: mend that, then go on (--resume)"
            ))
        })
    }

    fn write(&self, directory: &Path) -> Result<()> {
        if let Some(base) = self.plan.base {
            return base.export(self.learner.cpu(), directory, &self.learner.values, self.plan.format);
        }
        let transformer = self.learner.transformer();
        let tensors = self.learner.parameters().iter().map(|parameter| {
            (parameter.name.clone(), parameter.shape.clone(), &self.learner.values[parameter.range()])
        });
        let (tokenizer, template) = (self.plan.format.tokenizer(), self.plan.format.template());
        huggingface::write(directory, transformer.config(), tensors, DataType::F32, tokenizer, template)
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&mut self) -> Result<()> {
        self.state.measuring += self.meter.lap();
        self.metrics.sync()?;
        let learner = &self.learner;
        let arenas = Arenas { values: &learner.values, m: &learner.m, v: &learner.v };
        checkpoint::save(&self.plan.directory, &self.state, arenas)?;
        self.saved = self.state.total_steps;
        checkpoint::thin(&self.plan.directory, self.plan.checkpoint_bytes)
    }

    fn seed(&self) -> u32 {
        self.state.seed as u32
    }
}

/// A rollout to look at: another one at each step.
fn moment(rollouts: &[Rollout], step: u64) -> &Rollout {
    let pick = Random::new(step, [0; 3]).below(rollouts.len() as u32);
    &rollouts[pick as usize]
}
