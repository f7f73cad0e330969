//! The broken files: what is wrong with each, and where it was written.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::gguf_file::{GgufFile, array, f32, i32s, text, texts, u32};

/// Writes cases one after the other under a directory of their own.
struct Cases {
    root: PathBuf,
    made: Vec<(String, PathBuf)>,
}

pub fn all(root: &Path) -> Vec<(String, PathBuf)> {
    let mut cases = Cases { root: root.to_path_buf(), made: Vec::new() };
    gguf_tables(&mut cases);
    gguf_tensors(&mut cases);
    gguf_models(&mut cases);
    gguf_families(&mut cases);
    gguf_tokenizers(&mut cases);
    configurations(&mut cases);
    experts(&mut cases);
    weights(&mut cases);
    fp8(&mut cases);
    tokenizers(&mut cases);
    cases.made
}

/// The files that the cases spoil.
pub fn valid(root: &Path) -> Vec<PathBuf> {
    let mut cases = Cases { root: root.to_path_buf(), made: Vec::new() };
    cases.gguf("", GgufFile::valid());
    cases.directory("", "llama-chat", |_| ());
    cases.made.into_iter().map(|(_, path)| path).collect()
}

impl Cases {
    fn add(&mut self, what: &str) -> PathBuf {
        let directory = self.root.join(self.made.len().to_string());
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("model.gguf");
        self.made.push((what.to_string(), path.clone()));
        path
    }

    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        fs::write(self.add(what), bytes).unwrap();
    }

    fn gguf(&mut self, what: &str, file: GgufFile) {
        self.bytes(what, &file.bytes());
    }

    /// A copy of a golden directory, spoiled.
    fn directory(&mut self, what: &str, golden: &str, spoil: impl FnOnce(&Path)) {
        let path = self.add(what);
        fs::create_dir_all(&path).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(golden);
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().starts_with("expected") {
                fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
            }
        }
        spoil(&path);
    }

    /// `llama-chat` with keys of a JSON file changed; null removes the key.
    fn json(&mut self, what: &str, file: &str, changes: Value) {
        self.json_of(what, "llama-chat", file, changes);
    }

    fn json_of(&mut self, what: &str, golden: &str, file: &str, changes: Value) {
        self.directory(what, golden, |path| {
            let path = path.join(file);
            let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for (key, value) in changes.as_object().unwrap() {
                json[key] = value.clone();
            }
            fs::write(path, json.to_string()).unwrap();
        });
    }

    /// `llama-chat` with the header of its weights changed.
    fn header(&mut self, what: &str, change: impl FnOnce(&mut Value)) {
        self.directory(what, "llama-chat", |path| {
            let path = path.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            change(&mut header);
            let header = header.to_string();
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
            fs::write(path, bytes).unwrap();
        });
    }
}

