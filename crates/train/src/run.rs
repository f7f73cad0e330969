//! A run: a recipe carried out in a directory, from random or published weights to a report.
//!
//! ```text
//! recipe.toml  run.json  metrics.jsonl  rollouts/  checkpoints/STEP/  reference/  stages/N/  model/
//! report.md  report.json  curves.svg
//! control/     the same, for the model that it is compared with
//! ```

mod base;
mod replay;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use minke_kernels::Cpu;
use minke_model::{Checkpoint as ModelFiles, Config, Error, Parameters, Result, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::budget;
use crate::checkpoint::{self, Domain, State};
use crate::files::{failed, make_directory, write_whole};
use crate::format::{END, Format, SPECIALS};
use crate::learner::{Learner, initial_values};
use crate::metrics;
use crate::progress::{Progress, Watch};
use crate::recipe::{Control, Recipe, Sft, Share, Source, Stage};
use crate::report::{self, Report, Shown};
use crate::tasks::{Style, Task, held_out_items};
use crate::trial::{Plan, Trial, cost};

pub use replay::replay;

/// Part of a budget that goes into training; the rest is for measuring and writing.
const TRAINING: f64 = 0.9;

/// Values, gradients and two moments as f32, and weights packed for products.
const BYTES_PER_PARAMETER: u128 = 18;
/// Of a reference, only the weights packed for products.
const BYTES_PER_REFERENCE: u128 = 2;

/// The version of `run.json`.
const VERSION: u32 = 1;

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
    /// A published model is measured first,
    base: bool,
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
    config: Config,
    domain: Domain,
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
    let start = Start { budget_s, base: true, stop };
    let Some(mut trial) = setup.trial(directory, &recipe.stages, values, options.accept, start, watch)? else {
        return Ok(Ending::Stopped(0));
    };
    if !trial.train(stop, watch)? {
        return Ok(Ending::Stopped(trial.state().total_steps));
    }
    let ended = Instant::now();
    let [at, beyond] = trial.answers()?;
    trial.export(&directory.join("model"))?;
    let mut report = setup.report(&trial)?;
    let first = at.iter().find(|rollout| rollout.reward > 0.0).or(at.first());
    let wrong = at.iter().find(|rollout| rollout.reward == 0.0);
    let titled = [("a held-out problem", first), ("one that it got wrong", wrong), ("one level above", beyond.first())];
    report.shown = titled.into_iter().filter_map(|(title, rollout)| Some(Shown::of(title, rollout?))).collect();
    report.wall_s = trial.state().wall_s + trial.state().measuring_s + ended.elapsed().as_secs_f64();

    if choices.control {
        match setup.control(&trial, options, stop, watch)? {
            None => return Ok(Ending::Stopped(trial.state().total_steps)),
            Some(control) => report.control = Some(control),
        }
    }
    report.write(directory, &metrics::read(&directory.join("metrics.jsonl"))?)?;
    Ok(Ending::Finished(Box::new(report)))
}

/// What was decided for the run to go on with, which must be of this recipe; or what is decided for a new one, where
/// there is none yet.
fn choices(directory: &Path, recipe: &str, begin: Option<&Choices>) -> Result<Choices> {
    let (path, at) = (directory.join("recipe.toml"), directory.display());
    let there = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(no_place(directory, error)),
    };
    match (there, begin) {
        (None, None) => Err(Error::new(format!("there is no run in {at} to go on with; leave --resume out"))),
        (Some(_), Some(_)) => Err(Error::new(format!(
            "there is a run in {at} already; go on with it (--resume), or start anew elsewhere (--out)"
        ))),
        (Some(there), None) if there != recipe => Err(Error::new(format!(
            "the recipe is not the one that the run in {at} began with; resume with {}, or start anew elsewhere (--out)",
            path.display()
        ))),
        (Some(_), None) => read_choices(&directory.join("run.json")),
        (None, Some(choices)) => Ok(choices.clone()),
    }
}

/// Makes the directory of a run that begins with a recipe and choices. The run is this process's until the file is closed.
fn claim(directory: &Path, begin: Option<(&str, &Choices)>) -> Result<File> {
    let choices_path = directory.join("run.json");
    if let Some((recipe, choices)) = begin {
        fs::create_dir_all(directory).map_err(|error| no_place(directory, error))?;
        let json = serde_json::json!({ "version": VERSION, "choices": choices });
        write_whole(&choices_path, format!("{json:#}\n").as_bytes())?;
        // What is there last says that there is a run.
        write_whole(&directory.join("recipe.toml"), recipe.as_bytes())?;
    }
    let lock = File::open(&choices_path).map_err(|e| failed("open", &choices_path, e))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::new(format!(
            "another minke is at work on the run in {}; wait for it, or stop it",
            directory.display()
        ))),
        // Where there are no locks, there is nobody to find out about.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(lock),
    }
}

