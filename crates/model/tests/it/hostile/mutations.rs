//! Valid files with a few bytes, numbers or values changed at random, many thousand times: the fuzz targets' work
//! (`fuzz/`) without a fuzzer.

use std::fs;
use std::path::Path;

use minke_model::gguf::Gguf;
use minke_model::mmap::Map;
use minke_model::quantize::Importance;
use minke_model::safetensors::SafeTensors;
use minke_model::{ChatTemplate, Checkpoint, Message, Tokenizer, families};
use serde_json::Value;

use super::gguf_file::GgufFile;

pub fn run() {
    let golden = |path: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)).unwrap();
    let mut random = Random(0x6d69_6e6b_6521);

    let small = GgufFile::valid().bytes();
    repeat(20_000, || {
        drop(super::read(Gguf::new(Map::from(random.bytes(&small, 1200))).and_then(Checkpoint::from_gguf)))
    });

    for name in ["deepseek_v2-lite", "qwen3_moe"] {
        let bytes = golden(&format!("gguf/{name}.gguf"));
        repeat(2_000, || {
            drop(super::read(Gguf::new(Map::from(random.bytes(&bytes, 4000))).and_then(Checkpoint::from_gguf)))
        });
    }

    let weights = golden("models/llama-chat/model.safetensors");
    let header = weights.len().min(3000);
    repeat(10_000, || {
        let Ok(file) = SafeTensors::new(Map::from(random.bytes(&weights, header))) else { return };
        for name in file.names() {
            let stored = file.get(name).unwrap();
            if let Ok(dtype) = stored.dtype {
                assert_eq!(dtype.to_f32(stored.bytes).len(), stored.shape.iter().product::<usize>());
            }
        }
    });

    for name in ["llama-rope-llama3", "qwen2", "qwen3-yarn", "qwen3_moe", "deepseek_v2", "deepseek_v3-qlora"] {
        let config: Value = serde_json::from_slice(&golden(&format!("models/{name}/config.json"))).unwrap();
        repeat(10_000, || {
            let Ok(config) = families::config_from_json(&random.json(&config)) else { return };
            assert!(config.parameters() > 0 && families::tensor_shapes(&config).take(20).all(|(_, s)| !s.contains(&0)));
            assert_eq!(families::config_from_json(&families::config_to_json(&config)).unwrap(), config);
        });
    }

    for source in [golden("models/llama-chat/tokenizer.json"), golden_characters()] {
        let json: Value = serde_json::from_slice(&source).unwrap();
        repeat(2_000, || {
            let Ok(tokenizer) = Tokenizer::from_json(random.json(&json).to_string().as_bytes()) else { return };
            let Ok(ids) = tokenizer.encode("Hello  12 wörld<|im_end|>\n", true) else { return };
            let _ = tokenizer.decode(&ids, false);
            tokenizer.to_json().unwrap();
        });
        repeat(2_000, || drop(Tokenizer::from_json(&random.bytes(&source, source.len()))));
    }

    // As llama-imatrix wrote it once: a count; a name, calls and values for each matrix.
    let matrix = b"\x01\0\0\0\x08\0\0\0a.weight\x02\0\0\0\x02\0\0\0\0\0\x80\x3f\0\0\0\x40";
    assert!(Importance::new(Map::from(matrix.to_vec())).is_ok());
    repeat(20_000, || {
        let Ok(importance) = Importance::new(Map::from(random.bytes(matrix, matrix.len()))) else { return };
        for name in importance.names() {
            let _ = importance.of(name, &[1, 2]);
        }
    });

    let template = golden("models/llama-chat/chat_template.jinja");
    repeat(10_000, || {
        let source = random.bytes(&template, template.len());
        let Ok(template) = ChatTemplate::new(&String::from_utf8_lossy(&source), Some("<s>"), None) else { return };
        let _ = template.render(&[Message::new("user", "hi")], true, &serde_json::Map::new());
    });
}

fn golden_characters() -> Vec<u8> {
    Tokenizer::characters(&['H', 'e', 'l', 'o', ' ', '1', '2'], &["<unk>", "<|im_end|>"])
        .unwrap()
        .to_json()
        .unwrap()
        .into()
}

fn repeat(times: usize, mut act: impl FnMut()) {
    (0..times).for_each(|_| act());
}

/// Xorshift (Marsaglia 2003): the same mutations on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A copy of `bytes` with some of the first `reach` changed.
    fn bytes(&mut self, bytes: &[u8], reach: usize) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(reach.min(out.len()));
            match self.below(7) {
                0 => out[at] ^= 1 << self.below(8),
                1 => out[at] = self.next() as u8,
                2 => out.truncate(at.max(1)),
                3 => drop(out.drain(at..(at + self.below(9)).min(out.len()))),
                4 => {
                    let from = self.below(out.len());
                    let piece = out[from..(from + self.below(40)).min(out.len())].to_vec();
                    out.splice(at..at, piece);
                }
                // A number of eight bytes, as lengths and offsets are.
                _ => {
                    let n = [0, 1, 31, 33, 255, 1 << 16, u32::MAX as u64, 1 << 40, 1 << 63, u64::MAX][self.below(10)];
                    let end = (at + 8).min(out.len());
                    out[at..end].copy_from_slice(&n.to_le_bytes()[..end - at]);
                }
            }
            if out.is_empty() {
                return out;
            }
        }
        out
    }

    /// A copy of `json` with some values changed, removed, or put elsewhere.
    fn json(&mut self, json: &Value) -> Value {
        let mut out = json.clone();
        for _ in 0..=self.below(3) {
            let other = self.pick(json);
            let value = match self.below(12) {
                0 => Value::Null,
                1 => Value::Bool(self.below(2) == 0),
                2 => Value::from(0),
                3 => Value::from(self.below(20)),
                4 => Value::from(-1),
                5 => Value::from(1u64 << self.below(64)),
                6 => Value::from(0.5),
                7 => Value::from(1e300),
                8 => Value::from(["", "x", "▁", "default", "A", "Regex", "(a*)*b"][self.below(7)]),
                9 => Value::Array(vec![other.clone(), other]),
                _ => other,
            };
            self.put(&mut out, value);
        }
        out
    }

    /// Some value inside `json`.
    fn pick(&mut self, json: &Value) -> Value {
        let mut at = json;
        loop {
            let inner: Vec<&Value> = match at {
                Value::Object(object) => object.values().collect(),
                Value::Array(array) => array.iter().collect(),
                _ => return at.clone(),
            };
            if inner.is_empty() || self.below(4) == 0 {
                return at.clone();
            }
            at = inner[self.below(inner.len())];
        }
    }

    /// Puts `value` somewhere inside `json`.
    fn put(&mut self, json: &mut Value, value: Value) {
        let stop = self.below(3) == 0;
        match json {
            Value::Object(object) if !object.is_empty() => {
                let n = self.below(object.len());
                let inner = object.values_mut().nth(n).unwrap();
                if stop { *inner = value } else { self.put(inner, value) }
            }
            Value::Array(array) if !array.is_empty() => {
                let n = self.below(array.len());
                if stop { array[n] = value } else { self.put(&mut array[n], value) }
            }
            other => *other = value,
        }
    }
}
