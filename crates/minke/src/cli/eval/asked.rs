//! What `minke eval` is asked to measure: a recipe's task, format and `[eval]`, or a built-in task, and what flags say instead.

use anyhow::{Context, Result, bail};
use minke_model::Precision;
use minke_train::format::Settings;
use minke_train::tasks::chain_sum::{ChainSum, Scratchpad};
use minke_train::tasks::{Task, built_in};
use minke_train::{Recipe, recipe};

use super::Eval;
use crate::cli::DtypeArgument;

/// What is measured, and how.
pub struct Asked {
    /// Of the problems: the recipe's, or the task's with what else it is told.
    pub name: String,
    pub task: Box<dyn Task>,
    /// How a published model is spoken to and judged, where a recipe or a flag says so.
    pub settings: Option<Settings>,
    /// How weights are kept.
    pub dtype: Precision,
    pub eval: recipe::Eval,
    /// Of what is sampled.
    pub seed: u32,
}

impl Asked {
    /// What the command line asks for.
    pub fn of(arguments: &Eval) -> Result<Asked> {
        let Eval { level, items, samples, max_tokens, seed, dtype, .. } = arguments;
        let mut asked = match &arguments.recipe {
            Some(path) => {
                let recipe = Recipe::read(path)?;
                let task = recipe.task.build();
                // Beside the recipe of a run lies what its task's program told it.
                let told = path.with_file_name("task.jsonl");
                if told.is_file() {
                    task.remember(&told, false)?;
                }
                let dtype = Precision::In(recipe.dtype);
                let (name, settings) = (recipe.name, recipe.format);
                Asked { name, task, settings, dtype, eval: recipe.eval, seed: recipe.seed }
            }
            None => {
                let eval = recipe::Eval {
                    level: 2,
                    items: 500,
                    samples: 0,
                    temperature: 1.0,
                    max_new_tokens: 256,
                    every: None,
                    every_items: 500,
                };
                let name = arguments.task.as_deref().unwrap_or_default();
                let digits = &arguments.digits;
                let (name, task): (String, Box<dyn Task>) = match name {
                    "chain_sum" => (
                        format!("chain_sum of {}–{} digits,", digits.start(), digits.end()),
                        Box::new(ChainSum { digits: digits.clone(), scratchpad: Scratchpad::Plain }),
                    ),
                    _ => (name.into(), built_in(name).with_context(|| format!("no task is called {name}"))?),
                };
                Asked { name, task, settings: None, dtype: DtypeArgument::Stored.into(), eval, seed: 1 }
            }
        };
        let eval = &mut asked.eval;
        for (value, flag) in [
            (&mut eval.level, level),
            (&mut eval.items, items),
            (&mut eval.samples, samples),
            (&mut eval.max_new_tokens, max_tokens),
            (&mut asked.seed, seed),
        ] {
            *value = flag.unwrap_or(*value);
        }
        asked.dtype = dtype.map_or(asked.dtype, Precision::from);
        let (task, level) = (&*asked.task, asked.eval.level);
        let levels = task.levels();
        if !levels.contains(&level) {
            let (name, first, last) = (task.name(), levels.start(), levels.end());
            bail!("{name} has the levels {first} to {last}; give one of these with --level");
        }
        if let Some(line) = &arguments.instruction {
            let instruction = Some(line.clone()).filter(|line| !line.is_empty());
            asked.settings = Some(Settings { instruction, think: false, ..asked.settings.take().unwrap_or_default() });
        }
        if arguments.shots > 0 {
            if !task.demonstrates() {
                bail!("{} has no right answers to show; leave out --shots", task.name());
            }
            let settings = asked.settings.take().unwrap_or_default();
            asked.settings = Some(settings.showing(task, level, arguments.shots, asked.seed));
        }
        Ok(asked)
    }
}
