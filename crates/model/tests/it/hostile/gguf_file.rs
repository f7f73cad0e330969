//! A small valid GGUF file, in parts that a test can spoil before they are put together.

/// A metadata value, as bytes with its kind before it.
pub fn text(value: &str) -> Vec<u8> {
    [&8u32.to_le_bytes(), &string(value)[..]].concat()
}

pub fn u32(value: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), value.to_le_bytes()].concat()
}

pub fn f32(value: f32) -> Vec<u8> {
    [6u32.to_le_bytes(), value.to_le_bytes()].concat()
}

pub fn texts(values: &[&str]) -> Vec<u8> {
    let strings: Vec<Vec<u8>> = values.iter().map(|value| string(value)).collect();
    [&array(8, values.len() as u64)[..], &strings.concat()].concat()
}

pub fn i32s(values: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
    [&array(5, values.len() as u64)[..], &bytes].concat()
}

/// The beginning of an array of a kind.
pub fn array(kind: u32, count: u64) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat()
}

fn string(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// One row of the table of tensors; `data` is what lies at `offset`.
pub struct Tensor {
    pub name: String,
    /// Fastest first.
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
    pub data: Vec<u8>,
}

pub struct GgufFile {
    pub magic: [u8; 4],
    pub version: u32,
    pub tensor_count: u64,
    pub key_count: u64,
    pub keys: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
    pub alignment: u64,
}

impl GgufFile {
    /// A Llama of one block, with a byte-level tokenizer and a chat template.
    pub fn valid() -> Self {
        let keys: Vec<(String, Vec<u8>)> = [
            ("general.architecture", text("llama")),
            ("llama.block_count", u32(1)),
            ("llama.context_length", u32(32)),
            ("llama.embedding_length", u32(32)),
            ("llama.feed_forward_length", u32(32)),
            ("llama.attention.head_count", u32(4)),
            ("llama.attention.head_count_kv", u32(2)),
            ("llama.attention.layer_norm_rms_epsilon", f32(1e-5)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(&["<s>", "a", "b", "ab"])),
            ("tokenizer.ggml.token_type", i32s(&[3, 1, 1, 1])),
            ("tokenizer.ggml.merges", texts(&["a b"])),
            ("tokenizer.ggml.bos_token_id", u32(0)),
            ("tokenizer.ggml.eos_token_id", u32(0)),
            ("tokenizer.chat_template", text("{{ messages[0]['content'] }}")),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        let mut file = Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: 0,
            key_count: keys.len() as u64,
            keys,
            tensors: Vec::new(),
            alignment: 32,
        };
        for (name, dimensions) in [
            ("token_embd.weight", vec![32, 4]),
            ("blk.0.attn_norm.weight", vec![32]),
            ("blk.0.attn_q.weight", vec![32, 32]),
            ("blk.0.attn_k.weight", vec![32, 16]),
            ("blk.0.attn_v.weight", vec![32, 16]),
            ("blk.0.attn_output.weight", vec![32, 32]),
            ("blk.0.ffn_norm.weight", vec![32]),
            ("blk.0.ffn_gate.weight", vec![32, 32]),
            ("blk.0.ffn_up.weight", vec![32, 32]),
            ("blk.0.ffn_down.weight", vec![32, 32]),
            ("output_norm.weight", vec![32]),
        ] {
            file = file.with(name, dimensions);
        }
        file
    }

    /// Adds a tensor of F32.
    pub fn with(mut self, name: &str, dimensions: Vec<u64>) -> Self {
        let elements: u64 = dimensions.iter().product();
        let offset = self.tensors.last().map_or(0, |t| t.offset + t.data.len() as u64);
        let data = (0..elements).flat_map(|i| (i as f32 / 64.0).to_le_bytes()).collect();
        self.tensors.push(Tensor { name: name.into(), dimensions, kind: 0, offset, data });
        self.tensor_count += 1;
        self
    }

    /// Says another architecture, and its keys under its name.
    pub fn renamed(mut self, architecture: &str) -> Self {
        for (key, _) in &mut self.keys {
            if let Some(rest) = key.strip_prefix("llama.") {
                *key = format!("{architecture}.{rest}");
            }
        }
        self.set("general.architecture", text(architecture))
    }

    /// Puts a value in the place of a key's, or adds the key.
    pub fn set(mut self, key: &str, value: Vec<u8>) -> Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = value,
            None => {
                self.keys.push((key.into(), value));
                self.key_count += 1;
            }
        }
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(k, _)| k != key);
        self.key_count = self.keys.len() as u64;
        self
    }

    /// Changes the row of a tensor.
    pub fn tensor(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        change(self.tensors.iter_mut().find(|t| t.name == name).unwrap());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.key_count.to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(string(key));
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            out.extend(tensor.dimensions.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
        for tensor in &self.tensors {
            out.extend(&tensor.data);
        }
        out
    }
}
