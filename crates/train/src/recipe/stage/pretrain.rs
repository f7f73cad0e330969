//! Stages that learn from text.

use minke_model::Result;
use toml::Table;

use super::sft::mixture;
use super::{LEARNING, Learning, STEPS, Share};
use crate::recipe::section::Section;
use crate::tasks::Task;

/// Learning from text: cross-entropy over all of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrain {
    /// Updates.
    pub steps: u32,
    /// Sequences an update.
    pub batch: u32,
    /// Tokens that a sequence learns.
    pub length: u32,
    /// Which text.
    pub text: Text,
    /// Weight of the loss of the token after the next, which the model's block for multi-token prediction learns (lambda in
    /// arXiv 2412.19437, equation 25); 0 for none.
    pub mtp: f32,
    /// The optimiser's settings.
    pub learning: Learning,
}

/// Where the documents of a text are from.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    /// Files.
    Files {
        /// Their paths; JSON lines by the extension `jsonl`.
        paths: Vec<String>,
        /// What stands between the documents of the others.
        separator: String,
    },
    /// The task's demonstrations, each with its prompt.
    Demonstrations {
        /// How many.
        examples: u32,
        /// Levels that problems are drawn from, each equally likely.
        levels: Vec<u32>,
        /// How many of the demonstrations think in which way; the shares add up to 1.
        mixture: Vec<Share>,
    },
}

impl Pretrain {
    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Pretrain> {
        let own = ["kind", "steps", "batch", "length", "text", "separator", "examples", "level", "mixture", "mtp"];
        let section = Section::new(name, table, [&own[..], &LEARNING].concat())?;
        let steps = section.need_whole("steps", STEPS)?;
        Ok(Pretrain {
            steps,
            batch: section.need_whole("batch", 1..=65_536)?,
            length: section.need_whole("length", 1..=1_048_576)?,
            text: Text::read(name, &section, task)?,
            mtp: section.number("mtp", 0.0..=10.0)?.unwrap_or(0.0) as f32,
            learning: Learning::read(&section, steps)?,
        })
    }
}

impl Text {
    fn read(name: &str, section: &Section, task: &dyn Task) -> Result<Text> {
        let separator = section.text("separator")?;
        if let Some(paths) = section.texts("text")? {
            if let Some(key) = ["examples", "level", "mixture"].into_iter().find(|key| section.has(key)) {
                return Err(section.error(format!(
                    "{key} is about the task's demonstrations, but text says what is read instead of them; leave one of \
                     the two out"
                )));
            }
            return match separator {
                Some("") => Err(section.error("separator is empty; give what stands between two documents")),
                other => Ok(Text::Files { paths, separator: other.unwrap_or("\n\n").into() }),
            };
        }
        if separator.is_some() {
            return Err(section.error("separator is of no use without text, the list of files that it divides"));
        }
        if !section.has("examples") {
            return Err(section.error("give text, a list of files, or examples, a number of the task's demonstrations"));
        }
        if !task.demonstrates() {
            return Err(section.error("the task has no demonstrations to learn from; give text, a list of files"));
        }
        Ok(Text::Demonstrations {
            examples: section.need_whole("examples", 1..=10_000_000)?,
            levels: section.need("level", section.wholes("level", task.levels())?)?,
            mixture: mixture(name, section.need_table("mixture")?)?,
        })
    }
}
