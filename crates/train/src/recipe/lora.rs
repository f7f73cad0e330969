//! `[lora]`: adapters that are trained instead of the model.

use minke_model::lora::PROJECTIONS;
use minke_model::{Error, Result};
use toml::Table;

use super::Stage;
use super::section::Section;

/// Largest inner width.
const WIDEST: u32 = 1024;

/// Low-rank adapters on a model that stays as it is (arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Inner width.
    pub rank: u32,
    /// What their result is multiplied by, times the rank.
    pub alpha: f32,
    /// The projections that have one; all that can, where the recipe names none.
    pub targets: Option<Vec<String>>,
}

impl Lora {
    pub(super) fn read(table: Table) -> Result<Lora> {
        let section = Section::new("lora", table, ["rank", "alpha", "targets"])?;
        let rank = section.need_whole("rank", 1..=WIDEST)?;
        let targets = section.texts("targets")?;
        if let Some(unknown) = targets.iter().flatten().find(|target| !PROJECTIONS.contains(&target.as_str())) {
            let (unknown, known) = (minke_model::error::quoted(unknown), PROJECTIONS.join(", "));
            return Err(section.error(format!("targets has {unknown}; it can have {known}")));
        }
        let alpha = section.number("alpha", 1e-3..=1e6)?.unwrap_or(2.0 * f64::from(rank)) as f32;
        Ok(Lora { rank, alpha, targets })
    }

    /// What the adapters' result is multiplied by.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// That adapters alone can learn what stage `number` teaches.
pub(super) fn check(stage: &Stage, number: u32) -> Result<()> {
    let what = match stage {
        Stage::Distil(distil) if distil.kl > 0.0 => "kl, a teacher's distributions, needs a head that learns",
        _ if stage.mtp() > 0.0 => "mtp teaches the model's own block for multi-token prediction",
        _ => return Ok(()),
    };
    Err(Error::new(format!(
        "stage {number}: {what}, and beside adapters the model stays as it is; leave that out, or [lora]"
    )))
}
