//! Group-relative policy optimisation (arXiv 2402.03300): one step of a `grpo` stage.
//!
//! Prompts are drawn, a group of completions is sampled for each, rewards become advantages within the group, and the
//! model is moved; a penalty may hold it to the model as it was when the stage began. What is left out: a critic. What is
//! kept that others lose: the log-probabilities that were recorded at sampling are those that the trainer computes, bit
//! for bit, and each step checks it before its first update.

use minke_kernels::random::Random;
use minke_model::{Error, Result, Transformer};

use crate::advantages::advantages;
use crate::curriculum::Curriculum;
use crate::generate::{Ask, Drawing, Generator};
use crate::learner::{self, Example, Learner};
use crate::loss::{Tokens, Totals, token_losses};
use crate::progress::RolloutMetrics;
use crate::recipe::Grpo;
use crate::rollouts::Rollout;
use crate::tasks::{Item, Split, training_item};

/// First word of the random streams that prompts are drawn from.
const PROMPTS: u32 = 0x6772_706f;

/// What a step came to.
pub struct Step {
    /// Everything that was sampled, judged and weighed.
    pub rollouts: Vec<Rollout>,
    /// Its means.
    pub metrics: RolloutMetrics,
    /// The loss before the first update.
    pub loss: f64,
    /// Norm of the gradient before clipping, of the last update.
    pub gradient_norm: f32,
    /// Tokens sampled and tokens learnt from.
    pub tokens: u64,
}

/// Draws the problems of a step (counted over the whole run), by the stage's curriculum as far as it has come, samples and judges
/// a group of completions for each, and weighs them. Groups whose rewards are all equal teach nothing: as far as the stage has
/// refills, further problems are drawn in their place. All rollouts are returned, and the mean entropy of a token's
/// distribution, in nats.
///
/// # Errors
/// Those of [`Generator::complete`].
pub fn sample(
    generator: &mut Generator<'_>,
    learner: &Learner<'_>,
    stage: &Grpo,
    curriculum: Option<&Curriculum>,
    seed: u32,
    step: u64,
) -> Result<(Vec<Rollout>, f64)> {
    let task = generator.task();
    let draw = |prompt: u32| {
        let mut random = Random::new(u64::from(seed), [PROMPTS, step as u32, prompt]);
        let item = match curriculum {
            Some(curriculum) => task.sample(Split::Train, curriculum.draw(&mut random), &mut random),
            None => training_item(task, &stage.levels, &mut random),
        };
        (prompt, item)
    };
    let drawing = Drawing { seed, temperature: stage.temperature, limit: stage.max_new_tokens as usize };
    let (mut rollouts, mut entropy): (Vec<Rollout>, f64) = (Vec::new(), 0.0);
    let mut missing = stage.prompts;
    for _ in 0..=stage.refills {
        let first = rollouts.len() as u32 / stage.samples;
        let problems: Vec<(u32, Item)> = (first..first + missing).map(draw).collect();
        let asks: Vec<Ask<'_>> = problems
            .iter()
            .flat_map(|(prompt, item)| {
                (0..stage.samples).map(move |sample| Ask { item, stream: [step as u32, *prompt, sample] })
            })
            .collect();
        let sampled = generator.complete(learner.cpu(), learner.transformer(), &asks, drawing)?;
        entropy += sampled.entropy * tokens(&sampled.rollouts) as f64;
        rollouts.extend(sampled.rollouts);
        missing = stage
            .prompts
            .saturating_sub(rollouts.chunks(stage.samples as usize).filter(|group| speaks(group)).count() as u32);
        if missing == 0 {
            break;
        }
    }
    generator.rest();
    let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.reward).collect();
    let advantages = advantages(&rewards, stage.samples as usize, stage.scale);
    rollouts.iter_mut().zip(advantages).for_each(|(rollout, advantage)| rollout.advantage = advantage);
    let mean = entropy / tokens(&rollouts).max(1) as f64;
    Ok((rollouts, mean))
}

/// Whether a group's rewards differ.
fn speaks(group: &[Rollout]) -> bool {
    group.iter().any(|rollout| rollout.reward != group[0].reward)
}

/// Tokens of all completions together.
fn tokens(rollouts: &[Rollout]) -> usize {
    rollouts.iter().map(|rollout| rollout.tokens.len()).sum()
}

