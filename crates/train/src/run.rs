//! A run: a recipe carried out in a directory, from random or published weights to a report.
//!
//! ```text
//! recipe.toml  run.json  metrics.jsonl  rollouts/  checkpoints/STEP/  reference/  stages/N/  model/
//! report.md  report.json  curves.svg
//! control/     the same, for the model that it is compared with
//! ```

mod before;
mod checks;
mod directory;
mod replay;
mod resolve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use minke_kernels::Cpu;
use minke_model::parameters::prediction_shapes;
use minke_model::{Checkpoint as ModelFiles, Config, Error, Parameters, Result, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::base::{self, Base};
use crate::budget;
use crate::checkpoint::{self, Domain, State};
use crate::distillation;
use crate::files::make_directory;
use crate::format::{END, Format, SPECIALS};
use crate::learner::{Learner, initial_values};
use crate::metrics;
use crate::progress::{Progress, Watch};
use crate::recipe::{Control, Distil, Recipe, Sft, Share, Source, Stage, Teacher};
use crate::remote::Chat;
use crate::report::{self, Report, Shown, StageReport};
use crate::sequences::{Read, check_files};
use crate::spent::{Meter, Spent};
use crate::tasks::{Style, Task};
use crate::timing::{Cost, cost};
use crate::trial::{Plan, Trial};

use checks::{check_lengths, check_memory};
use directory::{choices, claim};
pub use replay::replay;

/// What is decided when a run begins, and holds until it ends: `run.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// Instead of the recipe's seed.
    pub seed: Option<u32>,
    /// Instead of the recipe's budget, in seconds.
    pub budget_s: Option<u64>,
    /// Train the control too.
    pub control: bool,
}

/// What the command line decides.
pub struct Options<'a> {
    /// How to begin a run; `None` to go on with the one that is in the directory.
    pub begin: Option<Choices>,
    /// Go on even where the numbers will not be the same to the bit.
    pub accept: bool,
    /// Where the run is kept.
    pub directory: &'a Path,
    /// Which build of minke this is.
    pub binary: String,
    /// Bytes of this machine's memory, where they are known.
    pub memory: Option<u64>,
    /// Finds a model by its reference.
    pub find: &'a dyn Fn(&str) -> Result<PathBuf>,
    /// Asks a teacher that is elsewhere.
    pub chat: &'a Chat<'a>,
}

/// How a run ended.
pub enum Ending {
    /// It came to its end.
    Finished(Box<Report>),
    /// It was stopped after this many steps, and can go on from there.
    Stopped(u64),
}

/// How a training begins, unless it is gone on with.
struct Start<'s> {
    /// Seconds that it may take.
    budget_s: Option<u64>,
    /// It is the run itself, not its control: what is worth knowing is said, and a published model is measured first,
    main: bool,
    /// unless it is stopped.
    stop: &'s AtomicBool,
}

/// A recipe with all that it names.
struct Setup<'a> {
    cpu: &'a Cpu,
    recipe: &'a Recipe,
    task: Box<dyn Task>,
    format: Format,
    find: &'a dyn Fn(&str) -> Result<PathBuf>,
    chat: &'a Chat<'a>,
    /// What the recipe's stages have read, those that read files.
    texts: Vec<Option<Read>>,
    config: Config,
    domain: Domain,
    /// What is frozen, where adapters are trained.
    base: Option<Base>,
    seed: u32,
}

/// Carries out the recipe in `text` (called `name`), or goes on with it.
///
/// # Errors
/// One sentence: what is wrong with the recipe, the model, the directory, or a file in it.
pub fn run(
    cpu: &Cpu,
    name: &str,
    text: &str,
    options: &Options<'_>,
    stop: &AtomicBool,
    watch: &mut Watch<'_>,
) -> Result<Ending> {
    let recipe = Recipe::parse(name, text)?;
    let directory = options.directory;
    let choices = choices(directory, text, options.begin.as_ref())?;
    if choices.control {
        demonstrations(&recipe)?;
    }
    let (setup, values) = Setup::new(cpu, &recipe, choices.seed.unwrap_or(recipe.seed), options)?;
    // Only now: what can't begin leaves no directory behind.
    let _lock = claim(directory, options.begin.is_some().then_some((text, &choices)))?;
    setup.task.remember(&directory.join("task.jsonl"), true)?;

    let budget_s = choices.budget_s.or(recipe.budget_s);
    let start = Start { budget_s, main: true, stop };
    let Some(mut trial) = setup.trial(directory, &recipe.stages, values, options.accept, start, watch)? else {
        return Ok(Ending::Stopped(0));
    };
    if !trial.train(stop, watch)? {
        return Ok(Ending::Stopped(trial.state().total_steps));
    }
    let ended = Instant::now();
    let [at, beyond] = trial.answers()?;
    trial.export(&directory.join("model"))?;
    let mut report = setup.report(&mut trial)?;
    let first = at.iter().find(|rollout| rollout.reward > 0.0).or(at.first());
    let wrong = at.iter().find(|rollout| rollout.reward == 0.0);
    let titled = [("a held-out problem", first), ("one that it got wrong", wrong), ("one level above", beyond.first())];
    report.shown = titled.into_iter().filter_map(|(title, rollout)| Some(Shown::of(title, rollout?))).collect();
    report.wall_s = trial.state().wall_s + trial.state().measuring_s + ended.elapsed().as_secs_f64();

    if choices.control {
        let (reports, steps) = (trial.state().reports.clone(), trial.state().total_steps);
        // The control takes as much memory again.
        drop(trial);
        match setup.control(&reports, options, stop, watch)? {
            None => return Ok(Ending::Stopped(steps)),
            Some(control) => report.control = Some(control),
        }
    }
    report.reckon();
    report.write(directory, &metrics::read(&directory.join("metrics.jsonl"))?)?;
    Ok(Ending::Finished(Box::new(report)))
}