fn gguf_tables(cases: &mut Cases) {
    let whole = GgufFile::valid().bytes();
    cases.bytes("GGUF: no bytes", b"");
    cases.bytes("GGUF: a web page instead", b"<!doctype html><title>404</title>");
    cases.bytes("GGUF: only its first 20 bytes", &whole[..20]);
    cases.bytes("GGUF: only its first 300 bytes", &whole[..300]);
    cases.bytes("GGUF: only its first half", &whole[..whole.len() / 2]);
    cases.bytes("GGUF: all but its last byte", &whole[..whole.len() - 1]);
    cases.gguf("GGUF: version 1", GgufFile { version: 1, ..GgufFile::valid() });
    cases.gguf("GGUF: the other byte order", GgufFile { version: 3u32.swap_bytes(), ..GgufFile::valid() });
    cases.gguf("GGUF: 2^64 - 1 keys", GgufFile { key_count: u64::MAX, ..GgufFile::valid() });
    cases.gguf("GGUF: 2^64 - 1 tensors", GgufFile { tensor_count: u64::MAX, ..GgufFile::valid() });
    let long = [&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    cases.gguf("GGUF: a text of 2^64 - 1 bytes", GgufFile::valid().set("general.name", long));
    cases.gguf("GGUF: an array of 2^62 numbers", GgufFile::valid().set("some.numbers", array(5, 1 << 62)));
    cases.gguf("GGUF: an array of 2^40 texts", GgufFile::valid().set("some.texts", array(8, 1 << 40)));
    let mut nested = 9u32.to_le_bytes().to_vec();
    (0..1000).for_each(|_| nested.extend([&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()));
    cases.gguf("GGUF: arrays nested a thousand deep", GgufFile::valid().set("some.arrays", nested));
    cases.gguf("GGUF: a value of kind 99", GgufFile::valid().set("some.value", 99u32.to_le_bytes().to_vec()));
    let mut twice = GgufFile::valid();
    twice.keys.push(("llama.block_count".into(), u32(2)));
    twice.key_count += 1;
    cases.gguf("GGUF: a key twice", twice);
    let bytes = GgufFile::valid().set("some.kex", u32(1)).bytes();
    let at = bytes.windows(8).position(|window| window == b"some.kex").unwrap();
    let mut bytes = bytes;
    bytes[at + 7] = 0xff;
    cases.bytes("GGUF: a key that is not UTF-8", &bytes);
    cases.gguf("GGUF: alignment 0", GgufFile::valid().set("general.alignment", u32(0)));
    cases.gguf("GGUF: alignment 48", GgufFile::valid().set("general.alignment", u32(48)));
}

fn gguf_tensors(cases: &mut Cases) {
    let with = |change: fn(&mut super::gguf_file::Tensor)| GgufFile::valid().tensor("blk.0.ffn_up.weight", change);
    cases.gguf("GGUF: a tensor twice", with(|t| t.name = "blk.0.ffn_gate.weight".into()));
    cases.gguf("GGUF: a tensor too few", with(|t| t.name = "elsewhere".into()));
    cases.gguf("GGUF: a tensor of type Q8_K", with(|t| t.kind = 15));
    cases.gguf("GGUF: a tensor of a type from the future", with(|t| t.kind = 1234));
    cases.gguf("GGUF: a tensor of no dimensions", with(|t| t.dimensions.clear()));
    cases.gguf("GGUF: a tensor of a thousand dimensions", with(|t| t.dimensions = vec![1; 1000]));
    cases.gguf("GGUF: a dimension of 0", with(|t| t.dimensions = vec![32, 0]));
    cases.gguf("GGUF: dimensions whose product overflows", with(|t| t.dimensions = vec![1 << 32, 1 << 32]));
    cases.gguf("GGUF: a tensor past the end", with(|t| t.offset = 1 << 20));
    cases.gguf("GGUF: an offset that wraps around", with(|t| t.offset = u64::MAX - 31));
    cases.gguf("GGUF: an offset between two steps of alignment", with(|t| t.offset += 4));
    cases.gguf("GGUF: rows that blocks don't divide", with(|t| (t.kind, t.dimensions) = (2, vec![33, 32])));
    cases.gguf("GGUF: a tensor of another shape", with(|t| t.dimensions = vec![32, 16]));
}

fn gguf_models(cases: &mut Cases) {
    let valid = GgufFile::valid;
    cases.gguf("GGUF: an architecture that is not supported", valid().set("general.architecture", text("mamba")));
    cases.gguf("GGUF: no architecture", valid().without("general.architecture"));
    cases.gguf("GGUF: no number of heads", valid().without("llama.attention.head_count"));
    cases.gguf("GGUF: no heads", valid().set("llama.attention.head_count", u32(0)));
    cases.gguf("GGUF: heads that don't divide the width", valid().set("llama.attention.head_count", u32(5)));
    cases.gguf("GGUF: no key heads", valid().set("llama.attention.head_count_kv", u32(0)));
    cases.gguf("GGUF: heads by name", valid().set("llama.attention.head_count", text("four")));
    cases.gguf("GGUF: a head count for each block", valid().set("llama.attention.head_count", i32s(&[4])));
    cases.gguf("GGUF: 2^32 - 1 blocks", valid().set("llama.block_count", u32(u32::MAX)));
    cases.gguf("GGUF: 4000 blocks, but tensors of one", valid().set("llama.block_count", u32(4000)));
    cases.gguf("GGUF: an epsilon of 0", valid().set("llama.attention.layer_norm_rms_epsilon", f32(0.0)));
    cases.gguf("GGUF: a rotary base that is not a number", valid().set("llama.rope.freq_base", f32(f32::NAN)));
    let scaled = |kind: &str| valid().set("llama.rope.scaling.type", text(kind));
    cases.gguf("GGUF: long RoPE", scaled("longrope").set("llama.rope.scaling.factor", f32(2.0)));
    cases.gguf("GGUF: YaRN without a factor", scaled("yarn"));
    let yarn = || scaled("yarn").set("llama.rope.scaling.factor", f32(2.0));
    cases.gguf("GGUF: YaRN that only interpolates", yarn().set("llama.rope.scaling.yarn_ext_factor", f32(0.0)));
    cases.gguf(
        "GGUF: YaRN of an original context of 0",
        yarn().set("llama.rope.scaling.original_context_length", u32(0)),
    );
    cases.gguf("GGUF: experts", valid().set("llama.expert_count", u32(8)));
    cases.gguf("GGUF: a part of a split file", valid().set("split.count", u32(3)));
}

fn gguf_families(cases: &mut Cases) {
    let deepseek = || GgufFile::valid().renamed("deepseek2").set("deepseek2.rope.dimension_count", u32(4));
    cases.gguf("GGUF: latent attention without a latent", deepseek().set("deepseek2.attention.key_length_mla", u32(8)));
    cases.gguf("GGUF: rotated keys wider than keys", deepseek().set("deepseek2.attention.key_length_mla", u32(2)));
    let deepseek = || {
        deepseek()
            .set("deepseek2.attention.kv_lora_rank", u32(8))
            .set("deepseek2.attention.key_length_mla", u32(8))
            .set("deepseek2.attention.value_length_mla", u32(8))
    };
    cases.gguf("GGUF: latent attention without its tensors", deepseek());
    cases.gguf("GGUF: a gate of another kind", deepseek().set("deepseek2.expert_gating_func", u32(3)));
    let experts = |file: GgufFile, architecture: &str| {
        file.set(&format!("{architecture}.expert_count"), u32(4))
            .set(&format!("{architecture}.expert_used_count"), u32(2))
            .set(&format!("{architecture}.expert_feed_forward_length"), u32(32))
    };
    let groups = experts(deepseek(), "deepseek2").set("deepseek2.expert_group_count", u32(3));
    cases.gguf("GGUF: groups that do not divide the experts", groups);
    let blocks = deepseek().set("deepseek2.nextn_predict_layers", u32(1));
    cases.gguf("GGUF: no blocks but one for multi-token prediction", blocks);
    cases.gguf("GGUF: Qwen3 without norms of heads", GgufFile::valid().renamed("qwen3"));
    cases.gguf("GGUF: Qwen3's mixture without a number of experts", GgufFile::valid().renamed("qwen3moe"));
    let mixture = || {
        experts(GgufFile::valid().renamed("qwen3moe"), "qwen3moe")
            .tensor("blk.0.ffn_gate.weight", |t| t.name = "blk.0.attn_q_norm.weight".into())
            .tensor("blk.0.ffn_up.weight", |t| t.name = "blk.0.attn_k_norm.weight".into())
            .tensor("blk.0.attn_q_norm.weight", |t| t.dimensions = vec![8])
            .tensor("blk.0.attn_k_norm.weight", |t| t.dimensions = vec![8])
            .tensor("blk.0.ffn_down.weight", |t| t.name = "blk.0.ffn_gate_inp.weight".into())
            .tensor("blk.0.ffn_gate_inp.weight", |t| t.dimensions = vec![32, 4])
    };
    cases.gguf("GGUF: a mixture without its experts", mixture());
    let flat = mixture().with("blk.0.ffn_gate_exps.weight", vec![32, 32]);
    cases.gguf("GGUF: experts that are not stacked", flat);
    let few = mixture().with("blk.0.ffn_gate_exps.weight", vec![32, 32, 3]);
    cases.gguf("GGUF: a stack of fewer experts", few);
}

fn gguf_tokenizers(cases: &mut Cases) {
    let valid = GgufFile::valid;
    cases.gguf("GGUF: no tokens", valid().without("tokenizer.ggml.tokens"));
    cases.gguf("GGUF: a token twice", valid().set("tokenizer.ggml.tokens", texts(&["<s>", "a", "b", "a"])));
    cases.gguf("GGUF: kinds for other tokens", valid().set("tokenizer.ggml.token_type", i32s(&[3, 1])));
    cases.gguf("GGUF: a merge of one token", valid().set("tokenizer.ggml.merges", texts(&["ab"])));
    cases.gguf("GGUF: a merge that makes no token", valid().set("tokenizer.ggml.merges", texts(&["ab ab"])));
    cases.gguf("GGUF: a beginning beyond the tokens", valid().set("tokenizer.ggml.bos_token_id", u32(4)));
    cases.gguf("GGUF: a tokenizer that is not supported", valid().set("tokenizer.ggml.model", text("t5")));
    cases.gguf("GGUF: a pre-tokenizer that is not known", valid().set("tokenizer.ggml.pre", text("tekken")));
    let more = valid()
        .set("tokenizer.ggml.tokens", texts(&["<s>", "x", "y", "z", "a", "b", "ab"]))
        .set("tokenizer.ggml.token_type", i32s(&[3, 1, 1, 1, 1, 1, 1]));
    cases.gguf("GGUF: more tokens than the embedding table has rows", more);
    cases.gguf("GGUF: a template with a syntax error", valid().set("tokenizer.chat_template", text("{% if %}")));
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}";
    cases.gguf("GGUF: a template that never ends", valid().set("tokenizer.chat_template", text(endless)));
    let growing = "{% set a = namespace(b='x') %}{% for i in range(99) %}{% set a.b = a.b * 9 %}{% endfor %}";
    cases.gguf("GGUF: a template that fills memory", valid().set("tokenizer.chat_template", text(growing)));
    let refusing = "{{ raise_exception('Conversation roles must alternate') }}";
    cases
        .gguf("GGUF: a template that refuses the conversation", valid().set("tokenizer.chat_template", text(refusing)));
}

fn configurations(cases: &mut Cases) {
    cases.directory("no config.json", "llama-chat", |path| fs::remove_file(path.join("config.json")).unwrap());
    let config = |bytes: &'static [u8]| move |path: &Path| fs::write(path.join("config.json"), bytes).unwrap();
    cases.directory("config.json that is empty", "llama-chat", config(b""));
    cases.directory("config.json that is cut short", "llama-chat", config(b"{\"model_type\": \"lla"));
    cases.directory("config.json that is a list", "llama-chat", config(b"[1, 2]"));
    cases.directory("config.json that is not UTF-8", "llama-chat", config(b"{\"\xff\": 1}"));
    cases.directory("config.json nested a hundred thousand deep", "llama-chat", |path| {
        fs::write(path.join("config.json"), "[".repeat(100_000)).unwrap();
    });
    cases.directory("config.json that is a directory", "llama-chat", |path| {
        fs::remove_file(path.join("config.json")).unwrap();
        fs::create_dir(path.join("config.json")).unwrap();
    });
    for (what, changes) in [
        ("model_type missing", json!({ "model_type": null })),
        ("model_type gemma2", json!({ "model_type": "gemma2" })),
        ("hidden_size missing", json!({ "hidden_size": null })),
        ("hidden_size negative", json!({ "hidden_size": -1 })),
        ("hidden_size a fraction", json!({ "hidden_size": 32.5 })),
        ("hidden_size 2^60", json!({ "hidden_size": 1u64 << 60, "head_dim": 8 })),
        ("vocab_size not that of the tensors", json!({ "vocab_size": 1_000_000 })),
        ("num_attention_heads 0", json!({ "num_attention_heads": 0, "head_dim": null })),
        ("num_key_value_heads that do not divide", json!({ "num_key_value_heads": 3 })),
        ("head_dim odd", json!({ "head_dim": 7 })),
        ("num_hidden_layers 2^40", json!({ "num_hidden_layers": 1u64 << 40 })),
        (
            "sizes whose product is beyond any machine",
            json!({ "num_hidden_layers": 4096, "vocab_size": 1 << 24, "hidden_size": 1 << 20, "intermediate_size": 1 << 20, "num_attention_heads": 16384, "num_key_value_heads": 16384, "head_dim": 1 << 20 }),
        ),
        ("hidden_act gelu", json!({ "hidden_act": "gelu" })),
        ("attention_bias in Llama", json!({ "attention_bias": true })),
        ("quantization_config (fp8)", json!({ "quantization_config": { "quant_method": "fp8" } })),
        (
            "quantization_config (fp8 of blocks of 0)",
            json!({ "quantization_config": { "quant_method": "fp8", "weight_block_size": [0, 128] } }),
        ),
        (
            "quantization_config (fp8 of another format)",
            json!({ "quantization_config": { "quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128] } }),
        ),
        ("quantization_config (gptq)", json!({ "quantization_config": { "quant_method": "gptq", "bits": 4 } })),
        ("rope_scaling longrope", json!({ "rope_scaling": { "type": "longrope", "factor": 4.0 } })),
        ("rope_scaling yarn without a factor", json!({ "rope_scaling": { "type": "yarn" } })),
        ("rope_scaling yarn by 0", json!({ "rope_scaling": { "type": "yarn", "factor": 0.0 } })),
        (
            "rope_scaling yarn with its ramp the wrong way round",
            json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "beta_fast": 1.0, "beta_slow": 32.0 } }),
        ),
        (
            "rope_scaling yarn of a base of 1",
            json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "rope_theta": 1.0 } }),
        ),
        (
            "rope_scaling yarn with mscale below 0",
            json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "mscale": -1.0 } }),
        ),
        (
            "rope_scaling yarn with truncate false",
            json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "truncate": false } }),
        ),
        ("rope_scaling a list", json!({ "rope_scaling": [1] })),
        ("rope_scaling linear by 0", json!({ "rope_scaling": { "type": "linear", "factor": 0 } })),
        ("rope_theta negative", json!({ "rope_parameters": { "rope_type": "default", "rope_theta": -1.0 } })),
        ("partial_rotary_factor a half", json!({ "partial_rotary_factor": 0.5 })),
        ("rms_norm_eps 0", json!({ "rms_norm_eps": 0 })),
        ("Mistral's sliding window", json!({ "model_type": "mistral", "sliding_window": 16 })),
        ("Qwen2's sliding window", json!({ "model_type": "qwen2", "use_sliding_window": true })),
        ("tie_word_embeddings a number", json!({ "tie_word_embeddings": 1 })),
    ] {
        cases.json(&format!("config.json: {what}"), "config.json", changes);
    }
    for (what, changes) in [
        ("more experts per token than there are", json!({ "num_experts_per_tok": 9 })),
        ("groups that do not divide the experts", json!({ "n_group": 3 })),
        ("groups of one expert", json!({ "n_group": 8 })),
        ("more groups per token than there are", json!({ "topk_group": 5 })),
        ("groups with too few experts for a token", json!({ "topk_group": 1 })),
        ("topk_method greedy", json!({ "topk_method": "greedy" })),
        ("scoring_func softmax", json!({ "scoring_func": "softmax" })),
        ("kv_lora_rank 0", json!({ "kv_lora_rank": 0 })),
        ("first_k_dense_replace past the last block", json!({ "first_k_dense_replace": 99 })),
        ("q_lora_rank where the tensors have none", json!({ "q_lora_rank": 12 })),
    ] {
        cases.json_of(&format!("DeepSeek's config.json: {what}"), "deepseek_v3", "config.json", changes);
    }
}

