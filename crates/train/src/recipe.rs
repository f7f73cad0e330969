//! Recipes: one TOML file that says what a run does, checked whole before a chip is spent.

mod lora;
mod price;
mod section;
mod stage;
mod task;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use minke_kernels::Dtype;
use minke_model::config::Config;
use minke_model::families::{config_from_json, config_to_json};
use minke_model::{Activations, Error, Result};
use serde_json::{Map, Value};
use toml::Table;

pub use lora::Lora;
pub use stage::{Distil, Grpo, Learning, Optimizer, Pretrain, Schedule, Sft, Share, Stage, Teacher, Text};
pub use task::TaskRecipe;

use crate::budget;
use crate::files::failed;
use crate::format::{SPECIALS, Settings};
use crate::spent::Price;
use crate::tasks::Task;
use section::Section;

/// The version of the format that is read.
const VERSION: u32 = 1;
/// Longest recipe that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a run does.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The file's name, without its extension.
    pub name: String,
    /// Seed of everything random, unless the command line gives another.
    pub seed: u32,
    /// Where the weights come from.
    pub model: Source,
    /// How weights are stored for products.
    pub dtype: Dtype,
    /// How the optimiser's moments are kept.
    pub moments: Dtype,
    /// Bytes that activations of whole layers may take for backward; the other layers' are computed again.
    pub activation_bytes: usize,
    /// Standard deviation of random weights.
    pub deviation: f32,
    /// The adapters that are trained instead of the model, where there are any.
    pub lora: Option<Lora>,
    /// What is learnt.
    pub task: TaskRecipe,
    /// How a published model is spoken to and judged, where the recipe says so.
    pub format: Option<Settings>,
    /// In which stages.
    pub stages: Vec<Stage>,
    /// Seconds that it may take, unless the command line gives another time.
    pub budget_s: Option<u64>,
    /// How results are measured.
    pub eval: Eval,
    /// What the trained model is compared with.
    pub control: Control,
    /// What the report reckons a core at.
    pub price: Option<Price>,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u32,
    /// Bytes that a run's checkpoints may take; the newest is kept in any case.
    pub checkpoint_bytes: u64,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Random ones, for the sizes in `[model.scratch]`: the keys of a `config.json` but for the vocabulary, which is
    /// the task's.
    Scratch(Map<String, Value>),
    /// A model that exists.
    Reference(String),
}

/// What a run may be compared with, trained for as much of the cores' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The same model from its beginning, on the same problems with their answers alone.
    Direct,
    /// The model after its first stage, on the same demonstrations for as much of the cores' time as the later stages took.
    Sft,
}

/// How results are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eval {
    /// The level that the recipe trains for; one above is measured beside it, where the task has it.
    pub level: u32,
    /// Held-out items a level.
    pub items: u32,
    /// Completions sampled of each item, for pass@k; 0 for greedy ones only.
    pub samples: u32,
    /// What logits are divided by when sampling.
    pub temperature: f32,
    /// Longest completion, in tokens.
    pub max_new_tokens: u32,
    /// Steps from one measurement within a stage to the next, where there are any,
    pub every: Option<u32>,
    /// and the held-out items a level of such a one.
    pub every_items: u32,
}

impl Recipe {
    /// What its passes keep for backward.
    pub(crate) fn activations(&self) -> Activations {
        Activations::within(self.activation_bytes)
    }

