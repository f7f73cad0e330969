//! Times training steps (forward, backward, AdamW) on random tokens, for `bench/training.py`.
//!
//! `cargo run --release -p minke-train --example speed -- dsv3|llama10m|llama3m [f32|bf16] [STEPS]` prints one JSON line.

use std::convert::Infallible;
use std::time::Instant;

use minke_kernels::optimizer::AdamW;
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype};
use minke_model::Config;
use minke_model::families::config_from_json;
use minke_train::learner::{Example, Learner, Step, initial_values};
use serde_json::{Value, json};

/// Sequences of a step, tokens of a sequence, sequences of a pass.
const SHAPE: (usize, usize, usize) = (32, 256, 8);

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
        "llama10m" => llama(384, 6, 1024, 6),
        "llama3m" => llama(256, 4, 688, 4),
        _ => return None,
    };
    config_from_json(&json).ok()
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), String> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let usage = "usage: speed dsv3|llama10m|llama3m [f32|bf16] [STEPS]";
    let dtype = match std::env::args().nth(2).as_deref() {
        None | Some("bf16") => Dtype::Bf16,
        Some("f32") => Dtype::F32,
        Some(_) => return Err(usage.into()),
    };
    let steps: usize = std::env::args().nth(3).and_then(|n| n.parse().ok()).unwrap_or(6);
    let config = config(&name).ok_or(usage)?;
    let cpu = Cpu::detect()?;
    let mut learner = Learner::new(&cpu, &config, dtype, false, initial_values(&config, 1, 0.02));
    let (batch, length, leaf) = SHAPE;
    let adamw = AdamW { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let update = Step { adamw, muon: None, clip: f32::INFINITY, bias_rate: 0.0 };
    let mut seconds = Vec::new();
    for step in 0..steps + 2 {
        let mut random = Random::new(1, [step as u32, 0, 0]);
        let mut token = || random.below(config.vocab_size as u32);
        let examples: Vec<Example> =
            (0..batch).map(|_| Example { tokens: (0..=length).map(|_| token()).collect(), prompt: 1 }).collect();
        let start = Instant::now();
        for examples in examples.chunks(leaf) {
            let weight = -1.0 / (batch * length) as f32;
            let done = learner.pass(examples, 1.0, 0.0, |rows| Ok::<_, Infallible>(vec![weight; rows.len()]));
            done.map_err(|never| -> String { match never {} })?;
        }
        learner.update(&update);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut counted = seconds.split_off(2);
    counted.sort_by(f64::total_cmp);
    let median = counted[counted.len() / 2];
    let line = json!({
        "model": name, "dtype": dtype.name(), "isa": cpu.isa().name(), "threads": cpu.pool().threads(), "parameters": learner.values.len(),
        "step_s": median, "tok_s": (batch * length) as f64 / median,
    });
    println!("{line}");
    Ok(())
}