fn open(reference: &str, options: &Options<'_>) -> Result<ModelFiles> {
    ModelFiles::open(&(options.find)(reference)?).map_err(|error| error.at(reference))
}

/// The values that training starts from.
fn beginning(recipe: &Recipe, config: &Config, seed: u32, options: &Options<'_>) -> Result<Vec<f32>> {
    match &recipe.model {
        Source::Scratch(_) => Ok(initial_values(config, u64::from(seed), recipe.deviation)),
        Source::Reference(reference) => read_values(&open(reference, options)?, config),
    }
}

/// A model's values, in the order of its parameters.
fn read_values(files: &ModelFiles, config: &Config) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for parameter in &Parameters::learnt(config) {
        values.append(&mut files.tensor(&parameter.name, &parameter.shape)?);
    }
    Ok(values)
}

/// The stage whose demonstrations a control learns from.
fn demonstrations(recipe: &Recipe) -> Result<&Sft> {
    let sft = recipe.stages.iter().find_map(|stage| match stage {
        Stage::Sft(sft) => Some(sft),
        Stage::Pretrain(_) | Stage::Distil(_) | Stage::Grpo(_) => None,
    });
    sft.ok_or_else(|| Error::new("--control needs a recipe with an sft stage, whose examples the control learns from"))
}

impl<'a> Setup<'a> {
    /// The setup, and the values that training starts from.
    fn new(cpu: &'a Cpu, recipe: &'a Recipe, seed: u32, options: &Options<'a>) -> Result<(Setup<'a>, Vec<f32>)> {
        let task = recipe.task.build();
        let (config, tokenizer, template) = match (&recipe.model, recipe.scratch_config()?) {
            (_, Some(config)) => {
                let alphabet: Vec<char> = task.alphabet().chars().collect();
                let tokenizer = Tokenizer::characters(&alphabet, &SPECIALS)?.with_ends(None, &[END])?;
                (config, tokenizer, None)
            }
            (Source::Reference(reference), None) => {
                let files = open(reference, options)?;
                let stage = recipe.predicts();
                if let (Some(stage), false) = (stage, files.predicts()) {
                    return Err(Error::new(format!(
                        "stage {stage}: mtp is about a block for multi-token prediction, which {reference} does not have; \
                         leave mtp out"
                    )));
                }
                let config = Config { predictions: usize::from(stage.is_some()), ..files.config().clone() };
                (config, files.tokenizer()?, files.chat_template()?)
            }
            (Source::Scratch(_), None) => unreachable!("a recipe from scratch has a configuration"),
        };
        if recipe.lora.is_none() {
            let block = (config.predictions > 0).then(|| prediction_shapes(&config));
            let block =
                block.into_iter().flatten().map(|(_, shape)| shape.iter().map(|&n| n as u128).product::<u128>());
            check_memory(config.parameters() + block.sum::<u128>(), 0, recipe, options.memory)?;
        }
        // What the model can't read or write is found out before anything has begun.
        let format = Format::new(tokenizer, template, recipe.format.clone())?;
        check_lengths(&*task, &format, recipe, config.max_positions)?;
        for stage in recipe.stages.iter().filter(|_| options.begin.is_some()) {
            distillation::check(stage, options.find, &config, format.tokenizer())?;
            if let Stage::Distil(Distil { teacher: Teacher::Remote(remote), .. }) = stage {
                (options.chat)(remote, &[])?;
            }
        }
        let texts = Read::all(&recipe.stages, &format)?;
        let base = match (&recipe.lora, &recipe.model) {
            (Some(asked), Source::Reference(reference)) => {
                let files = open(reference, options)?;
                let adapters = base::adapters(&config, asked, recipe.dtype)?.parameters().len() as u128;
                check_memory(adapters, base::stored_bytes(cpu, &files)?, recipe, options.memory)?;
                Some(Base::new(cpu, reference, files, asked, recipe.dtype)?)
            }
            _ => None,
        };
        let values = match &base {
            Some(base) => base.beginning(seed),
            None => beginning(recipe, &config, seed, options)?,
        };
        let dtype = recipe.kept(&base.as_ref().map_or(recipe.dtype.name().into(), Base::domain));
        let domain = Domain { binary: options.binary.clone(), isa: cpu.isa().name().into(), dtype };
        let (find, chat) = (options.find, options.chat);
        Ok((Setup { cpu, recipe, task, format, find, chat, texts, config, domain, base, seed }, values))
    }

