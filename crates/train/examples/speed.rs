//! Times training steps (forward, backward, AdamW) on random tokens, or sampling, for `bench/training.py`.
//!
//! `cargo run --release -p minke-train --example speed -- MODEL [f32|bf16] [STEPS] [SEQUENCES] [LENGTH] [generate]` prints one
//! JSON line; MODEL is dsv3, llama10m, llama3m or smollm2 (the shape of SmolLM2-135M), with random weights.

use std::convert::Infallible;
use std::time::Instant;

use minke_engine::{Engine, Limits, Request, RequestId, Sampling, Seed, TransformerDecoder};
use minke_kernels::optimizer::AdamW;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype};
use minke_model::families::config_from_json;
use minke_model::{Activations, Config};
use minke_train::learner::{Example, Learner, Step, initial_values};
use serde_json::{Value, json};

/// Tokens of a pass, at most: a pass is large enough to fill the machine, and small enough to fit its caches and memory.
const PASS: usize = 2048;
/// Steps before those that count.
const WARM_UP: usize = 2;
/// Tokens of the prompt that sampled sequences share.
const PROMPT: usize = 46;

fn config(name: &str) -> Option<Config> {
    let llama = |hidden: usize, layers: usize, inner: usize, heads: usize| {
        json!({
            "model_type": "llama", "vocab_size": 128, "hidden_size": hidden, "num_hidden_layers": layers,
            "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": heads,
            "tie_word_embeddings": true, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        })
    };
    let json: Value = match name {
        "dsv3" => json!({
            "model_type": "deepseek_v3", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 768,
            "moe_intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8,
            "n_shared_experts": 1, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
            "first_k_dense_replace": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5, "q_lora_rank": 96,
            "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
        }),
        "smollm2" => json!({
            "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30,
            "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": true,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        }),
        "llama10m" => llama(384, 6, 1024, 6),
        "llama3m" => llama(256, 4, 688, 4),
        _ => return None,
    };
    config_from_json(&json).ok()
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), String> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let usage = "usage: speed dsv3|llama10m|llama3m|smollm2 [f32|bf16] [STEPS] [SEQUENCES] [LENGTH] [generate]";
    let dtype = match std::env::args().nth(2).as_deref() {
        None | Some("bf16") => Dtype::Bf16,
        Some("f32") => Dtype::F32,
        Some(_) => return Err(usage.into()),
    };
    let number = |place, default: usize| match std::env::args().nth(place) {
        None => Ok(default),
        Some(text) => text.parse().ok().filter(|&n| n > 0).ok_or(usage),
    };
    let (steps, batch, length) = (number(3, 6)?, number(4, 32)?, number(5, 256)?);
    let config = config(&name).ok_or(usage)?;
    let cpu = Cpu::detect()?;
    let mut learner = Learner::new(&cpu, &config, dtype, Activations::training(), initial_values(&config, 1, 0.02));
    let generating = match std::env::args().nth(6).as_deref() {
        None => false,
        Some("generate") => true,
        Some(_) => return Err(usage.into()),
    };
    let mut counted = Vec::new();
    for step in 0..steps + WARM_UP {
        let start = Instant::now();
        match generating {
            true => generate(&learner, (batch, length), step as u32)?,
            false => learn(&mut learner, (batch, length), step as u32)?,
        }
        counted.extend((step >= WARM_UP).then(|| start.elapsed().as_secs_f64()));
    }
    counted.sort_by(f64::total_cmp);
    let median = counted[counted.len() / 2];
    let line = json!({
        "model": name, "dtype": dtype.name(), "isa": cpu.isa().name(), "threads": cpu.pool().threads(), "parameters": learner.values.len(),
        "sequences": batch, "length": length, "step_s": median, "tok_s": (batch * length) as f64 / median,
    });
    println!("{line}");
    Ok(())
}

/// A step on `batch` sequences of `length` tokens.
fn learn(learner: &mut Learner<'_>, (batch, length): (usize, usize), step: u32) -> Result<(), String> {
    let vocabulary = learner.transformer().config().vocab_size as u32;
    let mut random = Random::new(1, [step, 0, 0]);
    let mut tokens = |count| (0..count).map(|_| random.below(vocabulary)).collect();
    let examples: Vec<Example> = (0..batch).map(|_| Example { tokens: tokens(length + 1), prompt: 1 }).collect();
    for examples in examples.chunks((PASS / length).max(1)) {
        let weight = -1.0 / (batch * length) as f32;
        let done = learner.pass(examples, 1.0, 0.0, |rows| Ok::<_, Infallible>(vec![weight; rows.len()]));
        done.map_err(|never| -> String { match never {} })?;
    }
    let adamw = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    learner.update(&Step { adamw, muon: None, clip: f32::INFINITY, bias_rate: 0.0 });
    Ok(())
}

/// Samples `batch` sequences of `length` tokens after one prompt, with their log-probabilities.
fn generate(learner: &Learner<'_>, (batch, length): (usize, usize), step: u32) -> Result<(), String> {
    let transformer = learner.transformer();
    let mut random = Random::new(1, [step, 0, 0]);
    let prompt: Vec<u32> = (0..PROMPT).map(|_| random.below(transformer.config().vocab_size as u32)).collect();
    let requests = (0..batch).map(|i| Request {
        id: RequestId(i as u64),
        prompt: prompt.clone(),
        sampling: Sampling { seed: Seed { seed: 1, stream: [step, 0, i as u32] }, ..Sampling::default() },
        limit: length,
        stop: Vec::new(),
        thought: None,
    });
    let mut decoder = TransformerDecoder::new(learner.cpu(), transformer);
    let mut engine = Engine::new(&decoder, Limits::within(1 << 30, transformer.kv_layout()));
    let outcomes = engine.generate(&mut decoder, requests.collect()).map_err(|refused| refused.to_string())?;
    let sampled: usize = outcomes.iter().map(|outcome| outcome.tokens.len()).sum();
    if sampled == batch * length { Ok(()) } else { Err(format!("{sampled} tokens were sampled")) }
}
