//! Stages that learn from a teacher.

use minke_model::Result;
use toml::Table;

use super::{LEARNING, Learning, STEPS};
use crate::recipe::section::Section;
use crate::tasks::Task;

/// Learning from those of a teacher's completions that the verifier finds right.
#[derive(Clone, Debug, PartialEq)]
pub struct Distil {
    /// Updates.
    pub steps: u32,
    /// Completions an update.
    pub batch: u32,
    /// Whose.
    pub teacher: Teacher,
    /// Problems that the teacher is given.
    pub problems: u32,
    /// Completions of each, of which the first right one is learnt.
    pub samples: u32,
    /// Longest completion, in tokens.
    pub max_new_tokens: u32,
    /// What the teacher's logits are divided by.
    pub temperature: f32,
    /// Levels that problems are drawn from, each equally likely.
    pub levels: Vec<u32>,
    /// The optimiser's settings.
    pub learning: Learning,
}

/// Who shows how it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Teacher {
    /// The model that learns, as it is when the stage begins.
    Itself,
    /// A model that exists.
    Reference(String),
}

impl Distil {
    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Distil> {
        let own =
            ["kind", "steps", "batch", "teacher", "problems", "samples", "max_new_tokens", "temperature", "level"];
        let section = Section::new(name, table, [&own[..], &LEARNING].concat())?;
        let steps = section.need_whole("steps", STEPS)?;
        Ok(Distil {
            steps,
            batch: section.need_whole("batch", 1..=65_536)?,
            teacher: match section.need("teacher", section.text("teacher")?)? {
                "self" => Teacher::Itself,
                reference => Teacher::Reference(reference.to_string()),
            },
            problems: section.need_whole("problems", 1..=1_000_000)?,
            samples: section.whole("samples", 1..=1024)?.unwrap_or(4),
            max_new_tokens: section.need_whole("max_new_tokens", 1..=1_048_576)?,
            temperature: section.number("temperature", 0.01..=100.0)?.unwrap_or(1.0) as f32,
            levels: section.need("level", section.wholes("level", task.levels())?)?,
            learning: Learning::read(&section, steps)?,
        })
    }
}
