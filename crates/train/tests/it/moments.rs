//! Moments in bf16 train a model about as well as those in f32.

use std::convert::Infallible;

use minke_kernels::optimizer::AdamW;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::Activations;
use minke_model::families::config_from_json;
use minke_train::learner::{Example, Learner, Step, initial_values};
use serde_json::json;

const VOCABULARY: u32 = 41;
const BATCH: usize = 8;
const STEPS: u32 = 150;

/// Numbers that go on by one difference, each example by another; what comes third is known.
fn examples(seed: u64, count: usize) -> Vec<Example> {
    let mut random = Random::new(seed, [0; 3]);
    let mut example = || {
        let (first, difference) = (random.below(VOCABULARY), 1 + random.below(6));
        let tokens = (0..12).map(|i| (first + i * difference) % VOCABULARY).collect();
        Example { tokens, prompt: 2 }
    };
    (0..count).map(|_| example()).collect()
}

/// The mean loss on held-out examples, before and after training with moments in `dtype`.
fn losses(cpu: &Cpu, dtype: Dtype) -> (f64, f64) {
    let config = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "tie_word_embeddings": true,
    });
    let config = config_from_json(&config).unwrap();
    let mut learner = Learner::new(cpu, &config, Dtype::F32, Activations::training(), initial_values(&config, 1, 0.05))
        .remembering(dtype);
    assert_eq!((learner.m.dtype(), learner.v.dtype()), (dtype, dtype));
    let (held_out, learnt) = (examples(1, 64), examples(2, STEPS as usize * BATCH));
    let measure = |learner: &mut Learner<'_>| {
        let log_probs = learner.log_probs(&held_out);
        -log_probs.iter().map(|x| f64::from(*x)).sum::<f64>() / log_probs.len() as f64
    };
    let before = measure(&mut learner);
    for (step, batch) in (0..STEPS).zip(learnt.chunks(BATCH)) {
        let even = |rows: &[_]| Ok::<_, Infallible>(vec![-1.0 / rows.len() as f32; rows.len()]);
        learner.pass(batch, 1.0, 0.0, even).unwrap_or_else(|never| match never {});
        let rate = 1e-2 * f64::from(STEPS - step) / f64::from(STEPS);
        let adamw = AdamW { learning_rate: rate, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        learner.update(&Step { adamw, muon: None, clip: 1.0, bias_rate: 0.0 });
    }
    (before, measure(&mut learner))
}

#[test]
fn a_model_learns_as_well_from_moments_in_bf16() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 2);
    let [(before, wide), (_, narrow)] = [Dtype::F32, Dtype::Bf16].map(|dtype| losses(&cpu, dtype));
    assert!(wide < 0.35 * before, "{before} before, {wide} after: too little is learnt to be a test");
    // By chance one of them may be a little ahead; lost is at most a hundredth of what is learnt.
    assert!((narrow - wide).abs() < 0.01 * (before - wide), "{before} before, {wide} in f32, {narrow} in bf16");
    assert_ne!(narrow, wide, "rounding changes something");
}
