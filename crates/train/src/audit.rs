//! Before a run's first step: that its gradients are gradients, and that every tensor has one.
//!
//! In f32 and on random tokens, whatever the run's dtype and task: a defect of the backward pass would otherwise show as
//! nothing but a model that learns a little less.

use std::convert::Infallible;

use minke_kernels::log_prob::LogProb;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype};
use minke_model::{Config, Error, Parameter, Result};

use crate::learner::{Example, Learner};

/// First word of the random stream that tokens are drawn from.
const TOKENS: u32 = 0x6175_6469;
/// Sequences, and tokens of each.
const SEQUENCES: usize = 4;
const LENGTH: usize = 24;
/// By how much the mean log-probability is to change along the gradient, on either side.
const CHANGE: f64 = 0.01;
/// How far the change may be from what the gradient says: the function is curved, and a token may choose another expert.
const TOLERANCE: f64 = 0.05;

/// Checks the gradients of a model with these values.
///
/// # Errors
/// The tensor that no gradient reaches, or how far the gradient is from the function's own change.
pub fn check(cpu: &Cpu, config: &Config, values: &[f32], seed: u32) -> Result<()> {
    let mut random = Random::new(u64::from(seed), [TOKENS, 0, 0]);
    let length = LENGTH.min(config.max_positions);
    let mut sequence = || (0..length).map(|_| random.below(config.vocab_size as u32)).collect();
    let examples: Vec<Example> = (0..SEQUENCES).map(|_| Example { tokens: sequence(), prompt: 1 }).collect();
    if length < 2 {
        return Ok(());
    }
    let mut learner = Learner::new(cpu, config, Dtype::F32, true, values.to_vec());
    let even = |log_probs: &[LogProb]| Ok(vec![-1.0 / log_probs.len() as f32; log_probs.len()]);
    // The block for multi-token prediction counts as much as the model, if there is one that learns.
    let ahead = if config.predictions > 0 { examples.iter().map(Example::ahead).sum() } else { 0 };
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
    let squares: f64 = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
    let step = (CHANGE / squares) as f32;
    let mut mean = |sign: f32| {
        let moved: Vec<f32> = values.iter().zip(&gradient).map(|(x, g)| x - sign * step * g).collect();
        if ahead > 0 {
            let mut own = 0.0;
            learner.move_to(moved);
            let done = learner.pass_ahead::<Infallible>(&examples, 1.0, 0.0, weight, |log_probs| {
                own = log_probs.iter().map(|row| f64::from(row.log_prob)).sum::<f64>() / log_probs.len() as f64;
                Ok(vec![0.0; log_probs.len()])
            });
            return own + done.unwrap_or_else(|never| match never {}) / ahead as f64;
        }
        let moved = learner.with(&moved);
        let log_probs = learner.log_probs_under(&moved, &examples, 1.0);
        log_probs.iter().map(|&x| f64::from(x)).sum::<f64>() / log_probs.len() as f64
    };
    let change = (mean(1.0) - mean(-1.0)) / 2.0;
    // Written so that NaN is a difference.
    if (change / CHANGE - 1.0).abs() <= TOLERANCE {
        return Ok(());
    }
    Err(Error::new(format!(
        "a step along the gradient changes the mean log-probability by {change:.5}, where the gradient says {CHANGE}; either the \
         model's weights are too large for f32 arithmetic, or this is a defect of minke: please report it with the recipe"
    )))
}

#[cfg(test)]
mod tests {
    use minke_kernels::Isa;

    use super::*;
    use crate::learner::initial_values;
    use crate::learner::tests::mixture;

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
}
