//! What a run says of itself after each step: a line of `metrics.jsonl`, and the view for whoever watches.

use serde::{Deserialize, Serialize};

use crate::advantages::zero_variance;
use crate::curriculum::LevelMetrics;
use crate::learning_curve::Point;
use crate::report::{Results, StageReport};
use crate::rollouts::Rollout;

/// The kinds of stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Learning from text.
    Pretrain,
    /// Learning from demonstrations.
    Sft,
    /// Learning from a teacher's completions.
    Distil,
    /// Learning from rewards.
    Grpo,
}

impl StageKind {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Sft => "sft",
            Self::Distil => "distil",
            Self::Grpo => "grpo",
        }
    }
}

/// Measurements of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Which stage, from 1.
    pub stage: usize,
    /// Its kind.
    pub kind: StageKind,
    /// Which step of the stage, from 1.
    pub step: u32,
    /// Steps of the stage.
    pub steps: u32,
    /// The optimiser's rate.
    pub learning_rate: f32,
    /// The loss, before the update.
    pub loss: f64,
    /// The loss of the tokens after the next ones, before it is weighed, where they are learnt too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtp_loss: Option<f64>,
    /// Euclidean norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// Tokens that this step sampled or learnt from.
    pub tokens: u64,
    /// Seconds that this step took.
    pub wall_s: f64,
    /// What the step's rollouts were like, where it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollouts: Option<RolloutMetrics>,
}

impl StepMetrics {
    /// Tokens a second of wall time.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.wall_s.max(1e-9)
    }
}

/// Means over the rollouts of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutMetrics {
    /// Mean reward.
    pub reward: f64,
    /// Mean length of the thoughts, in tokens.
    pub thought_tokens: f64,
    /// Mean length of the completions, in tokens.
    pub completion_tokens: f64,
    /// Fraction of completions that ran into their limit.
    pub truncated: f64,
    /// Fraction of groups whose rewards were all equal.
    pub zero_variance: f64,
    /// Mean entropy of the distributions that tokens were sampled from, in nats.
    pub entropy: f64,
    /// Fraction of tokens stopped by the clip below.
    pub clipped_low: f64,
    /// Fraction of tokens stopped by the clip above.
    pub clipped_high: f64,
    /// Tokens whose log-probability was, before the first update, compared with the one recorded at sampling, to the bit.
    #[serde(default)]
    pub compared: u64,
    /// Mean of the tokens' estimated Kullback–Leibler divergence from the reference, in nats and before the first update;
    /// where the stage has a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean level of the problems, where the stage has a curriculum,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// and each level that was open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<LevelMetrics>,
}

impl RolloutMetrics {
    /// What can be told from the rollouts themselves, in groups of `group` neighbours; the rest is the trainer's
    /// to fill in.
    ///
    /// # Panics
    /// Without rollouts.
    pub fn of(rollouts: &[Rollout], group: usize) -> RolloutMetrics {
        assert!(!rollouts.is_empty(), "no rollouts to measure");
        let mean = |f: fn(&Rollout) -> f64| rollouts.iter().map(f).sum::<f64>() / rollouts.len() as f64;
        let rewards: Vec<f32> = rollouts.iter().map(|r| r.reward).collect();
        RolloutMetrics {
            reward: mean(|r| f64::from(r.reward)),
            thought_tokens: mean(|r| r.thought_tokens as f64),
            completion_tokens: mean(|r| r.tokens.len() as f64),
            truncated: mean(|r| f64::from(u8::from(!r.finished))),
            zero_variance: zero_variance(&rewards, group),
            entropy: 0.0,
            clipped_low: 0.0,
            clipped_high: 0.0,
            compared: 0,
            kl: None,
            level: None,
            levels: Vec::new(),
        }
    }
}

/// What there is to see of a run at a moment; made for drawing, kept by nobody.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Whatever the run needs was found to be in order.
    Begun,
    /// Something worth knowing, in a sentence.
    Note(&'a str),
    /// A stage (from 1) is tried for some steps, to know how many fit the budget.
    Timing {
        /// Which.
        stage: usize,
    },
    /// A teacher is at work on the problems that a stage will learn from.
    Teaching {
        /// Problems done,
        done: usize,
        /// of so many.
        of: usize,
    },
    /// A step is done.
    Step {
        /// What it was like.
        metrics: &'a StepMetrics,
        /// Steps of the whole run behind, and in all.
        run: (u64, u64),
        /// Steps of the whole run that the last checkpoint keeps.
        checkpoint: u64,
        /// Seconds of training behind, and ahead at the speed so far.
        seconds: (f64, f64),
        /// A rollout of the step, prompt and completion.
        sample: Option<&'a Rollout>,
    },
    /// The published model that the run starts from is measured.
    Base(&'a Results),
    /// Held-out problems of a level are being answered.
    Measuring {
        /// Which.
        level: u32,
        /// Problems done,
        done: usize,
        /// of so many.
        of: usize,
    },
    /// The learning curve has another point.
    Point(&'a Point),
    /// A stage is done and measured.
    Measured(&'a StageReport),
    /// The model that the run is compared with begins to train.
    Control,
}

/// Whoever watches a run.
pub type Watch<'a> = dyn FnMut(&Progress<'_>) + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    impl StepMetrics {
        /// A step for tests.
        pub(crate) fn example() -> StepMetrics {
            StepMetrics {
                stage: 2,
                kind: StageKind::Grpo,
                step: 3,
                steps: 80,
                learning_rate: 1e-4,
                loss: -0.012_345_678_9,
                mtp_loss: None,
                gradient_norm: 0.7,
                tokens: 12_000,
                wall_s: 4.0,
                rollouts: Some(RolloutMetrics::of(&[Rollout::example(), Rollout::example()], 2)),
            }
        }
    }

    #[test]
    fn measurements_survive_json() {
        let metrics = StepMetrics::example();
        assert_eq!(metrics.tokens_per_second(), 3000.0);
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<StepMetrics>(&text).unwrap(), metrics);
        let bare = StepMetrics { rollouts: None, kind: StageKind::Sft, ..metrics };
        let text = serde_json::to_string(&bare).unwrap();
        assert!(text.contains("\"kind\":\"sft\"") && !text.contains("rollouts"), "{text}");
        assert_eq!(serde_json::from_str::<StepMetrics>(&text).unwrap(), bare);
    }

    #[test]
    fn rollouts_are_averaged() {
        let good = Rollout::example();
        let bad = Rollout { reward: 0.0, finished: false, thought_tokens: 0, tokens: vec![1], ..Rollout::example() };
        let metrics = RolloutMetrics::of(&[good.clone(), bad, good.clone(), good.clone()], 2);
        assert_eq!((metrics.reward, metrics.truncated, metrics.zero_variance), (0.75, 0.25, 0.5));
        assert_eq!(metrics.thought_tokens, 0.75 * good.thought_tokens as f64);
        assert_eq!(metrics.completion_tokens, (3.0 * good.tokens.len() as f64 + 1.0) / 4.0);
    }
}
