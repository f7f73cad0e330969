//! Files of every format against what the libraries that made them read (`golden`), and our own files against ourselves.

use std::fs;
use std::path::{Path, PathBuf};

use minke_model::config::RopeScaling;
use minke_model::dequantize::DataType;
use minke_model::gguf::Gguf;
use minke_model::mmap;
use minke_model::safetensors::SafeTensors;
use minke_model::{ChatTemplate, Checkpoint, DecodeStream, Message, Tokenizer, families, huggingface};
use serde_json::{Map, Value, json};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn json_file(path: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(path)).unwrap()).unwrap()
}

/// The golden directories.
fn directories() -> Vec<(String, Checkpoint)> {
    let mut names: Vec<String> = fs::read_dir(golden("models"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    names
        .into_iter()
        .map(|name| {
            let checkpoint =
                Checkpoint::open(&golden(&format!("models/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, checkpoint)
        })
        .collect()
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn configurations_survive_being_written() {
    for (name, checkpoint) in directories() {
        let config = checkpoint.config();
        let written = families::config_to_json(config);
        assert_eq!(&families::config_from_json(&written).unwrap(), config, "{name}");
        // What transformers 4 doesn't know must not be all there is.
        let mut as_4 = written.clone();
        as_4.as_object_mut().unwrap().remove("rope_parameters");
        assert_eq!(&families::config_from_json(&as_4).unwrap(), config, "{name}");
        let mut as_5 = written;
        as_5.as_object_mut().unwrap().retain(|key, _| key != "rope_theta" && key != "rope_scaling");
        assert_eq!(&families::config_from_json(&as_5).unwrap(), config, "{name}");

        let counted: usize = families::tensor_shapes(config).map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(config.parameters(), counted as u128, "{name}");
    }
}

#[test]
fn mistral_without_a_window_is_llama() {
    let mut json = json_file("models/llama/config.json");
    let llama = families::config_from_json(&json).unwrap();
    json["model_type"] = "mistral".into();
    json["sliding_window"] = Value::Null;
    assert_eq!(families::config_from_json(&json).unwrap(), llama);
    json["sliding_window"] = json!(64);
    assert!(families::config_from_json(&json).unwrap_err().to_string().contains("sliding_window is 64"));
}

#[test]
fn gguf_dequantises_to_the_bit_and_has_every_kind_of_metadata() {
    let mut seen = Vec::new();
    for file in ["types", "blocks"] {
        let expected = SafeTensors::open(&golden(&format!("gguf/{file}.safetensors"))).unwrap();
        let file = Gguf::open(&golden(&format!("gguf/{file}.gguf"))).unwrap();
        for name in expected.names() {
            let theirs = expected.get(name).unwrap();
            let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(tensor.shape, theirs.shape, "{name}");
            let dtype = tensor.dtype.unwrap();
            let (ours, theirs) = (dtype.to_f32(file.bytes(tensor)), DataType::F32.to_f32(theirs.bytes));
            assert_eq!(bits(&ours), bits(&theirs), "{name}");
            seen.push(dtype);
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 14, "{seen:?}");

    let file = Gguf::open(&golden("gguf/types.gguf")).unwrap();
    let mut kinds = 0;
    for (key, value) in json_file("gguf/types.json").as_object().unwrap() {
        kinds += 1;
        match value {
            Value::Bool(expected) => assert_eq!(file.flag(key).unwrap(), Some(*expected), "{key}"),
            Value::String(expected) => assert_eq!(file.text(key).unwrap(), Some(expected.as_str()), "{key}"),
            Value::Number(expected) => {
                assert_eq!(file.number(key).unwrap(), expected.as_f64(), "{key}");
                match expected.as_u64() {
                    Some(n) => assert_eq!(file.size(key).unwrap(), Some(n as usize), "{key}"),
                    None => assert!(file.size(key).is_err(), "{key}"),
                }
            }
            Value::Array(expected) if expected.iter().all(Value::is_string) => {
                let expected: Vec<&str> = expected.iter().filter_map(Value::as_str).collect();
                assert_eq!(file.texts(key).unwrap(), Some(expected), "{key}");
            }
            Value::Array(expected) if expected.iter().all(Value::is_i64) => {
                let expected: Vec<i64> = expected.iter().filter_map(Value::as_i64).collect();
                assert_eq!(file.integers(key).unwrap(), Some(expected), "{key}");
            }
            Value::Array(expected) if expected.iter().all(Value::is_f64) => {
                let expected: Vec<f32> = expected.iter().filter_map(|x| x.as_f64().map(|x| x as f32)).collect();
                assert_eq!(file.floats(key).unwrap(), Some(expected), "{key}");
            }
            // Nothing reads flags in lists; they must only be stepped over.
            Value::Array(_) => assert!(file.has(key) && file.integers(key).is_err(), "{key}"),
            other => panic!("{key}: {other}"),
        }
    }
    assert!(kinds >= 13, "{kinds}");
    assert_eq!(file.text("not.there").unwrap(), None);
}

#[test]
fn gguf_is_the_model_it_was_converted_from() {
    let ours = Checkpoint::open(&golden("gguf/llama-chat.gguf")).unwrap();
    let theirs = Checkpoint::open(&golden("models/llama-chat")).unwrap();
    assert_eq!(ours.config(), theirs.config());
    let mut checked = 0;
    for (name, shape) in families::tensor_shapes(theirs.config()) {
        let (ours, theirs) = (ours.tensor(&name, &shape).unwrap(), theirs.tensor(&name, &shape).unwrap());
        assert_eq!(bits(&ours), bits(&theirs), "{name}");
        checked += 1;
    }
    assert!(checked > 10);
    let (ours, theirs) = (ours.describe().unwrap(), theirs.describe().unwrap());
    assert_eq!((ours.family, ours.parameters), ("llama", theirs.parameters));
}

#[test]
fn shards_and_bf16_read_as_the_plain_files_do() {
    let sharded = Checkpoint::open(&golden("models/llama-sharded")).unwrap();
    assert_eq!(sharded.describe().unwrap().dtype, DataType::F32);
    let bf16 = Checkpoint::open(&golden("models/llama-bf16")).unwrap();
    let description = bf16.describe().unwrap();
    assert_eq!((description.dtype, description.bytes), (DataType::Bf16, 2 * description.parameters));
    let shape = [bf16.config().vocab_size, bf16.config().hidden_size];
    let table = bf16.tensor("model.embed_tokens.weight", &shape).unwrap();
    assert!(table.iter().any(|&x| x != 0.0) && table.iter().all(|x| x.to_bits() & 0xffff == 0));
}

#[test]
fn fp8_is_what_torch_makes_of_it() {
    let fp8 = Checkpoint::open(&golden("fp8")).unwrap();
    assert_eq!(fp8.describe().unwrap().dtype, DataType::F8E4m3);
    let expected = SafeTensors::open(&golden("fp8/expected.safetensors")).unwrap();
    let mut checked = 0;
    for (name, shape) in families::tensor_shapes(fp8.config()) {
        let ours = fp8.tensor(&name, &shape).unwrap();
        assert!(ours.iter().all(|x| x.is_finite()), "{name}");
        if let Some(theirs) = expected.get(&name) {
            assert_eq!(bits(&ours), bits(&DataType::F32.to_f32(theirs.bytes)), "{name}");
            checked += 1;
        }
    }
    assert_eq!(checked, expected.names().count());
}

/// Ids, decoded text, and the same text in pieces.
fn check_texts(tokenizer: &Tokenizer, cases: &Value) {
    let cases: Vec<&Value> = match cases {
        Value::Object(cases) => cases.values().collect(),
        Value::Array(cases) => cases.iter().collect(),
        other => panic!("{other}"),
    };
    assert!(cases.len() > 10);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        let decoded = case["decoded"].as_str().unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), decoded);
        let mut stream = DecodeStream::new(false);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(tokenizer, id).unwrap()).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        pieces.push(stream.finish(tokenizer).unwrap());
        assert_eq!(pieces.concat(), decoded);
    }
}

fn check_conversations(template: &ChatTemplate, cases: &Value) {
    let cases: Vec<&Value> = match cases {
        Value::Object(cases) => cases.values().collect(),
        Value::Array(cases) => cases.iter().collect(),
        other => panic!("{other}"),
    };
    assert!(cases.len() > 2);
    for case in cases {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let rendered =
            template.render(&messages, case["add_generation_prompt"].as_bool().unwrap(), &Map::new()).unwrap();
        assert_eq!(rendered, case["text"].as_str().unwrap());
    }
}

#[test]
fn texts_and_conversations_are_those_of_transformers_from_both_formats() {
    let expected = json_file("models/llama-chat/expected-text.json");
    for path in ["models/llama-chat", "gguf/llama-chat.gguf"] {
        let checkpoint = Checkpoint::open(&golden(path)).unwrap();
        let tokenizer = checkpoint.tokenizer().unwrap();
        check_texts(&tokenizer, &expected["tokens"]);
        check_conversations(&checkpoint.chat_template().unwrap().unwrap(), &expected["chat"]);
        assert_eq!(tokenizer.eos, [2], "{path}");
        assert_eq!(tokenizer.bos, Some(0), "{path}");
        assert!(tokenizer.is_special(2) && !tokenizer.is_special(298), "{path}");
    }
}

/// The ids that llama.cpp gives each text, bare and with what the model puts around it.
fn check_vocabulary(file: &Gguf, cases: &Value, place: &str) {
    let tokenizer = Tokenizer::from_gguf(file).unwrap_or_else(|e| panic!("{place}: {e}"));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 30, "{place}");
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (key, around) in [("ids", false), ("around", true)] {
            let ids: Vec<u32> = serde_json::from_value(case[key].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, around).unwrap(), ids, "{place}: {text:?}");
        }
        let ids = tokenizer.encode(text, false).unwrap();
        let decoded = tokenizer.decode(&ids, false).unwrap();
        // SentencePiece puts a space before what follows an added token, as llama.cpp's ids show.
        if !text.contains("<tool>") {
            assert_eq!(decoded, text, "{place}");
        }
        let mut stream = DecodeStream::new(false);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(&tokenizer, id).unwrap()).collect();
        pieces.push(stream.finish(&tokenizer).unwrap());
        assert_eq!(pieces.concat(), decoded, "{place}");
    }
}