fn no_place(directory: &Path, error: std::io::Error) -> Error {
    Error::new(format!("a run can't be kept in {} ({error}); choose another place (--out)", directory.display()))
}

fn read_choices(path: &Path) -> Result<Choices> {
    let damaged = |what: &dyn std::fmt::Display| {
        Error::new(format!(
            "{} is damaged: {what}; put back the one that the run began with, or start anew elsewhere (--out)",
            path.display()
        ))
    };
    let json = fs::read(path).map_err(|e| damaged(&e))?;
    let mut value: serde_json::Value = serde_json::from_slice(&json).map_err(|e| damaged(&e))?;
    if value["version"] != VERSION {
        return Err(Error::new(format!(
            "{} is of version {}, but this minke reads version {VERSION}; use the minke that wrote it",
            path.display(),
            value["version"]
        )));
    }
    serde_json::from_value(value["choices"].take()).map_err(|e| damaged(&e))
}

/// That a model can be trained in so many bytes of memory.
fn check_memory(config: &Config, recipe: &Recipe, memory: Option<u64>) -> Result<()> {
    let held = recipe.stages.iter().any(Stage::has_reference);
    let parameters = config.parameters();
    let bytes = parameters * (BYTES_PER_PARAMETER + if held { BYTES_PER_REFERENCE } else { 0 });
    if memory.is_some_and(|memory| bytes > u128::from(memory)) {
        return Err(Error::new(format!(
            "training a model of {parameters} parameters takes {} GB of memory at least, more than this machine has; \
             make it smaller",
            bytes / 1_000_000_000
        )));
    }
    Ok(())
}

/// That prompts and completions fit in the model's context: of every level, as many problems as say how long they get.
fn check_lengths(task: &dyn Task, format: &Format, recipe: &Recipe, context: usize) -> Result<()> {
    const PROBLEMS: usize = 64;
    for (name, level, new) in recipe.longest(task) {
        let mut longest = 0;
        for item in held_out_items(task, level, PROBLEMS) {
            longest = longest.max(format.prompt(task, &item)?.len());
        }
        if longest + new as usize > context {
            return Err(Error::new(format!(
                "{name}: prompts of {longest} tokens and max_new_tokens of {new} don't fit in the {context} that the \
                 model can read; give less of either"
            )));
        }
    }
    Ok(())
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
    for parameter in &Parameters::of(config) {
        values.append(&mut files.tensor(&parameter.name, &parameter.shape)?);
    }
    Ok(values)
}