    /// What a recipe's file says.
    ///
    /// # Errors
    /// One sentence: the file, and why it isn't text, or not a recipe's.
    pub fn text(path: &Path) -> Result<String> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        read.map_err(|e| failed("read the recipe", path, e))?;
        let wrong = |what: &str| Error::new(format!("{} {what}; give a recipe's .toml file", path.display()));
        if bytes.len() as u64 > LONGEST {
            return Err(wrong("has more than 1 MiB"));
        }
        String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text"))
    }

    /// Reads a recipe's file.
    ///
    /// # Errors
    /// One sentence: the file, and the first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = Recipe::text(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Recipe::parse(&name, &text).map_err(|e| e.at(path.display()))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Recipe> {
        let table: Table = text.parse().map_err(|e| syntax(text, &e))?;
        let all = Section::new(
            "recipe",
            table,
            [
                "version",
                "seed",
                "model",
                "lora",
                "task",
                "format",
                "stage",
                "budget",
                "eval",
                "control",
                "checkpoint",
                "report",
            ],
        )?;
        match all.need_whole("version", 0..=u32::MAX)? {
            VERSION => {}
            other => {
                return Err(Error::new(format!(
                    "the recipe is of version {other}, but this minke reads version {VERSION}; use the minke it was written for"
                )));
            }
        }
        let task = TaskRecipe::read(all.need_table("task")?)?;
        let (model, (dtype, moments), activation_bytes, deviation) = read_model(all.need_table("model")?)?;
        let lora = all.table("lora")?.map(Lora::read).transpose()?;
        if lora.is_some() && matches!(model, Source::Scratch(_)) {
            return Err(Error::new(
                "lora: adapters are for a model that exists; give it as reference in [model], or leave [lora] out",
            ));
        }
        let built = task.build();
        let stages = all.tables("stage")?;
        if stages.is_empty() {
            return Err(Error::new("the recipe has no stage; add a [[stage]] of kind pretrain, sft, distil or grpo"));
        }
        let stage = |(i, table)| Stage::read(&format!("stage {}", i + 1), table, &*built);
        let stages = stages.into_iter().enumerate().map(stage).collect::<Result<Vec<Stage>>>()?;
        if lora.is_some() {
            stages.iter().zip(1..).try_for_each(|(stage, number)| lora::check(stage, number))?;
        }
        let checkpoint =
            Section::new("checkpoint", all.table("checkpoint")?.unwrap_or_default(), ["every", "disk_mb"])?;
        let budget = Section::new("budget", all.table("budget")?.unwrap_or_default(), ["time"])?;
        let control = Section::new("control", all.table("control")?.unwrap_or_default(), ["kind"])?;
        let kinds = [("direct", Control::Direct), ("sft", Control::Sft)];
        let recipe = Recipe {
            name: name.to_string(),
            seed: all.whole("seed", 0..=u32::MAX)?.unwrap_or(1),
            model,
            dtype,
            moments,
            activation_bytes,
            deviation,
            lora,
            stages,
            budget_s: budget.text("time")?.map(budget::parse).transpose()?,
            eval: Eval::read(all.need_table("eval")?, &*built)?,
            price: price::read(all.table("report")?.unwrap_or_default())?,
            control: control.word("kind", &kinds)?.unwrap_or(Control::Direct),
            checkpoint_every: checkpoint.whole("every", 1..=10_000_000)?.unwrap_or(20),
            checkpoint_bytes: u64::from(checkpoint.whole("disk_mb", 1..=1 << 30)?.unwrap_or(1024)) << 20,
            format: all.table("format")?.map(read_format).transpose()?,
            task,
        };
        recipe.check_lengths(&*built)?;
        recipe.check_predictions()?;
        Ok(recipe)
    }

    /// What numbers are kept in, where products read `dtype`: moments are spoken of where they are not in f32.
    pub fn kept(&self, dtype: &str) -> String {
        match self.moments {
            Dtype::F32 => dtype.to_string(),
            Dtype::Bf16 => format!("{dtype}, moments in bf16"),
        }
    }

    /// The first stage (from 1) that the model's block for multi-token prediction learns in, if there is one.
    pub fn predicts(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.mtp() > 0.0).map(|index| index + 1)
    }

    /// That a model made from scratch has a block for multi-token prediction if, and only if, one is taught.
    fn check_predictions(&self) -> Result<()> {
        let Some(Config { predictions, .. }) = self.scratch_config()? else { return Ok(()) };
        match (predictions, self.predicts()) {
            (0, None) | (1, Some(_)) => Ok(()),
            (0, Some(stage)) => Err(Error::new(format!(
                "stage {stage}: mtp is about a block for multi-token prediction, which a deepseek_v3 has by \
                 num_nextn_predict_layers = 1 in [model.scratch]; give that, or leave mtp out"
            ))),
            (1, None) => Err(Error::new(
                "model.scratch: num_nextn_predict_layers is 1, but no stage teaches that block; give a stage of kind pretrain or \
                 sft mtp = 0.3, or leave the block out",
            )),
            (more, _) => Err(Error::new(format!(
                "model.scratch: num_nextn_predict_layers is {more}, but one block is trained at most; give 1"
            ))),
        }
    }

    /// The sizes of a model made from scratch; `None` for one that exists.
    ///
    /// # Errors
    /// The key that can't be.
    pub fn scratch_config(&self) -> Result<Option<Config>> {
        let Source::Scratch(keys) = &self.model else { return Ok(None) };
        let mut keys = keys.clone();
        let tokens = SPECIALS.len() + self.task.build().alphabet().chars().count();
        keys.insert("vocab_size".into(), tokens.into());
        let place = "model.scratch";
        let config = config_from_json(&Value::Object(keys.clone())).map_err(|e| e.at(place))?;
        // What is read is what is written: a key that would not be written means nothing to this family.
        let written = config_to_json(&config);
        match keys.keys().find(|key| written.get(key).is_none()) {
            None => Ok(Some(config)),
            Some(key) => Err(Error::new(format!(
                "{place}: {key} is not a key of {}; its keys are those of the family's config.json",
                config.family.name()
            ))),
        }
    }

    /// Whatever asks the model for completions, by name: the hardest level it asks at, and the longest completion.
    pub fn longest(&self, task: &dyn Task) -> impl Iterator<Item = (String, u32, u32)> {
        let eval = ("eval".to_string(), *self.eval.levels(task).end(), self.eval.max_new_tokens);
        let stages = self.stages.iter().enumerate().filter_map(|(i, stage)| match stage {
            Stage::Pretrain(_) | Stage::Sft(_) => None,
            Stage::Distil(distil) => Some((i + 1, distil.levels.iter().copied().max()?, distil.max_new_tokens)),
            Stage::Grpo(grpo) => Some((i + 1, grpo.levels.iter().copied().max()?, grpo.max_new_tokens)),
        });
        stages.map(|(stage, level, new)| (format!("stage {stage}"), level, new)).chain([eval])
    }

    /// That prompts and completions fit in the context of a model made from scratch.
    fn check_lengths(&self, task: &dyn Task) -> Result<()> {
        let Some(config) = self.scratch_config()? else { return Ok(()) };
        for (name, level, new) in self.longest(task) {
            let (prompt, room) = (task.prompt_length(level), config.max_positions);
            if prompt + new as usize > room {
                return Err(Error::new(format!(
                    "{name}: prompts of up to {prompt} tokens and max_new_tokens of {new} don't fit in the {room} of \
                     max_position_embeddings"
                )));
            }
        }
        Ok(())
    }
}