/// Learns from a step's rollouts: `stage.updates` updates, a pass for each group. `reference` is the model
/// that the stage is held to, where its objective has a penalty.
///
/// A group that has nothing to say is passed over: one whose rewards were all equal, unless there is a penalty, or whose
/// completions are all left out.
///
/// # Errors
/// When a log-probability is not, to the bit, the one that was recorded at sampling.
pub fn learn(
    learner: &mut Learner<'_>,
    reference: Option<&Transformer>,
    rollouts: Vec<Rollout>,
    entropy: f64,
    stage: &Grpo,
    alpha: f32,
    update: &learner::Step,
) -> Result<Step> {
    let mut metrics = RolloutMetrics::of(&rollouts, stage.samples as usize);
    metrics.entropy = entropy;
    let inverse_temperature = 1.0 / stage.temperature;
    let mut groups = groups(&rollouts, stage);
    let mut tokens = tokens(&rollouts) as u64;
    let totals = Totals {
        completions: stage.prompts as usize * stage.samples as usize,
        tokens: groups.iter().map(|group| group.old.len()).sum(),
        max_completion_length: stage.max_new_tokens as usize,
        parts: stage.prompts as usize,
    };
    groups.retain(|group| !group.examples.is_empty());
    match reference {
        Some(reference) => {
            for group in &mut groups {
                group.reference = learner.log_probs_under(reference, &group.examples, inverse_temperature);
            }
        }
        None => groups.retain(|group| group.advantages.iter().any(|advantage| *advantage != 0.0)),
    }
    // The balance loss is a mean over the step's sequences.
    let alpha = alpha / totals.completions as f32;
    let (mut loss, mut divergence, mut gradient_norm, mut clipped) = (0.0, 0.0, 0.0, (0, 0));
    for pass in 0..stage.updates {
        for group in &groups {
            tokens += group.examples.iter().map(|example| example.tokens.len() as u64).sum::<u64>();
            learner.pass(&group.examples, inverse_temperature, alpha, |log_probs| {
                let new: Vec<f32> = log_probs.iter().map(|row| row.log_prob).collect();
                if pass == 0 {
                    check(&new, &group.old, group.prompt)?;
                    metrics.compared += new.len() as u64;
                }
                let losses = token_losses(&stage.objective, totals, group.tokens(&new));
                if pass == 0 {
                    loss += losses.loss;
                    divergence += losses.divergence;
                }
                clipped = (clipped.0 + losses.clipped_low, clipped.1 + losses.clipped_high);
                Ok::<_, Error>(losses.gradient)
            })?;
        }
        gradient_norm = learner.update(update);
    }
    let seen = (totals.tokens * stage.updates as usize).max(1) as f64;
    (metrics.clipped_low, metrics.clipped_high) = (clipped.0 as f64 / seen, clipped.1 as f64 / seen);
    metrics.kl = reference.map(|_| divergence / totals.tokens.max(1) as f64);
    Ok(Step { rollouts, metrics, loss, gradient_norm, tokens })
}

/// The completions of one prompt that are learnt from.
struct Group<'r> {
    prompt: &'r str,
    examples: Vec<Example>,
    lengths: Vec<usize>,
    advantages: Vec<f32>,
    /// Log-probability of each token when it was sampled.
    old: Vec<f32>,
    /// Log-probability of each token under the reference, if there is one.
    reference: Vec<f32>,
}

/// As many groups of a step as the stage learns from, those whose rewards differ before any others; without the completions
/// that the stage leaves out.
fn groups<'r>(rollouts: &'r [Rollout], stage: &Grpo) -> Vec<Group<'r>> {
    let all = || rollouts.chunks(stage.samples as usize);
    let mut others = (stage.prompts as usize).saturating_sub(all().filter(|group| speaks(group)).count());
    let learnt = all().filter(|group| {
        let room = others > 0;
        speaks(group) || {
            others -= usize::from(room);
            room
        }
    });
    let group = |members: &'r [Rollout]| {
        let kept: Vec<&Rollout> = members.iter().filter(|r| r.finished || !stage.mask_truncated).collect();
        Group {
            prompt: &members[0].item.prompt,
            examples: kept.iter().map(|rollout| example(rollout)).collect(),
            lengths: kept.iter().map(|rollout| rollout.tokens.len()).collect(),
            advantages: kept.iter().map(|rollout| rollout.advantage).collect(),
            old: kept.iter().flat_map(|rollout| rollout.log_probs.iter().copied()).collect(),
            reference: Vec::new(),
        }
    };
    learnt.map(group).collect()
}

impl Group<'_> {
    /// Its tokens, whose log-probabilities are now `new`.
    fn tokens<'t>(&'t self, new: &'t [f32]) -> Tokens<'t> {
        Tokens {
            lengths: &self.lengths,
            advantages: &self.advantages,
            log_probs: new,
            old_log_probs: &self.old,
            reference_log_probs: &self.reference,
        }
    }
}

fn example(rollout: &Rollout) -> Example {
    let tokens = [&*rollout.prompt_tokens, &*rollout.tokens].concat();
    Example { prompt: rollout.prompt_tokens.len(), tokens }
}

/// What was sampled is what is trained.
fn check(new: &[f32], old: &[f32], prompt: &str) -> Result<()> {
    assert_eq!(new.len(), old.len(), "log-probabilities of other tokens");
    let Some(at) = (0..new.len()).find(|&i| new[i].to_bits() != old[i].to_bits()) else { return Ok(()) };
    Err(Error::new(format!(
        "the trainer's log-probability of token {at} in the group of {prompt} is {:e}, but {:e} was recorded when it was \
         sampled; this is a defect of minke: please report it with the recipe and the seed",
        new[at], old[at]
    )))
}