fn experts(cases: &mut Cases) {
    for (what, changes) in [
        ("topk_method noaux_tc", json!({ "topk_method": "noaux_tc" })),
        ("scoring_func sigmoid", json!({ "scoring_func": "sigmoid" })),
        ("no groups where it chooses by group", json!({ "n_group": null })),
        ("weights divided by their sum and multiplied", json!({ "norm_topk_prob": true })),
        ("more shared experts than the tensors have", json!({ "n_shared_experts": 3 })),
        ("fewer key heads than query heads", json!({ "num_key_value_heads": 2 })),
    ] {
        cases.json_of(&format!("DeepSeek-V2's config.json: {what}"), "deepseek_v2", "config.json", changes);
    }
    for (what, changes) in [
        ("dense blocks between", json!({ "mlp_only_layers": [1] })),
        ("experts in every other block", json!({ "decoder_sparse_step": 2 })),
        ("no number of experts", json!({ "num_experts": null })),
        ("more experts per token than there are", json!({ "num_experts_per_tok": 9 })),
        ("attention_bias", json!({ "attention_bias": true })),
        ("head_dim of the query projection alone", json!({ "head_dim": 20, "num_attention_heads": 2 })),
    ] {
        cases.json_of(&format!("Qwen3-MoE's config.json: {what}"), "qwen3_moe", "config.json", changes);
    }
}

