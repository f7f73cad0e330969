//! `minke train`: a recipe's stages, a view of them as they go, and a report at the end.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use minke_train::evaluation::Evaluation;
use minke_train::intervals::Interval;
use minke_train::recipe::Control;
use minke_train::report::{Report, Shown};
use minke_train::run::{self, Choices, Ending, Options};
use minke_train::{Recipe, budget};

use super::pull::digest;
use crate::contract::Contract;
use crate::output::{Show, print};
use crate::store::Store;
use crate::terminal::{dim, is_styled, printable};
use crate::units::duration;
use crate::view::View;
use crate::{interrupt, load, machine, remote};

#[derive(Args)]
#[command(after_help = "Examples:
  minke train recipes/sums.toml                   from random weights to a model that thinks
  minke train recipes/sums.toml --control         and the same model taught to answer at once, for comparison
  minke train recipes/sums.toml --budget 5m       shorter stages, to fit five minutes
  minke train sums --resume                       go on with the run called sums

Ctrl-C saves the run and says how to go on with it; so does a plain `kill`. The exit code is 75 then.")]
pub struct Train {
    /// A recipe's .toml file; with --resume also a run's directory, or its name in the store
    recipe: String,
    /// Where the run is kept; by default in the store, under the recipe's name
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Time that the run may take: 90s, 15m or 2h; stages, and then groups, are made smaller to fit
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = |text: &str| budget::parse(text).map_err(|e| e.to_string()))]
    budget: Option<u64>,
    /// Which random numbers; the same seed gives the same weights
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u32>,
    /// Train the model that it is compared with too, for as much of the cores' time
    #[arg(long)]
    control: bool,
    /// Go on with a run that was interrupted
    #[arg(long, conflicts_with_all = ["budget", "seed", "control"])]
    resume: bool,
    /// Go on even where another binary, instruction set or dtype will give other bits
    #[arg(long, requires = "resume")]
    accept_difference: bool,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Train) -> Result<()> {
    let store = Store::open()?;
    let mut contract = Contract::of_environment();
    let (recipe, directory, resume) = places(arguments, contract.as_ref(), &store)?;
    let text = Recipe::text(&recipe)?;
    // The recipe of a run is called by the run's name.
    let named = if recipe.ends_with("recipe.toml") { &directory } else { &recipe };
    let name = named.file_stem().unwrap_or_default().to_string_lossy();
    let parsed = Recipe::parse(&name, &text).with_context(|| recipe.display().to_string())?;
    let cpu = load::cpu()?;
    let begin =
        (!resume).then_some(Choices { seed: arguments.seed, budget_s: arguments.budget, control: arguments.control });
    let stop = interrupt::flag()?;
    let options = Options {
        begin,
        accept: arguments.accept_difference,
        directory: &directory,
        binary: this_binary()?,
        memory: machine::memory(),
        find: &find(&store),
        chat: &|remote, questions| remote::chat(remote, questions, &stop),
    };
    let mut view = View::new(&cpu, &parsed, &directory);
    let ending = run::run(&cpu, &name, &text, &options, &stop, &mut |progress| {
        view.show(progress);
        if let Some(contract) = &mut contract {
            contract.tell(progress, &stop);
        }
    });
    drop(view);
    match ending.with_context(|| format!("recipe {name}"))? {
        Ending::Finished(report) => {
            let name = in_store(&store, &directory);
            print(&Finished { report: *report, directory, name }, arguments.json)
        }
        Ending::Stopped(step) => Err(Stopped { step, run: in_store(&store, &directory) }.into()),
    }
}

/// Finds the model that a recipe refers to.
pub fn find(store: &Store) -> impl Fn(&str) -> minke_train::Result<PathBuf> + '_ {
    |reference| store.find(reference).map_err(|error| minke_train::Error::new(format!("model.reference: {error:#}")))
}