    /// A learner with these values, those of the model or of its adapters.
    fn learner(&self, values: Vec<f32>) -> Learner<'a> {
        let (cpu, recipe) = (self.cpu, self.recipe);
        let learner = match &self.base {
            Some(base) => base.learner(cpu, recipe.activations(), values),
            None => Learner::new(cpu, &self.config, recipe.dtype, recipe.activations(), values),
        };
        learner.remembering(recipe.moments)
    }

    /// A training in `directory`: where it was left, or at its start with what a budget leaves of its stages. `None` if it was
    /// stopped before it could begin.
    fn trial<'t>(
        &'t self,
        directory: &Path,
        stages: &[Stage],
        values: Vec<f32>,
        accept: bool,
        Start { budget_s, main, stop }: Start<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Trial<'t>>> {
        let (start, mut meter) = (Instant::now(), Meter::start());
        let (cpu, recipe) = (self.cpu, self.recipe);
        let mut plan = Plan {
            task: &*self.task,
            format: &self.format,
            find: self.find,
            chat: self.chat,
            base: self.base.as_ref(),
            stages: stages.to_vec(),
            texts: &self.texts,
            eval: recipe.eval,
            checkpoint_every: recipe.checkpoint_every,
            checkpoint_bytes: recipe.checkpoint_bytes,
            directory: directory.to_path_buf(),
        };
        if let Some(newest) = checkpoint::newest(directory, u64::MAX)? {
            let saved = &newest.checkpoint;
            if saved.values.len() != values.len() || !saved.state.fits(stages.len()) {
                return Err(Error::new(format!(
                    "{} is a checkpoint of another run; remove it to go on from the one before",
                    newest.path.display()
                )));
            }
            if !accept {
                saved.state.domain.check(&self.domain)?;
            }
            check_files(&saved.state.texts, &self.files())?;
            let damaged = newest.set_aside()?;
            let (saved, mut learner) = (newest.checkpoint, self.learner(values));
            learner.restore(saved.values, saved.m, saved.v, saved.state.updates);
            plan.stages = budget::sized(stages, saved.state.budget.as_ref());
            let trial = Trial::new(plan, learner, saved.state)?;
            watch(&Progress::Begun);
            damaged.iter().for_each(|note| watch(&Progress::Note(note)));
            if main {
                self.notes(trial.state().budget.as_ref()).iter().for_each(|note| watch(&Progress::Note(note)));
            }
            return Ok(Some(trial));
        }
        watch(&Progress::Begun);
        if main {
            self.notes(None).iter().for_each(|note| watch(&Progress::Note(note)));
        }
        match &self.base {
            Some(base) => audit::check_adapters(base.sample(cpu, self.seed)?, self.seed)?,
            None => audit::check(cpu, &self.config, &values, self.seed)?,
        }
        let mut state = State {
            domain: self.domain.clone(),
            seed: u64::from(self.seed),
            plan: stages.iter().map(Stage::steps).collect(),
            budget: None,
            stage: 0,
            step: 0,
            total_steps: 0,
            updates: 0,
            tokens: 0,
            metrics_lines: 0,
            wall_s: 0.0,
            measuring_s: 0.0,
            training: Spent::NOTHING,
            measuring: Spent::NOTHING,
            reference: None,
            base: None,
            curriculum: None,
            texts: self.files(),
            curve: Vec::new(),
            reports: Vec::new(),
        };
        let begun = Instant::now();
        if main && matches!(recipe.model, Source::Reference(_)) {
            let Some(results) = self.before(&values, stop, watch)? else { return Ok(None) };
            state.base = Some(results);
        }
        let base_s = state.base.as_ref().map_or(0.0, |_| begun.elapsed().as_secs_f64());
        if let Some(budget_s) = budget_s {
            let resolved = self.resolve(stages, &values, budget_s, start, base_s, watch)?;
            watch(&Progress::Note(&resolved.words(stages)));
            plan.stages = budget::sized(stages, Some(&resolved));
            state.plan = resolved.stages.iter().map(|stage| stage.steps).collect();
            state.budget = Some(resolved);
        }
        state.measuring_s = start.elapsed().as_secs_f64();
        state.measuring = meter.lap();
        let mut trial = Trial::new(plan, self.learner(values), state)?;
        // What was resolved by the clock is on disk before the first step.
        trial.save()?;
        Ok(Some(trial))
    }

    /// CRC-32 of each file of text, by its path.
    fn files(&self) -> BTreeMap<String, u32> {
        self.texts.iter().flatten().flat_map(|read| read.files.clone()).collect()
    }

    /// What a step of a stage, whose files have `read`, takes, tried on a copy that is thrown away.
    fn cost(&self, stage: &Stage, read: Option<&Read>, values: &[f32]) -> Result<Cost> {
        cost(&*self.task, &self.format, self.find, self.learner(values.to_vec()), stage, read, self.seed)
    }

    fn report(&self, trial: &mut Trial<'_>) -> Result<Report> {
        let spent = trial.spent();
        let state = trial.state();
        let last = state.reports.last().map(|report| report.results.clone());
        Ok(Report {
            version: report::VERSION,
            recipe: self.recipe.name.clone(),
            seed: state.seed,
            domain: state.domain.clone(),
            family: self.config.family.name().into(),
            parameters: Parameters::of(&self.config).len() as u64,
            task: self.task.name().into(),
            base: state.base.clone(),
            stages: state.reports.clone(),
            curve: state.curve.clone(),
            last: last.ok_or_else(|| Error::new("the run has no stage"))?,
            control: None,
            wall_s: state.wall_s,
            spent,
            price: self.recipe.price.clone(),
            cost: None,
            budget: state.budget.clone(),
            notes: self.notes(state.budget.as_ref()),
            shown: Vec::new(),
        })
    }

    /// Trains the model that the run is compared with, for as much of the cores' time as the run was trained: that depends
    /// less on what else the machine does meanwhile than time by the clock. `None` if it was stopped.
    fn control(
        &self,
        reports: &[StageReport],
        options: &Options<'_>,
        stop: &AtomicBool,
        watch: &mut Watch<'_>,
    ) -> Result<Option<report::Control>> {
        let demonstrated = demonstrations(self.recipe)?;
        let directory = options.directory.join("control");
        let (stage, values, matched) = match self.recipe.control {
            Control::Direct => {
                let mixture = vec![Share { style: Style::Direct, share: 1.0 }];
                let values = match &self.base {
                    Some(base) => base.beginning(self.seed),
                    None => beginning(self.recipe, &self.config, self.seed, options)?,
                };
                (Sft { mixture, ..demonstrated.clone() }, values, reports)
            }
            Control::Sft => {
                let first = options.directory.join("stages/1");
                let values = match &self.base {
                    Some(base) => base.read_adapters(&first)?,
                    None => read_values(&ModelFiles::open(&first)?, &self.config)?,
                };
                (demonstrated.clone(), values, &reports[1..])
            }
        };
        make_directory(&directory)?;
        let stages = if checkpoint::latest(&directory)?.is_some() {
            // Its steps were resolved when it began.
            vec![Stage::Sft(stage)]
        } else {
            let cost = self.cost(&Stage::Sft(stage.clone()), None, &values)?;
            let core_s = matched.iter().map(|report| report.spent).sum::<Spent>().core_s;
            let steps = match (core_s, cost.core_s) {
                (Some(spent), Some(step)) => spent / step,
                _ => matched.iter().map(|report| report.wall_s).sum::<f64>() / cost.wall_s,
            };
            vec![Stage::Sft(Sft { steps: steps.max(1.0) as u32, ..stage })]
        };
        watch(&Progress::Control);
        let start = Start { budget_s: None, main: false, stop };
        let Some(mut control) = self.trial(&directory, &stages, values, options.accept, start, watch)? else {
            return Ok(None);
        };
        if !control.train(stop, watch)? {
            return Ok(None);
        }
        control.export(&directory.join("model"))?;
        let total = control.spent();
        let done = &control.state().reports[0];
        let evaluation = done.results.think.clone();
        let difference = reports.last().and_then(|last| last.results.think.minus(&evaluation));
        Ok(Some(report::Control {
            kind: self.recipe.control,
            steps: done.steps,
            wall_s: done.wall_s,
            spent: done.spent,
            total,
            difference,
            evaluation,
        }))
    }
}