fn weights(cases: &mut Cases) {
    const TENSOR: &str = "model.norm.weight";
    cases.directory("no weights", "llama-chat", |path| fs::remove_file(path.join("model.safetensors")).unwrap());
    let weights = |bytes: &'static [u8]| move |path: &Path| fs::write(path.join("model.safetensors"), bytes).unwrap();
    cases.directory("weights of no bytes", "llama-chat", weights(b""));
    cases.directory("weights of five bytes", "llama-chat", weights(b"12345"));
    cases.directory("a header of 2^64 - 1 bytes", "llama-chat", weights(&[0xff; 64]));
    cases.directory("a header that is not JSON", "llama-chat", weights(b"\x04\0\0\0\0\0\0\0oops"));
    cases.directory("weights cut short", "llama-chat", |path| {
        let path = path.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    });
    cases.directory("weights with bytes left over", "llama-chat", |path| {
        let path = path.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [bytes, vec![0; 8]].concat()).unwrap();
    });
    cases.header("a tensor without its shape", |header| {
        header[TENSOR].as_object_mut().unwrap().remove("shape");
    });
    cases.header("a tensor past the end", |header| header[TENSOR]["data_offsets"] = json!([0, 1u64 << 40]));
    cases.header("a tensor that ends before it begins", |header| header[TENSOR]["data_offsets"] = json!([128, 0]));
    cases.header("a tensor over another", |header| {
        header[TENSOR]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone()
    });
    cases.header("a shape whose product overflows", |header| header[TENSOR]["shape"] = json!([1u64 << 40, 1u64 << 40]));
    cases.header("a tensor of another shape", |header| header[TENSOR]["shape"] = json!([24, 1]));
    cases.header("a tensor of 8-bit floats", |header| header[TENSOR]["dtype"] = "F8_E4M3".into());
    cases.header("a tensor under another name", |header| {
        let tensor = header.as_object_mut().unwrap().remove(TENSOR).unwrap();
        header["model.norm"] = tensor;
    });
    cases.directory("a tensor twice", "llama-chat", |path| {
        let path = path.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes[..8192]).into_owned();
        let at = text.find("model.layers.0.mlp.up_proj.weight").unwrap();
        let mut bytes = bytes;
        // "gate_proj" and "up_proj" differ in length: a padding space makes up for it.
        let twin = b"model.layers.0.mlp.down_proj.weight";
        let end = at + "model.layers.0.mlp.up_proj.weight\":".len();
        bytes.splice(at..end, [&twin[..], b"\":"].concat());
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 2;
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    });
    cases.json_of(
        "an index that leaves the directory",
        "llama-sharded",
        "model.safetensors.index.json",
        json!({
            "weight_map": { "lm_head.weight": "../../etc/passwd" }
        }),
    );
    cases.json_of(
        "an index of a file that is not there",
        "llama-sharded",
        "model.safetensors.index.json",
        json!({
            "weight_map": { "lm_head.weight": "model-00009-of-00002.safetensors" }
        }),
    );
    cases.json_of(
        "an index with a tensor in the wrong file",
        "llama-sharded",
        "model.safetensors.index.json",
        json!({
            "weight_map": { "no.such.tensor": "model-00001-of-00002.safetensors" }
        }),
    );
    cases.json_of(
        "an index without a map",
        "llama-sharded",
        "model.safetensors.index.json",
        json!({ "weight_map": 5 }),
    );
}

