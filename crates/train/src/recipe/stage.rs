//! The stages of a recipe.

mod distil;
mod grpo;
mod learning;
mod pretrain;
mod sft;

use minke_model::Result;
use toml::Table;

pub use distil::{Distil, Teacher};
pub use grpo::Grpo;
use learning::LEARNING;
pub use learning::{Learning, Optimizer, Schedule};
pub use pretrain::{Pretrain, Text};
pub use sft::{Sft, Share};

use super::section::Section;
use crate::curriculum::Curriculum;
use crate::progress::StageKind;
use crate::tasks::Task;

const STEPS: std::ops::RangeInclusive<u32> = 1..=10_000_000;

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Learning from text.
    Pretrain(Pretrain),
    /// Learning from demonstrations.
    Sft(Sft),
    /// Learning from a teacher's completions.
    Distil(Distil),
    /// Learning from rewards.
    Grpo(Grpo),
}

impl Stage {
    /// Its kind.
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Pretrain(_) => StageKind::Pretrain,
            Self::Sft(_) => StageKind::Sft,
            Self::Distil(_) => StageKind::Distil,
            Self::Grpo(_) => StageKind::Grpo,
        }
    }

    /// Its steps, as the recipe has them.
    pub fn steps(&self) -> u32 {
        match self {
            Self::Pretrain(pretrain) => pretrain.steps,
            Self::Sft(sft) => sft.steps,
            Self::Distil(distil) => distil.steps,
            Self::Grpo(grpo) => grpo.steps,
        }
    }

    /// The optimiser's settings.
    pub fn learning(&self) -> &Learning {
        match self {
            Self::Pretrain(pretrain) => &pretrain.learning,
            Self::Sft(sft) => &sft.learning,
            Self::Distil(distil) => &distil.learning,
            Self::Grpo(grpo) => &grpo.learning,
        }
    }

    /// Weight of the loss of a block for multi-token prediction.
    pub fn mtp(&self) -> f32 {
        match self {
            Self::Pretrain(pretrain) => pretrain.mtp,
            Self::Sft(sft) => sft.mtp,
            Self::Distil(_) | Self::Grpo(_) => 0.0,
        }
    }

    /// Whether its loss holds it to the model as it was when the stage began.
    pub fn has_reference(&self) -> bool {
        match self {
            Self::Pretrain(_) | Self::Sft(_) => false,
            // Its distributions are learnt, as they were.
            Self::Distil(distil) => distil.kl > 0.0 && distil.teacher == Teacher::Itself,
            Self::Grpo(grpo) => grpo.objective.penalty.is_some(),
        }
    }

    /// Its curriculum as it begins, if it has one.
    pub fn curriculum(&self) -> Option<Curriculum> {
        match self {
            Self::Grpo(Grpo { levels, promote_at: Some(_), .. }) => Some(Curriculum::new(levels)),
            _ => None,
        }
    }

    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Stage> {
        let kind = [StageKind::Pretrain, StageKind::Sft, StageKind::Distil, StageKind::Grpo];
        let kind = kind.map(|kind| (kind.name(), kind));
        // Which keys are known depends on the kind, which is therefore read by itself.
        let only_kind = table.iter().filter(|(key, _)| *key == "kind").map(|(k, v)| (k.clone(), v.clone())).collect();
        let section = Section::new(name, only_kind, ["kind"])?;
        match section.need("kind", section.word("kind", &kind)?)? {
            StageKind::Pretrain => Ok(Self::Pretrain(Pretrain::read(name, table, task)?)),
            StageKind::Sft => Ok(Self::Sft(Sft::read(name, table, task)?)),
            StageKind::Distil => Ok(Self::Distil(Distil::read(name, table, task)?)),
            StageKind::Grpo => Ok(Self::Grpo(Grpo::read(name, table, task)?)),
        }
    }
}
