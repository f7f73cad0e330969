//! Before a run's first step: that its gradients are gradients, and that every tensor has one.
//!
//! In f32 and on random tokens, whatever the run's dtype and task: a defect of the backward pass would otherwise show as
//! nothing but a model that learns a little less.

use std::convert::Infallible;

use minke_kernels::log_prob::LogProb;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype};
use minke_model::parameters::Initial;
use minke_model::{Activations, Config, Error, Parameter, Result};

use crate::learner::{Example, Learner};

/// First words of the random streams that tokens are drawn from, and adapters.
const TOKENS: u32 = 0x6175_6469;
const ADAPTERS: u32 = 0x6c6f_7261;
/// Sequences, and tokens of each.
const SEQUENCES: usize = 4;
const LENGTH: usize = 24;
/// By how much the mean log-probability is to change along the gradient, on either side.
const CHANGE: f64 = 0.01;
/// How far the change may be from what the gradient says: the function is curved, and a token may choose another expert.
const TOLERANCE: f64 = 0.05;
/// How far parameters may move for it, by their norm: adapters alone have little gradient, and much curvature.
const FURTHEST: f64 = 0.05;
/// Standard deviation of the adapters' second matrices while they are checked: with zeros the first would have no gradient.
const DEVIATION: f32 = 0.02;

/// Checks the gradients of a model with these values.
///
/// # Errors
/// The tensor that no gradient reaches, or how far the gradient is from the function's own change.
pub fn check(cpu: &Cpu, config: &Config, values: &[f32], seed: u32) -> Result<()> {
    check_along(Learner::new(cpu, config, Dtype::F32, Activations::within(0), values.to_vec()), values, seed)
}

/// Checks the gradients of adapters that change nothing yet, with others in their place.
///
/// # Errors
/// As [`check`].
pub fn check_adapters(mut learner: Learner<'_>, seed: u32) -> Result<()> {
    let mut values = std::mem::take(&mut learner.values);
    for (i, parameter) in learner.transformer().learnt().iter().enumerate() {
        if parameter.initial == Initial::Zeros {
            let mut random = Random::new(u64::from(seed), [ADAPTERS, 0, i as u32]);
            values[parameter.range()].iter_mut().for_each(|x| *x = DEVIATION * random.normal());
        }
    }
    learner.move_to(values.clone());
    check_along(learner, &values, seed)
}