/// The golden FP8 model with keys of its configuration changed, or without its factors.
fn fp8(cases: &mut Cases) {
    let config = "config.json";
    cases.json_of(
        "FP8 weights that config.json does not speak of",
        "../fp8",
        config,
        json!({ "quantization_config": null }),
    );
    let block = json!({ "quantization_config": { "quant_method": "fp8", "weight_block_size": [128, 128] } });
    cases.json_of("FP8 weights with factors for other blocks", "../fp8", config, block);
    cases.directory("FP8 weights without factors", "../fp8", |path| {
        let path = path.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(10).position(|window| window == b"_scale_inv").unwrap();
        bytes[at..at + 10].copy_from_slice(b"_elsewhere");
        fs::write(&path, bytes).unwrap();
    });
}

fn tokenizers(cases: &mut Cases) {
    cases.directory("no tokenizer.json", "llama-chat", |path| fs::remove_file(path.join("tokenizer.json")).unwrap());
    cases.directory("tokenizer.json cut short", "llama-chat", |path| {
        let path = path.join("tokenizer.json");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    for (what, changes) in [
        ("no model", json!({ "model": null })),
        ("a Unigram model", json!({ "model": { "type": "Unigram", "vocab": [] } })),
        (
            "a merge that makes no token",
            json!({ "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": ["a b"] } }),
        ),
        ("two tokens of one id", json!({ "model": { "type": "BPE", "vocab": { "a": 0, "b": 0 }, "merges": [] } })),
        ("a token of id 2^32 - 1", json!({ "model": { "type": "BPE", "vocab": { "a": u32::MAX }, "merges": [] } })),
        ("merges at random", json!({ "model": { "type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1 } })),
        ("an added token without text", json!({ "added_tokens": [{ "id": 1, "content": "" }] })),
        (
            "an added token of another id",
            json!({ "added_tokens": [{ "id": 7, "content": "<new>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }] }),
        ),
        (
            "a normalizer that is not supported",
            json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "AAAA" } }),
        ),
        (
            "an expression that does not compile",
            json!({ "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false } }),
        ),
        (
            "a template with a token that it lacks",
            json!({ "post_processor": { "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }], "pair": [], "special_tokens": {} } }),
        ),
        (
            "a decoder that strips the end",
            json!({ "decoder": { "type": "Strip", "content": " ", "start": 0, "stop": 9 } }),
        ),
        (
            "a sequence in a sequence",
            json!({ "decoder": { "type": "Sequence", "decoders": [{ "type": "Sequence", "decoders": [] }] } }),
        ),
    ] {
        cases.json(&format!("tokenizer.json: {what}"), "tokenizer.json", changes);
    }
    cases.directory("a chat template with a syntax error", "llama-chat", |path| {
        fs::write(path.join("chat_template.jinja"), "{% for message in messages %}\n{{ message }").unwrap();
    });
}
