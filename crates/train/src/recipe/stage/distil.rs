//! Stages that learn from a teacher.

use minke_model::Result;
use toml::Table;

use super::{LEARNING, Learning, STEPS};
use crate::recipe::section::Section;
use crate::remote::Remote;
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
    /// The part of the loss that is the divergence from the teacher's distributions; the rest is cross-entropy.
    pub kl: f32,
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
    /// A model behind a chat API.
    Remote(Remote),
}

impl Distil {
    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Distil> {
        let own =
            ["kind", "steps", "batch", "teacher", "problems", "samples", "max_new_tokens", "temperature", "level"];
        let teachers = ["teacher_model", "teacher_key_env", "kl"];
        let section = Section::new(name, table, [&own[..], &teachers, &LEARNING].concat())?;
        let steps = section.need_whole("steps", STEPS)?;
        let kl = section.number("kl", 0.0..=1.0)?.unwrap_or(0.0) as f32;
        let teacher = read_teacher(&section)?;
        if kl > 0.0 && matches!(teacher, Teacher::Remote(_)) {
            return Err(
                section.error("kl needs a teacher whose weights are here; leave it out, or give a path or a name")
            );
        }
        Ok(Distil {
            steps,
            batch: section.need_whole("batch", 1..=65_536)?,
            teacher,
            kl,
            problems: section.need_whole("problems", 1..=1_000_000)?,
            samples: section.whole("samples", 1..=1024)?.unwrap_or(4),
            max_new_tokens: section.need_whole("max_new_tokens", 1..=1_048_576)?,
            temperature: section.number("temperature", 0.01..=100.0)?.unwrap_or(1.0) as f32,
            levels: section.need("level", section.wholes("level", task.levels())?)?,
            learning: Learning::read(&section, steps)?,
        })
    }
}

fn read_teacher(section: &Section) -> Result<Teacher> {
    let teacher = section.need("teacher", section.text("teacher")?)?;
    if teacher.starts_with("http://") || teacher.starts_with("https://") {
        return Ok(Teacher::Remote(Remote {
            url: teacher.to_string(),
            model: section.need("teacher_model", section.text("teacher_model")?)?.to_string(),
            key_env: section.text("teacher_key_env")?.map(str::to_string),
        }));
    }
    if let Some(key) = ["teacher_model", "teacher_key_env"].into_iter().find(|key| section.has(key)) {
        return Err(section.error(format!("{key} is for a teacher at an http address")));
    }
    Ok(match teacher {
        "self" => Teacher::Itself,
        reference => Teacher::Reference(reference.to_string()),
    })
}