/// Checks the gradient at the learner's values, which are those at the start: there is no room for one more copy of them where a
/// model's training just fits.
fn check_along(mut learner: Learner<'_>, start: &[f32], seed: u32) -> Result<()> {
    let config = learner.transformer().config();
    let mut random = Random::new(u64::from(seed), [TOKENS, 0, 0]);
    let length = LENGTH.min(config.max_positions);
    let mut sequence = || (0..length).map(|_| random.below(config.vocab_size as u32)).collect();
    let examples: Vec<Example> = (0..SEQUENCES).map(|_| Example { tokens: sequence(), prompt: 1 }).collect();
    if length < 2 {
        return Ok(());
    }
    let even = |log_probs: &[LogProb]| Ok(vec![-1.0 / log_probs.len() as f32; log_probs.len()]);
    // The block for multi-token prediction counts as much as the model, if there is one that learns.
    let ahead = if learner.looks_ahead() { examples.iter().map(Example::ahead).sum() } else { 0 };
    let weight = if ahead > 0 { 1.0 / ahead as f32 } else { 0.0 };
    match learner.pass_ahead::<Infallible>(&examples, 1.0, 0.0, weight, even) {
        Ok(_) => {}
        Err(never) => match never {},
    }
    let gradient = learner.take_gradient().unwrap_or_default();
    let parameters = learner.parameters();
    let idle = |parameter: &Parameter| gradient[parameter.range()].iter().all(|g| *g == 0.0);
    for parameter in parameters.iter().filter(|parameter| parameter.trainable && idle(parameter)) {
        // An expert that no token chose has none either, in all of its tensors.
        let of_expert = |name: &str| {
            name.split_once(".mlp.experts.").map(|(_, rest)| name.len() - rest.len() + rest.find('.').unwrap_or(0))
        };
        let unchosen = of_expert(&parameter.name).is_some_and(|end| {
            parameters.iter().filter(|other| other.name.starts_with(&parameter.name[..=end])).all(idle)
        });
        if !unchosen {
            return Err(Error::new(format!(
                "no gradient reaches {}, so that it would never learn; this is a defect of minke: please report it with the \
                 recipe",
                parameter.name
            )));
        }
    }
    let squares = |x: &[f32]| x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let (size, furthest) = (squares(&gradient), FURTHEST * squares(start).sqrt());
    let step = (CHANGE / size).min(furthest / size.sqrt());
    let (expected, step) = (step * size, step as f32);
    let mut mean = |sign: f32| {
        let mut moved = std::mem::take(&mut learner.values);
        moved.iter_mut().zip(start).zip(&gradient).for_each(|((moved, x), g)| *moved = x - sign * step * g);
        learner.move_to(moved);
        if ahead == 0 {
            let log_probs = learner.log_probs(&examples);
            return log_probs.iter().map(|&x| f64::from(x)).sum::<f64>() / log_probs.len() as f64;
        }
        let mut own = 0.0;
        let done = learner.pass_ahead::<Infallible>(&examples, 1.0, 0.0, weight, |log_probs| {
            own = log_probs.iter().map(|row| f64::from(row.log_prob)).sum::<f64>() / log_probs.len() as f64;
            Ok(vec![0.0; log_probs.len()])
        });
        own + done.unwrap_or_else(|never| match never {}) / ahead as f64
    };
    let change = (mean(1.0) - mean(-1.0)) / 2.0;
    // Written so that NaN is a difference.
    if (change / expected - 1.0).abs() <= TOLERANCE {
        return Ok(());
    }
    Err(Error::new(format!(
        "a step along the gradient changes the mean log-probability by {change:.6}, where the gradient says \
         {expected:.6}; either the model's weights are too large for f32 arithmetic, or this is a defect of minke: please \
         report it with the recipe"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minke_kernels::Isa;
    use minke_model::{Lora, Source, Transformer};

    use super::*;
    use crate::learner::tests::mixture;
    use crate::learner::{initial_adapters, initial_values};

    #[test]
    fn sound_models_pass_and_a_tensor_without_a_gradient_is_named() {
        let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
        // Layer 2 is the block for multi-token prediction.
        for (predictions, layer) in [(0, 1), (1, 1), (1, 2)] {
            let config = Config { predictions, ..mixture() };
            for (seed, deviation) in [(1, 0.02), (2, 0.2)] {
                let mut values = initial_values(&config, seed, deviation);
                assert_eq!(check(&cpu, &config, &values, 7).map_err(|e| e.to_string()), Ok(()));
                // Where the output is zero whatever the rest says, the rest learns nothing.
                let output = format!("model.layers.{layer}.self_attn.o_proj.weight");
                let parameters = minke_model::Parameters::learnt(&config);
                let output = parameters.find(&output).unwrap();
                values[output.range()].fill(0.0);
                let error = check(&cpu, &config, &values, 7).unwrap_err().to_string();
                assert!(error.starts_with(&format!("no gradient reaches model.layers.{layer}.")), "{error}");
            }
        }
    }

    #[test]
    fn adapters_are_checked_though_they_begin_at_zero() {
        let config = mixture();
        let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
        let mut values = initial_values(&config, 1, 0.2);
        let lora = Arc::new(Lora::new(&config, 4, 2.0, Dtype::F32, None).unwrap());
        let check = |values: &[f32]| {
            let base = Transformer::new(&cpu, &config, Dtype::F32.into(), Source::Arena(values)).unwrap();
            let learner = Learner::adapting(&cpu, &base, &lora, Activations::within(0), initial_adapters(&lora, 1));
            check_adapters(learner, 7).map_err(|error| error.to_string())
        };
        assert_eq!(check(&values), Ok(()));
        // Behind a norm of zeros nothing is learnt.
        let parameters = minke_model::Parameters::of(&config);
        values[parameters.find("model.norm.weight").unwrap().range()].fill(0.0);
        let error = check(&values).unwrap_err();
        assert!(error.starts_with("no gradient reaches model.layers.0.self_attn."), "{error}");
    }
}
