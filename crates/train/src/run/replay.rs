//! Replay: the rollouts of any step of a run, sampled again from the nearest checkpoint before it.
//!
//! Nothing of the run is written. What is between the checkpoint and the step is trained again, to the same bits.

use minke_kernels::Cpu;
use minke_model::{Error, Result};

use super::directory::choices;
use super::{Options, Setup};
use crate::budget;
use crate::checkpoint;
use crate::corpus::Corpus;
use crate::generate::Generator;
use crate::recipe::{Recipe, Stage};
use crate::rollouts::Rollout;
use crate::sequences::{Sequences, check_files};
use crate::step::{At, Material, advance};
use crate::{distil, distillation, grpo, reference};

/// The rollouts of step `number` (from 1, over all stages) of the run in `options.directory`, whose recipe is `text`, judged
/// and weighed. `heed` hears of each step that is trained again, and which one is the goal.
///
/// # Errors
/// One sentence: that the step samples nothing or does not exist, or what is wrong with the run's files.
pub fn replay(
    cpu: &Cpu,
    name: &str,
    text: &str,
    options: &Options<'_>,
    number: u64,
    mut heed: impl FnMut(u64),
) -> Result<Vec<Rollout>> {
    let recipe = Recipe::parse(name, text)?;
    let run = options.directory;
    let choices = choices(run, text, None)?;
    let (setup, values) = Setup::new(cpu, &recipe, choices.seed.unwrap_or(recipe.seed), options)?;
    let Setup { task, format, .. } = &setup;
    task.remember(&run.join("task.jsonl"), false)?;
    let all = checkpoint::list(run)?;
    let Some((_, any)) = all.first() else {
        return Err(Error::new(format!("the run in {} has no checkpoint left to replay from", run.display())));
    };
    let before = checkpoint::newest(run, number.saturating_sub(1))?;
    let is_before = before.is_some();
    let saved = before.map_or_else(|| checkpoint::load(any), |newest| Ok(newest.checkpoint))?;
    if saved.values.len() != values.len() || !saved.state.fits(recipe.stages.len()) {
        return Err(Error::new(format!("{} has a checkpoint of another run; remove it", run.display())));
    }
    if !options.accept {
        saved.state.domain.check(&setup.domain)?;
    }
    check_files(&saved.state.texts, &setup.files())?;
    let state = saved.state;
    let (mut learner, mut stage, mut step, mut total) = (setup.learner(values), 0, 0, 0);
    if is_before {
        learner.restore(saved.values, saved.m, saved.v, state.updates);
        (stage, step, total) = (state.stage, state.step, state.total_steps);
    }
    let mut curriculum = state.curriculum.filter(|_| is_before);
    let mut generator = Generator::new(&**task, format);
    let mut material = Material::default();
    let stages = budget::sized(&recipe.stages, state.budget.as_ref());
    while let Some(current) = stages.get(stage) {
        let steps = state.plan[stage];
        if step == steps {
            (stage, step, material) = (stage + 1, 0, Material::default());
            continue;
        }
        if step == 0 {
            learner.reset_optimizer();
            curriculum = current.curriculum();
        }
        if matches!(current, Stage::Distil(_)) && material.corpus.is_none() {
            material.corpus = Some(Corpus::of(&distil::read(run, stage + 1)?, format, state.seed));
        }
        if material.text.is_none() {
            material.text = Sequences::of(current, setup.texts[stage].as_ref(), &**task, format, state.seed)?;
        }
        if material.reference.is_none() {
            material.reference = distillation::teacher(cpu, current, options.find, &setup.config, format.tokenizer())?;
        }
        if current.has_reference() && material.reference.is_none() {
            let values = match (step, state.reference) {
                (0, _) | (_, None) => learner.values.clone(),
                (_, Some(crc32)) => reference::read(run, stage + 1, learner.values.len(), crc32)?,
            };
            material.reference = Some(learner.with(&values));
        }
        let at = At { seed: state.seed as u32, index: step, steps, number: total + 1 };
        if at.number == number {
            let Stage::Grpo(grpo) = current else {
                return Err(Error::new(format!(
                    "step {number} is of stage {}, which samples nothing; give a step of a grpo stage",
                    stage + 1
                )));
            };
            return Ok(grpo::sample(&mut generator, &learner, grpo, curriculum.as_ref(), at.seed, number)?.0);
        }
        heed(at.number);
        advance(&mut learner, &mut generator, &mut material, curriculum.as_mut(), current, at)?;
        (step, total) = (step + 1, total + 1);
    }
    let last: u64 = state.plan.iter().map(|&steps| u64::from(steps)).sum();
    Err(Error::new(format!("the run has the steps 1 to {last}; give one of these with --step")))
}
