//! GGUF files: tables, configuration, tensors, tokenizer and chat template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::gguf::Gguf;
use minke_model::mmap::Map;
use minke_model::{Checkpoint, Message, families};

/// Zeros after what the fuzzer wrote, so that it need not carry weights: the golden models' fit in.
const WEIGHTS: usize = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    let mut with_weights = bytes.to_vec();
    with_weights.resize(bytes.len().next_multiple_of(32) + WEIGHTS, 0);
    read(with_weights);
});

fn read(bytes: Vec<u8>) {
    let Ok(checkpoint) = Gguf::new(Map::from(bytes)).and_then(Checkpoint::from_gguf) else { return };
    for (name, shape) in families::tensor_shapes(checkpoint.config()) {
        let _ = checkpoint.tensor(&name, &shape);
    }
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        let _ = tokenizer.encode("ab 12\n", true).and_then(|ids| tokenizer.decode(&ids, false));
    }
    if let Ok(Some(template)) = checkpoint.chat_template() {
        let _ = template.render(&[Message::new("user", "ab")], true, &serde_json::Map::new());
    }
}
