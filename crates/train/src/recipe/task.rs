//! The task of a recipe.

use std::path::Path;

use minke_model::Result;
use toml::Table;

use super::section::Section;
use crate::tasks::chain_sum::{ChainSum, Scratchpad};
use crate::tasks::checker::Checker;
use crate::tasks::countdown::Countdown;
use crate::tasks::external::{External, Settings};
use crate::tasks::lines::{Keys, Lines};
use crate::tasks::mixture::Mixture;
use crate::tasks::{Task, built_in, built_in_names};

/// A task and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRecipe {
    /// See [`ChainSum`].
    ChainSum(ChainSum),
    /// See [`Countdown`].
    Countdown(Countdown),
    /// A built-in task without settings, by its name.
    BuiltIn(&'static str),
    /// Built-in tasks by their names, each at a level; see [`Mixture`].
    Mixture(Vec<(&'static str, u32)>),
    /// See [`Lines`].
    Lines(Lines),
    /// See [`External`].
    External(External),
}

/// What says which task it is,
const KINDS: [&str; 4] = ["name", "tasks", "file", "command"];
/// and the settings of the one and the other.
const SETTINGS: [&str; 8] =
    ["digits", "scratchpad", "tries", "checker", "question", "answer", "timeout_s", "memory_mb"];

impl TaskRecipe {
    /// Reads a file that it names, and starts a program.
    pub(super) fn read(table: Table) -> Result<TaskRecipe> {
        let section = Section::new("task", table, [&KINDS[..], &SETTINGS].concat())?;
        let only = |own: &[&str]| match SETTINGS.iter().find(|key| section.has(key) && !own.contains(key)) {
            Some(key) => Err(section.error(format!("{key} is a key of another task"))),
            None => Ok(()),
        };
        match KINDS.map(|kind| section.has(kind)) {
            [true, false, false, false] => match name(&section)? {
                "chain_sum" => only(&["digits", "scratchpad"]).and_then(|()| chain_sum(&section)),
                "countdown" => {
                    only(&["tries"])?;
                    Ok(Self::Countdown(Countdown { tries: section.whole("tries", 1..=9)?.unwrap_or(9) }))
                }
                name => only(&[]).map(|()| Self::BuiltIn(name)),
            },
            [false, true, false, false] => only(&[]).and_then(|()| mixture(&section)),
            [false, false, true, false] => {
                only(&["checker", "question", "answer"])?;
                let checker = section.word("checker", &Checker::NAMES)?.unwrap_or(Checker::Number);
                let question = section.text("question")?.unwrap_or("question");
                let answer = section.text("answer")?.unwrap_or("answer");
                let file = section.need("file", section.text("file")?)?;
                Ok(Self::Lines(Lines::open(Path::new(file), checker, Keys { question, answer })?))
            }
            [false, false, false, true] => {
                only(&["timeout_s", "memory_mb"])?;
                Ok(Self::External(External::start(Settings {
                    command: section.need("command", section.texts("command")?)?,
                    timeout_s: section.whole("timeout_s", 1..=3600)?.unwrap_or(10),
                    memory_mb: section.whole("memory_mb", 64..=1 << 24)?.unwrap_or(4096),
                })?))
            }
            [false, false, false, false] => Err(section.error("give a name, or tasks, or a file, or a command")),
            _ => Err(section.error("give either a name, or tasks, or a file, or a command")),
        }
    }

    /// The task itself.
    pub fn build(&self) -> Box<dyn Task> {
        match self {
            Self::ChainSum(task) => Box::new(task.clone()),
            Self::Countdown(task) => Box::new(task.clone()),
            Self::BuiltIn(name) => built_in(name).expect("a name of the list that it was chosen from"),
            Self::Mixture(parts) => {
                let parts = parts.iter().map(|&(name, level)| (Self::BuiltIn(name).build(), level));
                Box::new(Mixture::new(parts.collect()))
            }
            Self::Lines(task) => Box::new(task.clone()),
            Self::External(task) => Box::new(task.clone()),
        }
    }
}

fn name(section: &Section) -> Result<&'static str> {
    let names: Vec<(&str, &str)> = built_in_names().map(|name| (name, name)).collect();
    section.need("name", section.word("name", &names)?)
}

fn mixture(section: &Section) -> Result<TaskRecipe> {
    let mut parts: Vec<(&str, u32)> = Vec::new();
    for table in section.tables("tasks")? {
        let part = Section::new("task", table, ["name", "level"])?;
        let name = name(&part)?;
        if parts.iter().any(|(other, _)| *other == name) {
            return Err(section.error(format!("{name} is among tasks twice; give it one level")));
        }
        let levels = TaskRecipe::BuiltIn(name).build().levels();
        parts.push((name, part.need_whole("level", levels)?));
    }
    if parts.is_empty() {
        return Err(section.error("tasks is empty; write { name = \"letters\", level = 3 } into it"));
    }
    Ok(TaskRecipe::Mixture(parts))
}

fn chain_sum(section: &Section) -> Result<TaskRecipe> {
    let digits = match section.wholes("digits", 1..=4)?.as_deref() {
        None => 1..=2,
        Some(&[count]) => count..=count,
        Some(&[fewest, most]) if fewest <= most => fewest..=most,
        Some(_) => return Err(section.error("digits is a number, or the fewest and the most as [1, 2]")),
    };
    let styles = [("plain", Scratchpad::Plain), ("reversed", Scratchpad::Reversed)];
    let scratchpad = section.word("scratchpad", &styles)?.unwrap_or(Scratchpad::Plain);
    Ok(TaskRecipe::ChainSum(ChainSum { digits, scratchpad }))
}
