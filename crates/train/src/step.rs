//! One step of a stage, of whatever kind, and what it learns from.

use std::sync::Arc;

use minke_kernels::optimizer::AdamW;
use minke_model::{Result, Transformer};

use crate::corpus::Corpus;
use crate::curriculum::Curriculum;
use crate::generate::Generator;
use crate::learner::{self, Learner};
use crate::recipe::{Learning, Optimizer, Stage};
use crate::sequences::Sequences;
use crate::spent::Spent;
use crate::{distillation, grpo, pretrain, sft};

/// What a stage learns from, besides rewards: the same from its first step to its last, and there before the first step that
/// needs it.
#[derive(Default)]
pub(crate) struct Material {
    /// Demonstrations, or what a teacher wrote.
    pub corpus: Option<Corpus>,
    /// Text.
    pub text: Option<Arc<Sequences>>,
    /// The model as it was when the stage began, if the stage is held to it; or a teacher, if its distributions are learnt.
    pub reference: Option<Transformer>,
}

/// Where in a training a step is.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub seed: u32,
    /// In its stage, from 0, and the stage's steps.
    pub index: u32,
    pub steps: u32,
    /// In the run, from 1.
    pub number: u64,
}

/// What one step came to.
pub(crate) struct Stepped {
    pub loss: f64,
    pub mtp_loss: Option<f64>,
    pub gradient_norm: f32,
    pub tokens: u64,
    pub rollouts: Option<grpo::Step>,
}

impl Stepped {
    /// What the step spent: its tokens, besides what a meter says.
    pub fn spent(&self, measured: Spent) -> Spent {
        let rollouts = self.rollouts.iter().flat_map(|step| &step.rollouts);
        let sampled_tokens: u64 = rollouts.map(|rollout| rollout.tokens.len() as u64).sum();
        Spent { sampled_tokens, learnt_tokens: self.tokens - sampled_tokens, ..measured }
    }
}

impl From<sft::Learnt> for Stepped {
    fn from(sft::Learnt { loss, mtp_loss, gradient_norm, tokens }: sft::Learnt) -> Stepped {
        Stepped { loss, mtp_loss, gradient_norm, tokens, rollouts: None }
    }
}

/// Takes one step of a stage.
///
/// # Errors
/// Those of the stage's kind.
pub(crate) fn advance(
    learner: &mut Learner<'_>,
    generator: &mut Generator<'_>,
    material: &mut Material,
    curriculum: Option<&mut Curriculum>,
    stage: &Stage,
    at: At,
) -> Result<Stepped> {
    let (task, format) = (generator.task(), generator.format());
    let update = settings(stage.learning(), at.index, at.steps);
    let (alpha, mtp) = (stage.learning().balance, stage.mtp());
    match stage {
        Stage::Pretrain(pretrain) => {
            let text = material.text.as_ref().unwrap_or_else(|| unreachable!("text is there before the first step"));
            let seed = u64::from(at.seed);
            Ok(pretrain::step(learner, text, pretrain.batch, seed, at.index, alpha, mtp, &update).into())
        }
        Stage::Sft(sft) => {
            let corpus = material.corpus.get_or_insert_with(|| Corpus::new(task, sft, u64::from(at.seed)));
            task.health()?;
            let examples = sft::examples(task, format, corpus, sft.batch, at.index)?;
            Ok(sft::step(learner, &examples, alpha, mtp, &update).into())
        }
        Stage::Distil(distil) => {
            let corpus = material.corpus.as_ref();
            let corpus = corpus.unwrap_or_else(|| unreachable!("traces are there before the first step"));
            let examples = sft::examples(task, format, corpus, distil.batch, at.index)?;
            if distil.kl == 0.0 {
                return Ok(sft::step(learner, &examples, alpha, mtp, &update).into());
            }
            let teacher = material.reference.as_ref();
            let teacher = teacher.unwrap_or_else(|| unreachable!("a teacher is there before the first step"));
            Ok(distillation::step(learner, teacher, &examples, distil.kl, alpha, &update)?.into())
        }
        Stage::Grpo(grpo) => {
            let known = curriculum.as_deref();
            let (sampled, entropy) = grpo::sample(generator, learner, grpo, known, at.seed, at.number)?;
            let reference = material.reference.as_ref();
            let mut done = grpo::learn(learner, reference, sampled, entropy, grpo, alpha, &update)?;
            if let (Some(curriculum), Some(promote_at)) = (curriculum, grpo.promote_at) {
                done.metrics.levels = curriculum.step(&done.rollouts, grpo.samples as usize, promote_at);
                let levels = done.rollouts.iter().map(|rollout| f64::from(rollout.item.level));
                done.metrics.level = Some(levels.sum::<f64>() / done.rollouts.len() as f64);
            }
            let (loss, gradient_norm, tokens) = (done.loss, done.gradient_norm, done.tokens);
            Ok(Stepped { loss, mtp_loss: None, gradient_norm, tokens, rollouts: Some(done) })
        }
    }
}

/// The optimiser's settings of a step.
fn settings(learning: &Learning, index: u32, steps: u32) -> learner::Step {
    learner::Step {
        adamw: AdamW {
            learning_rate: f64::from(learning.rate(index, steps)),
            beta1: f64::from(learning.beta1),
            beta2: f64::from(learning.beta2),
            eps: 1e-8,
            weight_decay: f64::from(learning.weight_decay),
        },
        muon: match learning.optimizer {
            Optimizer::AdamW => None,
            Optimizer::Muon { momentum } => Some(f64::from(momentum)),
        },
        clip: learning.clip_norm,
        bias_rate: learning.bias_rate,
    }
}
