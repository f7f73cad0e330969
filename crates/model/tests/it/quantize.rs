//! Rounding against other quantisers (`golden/gguf/quantized.*`) and against its own bounds, and written files read back.

use std::fs;
use std::path::{Path, PathBuf};

use minke_kernels::pool::Pool;
use minke_kernels::random::Random;
use minke_model::Checkpoint;
use minke_model::dequantize::DataType;
use minke_model::families::tensor_shapes;
use minke_model::gguf::Gguf;
use minke_model::gguf_writer::{Metadata, Row, header};
use minke_model::quantize::{FileType, Importance, Model, quantize_row};
use serde_json::{Value, json};

const BLOCKS: [DataType; 5] = [DataType::Q8_0, DataType::Q4_0, DataType::Q4_1, DataType::Q5_0, DataType::Q5_1];
const SEARCHED: [DataType; 6] =
    [DataType::Iq4Nl, DataType::Q2K, DataType::Q3K, DataType::Q4K, DataType::Q5K, DataType::Q6K];

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn values(file: &Gguf, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    tensor.dtype.unwrap().to_f32(file.bytes(tensor))
}

fn rounded(dtype: DataType, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0; dtype.bytes(x.len()).unwrap()];
    quantize_row(dtype, x, importance, &mut out);
    out
}

#[test]
fn blocks_are_gguf_pys_bit_for_bit() {
    let file = Gguf::open(&golden("gguf/quantized.gguf")).unwrap();
    let x = values(&file, "F32");
    for dtype in BLOCKS {
        let expected = file.bytes(file.tensor(dtype.name()).unwrap());
        let actual: Vec<u8> = x.chunks(512).flat_map(|row| rounded(dtype, row, None)).collect();
        assert!(actual == expected, "{}", dtype.name());
    }
}

#[test]
fn searched_scales_leave_no_more_error_than_llama_cpps() {
    let file = Gguf::open(&golden("gguf/quantized.gguf")).unwrap();
    let errors: Value = serde_json::from_slice(&fs::read(golden("gguf/quantized.json")).unwrap()).unwrap();
    let (x, importance) = (values(&file, "F32"), values(&file, "importance"));
    for (kind, importance) in [("plain", None), ("weighed", Some(importance.as_slice()))] {
        for dtype in SEARCHED {
            let mut ratios = Vec::new();
            for (row, expected) in x.chunks(512).zip(errors[kind][dtype.name()].as_array().unwrap()) {
                let back = dtype.to_f32(&rounded(dtype, row, importance));
                let weight = |i: usize| importance.map_or(1.0, |importance| f64::from(importance[i]));
                let error = (0..512).map(|i| weight(i) * f64::from(back[i] - row[i]).powi(2)).sum::<f64>() / 512.0;
                ratios.push(error / expected.as_f64().unwrap());
            }
            let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
            let worst = ratios.iter().copied().fold(0.0, f64::max);
            assert!(mean <= 1.02 && worst <= 1.1, "{kind} {}: {mean:.4} {ratios:.3?}", dtype.name());
        }
    }
}

/// Steps between the least and the greatest value of a block that its type can tell apart.
fn steps(dtype: DataType) -> f32 {
    match dtype {
        DataType::Q2K => 3.0,
        DataType::Q3K => 7.0,
        // Uneven levels are up to 24 of 240 apart.
        DataType::Iq4Nl => 10.0,
        DataType::Q4_0 | DataType::Q4_1 | DataType::Q4K => 15.0,
        DataType::Q5_0 | DataType::Q5_1 | DataType::Q5K => 31.0,
        DataType::Q6K => 63.0,
        _ => 254.0,
    }
}