/// The recipe's file, the run's directory, and whether the run is gone on with. A run of a lab lives where the lab keeps it,
/// and goes on by itself where there is something to go on with.
fn places(arguments: &Train, contract: Option<&Contract>, store: &Store) -> Result<(PathBuf, PathBuf, bool)> {
    let Train { recipe, out, resume, .. } = arguments;
    let path = PathBuf::from(recipe);
    if let (Some(contract), None) = (contract, out)
        && path.is_file()
    {
        let directory = contract.directory().to_path_buf();
        let resume = *resume || directory.join("recipe.toml").is_file();
        return Ok((path, directory, resume));
    }
    if *resume && let Some(run) = store.find_run(recipe) {
        if out.is_some() {
            bail!("{recipe} is a run, which is gone on with where it is; leave --out away");
        }
        return Ok((run.join("recipe.toml"), run, true));
    }
    if !path.is_file() {
        match resume {
            true => bail!(
                "there is no run {recipe:?}, neither at that path nor in the store; a recipe's .toml file begins one"
            ),
            false => bail!("there is no recipe {recipe:?}; give the path of a .toml file, such as recipes/sums.toml"),
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let directory = match (out, resume) {
        (Some(out), _) => out.clone(),
        (None, true) => store.runs_directory().join(&*name),
        (None, false) => store.new_run(&name),
    };
    Ok((path, directory, *resume))
}

/// A run that was asked to end early and has saved.
#[derive(Debug)]
pub struct Stopped {
    step: u64,
    /// What it is called on the command line.
    run: String,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { step, run } = self;
        write!(f, "stopped after step {step}, and saved; go on with `minke train {run} --resume`")
    }
}

impl std::error::Error for Stopped {}

/// What a run is called on the command line.
fn in_store(store: &Store, directory: &Path) -> String {
    let name = directory.strip_prefix(store.runs_directory()).unwrap_or(directory);
    // A run on the lab has its files in `rN/files`, and is called `rN`.
    let on_lab = name.parent().filter(|_| name.ends_with("files") && name.is_relative());
    on_lab.unwrap_or(name).display().to_string()
}

/// This build of minke: its version, and the beginning of its file's SHA-256.
pub fn this_binary() -> Result<String> {
    let path = std::env::current_exe().context("this program's own file can't be found")?;
    Ok(format!("minke {} ({})", env!("CARGO_PKG_VERSION"), &digest(&path)?[..12]))
}

/// A report, and where it lies.
#[derive(serde::Serialize)]
struct Finished {
    #[serde(flatten)]
    report: Report,
    directory: PathBuf,
    /// What the run is called on the command line.
    #[serde(skip)]
    name: String,
}

impl Show for Finished {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Report { base, stages, control, shown, wall_s, spent, price, .. } = &self.report;
        writeln!(out, "{:42} level   greedy (95 %)         sampled   any of k   thought", "held-out problems")?;
        let base = base.iter().map(|results| ("base model".to_string(), results));
        let stages = stages.iter().enumerate().map(|(i, stage)| {
            let name = format!("stage {}: {}, {} steps", i + 1, stage.kind.name(), stage.steps);
            (format!("{name:32} {:>9}", duration(stage.wall_s)), &stage.results)
        });
        for (name, results) in base.chain(stages) {
            row(out, &name, &results.think)?;
            if let Some(above) = &results.above {
                row(out, "", above)?;
            }
        }
        if let Some(control) = control {
            let kind = match control.kind {
                Control::Direct => "answers at once",
                Control::Sft => "more sft",
            };
            let name = format!("control: {kind}, {} steps", control.steps);
            row(out, &format!("{name:32} {:>9}", duration(control.wall_s)), &control.evaluation)?;
        }
        if let Some(difference) = control.as_ref().and_then(|control| control.difference) {
            writeln!(out, "\n{}", difference.sentence())?;
        }
        for rollout in shown {
            show_rollout(out, rollout)?;
        }
        if !spent.is_unknown() {
            writeln!(out, "\nSpent: {}.", spent.words(price.as_ref()))?;
        }
        let report = self.directory.join("report.md");
        writeln!(out, "{} in all. The report: {}", duration(*wall_s), report.display())?;
        writeln!(out, "Talk to the model: minke chat {} \"{}\"", self.name, self.question())
    }
}

impl Finished {
    /// A prompt to try the model with.
    fn question(&self) -> &str {
        self.report.shown.last().map_or("…", |shown| &shown.prompt)
    }
}

fn row(out: &mut dyn Write, name: &str, evaluation: &Evaluation) -> io::Result<()> {
    let Evaluation { level, accuracy, interval: Interval { low, high }, thought_tokens, .. } = evaluation;
    let percent = |x: f64| 100.0 * x;
    let greedy = format!("{:.1} % ({:.1}–{:.1})", percent(*accuracy), percent(*low), percent(*high));
    let sampled = evaluation.sampled.as_ref().map_or(String::new(), |sampled| {
        let (one, all) = (format!("{:.1} %", percent(sampled.pass_at_1)), percent(sampled.pass_at_k));
        format!("{one:>7}   {all:>6.1} %  ")
    });
    writeln!(out, "{name:42} {level:>5}   {greedy:21} {sampled:21} {thought_tokens:.1} tokens")
}

/// One rollout, whole, the thought dimmed.
fn show_rollout(out: &mut dyn Write, shown: &Shown) -> io::Result<()> {
    let Shown { title, prompt, completion, reward, reason } = shown;
    writeln!(out, "\n{title}:")?;
    show_completion(out, prompt, completion)?;
    writeln!(out, "  reward {reward}: {reason}")
}

/// What a model read and wrote, the thought dimmed.
pub fn show_completion(out: &mut dyn Write, prompt: &str, completion: &str) -> io::Result<()> {
    let styled = is_styled(&io::stdout());
    let completion = printable(completion);
    let after = completion.find(crate::think::CLOSE).map_or(completion.len(), |at| at + crate::think::CLOSE.len());
    let (thought, answer) = completion.split_at(after);
    let thought = if styled { dim(thought) } else { thought.to_string() };
    writeln!(out, "  {}{thought}{answer}", printable(prompt))
}