#[test]
fn every_pre_tokenizer_cuts_as_llama_cpp_does() {
    let bytes = fs::read(golden("gguf/byte-level-vocabulary.gguf")).unwrap();
    let key = b"tokenizer.ggml.pre";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    for (pre, cases) in json_file("gguf/byte-level-vocabulary.json").as_object().unwrap() {
        // The file says PRE: a length of three, and these letters.
        let (before, rest) = bytes.split_at(at);
        let named = [before, &(pre.len() as u64).to_le_bytes(), pre.as_bytes(), &rest[8 + 3..]].concat();
        check_vocabulary(&Gguf::new(mmap::Map::from(named)).unwrap(), cases, pre);
    }
    let error = Tokenizer::from_gguf(&Gguf::new(mmap::Map::from(bytes)).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer.ggml.pre is \"PRE\""), "{error}");
}

#[test]
fn sentencepiece_vocabularies_merge_as_llama_cpp_does() {
    let file = Gguf::open(&golden("gguf/sentencepiece-vocabulary.gguf")).unwrap();
    check_vocabulary(&file, &json_file("gguf/sentencepiece-vocabulary.json")["llama"], "llama");
}

#[test]
fn the_real_model_reads_as_transformers_reads_it() {
    let Some(path) = std::env::var_os("MINKE_SMOLLM2") else {
        eprintln!("skipped: MINKE_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let checkpoint = Checkpoint::open(Path::new(&path)).unwrap();
    let description = checkpoint.describe().unwrap();
    assert_eq!((description.parameters, description.dtype), (134_515_008, DataType::Q4_1));
    assert_eq!(checkpoint.config().rope.scaling, RopeScaling::None);
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!((tokenizer.vocab_size(), &tokenizer.eos[..]), (49_152, &[2][..]));
    check_texts(&tokenizer, &json_file("smollm2/tokens.json"));
    let chats = json_file("smollm2/chat.json");
    check_conversations(&checkpoint.chat_template().unwrap().unwrap(), &chats);
    for case in chats.as_object().unwrap().values() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap(), false).unwrap(), ids);
    }
    let (name, shape) = families::tensor_shapes(checkpoint.config()).next().unwrap();
    assert_eq!(checkpoint.tensor(&name, &shape).unwrap().len(), 49_152 * 576);
}