#[test]
fn no_value_moves_farther_than_its_type_allows_whatever_the_values() {
    let mut random = Random::new(11, [0; 3]);
    for case in 0..300 {
        let scale = 10f32.powi(case % 5 - 2);
        let mut x: Vec<f32> = (0..256).map(|_| random.normal() * scale).collect();
        match case % 5 {
            1 => x.iter_mut().for_each(|x| *x = x.abs()),
            2 => x.iter_mut().for_each(|x| *x = -x.abs()),
            3 => x[case as usize % 256] *= 40.0,
            4 => x[..case as usize % 256].fill(0.0),
            _ => {}
        }
        let importance: Vec<f32> = (0..256).map(|_| random.uniform() * 10f32.powi(case % 7 - 3)).collect();
        for dtype in BLOCKS.into_iter().chain(SEARCHED) {
            for importance in [None, Some(importance.as_slice())] {
                let back = dtype.to_f32(&rounded(dtype, &x, importance));
                let width = if dtype.block().0 == 32 { 32 } else { 256 };
                for (x, back) in x.chunks(width).zip(back.chunks(width)) {
                    let far = x.iter().fold(0.0, |far: f32, x| far.max(x.abs()));
                    // The search may cut off the farthest by a step and a half, and scales are rounded themselves.
                    let bound = 3.5 * far / steps(dtype) + 1e-5;
                    for (x, back) in x.iter().zip(back) {
                        assert!((x - back).abs() <= bound, "{} {case}: {x} {back} {bound}", dtype.name());
                    }
                }
            }
        }
    }
}

#[test]
fn values_at_the_edge_stay_finite() {
    for x in [[0.0_f32; 256], [-0.0; 256], [1e-40; 256], [-1e-15; 256], [1e-8; 256], [32_768.0; 256], [-32_768.0; 256]]
    {
        let far = x[0].abs();
        for importance in [None, Some([0.0; 256]), Some([1e-3; 256]), Some([1e3; 256])] {
            for dtype in BLOCKS.into_iter().chain(SEARCHED) {
                let back = dtype.to_f32(&rounded(dtype, &x, importance.as_ref().map(|x| x.as_slice())));
                assert!(back.iter().all(|x| x.abs() <= 1.2 * far + 1e-6), "{} {far}: {:?}", dtype.name(), &back[..4]);
            }
        }
    }
}

fn written(model: Model<'_>, file_type: &str, importance: Option<&Importance>, threads: usize) -> Gguf {
    let (mut bytes, mut done) = (Vec::new(), 0);
    let elements = model.elements();
    let file_type = FileType::from_name(file_type).unwrap();
    model.write(&Pool::new(threads), file_type, importance, &mut bytes, |elements| done = elements).unwrap();
    assert_eq!(done, elements);
    Gguf::new(bytes.into()).unwrap()
}

/// A golden directory with another configuration, and a tokenizer of as many bytes as the model has rows.
fn with_tokenizer(name: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("quantize-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    fs::copy(golden(&format!("models/{name}/model.safetensors")), path.join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read(golden(&format!("models/{name}/config.json"))).unwrap()).unwrap();
    change(&mut config);
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    let vocabulary: serde_json::Map<String, Value> = ('!'..='~')
        .take(config["vocab_size"].as_u64().unwrap() as usize)
        .enumerate()
        .map(|(id, c)| (c.to_string(), id.into()))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    });
    fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    path
}

