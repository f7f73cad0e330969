//! The optimiser's settings, which every stage has.

use minke_kernels::math;
use minke_model::Result;

use super::STEPS;
use crate::recipe::section::Section;

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

/// Keys of [`Learning`], which every stage has.
pub(super) const LEARNING: [&str; 11] = [
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
    pub(super) fn read(section: &Section, steps: u32) -> Result<Learning> {
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
