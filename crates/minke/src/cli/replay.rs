//! `minke replay`: a rollout of a run, sampled again.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use minke_train::rollouts::{self, Rollout};
use minke_train::run::{Options, replay};
use serde::Serialize;

use super::train::{find, show_completion, this_binary};
use crate::output::{Show, print};
use crate::store::Store;
use crate::terminal::printable;
use crate::{load, machine};

#[derive(Args)]
#[command(after_help = "Examples:
  minke replay sums --step 1850                   the first rollout of the run's step 1850
  minke replay sums --step 1850 --sample 17 --tokens

What lies between the last checkpoint before the step and the step itself is trained again, to the same bits.")]
pub struct Replay {
    /// A run: its directory, or its name in the store
    run: String,
    /// Which step, from 1, over all stages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    step: u64,
    /// Which of the step's rollouts, from 0, those of one prompt after another
    #[arg(long, value_name = "K", default_value_t = 0)]
    sample: usize,
    /// Show each token with its log-probability
    #[arg(long)]
    tokens: bool,
    /// Go on where another binary, instruction set or dtype will give other bits
    #[arg(long)]
    accept_difference: bool,
    /// Print {"step": …, "same": …, "rollout": {…}}
    #[arg(long)]
    json: bool,
}

/// A rollout made again.
#[derive(Serialize)]
struct Replayed {
    step: u64,
    /// Whether the run has kept the very same; none where it has kept nothing.
    same: Option<bool>,
    rollout: Rollout,
    /// Each token as text.
    #[serde(skip)]
    tokens: Vec<String>,
}

pub fn run(arguments: &Replay) -> Result<()> {
    let Replay { run, step, sample, .. } = arguments;
    let store = Store::open()?;
    let Some(directory) = store.find_run(run) else {
        bail!("there is no run {run:?}, neither at that path nor in the store; `minke models` lists what there is");
    };
    let text = minke_train::Recipe::text(&directory.join("recipe.toml"))?;
    let name = directory.file_stem().unwrap_or_default().to_string_lossy();
    let cpu = load::cpu()?;
    let options = Options {
        begin: None,
        accept: arguments.accept_difference,
        directory: &directory,
        binary: this_binary()?,
        memory: machine::memory(),
        find: &find(&store),
        chat: &|_, _| Err(minke_train::Error::new("a replay asks no teacher")),
    };
    let watched = io::stderr().is_terminal();
    let made = replay(&cpu, &name, &text, &options, *step, |again| {
        if watched {
            eprint!("\rstep {again} again, on the way to {step}");
        }
    });
    if watched {
        eprint!("\r\x1b[K");
    }
    let mut made = made.with_context(|| format!("run {run}"))?;
    let count = made.len();
    if *sample >= count {
        bail!("step {step} has the rollouts 0 to {}; give one of these with --sample", count - 1);
    }
    let kept = rollouts::read(&directory, *step).ok();
    let rollout = made.swap_remove(*sample);
    let same = kept.map(|kept| kept.get(*sample) == Some(&rollout));
    let tokens = match arguments.tokens {
        true => {
            let tokenizer = load::open(&directory.join("model").display().to_string())?.tokenizer()?;
            rollout.tokens.iter().map(|&id| tokenizer.decode(&[id], false)).collect::<minke_model::Result<_>>()?
        }
        false => Vec::new(),
    };
    print(&Replayed { step: *step, same, rollout, tokens }, arguments.json)?;
    if same == Some(false) {
        bail!("the run has kept another rollout there; was it made by another binary, or were its files changed?");
    }
    Ok(())
}

impl Show for Replayed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Replayed { step, same, rollout, tokens } = self;
        let Rollout { prompt, sample, item, text, reward, reason, advantage, log_probs, .. } = rollout;
        writeln!(out, "step {step}, prompt {prompt}, sample {sample}:")?;
        show_completion(out, &item.prompt, text)?;
        writeln!(out, "  reward {reward}: {reason}; advantage {advantage:+.4}")?;
        let sum: f64 = log_probs.iter().map(|&x| f64::from(x)).sum();
        writeln!(out, "  {} tokens, log-probability {sum:.4}", log_probs.len())?;
        for (token, log_prob) in tokens.iter().zip(log_probs) {
            writeln!(out, "  {log_prob:>10.5}  {}", printable(&format!("{token:?}")))?;
        }
        match same {
            Some(true) => writeln!(out, "The run has kept the same, to the bit."),
            Some(false) => writeln!(out, "The run has kept another."),
            None => writeln!(out, "The run has kept no rollouts of this step to compare with."),
        }
    }
}