#[test]
fn hugging_face_models_come_back_from_gguf_as_they_were() {
    let llama3 = |config: &mut Value| {
        config["rope_theta"] = 500_000.0.into();
        config["rope_scaling"] = json!({
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
    };
    let paths = [
        golden("models/llama-chat"),
        with_tokenizer("llama-tied", |_| {}),
        with_tokenizer("llama-bf16", llama3),
        with_tokenizer("llama-rope-linear", |_| {}),
        with_tokenizer("llama-rope-llama3", llama3),
        with_tokenizer("qwen2", |_| {}),
        with_tokenizer("qwen2-untied", |_| {}),
    ];
    for path in paths {
        let before = Checkpoint::open(&path).unwrap();
        let file = written(Model::from_checkpoint(&before).unwrap(), "F32", None, 2);
        let after = Checkpoint::from_gguf(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(after.config(), before.config(), "{}", path.display());
        for (name, shape) in tensor_shapes(before.config()) {
            let same = before.tensor(&name, &shape).unwrap() == after.tensor(&name, &shape).unwrap();
            assert!(same, "{}: {name}", path.display());
        }
        let (ours, theirs) = (after.tokenizer().unwrap(), before.tokenizer().unwrap());
        for text in ["", "it's 12 whales,\n\n and\tthe sea", "<|im_start|>user\nhi<|im_end|><think>e</think>"] {
            let same = ours.encode(text, true).unwrap() == theirs.encode(text, true).unwrap();
            assert!(same, "{}: {text:?}", path.display());
        }
        assert_eq!((ours.bos, &ours.eos), (theirs.bos, &theirs.eos));
        let source = |checkpoint: &Checkpoint| checkpoint.chat_template().unwrap().map(|t| t.source().to_string());
        assert_eq!(source(&after), source(&before));
    }
}

#[test]
fn a_gguf_file_keeps_its_metadata_and_threads_change_nothing() {
    let source = Gguf::open(&golden("gguf/llama-chat.gguf")).unwrap();
    let model = || Model::from_gguf(&source).unwrap();
    let alone = written(model(), "Q4_K_M", None, 1);
    let together = written(model(), "Q4_K_M", None, 3);
    for name in source.names() {
        let (a, b) = (alone.tensor(name).unwrap(), together.tensor(name).unwrap());
        assert!(a.dtype == b.dtype && alone.bytes(a) == together.bytes(b), "{name}");
        assert_eq!(a.shape, source.tensor(name).unwrap().shape);
    }
    assert_eq!(alone.size("general.file_type").unwrap(), Some(15));
    assert_eq!(alone.size("general.quantization_version").unwrap(), Some(2));
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        assert_eq!(alone.texts(key).unwrap(), source.texts(key).unwrap(), "{key}");
    }
    assert_eq!(alone.text("tokenizer.chat_template").unwrap(), source.text("tokenizer.chat_template").unwrap());
}

#[test]
fn what_cannot_be_rounded_is_refused() {
    let refusal = |model: Model<'_>, file_type: &str, importance: Option<&Importance>| {
        let file_type = FileType::from_name(file_type).unwrap();
        model.write(&Pool::new(2), file_type, importance, &mut Vec::new(), |_| {}).unwrap_err().to_string()
    };
    let qlora = Checkpoint::open(&golden("models/deepseek_v3-qlora")).unwrap();
    assert!(Model::from_checkpoint(&qlora).unwrap_err().to_string().contains("deepseek_v3"));

    let mut metadata = Metadata::default();
    metadata.set_text("general.architecture", "llama");
    metadata.set_u32("llama.block_count", 1);
    for value in [f32::NAN, f32::INFINITY, 1e5] {
        let mut bytes = header(&metadata, &[Row { name: "a.weight", shape: &[2, 32], dtype: DataType::F32 }]);
        bytes.extend(value.to_le_bytes().repeat(64));
        let spoiled = Gguf::new(bytes.into()).unwrap();
        let sentence = refusal(Model::from_gguf(&spoiled).unwrap(), "Q4_K_M", None);
        assert!(sentence.starts_with("tensor a.weight has values that are not finite, or too large"), "{sentence}");
    }

    let chat = Gguf::open(&golden("gguf/llama-chat.gguf")).unwrap();
    let entry = |name: &str, columns: i32| {
        let head = [1, name.len() as i32].map(i32::to_le_bytes).concat();
        let tail = [1, columns].map(i32::to_le_bytes).concat();
        let bytes = [&head, name.as_bytes(), &tail, &1f32.to_le_bytes().repeat(columns as usize)].concat();
        Importance::new(bytes.into()).unwrap()
    };
    let other = entry("blk.0.attn_q.weight", 7);
    assert!(refusal(Model::from_gguf(&chat).unwrap(), "Q4_0", Some(&other)).contains("another model"));
    let none = entry("blk.0.attn_z.weight", 24);
    assert!(refusal(Model::from_gguf(&chat).unwrap(), "Q4_0", Some(&none)).contains("another model"));
}
