//! Every family from GGUF: the model that it was converted from, number for number, and the tokens that llama.cpp goes on with.

use std::path::{Path, PathBuf};

use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::{Activations, Batch, Checkpoint, Source, Transformer, families};
use serde_json::Value;

const MODELS: [&str; 7] =
    ["llama-rope-meta", "qwen3", "qwen3-yarn", "qwen3_moe", "deepseek_v2", "deepseek_v2-lite", "deepseek_v3"];

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

#[test]
fn gguf_is_the_model_it_was_converted_from() {
    for name in MODELS {
        let ours = Checkpoint::open(&golden(&format!("gguf/{name}.gguf"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let theirs = Checkpoint::open(&golden(&format!("models/{name}"))).unwrap();
        assert_eq!(ours.config(), theirs.config(), "{name}");
        for (tensor, shape) in families::tensor_shapes(theirs.config()) {
            let [ours, theirs] = [&ours, &theirs].map(|checkpoint| checkpoint.tensor(&tensor, &shape).unwrap());
            assert!(ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: {tensor}");
            assert_eq!(ours.len(), theirs.len(), "{name}: {tensor}");
        }
        let (ours, theirs) = (ours.describe().unwrap(), theirs.describe().unwrap());
        assert_eq!((ours.family, ours.parameters, ours.bytes), (theirs.family, theirs.parameters, theirs.bytes));
    }
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    let expected: Value = serde_json::from_slice(&std::fs::read(golden("gguf/families.json")).unwrap()).unwrap();
    let cpu = Cpu::new(Isa::Portable, 1);
    for (name, expected) in expected.as_object().unwrap() {
        let list = |key: &str| -> Vec<u32> { serde_json::from_value(expected[key].clone()).unwrap() };
        let checkpoint = Checkpoint::open(&golden(&format!("gguf/{name}.gguf"))).unwrap();
        let model =
            Transformer::new(&cpu, checkpoint.config(), Dtype::F32.into(), Source::Checkpoint(&checkpoint)).unwrap();
        assert_eq!(greedy(&cpu, &model, list("prompt"), list("tokens").len()), list("tokens"), "{name}");
    }
}

/// The `count` tokens that are likeliest but for the end (1), one after the other.
fn greedy(cpu: &Cpu, model: &Transformer, prompt: Vec<u32>, count: usize) -> Vec<u32> {
    let pages: Vec<u32> = (0..(prompt.len() + count).div_ceil(PAGE_POSITIONS) as u32).collect();
    let mut kv = KvPages::new(model.kv_layout(), pages.len());
    let mut a = Activations::inference();
    let (mut tokens, mut next, mut at) = (Vec::new(), prompt, 0);
    while tokens.len() < count {
        let mut batch = Batch::default();
        batch.push(&next, at, pages.clone());
        model.forward(cpu, &batch, &mut kv, &mut a);
        at += next.len();
        let hidden = a.hidden(model.config());
        let mut logits = vec![0.0; hidden.rows() * model.config().vocab_size];
        model.logits(cpu, hidden, &mut logits);
        let last = &logits[(hidden.rows() - 1) * model.config().vocab_size..];
        let best =
            (0..last.len()).filter(|&token| token != 1).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u32;
        tokens.push(best);
        next = vec![best];
    }
    tokens
}
