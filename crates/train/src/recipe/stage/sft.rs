//! Stages that learn from demonstrations.

use minke_model::Result;
use toml::Table;

use super::{LEARNING, Learning, STEPS};
use crate::recipe::section::Section;
use crate::tasks::{Style, Task};

/// Learning from demonstrations: cross-entropy over the completions' tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sft {
    /// Updates.
    pub steps: u32,
    /// Demonstrations an update.
    pub batch: u32,
    /// Demonstrations in the corpus, which is fixed; the stage passes over it as often as its steps need.
    pub examples: u32,
    /// Levels that problems are drawn from, each equally likely.
    pub levels: Vec<u32>,
    /// How many of the demonstrations think in which way; the shares add up to 1.
    pub mixture: Vec<Share>,
    /// Weight of the loss of the token after the next, which the model's block for multi-token prediction learns (lambda in
    /// arXiv 2412.19437, equation 25); 0 for none.
    pub mtp: f32,
    /// The optimiser's settings.
    pub learning: Learning,
}

/// A part of the demonstrations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// How they think.
    pub style: Style,
    /// Their fraction.
    pub share: f64,
}

impl Sft {
    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Sft> {
        let own = ["kind", "steps", "batch", "examples", "level", "mixture", "mtp"];
        let section = Section::new(name, table, [&own[..], &LEARNING].concat())?;
        if !task.demonstrates() {
            return Err(section.error("the task has no demonstrations to learn from; begin with a stage of kind grpo"));
        }
        let steps = section.need_whole("steps", STEPS)?;
        Ok(Sft {
            steps,
            batch: section.need_whole("batch", 1..=65_536)?,
            examples: section.need_whole("examples", 1..=10_000_000)?,
            levels: section.need("level", section.wholes("level", task.levels())?)?,
            mixture: mixture(name, section.need_table("mixture")?)?,
            mtp: section.number("mtp", 0.0..=10.0)?.unwrap_or(0.0) as f32,
            learning: Learning::read(&section, steps)?,
        })
    }
}

pub(super) fn mixture(stage: &str, table: Table) -> Result<Vec<Share>> {
    let section = Section::new(format!("{stage} mixture"), table, ["direct", "think", "backtrack"])?;
    let mut shares = Vec::new();
    for (key, style) in [("direct", Style::Direct), ("think", Style::Think), ("backtrack", Style::Backtrack)] {
        match section.number(key, 0.0..=1.0)? {
            Some(share) if share > 0.0 => shares.push(Share { style, share }),
            _ => {}
        }
    }
    let sum: f64 = shares.iter().map(|s| s.share).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(section.error(format!("the shares add up to {sum:.3}, not to 1")));
    }
    Ok(shares)
}
