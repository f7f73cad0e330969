//! The stages of a recipe.

use minke_kernels::math;
use minke_model::Result;
use toml::Table;

use super::section::Section;
use crate::advantages::Scale;
use crate::loss::{Clip, Importance, Loss, Objective, Penalty};
use crate::progress::StageKind;
use crate::tasks::{Style, Task};

/// One stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Learning from demonstrations.
    Sft(Sft),
    /// Learning from a teacher's completions.
    Distil(Distil),
    /// Learning from rewards.
    Grpo(Grpo),
}

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
    /// Levels that problems are drawn from, each equally likely.
    pub levels: Vec<u32>,
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

/// What moves the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// AdamW (arXiv 1711.05101).
    AdamW,
    /// Muon for the matrices between hidden states, AdamW for the rest ([`minke_kernels::muon`]).
    Muon {
        /// Decay of the running sum of gradients.
        momentum: f32,
    },
}

/// The optimiser's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Which.
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub rate: f32,
    /// Steps over which it rises to that.
    pub warmup: u32,
    /// How it goes on from there.
    pub schedule: Schedule,
    /// Decoupled weight decay, of matrices.
    pub weight_decay: f32,
    /// Decay of the first moments.
    pub beta1: f32,
    /// Decay of the second moments.
    pub beta2: f32,
    /// Norm that a larger gradient is shortened to.
    pub clip_norm: f32,
    /// Weight of the sequence balance loss of mixtures of experts (alpha in arXiv 2412.19437, equation 17).
    pub balance: f32,
    /// How far a step moves a router's bias towards even loads (gamma in arXiv 2412.19437, section 2.1.2).
    pub bias_rate: f32,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls along a line that would reach 0 one step after the last.
    Linear,
    /// It falls along half a cosine that would reach 0 one step after the last.
    Cosine,
}

impl Stage {
    /// Its kind.
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Sft(_) => StageKind::Sft,
            Self::Distil(_) => StageKind::Distil,
            Self::Grpo(_) => StageKind::Grpo,
        }
    }

    /// Its steps, as the recipe has them.
    pub fn steps(&self) -> u32 {
        match self {
            Self::Sft(sft) => sft.steps,
            Self::Distil(distil) => distil.steps,
            Self::Grpo(grpo) => grpo.steps,
        }
    }

    /// The optimiser's settings.
    pub fn learning(&self) -> &Learning {
        match self {
            Self::Sft(sft) => &sft.learning,
            Self::Distil(distil) => &distil.learning,
            Self::Grpo(grpo) => &grpo.learning,
        }
    }

    /// Whether a penalty holds it to the model as it was when the stage began.
    pub fn has_reference(&self) -> bool {
        match self {
            Self::Sft(_) | Self::Distil(_) => false,
            Self::Grpo(grpo) => grpo.objective.penalty.is_some(),
        }
    }

    pub(super) fn read(name: &str, table: Table, task: &dyn Task) -> Result<Stage> {
        let kind = [("sft", StageKind::Sft), ("distil", StageKind::Distil), ("grpo", StageKind::Grpo)];
        // Which keys are known depends on the kind, which is therefore read by itself.
        let only_kind = table.iter().filter(|(key, _)| *key == "kind").map(|(k, v)| (k.clone(), v.clone())).collect();
        let section = Section::new(name, only_kind, ["kind"])?;
        match section.need("kind", section.word("kind", &kind)?)? {
            StageKind::Sft => Ok(Self::Sft(Sft::read(name, table, task)?)),
            StageKind::Distil => Ok(Self::Distil(Distil::read(name, table, task)?)),
            StageKind::Grpo => Ok(Self::Grpo(Grpo::read(name, table, task)?)),
        }
    }
}

const STEPS: std::ops::RangeInclusive<u32> = 1..=10_000_000;
/// Most rollouts of a step: they are held in memory together.
const ROLLOUTS: u64 = 1 << 20;

impl Sft {
    fn read(name: &str, table: Table, task: &dyn Task) -> Result<Sft> {
        let own = ["kind", "steps", "batch", "examples", "level", "mixture"];
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
            learning: Learning::read(&section, steps)?,
        })
    }
}