impl Eval {
    fn read(table: Table, task: &dyn Task) -> Result<Eval> {
        let keys = ["level", "items", "samples", "temperature", "max_new_tokens", "every", "every_items"];
        let section = Section::new("eval", table, keys)?;
        let items = section.need_whole("items", 1..=1_000_000)?;
        let every = section.whole("every", 1..=10_000_000)?;
        if every.is_none() && section.has("every_items") {
            return Err(
                section.error("every_items is of what is measured within a stage; give every too, or leave it out")
            );
        }
        Ok(Eval {
            level: section.need_whole("level", task.levels())?,
            items,
            samples: section.whole("samples", 0..=1024)?.unwrap_or(8),
            temperature: section.number("temperature", 0.01..=100.0)?.unwrap_or(1.0) as f32,
            max_new_tokens: section.need_whole("max_new_tokens", 1..=1_048_576)?,
            every,
            every_items: section.whole("every_items", 1..=items)?.unwrap_or(items),
        })
    }

    /// How results are measured within a stage: greedily, on the first of the same items.
    pub fn within_stage(self) -> Eval {
        Eval { items: self.every_items, samples: 0, ..self }
    }

    /// Completions of a measurement within a stage for each of one at its end.
    pub fn part_within_stage(&self) -> f64 {
        f64::from(self.every_items) / f64::from(self.items) / f64::from(1 + self.samples)
    }

    /// The level trained for and, where the task has it, one above.
    pub fn levels(&self, task: &dyn Task) -> std::ops::RangeInclusive<u32> {
        self.level..=(self.level + 1).min(*task.levels().end())
    }
}

fn read_format(table: Table) -> Result<Settings> {
    let section = Section::new("format", table, ["system", "instruction", "think", "lenient"])?;
    let think = section.flag("think")?.unwrap_or(true);
    let said = |key| Ok(section.text(key)?.filter(|text| !text.is_empty()).map(str::to_string));
    let instruction = match section.has("instruction") {
        true => said("instruction")?,
        false => Settings::default().instruction.filter(|_| think),
    };
    let (system, lenient) = (said("system")?, section.flag("lenient")?.unwrap_or(false));
    Ok(Settings { system, instruction, think, lenient, ..Settings::default() })
}

fn read_model(table: Table) -> Result<(Source, (Dtype, Dtype), usize, f32)> {
    let keys = ["reference", "scratch", "dtype", "moments", "recompute", "activations_mb", "deviation"];
    let section = Section::new("model", table, keys)?;
    let words = [("f32", Dtype::F32), ("bf16", Dtype::Bf16)];
    let dtype = section.word("dtype", &words)?.unwrap_or(Dtype::F32);
    let moments = section.word("moments", &words)?.unwrap_or(Dtype::F32);
    let deviation = section.number("deviation", 1e-6..=1.0)?.unwrap_or(0.02) as f32;
    let source = match (section.text("reference")?, section.table("scratch")?) {
        (Some(reference), None) => Source::Reference(reference.to_string()),
        (None, Some(keys)) if keys.contains_key("vocab_size") => {
            return Err(section.error("scratch.vocab_size follows from the task's characters; leave it out"));
        }
        (None, Some(keys)) => match serde_json::to_value(keys) {
            Ok(Value::Object(keys)) => Source::Scratch(keys),
            _ => return Err(section.error("scratch has a value that config.json can't have")),
        },
        _ => return Err(section.error("give either reference or [model.scratch]")),
    };
    let activation_bytes = match (section.flag("recompute")?, section.whole("activations_mb", 0..=1 << 30)?) {
        (Some(_), Some(_)) => {
            return Err(section.error("recompute = true is activations_mb = 0; give one of the two"));
        }
        (Some(true), None) => 0,
        (Some(false) | None, None) => usize::MAX,
        (None, Some(mb)) => usize::try_from(u64::from(mb) << 20).unwrap_or(usize::MAX),
    };
    Ok((source, (dtype, moments), activation_bytes, deviation))
}

/// The parser's complaint as one sentence with its line.
fn syntax(text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
    Error::new(format!("line {line} is not TOML: {}", error.message().replace('\n', ", ")))
}

#[cfg(test)]
mod tests;