/// The stage whose demonstrations a control learns from.
fn demonstrations(recipe: &Recipe) -> Result<&Sft> {
    let sft = recipe.stages.iter().find_map(|stage| match stage {
        Stage::Sft(sft) => Some(sft),
        Stage::Distil(_) | Stage::Grpo(_) => None,
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
                (files.config().clone(), files.tokenizer()?, files.chat_template()?)
            }
            (Source::Scratch(_), None) => unreachable!("a recipe from scratch has a configuration"),
        };
        check_memory(&config, recipe, options.memory)?;
        // What the model can't read or write is found out before anything has begun.
        let format = Format::new(tokenizer, template, recipe.format.clone())?;
        check_lengths(&*task, &format, recipe, config.max_positions)?;
        let values = beginning(recipe, &config, seed, options)?;
        let domain =
            Domain { binary: options.binary.clone(), isa: cpu.isa().name().into(), dtype: recipe.dtype.name().into() };
        Ok((Setup { cpu, recipe, task, format, find: options.find, config, domain, seed }, values))
    }

    /// A training in `directory`: where it was left, or at its start with the steps that fit the budget. `None` if it was
    /// stopped before it could begin.
    fn trial<'t>(
        &'t self,
        directory: &Path,
        stages: &'t [Stage],
        values: Vec<f32>,
        accept: bool,
        Start { budget_s, base, stop }: Start<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Trial<'t>>> {
        let start = Instant::now();
        let (cpu, recipe) = (self.cpu, self.recipe);
        let plan = Plan {
            task: &*self.task,
            format: &self.format,
            find: self.find,
            stages,
            eval: recipe.eval,
            checkpoint_every: recipe.checkpoint_every,
            checkpoint_bytes: recipe.checkpoint_bytes,
            directory: directory.to_path_buf(),
        };
        if let Some(path) = checkpoint::latest(directory)? {
            let saved = checkpoint::load(&path)?;
            if saved.values.len() != values.len() || !saved.state.fits(stages.len()) {
                return Err(Error::new(format!(
                    "{} is a checkpoint of another run; remove it to go on from the one before",
                    path.display()
                )));
            }
            if !accept {
                saved.state.domain.check(&self.domain)?;
            }
            let mut learner = Learner::new(cpu, &self.config, recipe.dtype, recipe.recompute, values);
            learner.restore(saved.values, saved.m, saved.v, saved.state.updates);
            let trial = Trial::new(plan, learner, saved.state)?;
            watch(&Progress::Begun);
            return Ok(Some(trial));
        }
        watch(&Progress::Begun);
        audit::check(cpu, &self.config, &values, self.seed)?;
        let full: Vec<u32> = stages.iter().map(Stage::steps).collect();
        let mut state = State {
            domain: self.domain.clone(),
            seed: u64::from(self.seed),
            plan: full.clone(),
            stage: 0,
            step: 0,
            total_steps: 0,
            updates: 0,
            tokens: 0,
            metrics_lines: 0,
            wall_s: 0.0,
            measuring_s: 0.0,
            reference: None,
            base: None,
            reports: Vec::new(),
        };
        if base && matches!(recipe.model, Source::Reference(_)) {
            let Some(results) = self.base(&values, stop, watch)? else { return Ok(None) };
            state.base = Some(results);
        }
        if let Some(budget_s) = budget_s {
            let mut costs = Vec::new();
            for (i, stage) in stages.iter().enumerate() {
                watch(&Progress::Timing { stage: i + 1 });
                costs.push((stage.steps(), self.cost(stage, &values)?));
            }
            state.plan = budget::fit(&costs, budget_s as f64 * TRAINING);
        }
        state.measuring_s = start.elapsed().as_secs_f64();
        let mut trial =
            Trial::new(plan, Learner::new(cpu, &self.config, recipe.dtype, recipe.recompute, values), state)?;
        // What was resolved by the clock is on disk before the first step.
        trial.save()?;
        Ok(Some(trial))
    }

    /// Seconds that a step of a stage takes, tried on a copy that is thrown away.
    fn cost(&self, stage: &Stage, values: &[f32]) -> Result<f64> {
        let (recipe, values) = (self.recipe, values.to_vec());
        let learner = Learner::new(self.cpu, &self.config, recipe.dtype, recipe.recompute, values);
        cost(&*self.task, &self.format, learner, stage, self.seed)
    }

    fn report(&self, trial: &Trial<'_>) -> Result<Report> {
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
            last: last.ok_or_else(|| Error::new("the run has no stage"))?,
            control: None,
            wall_s: state.wall_s,
            shown: Vec::new(),
        })
    }

    /// Trains the model that the run is compared with, for as long as the run was trained. `None` if it was stopped.
    fn control(
        &self,
        trial: &Trial<'_>,
        options: &Options<'_>,
        stop: &AtomicBool,
        watch: &mut Watch<'_>,
    ) -> Result<Option<report::Control>> {
        let first = demonstrations(self.recipe)?;
        let directory = options.directory.join("control");
        let reports = &trial.state().reports;
        let (stage, values, wall_s) = match self.recipe.control {
            Control::Direct => {
                let mixture = vec![Share { style: Style::Direct, share: 1.0 }];
                let values = beginning(self.recipe, &self.config, self.seed, options)?;
                (Sft { mixture, ..first.clone() }, values, reports.iter().map(|report| report.wall_s).sum())
            }
            Control::Sft => {
                let values = read_values(&ModelFiles::open(&options.directory.join("stages/1"))?, &self.config)?;
                (first.clone(), values, reports.iter().skip(1).map(|report| report.wall_s).sum::<f64>())
            }
        };
        make_directory(&directory)?;
        let stages = if checkpoint::latest(&directory)?.is_some() {
            // Its steps were resolved when it began.
            vec![Stage::Sft(stage)]
        } else {
            let cost = self.cost(&Stage::Sft(stage.clone()), &values)?;
            vec![Stage::Sft(Sft { steps: (wall_s / cost).max(1.0) as u32, ..stage })]
        };
        watch(&Progress::Control);
        let start = Start { budget_s: None, base: false, stop };
        let Some(mut control) = self.trial(&directory, &stages, values, options.accept, start, watch)? else {
            return Ok(None);
        };
        if !control.train(stop, watch)? {
            return Ok(None);
        }
        control.export(&directory.join("model"))?;
        let done = &control.state().reports[0];
        let evaluation = done.results.think.clone();
        Ok(Some(report::Control { kind: self.recipe.control, steps: done.steps, wall_s: done.wall_s, evaluation }))
    }
}