impl Distil {
    fn read(name: &str, table: Table, task: &dyn Task) -> Result<Distil> {
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

fn mixture(stage: &str, table: Table) -> Result<Vec<Share>> {
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

impl Grpo {
    fn read(name: &str, table: Table, task: &dyn Task) -> Result<Grpo> {
        let own =
            ["kind", "steps", "prompts", "samples", "max_new_tokens", "temperature", "level", "refills", "updates"];
        let rewards = ["scale_rewards", "mask_truncated"];
        let section = Section::new(name, table, [&own[..], &OBJECTIVE, &rewards, &LEARNING].concat())?;
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
        Ok(Grpo {
            steps,
            prompts,
            samples,
            max_new_tokens: section.need_whole("max_new_tokens", 1..=1_048_576)?,
            temperature: section.number("temperature", 0.01..=100.0)?.unwrap_or(1.0) as f32,
            levels: section.need("level", section.wholes("level", task.levels())?)?,
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

/// Keys of [`Learning`], which every stage has.
const LEARNING: [&str; 11] = [
    "lr",
    "warmup",
    "schedule",
    "weight_decay",
    "beta1",
    "beta2",
    "clip_norm",
    "balance",
    "bias_rate",
    "optimizer",
    "momentum",
];

impl Learning {
    fn read(section: &Section, steps: u32) -> Result<Learning> {
        let warmup = section.whole("warmup", 0..=*STEPS.end())?.unwrap_or(0);
        if warmup > steps {
            return Err(section.error(format!("warmup is {warmup}, more than the {steps} of steps")));
        }
        let number = |key, range, default| Ok(section.number(key, range)?.unwrap_or(default) as f32);
        let momentum = section.number("momentum", 0.0..=0.9999)?;
        let optimizer = match section.word("optimizer", &[("adamw", false), ("muon", true)])? {
            Some(true) => Optimizer::Muon { momentum: momentum.unwrap_or(0.95) as f32 },
            _ if momentum.is_some() => return Err(section.error("momentum is a key of optimizer = \"muon\"")),
            _ => Optimizer::AdamW,
        };
        Ok(Learning {
            optimizer,
            rate: section.need_number("lr", 0.0..=1.0)? as f32,
            warmup,
            schedule: section
                .word(
                    "schedule",
                    &[("constant", Schedule::Constant), ("linear", Schedule::Linear), ("cosine", Schedule::Cosine)],
                )?
                .unwrap_or(Schedule::Constant),
            weight_decay: number("weight_decay", 0.0..=10.0, 0.0)?,
            beta1: number("beta1", 0.0..=0.9999, 0.9)?,
            beta2: number("beta2", 0.0..=0.999_999, 0.95)?,
            clip_norm: number("clip_norm", 1e-6..=1e9, 1.0)?,
            balance: number("balance", 0.0..=1.0, 1e-4)?,
            bias_rate: number("bias_rate", 0.0..=1.0, 1e-3)?,
        })
    }

    /// The learning rate of a step (from 0) of a stage that has `steps`.
    pub fn rate(&self, step: u32, steps: u32) -> f32 {
        let (step, warmup, steps) = (f64::from(step), f64::from(self.warmup), f64::from(steps));
        if step < warmup {
            return (f64::from(self.rate) * (step + 1.0) / warmup) as f32;
        }
        let left = ((steps - step) / (steps - warmup).max(1.0)).clamp(0.0, 1.0);
        let factor = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => left,
            Schedule::Cosine => 0.5 - 0.5 * math::sin_cos(std::f64::consts::PI * left).1,
        };
        (f64::from(self.rate) * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let learning = |schedule| Learning {
            optimizer: Optimizer::AdamW,
            rate: 1.0,
            warmup: 4,
            schedule,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.95,
            clip_norm: 1.0,
            balance: 0.0,
            bias_rate: 0.0,
        };
        let rates = |schedule| (0..8).map(|step| learning(schedule).rate(step, 8)).collect::<Vec<f32>>();
        assert_eq!(rates(Schedule::Constant), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Schedule::Linear), [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]);
        let cosine = rates(Schedule::Cosine);
        assert!(
            cosine[4] == 1.0 && (cosine[6] - 0.5).abs() < 1e-6 && cosine[7] < 0.15 && cosine[7] > 0.0,
            "{cosine:?}"
        );
        // A budget may leave a stage shorter than its warm-up.
        assert_eq!(learning(Schedule::Linear).rate(2, 3), 0.75);
    }
}