#[test]
fn what_is_written_reads_back_the_same() {
    for (name, checkpoint) in directories() {
        let directory = scratch(&format!("written-{name}"));
        let config = checkpoint.config();
        let tensors: Vec<_> = families::tensor_shapes(config)
            .map(|(name, shape)| {
                let values = checkpoint.tensor(&name, &shape).unwrap();
                (name, shape, values)
            })
            .collect();
        let tokenizer = Tokenizer::characters(&['0', '1', '+', '\n'], &["<eos>", "<pad>"]).unwrap();
        let tokenizer = tokenizer.with_ends(None, &["<eos>"]).unwrap();
        let template = "{{ messages[0].content }}{{ eos_token }}";
        let write = |dtype| {
            let tensors = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), &values[..]));
            huggingface::write(&directory, config, tensors, dtype, &tokenizer, Some(template)).unwrap();
            Checkpoint::open(&directory).unwrap()
        };
        // The second time over the first.
        for dtype in [DataType::Bf16, DataType::F32] {
            let read = write(dtype);
            assert_eq!(read.config(), config, "{name}");
            assert_eq!(read.describe().unwrap().dtype, dtype);
            for (tensor, shape, values) in &tensors {
                let read = read.tensor(tensor, shape).unwrap();
                match dtype {
                    DataType::F32 => assert_eq!(bits(&read), bits(values), "{name} {tensor}"),
                    _ => assert!(
                        read.iter().zip(values).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0),
                        "{name} {tensor}"
                    ),
                }
            }
        }
        let read = Checkpoint::open(&directory).unwrap();
        let again = read.tokenizer().unwrap();
        assert_eq!(again.eos, tokenizer.eos);
        assert_eq!(again.encode("1+0\n<eos>", true).unwrap(), tokenizer.encode("1+0\n<eos>", true).unwrap());
        let rendered = read.chat_template().unwrap().unwrap().render(&[Message::new("user", "1")], false, &Map::new());
        assert_eq!(rendered.unwrap(), "1<eos>");
        let left: Vec<String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("partial"))
            .collect();
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn character_tokenizers_say_what_they_can_not_express() {
    let tokenizer = Tokenizer::characters(&['a', 'ö', ' '], &["<eos>"]).unwrap();
    assert_eq!(tokenizer.encode("ö a<eos>", true).unwrap(), [2, 3, 1, 0]);
    assert_eq!(tokenizer.decode(&[2, 3, 1, 0], false).unwrap(), "ö a<eos>");
    assert_eq!(tokenizer.decode(&[2, 3, 1, 0], true).unwrap(), "ö a");
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_id("ö"), tokenizer.token_id("b")), (4, Some(2), None));
    let error = tokenizer.encode("ab", true).unwrap_err().to_string();
    assert!(error.starts_with("the text can't be put in tokens"), "{error}");
    assert!(Tokenizer::characters(&['a', 'a'], &[]).is_err());
    assert!(tokenizer.clone().with_ends(Some("<bos>"), &[]).is_err());
    let with_unknown = Tokenizer::characters(&['a'], &["<unk>"]).unwrap();
    assert_eq!(with_unknown.encode("ab", true).unwrap(), [1, 0]);
}

#[test]
fn beginnings_follow_the_tokenizers_settings() {
    let directory = scratch("beginnings");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(golden("models/llama-chat").join(file), directory.join(file)).unwrap();
    }
    let encode = |settings: Value| {
        fs::write(directory.join("tokenizer_config.json"), settings.to_string()).unwrap();
        Checkpoint::open(&directory).unwrap().tokenizer().unwrap().encode("a", true).unwrap()
    };
    let plain = encode(json!({ "bos_token": "<|im_start|>", "eos_token": { "content": "<|im_end|>" } }));
    assert_eq!(plain.len(), 1);
    let begun = encode(json!({ "bos_token": "<|im_start|>", "add_bos_token": true }));
    assert_eq!(begun, [&[1], &plain[..]].concat());
    let ended =
        encode(json!({ "eos_token": { "content": "<|im_end|>" }, "add_bos_token": false, "add_eos_token": true }));
    assert_eq!(ended, [&plain[..], &[2]].concat());
}
