//! Stages that learn from rewards.

use minke_model::Result;
use toml::Table;

use super::{LEARNING, Learning, STEPS};
use crate::advantages::Scale;
use crate::loss::{Clip, Importance, Loss, Objective, Penalty};
use crate::recipe::section::Section;
use crate::tasks::Task;

/// Learning from rewards: group-relative policy optimisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Grpo {
    /// Rounds of rollouts.
    pub steps: u32,
    /// Prompts a step; the groups.
    pub prompts: u32,
    /// Completions a prompt; a group's size.
    pub samples: u32,
    /// Longest completion, in tokens.
    pub max_new_tokens: u32,
    /// What logits are divided by when sampling.
    pub temperature: f32,
    /// Levels that problems are drawn from, each equally likely unless there is a curriculum.
    pub levels: Vec<u32>,
    /// With a curriculum ([`crate::curriculum`]), which begins at the lowest level: the success rate of the highest open level at
    /// which the next one opens.
    pub promote_at: Option<f64>,
    /// What is minimised.
    pub objective: Objective,
    /// What advantages are divided by.
    pub scale: Scale,
    /// Leave completions that ran into their limit out of the loss; they count in their group's advantages all the same.
    pub mask_truncated: bool,
    /// How often, at most, groups whose rewards are all equal are replaced by new ones (dynamic sampling, DAPO, arXiv
    /// 2503.14476).
    pub refills: u32,
    /// Updates on each step's rollouts.
    pub updates: u32,
    /// The optimiser's settings.
    pub learning: Learning,
}

/// Success rate at which a level counts as mastered unless the recipe says otherwise.
const PROMOTE_AT: f64 = 0.8;

/// Most rollouts of a step: they are held in memory together.
const ROLLOUTS: u64 = 1 << 20;

impl Grpo {
    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Grpo> {
        let own =
            ["kind", "steps", "prompts", "samples", "max_new_tokens", "temperature", "level", "refills", "updates"];
        let curriculum = ["curriculum", "promote_at"];
        let rewards = ["scale_rewards", "mask_truncated"];
        let section = Section::new(name, table, [&own[..], &curriculum, &OBJECTIVE, &rewards, &LEARNING].concat())?;
        let steps = section.need_whole("steps", STEPS)?;
        let prompts = section.need_whole("prompts", 1..=65_536)?;
        let samples = section.need_whole("samples", 2..=65_536)?;
        let refills = section.whole("refills", 0..=64)?.unwrap_or(0);
        let rollouts = u64::from(prompts) * u64::from(samples) * u64::from(1 + refills);
        if rollouts > ROLLOUTS {
            return Err(
                section.error(format!("prompts times samples is {rollouts}, more than the {ROLLOUTS} of a step"))
            );
        }
        let mut levels = section.need("level", section.wholes("level", task.levels())?)?;
        let promote_at = section.number("promote_at", 0.0..=1.0)?;
        let promote_at = match section.flag("curriculum")?.unwrap_or(false) {
            false if promote_at.is_some() => return Err(section.error("promote_at is of no use without curriculum")),
            false => None,
            true => {
                levels.sort_unstable();
                levels.dedup();
                if levels.len() < 2 {
                    return Err(section.error("a curriculum needs more than one level; give level a list of them"));
                }
                Some(promote_at.unwrap_or(PROMOTE_AT))
            }
        };
        Ok(Grpo {
            steps,
            prompts,
            samples,
            max_new_tokens: section.need_whole("max_new_tokens", 1..=1_048_576)?,
            temperature: section.number("temperature", 0.01..=100.0)?.unwrap_or(1.0) as f32,
            levels,
            promote_at,
            objective: read_objective(&section)?,
            scale: section
                .word("scale_rewards", &[("group", Scale::Group), ("batch", Scale::Batch), ("none", Scale::None)])?
                .unwrap_or(Scale::None),
            mask_truncated: section.flag("mask_truncated")?.unwrap_or(false),
            refills,
            updates: section.whole("updates", 1..=64)?.unwrap_or(1),
            learning: Learning::read(&section, steps)?,
        })
    }
}

/// Keys of [`Objective`].
const OBJECTIVE: [&str; 6] = ["loss", "importance", "epsilon", "epsilon_high", "kl", "kl_correction"];

/// Where CISPO's ratios are capped unless the recipe says otherwise, as in ScaleRL (arXiv 2510.13786).
const CISPO_CAP: f32 = 5.0;

fn read_objective(section: &Section) -> Result<Objective> {
    let losses = [
        ("grpo", Loss::Grpo),
        ("bnpo", Loss::Bnpo),
        ("dr_grpo", Loss::DrGrpo),
        ("dapo", Loss::Dapo),
        ("cispo", Loss::Cispo),
    ];
    let loss = section.word("loss", &losses)?.unwrap_or(Loss::DrGrpo);
    let importances = [("token", Importance::Token), ("sequence", Importance::Sequence)];
    if loss == Loss::Cispo && section.has("epsilon") {
        return Err(
            section.error("epsilon means nothing to cispo, which caps ratios from above alone; give epsilon_high")
        );
    }
    let epsilon = section.number("epsilon", 0.0..=1.0)?.unwrap_or(0.2) as f32;
    // A cap below 1 would hold back tokens that have not moved.
    let (least, high) = if loss == Loss::Cispo { (1.0, CISPO_CAP) } else { (0.0, epsilon) };
    let epsilon_high = section.number("epsilon_high", least..=100.0)?.map_or(high, |x| x as f32);
    let weight = section.number("kl", 0.0..=100.0)?.unwrap_or(0.0) as f32;
    let corrected = section.flag("kl_correction")?;
    if corrected.is_some() && weight == 0.0 {
        return Err(section.error("kl_correction is of no use without kl, the weight of the penalty that it corrects"));
    }
    Ok(Objective {
        loss,
        importance: section.word("importance", &importances)?.unwrap_or(Importance::Token),
        clip: Clip { epsilon, epsilon_high },
        penalty: (weight > 0.0).then_some(Penalty { weight, corrected: corrected.unwrap_or(true) }),
    })
}
