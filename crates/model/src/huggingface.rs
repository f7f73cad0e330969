//! Hugging Face directories, in and out: `config.json`, `*.safetensors` (one file, or shards with an index), the
//! tokenizer's files and the chat template.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::chat_template::ChatTemplate;
use crate::checkpoint::{misshapen, missing};
use crate::config::Config;
use crate::dequantize::DataType;
use crate::error::{Error, Result, quoted};
use crate::families;
use crate::mmap::stamp;
use crate::safetensors::{self, SafeTensors};
use crate::stored::{Elements, Stored};
use crate::tokenizer::{Tokenizer, template};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Largest JSON file that is read, in bytes; the largest published tokenizer has 33 million.
const JSON_LIMIT: u64 = 256 << 20;

/// An open directory.
#[derive(Debug)]
pub struct HuggingFace {
    directory: PathBuf,
    config: Config,
    /// Rows and columns that share a factor, where the weights are FP8.
    fp8_block: Option<[usize; 2]>,
    shards: Vec<SafeTensors>,
    /// Which shard has a tensor.
    places: BTreeMap<String, usize>,
}

impl HuggingFace {
    /// Opens `directory`: reads its configuration and the headers of its weights.
    ///
    /// # Errors
    /// A sentence that names the file and its key or tensor, without the directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let json = read_json(directory, CONFIG)?.ok_or_else(|| {
            Error::new(match directory.join("adapter_config.json").exists() {
                true => "the directory has adapters, and not the model that they are for; give one with both merged",
                false => "the directory has no config.json; it is not a Hugging Face model",
            })
        })?;
        let config = families::config_from_json(&json).map_err(|e| e.at(CONFIG))?;
        let fp8_block = families::fp8_block(&json).map_err(|e| e.at(CONFIG))?;
        let (shards, places) = open_weights(directory)?;
        Ok(Self { directory: directory.to_path_buf(), config, fp8_block, shards, places })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// A line for each file that weights depend on: see [`Map::stamp`](crate::mmap::Map::stamp).
    pub(crate) fn stamp(&self) -> Option<String> {
        let config = self.directory.join(CONFIG);
        let mut lines = stamp(&config, &fs::metadata(&config).ok()?)?;
        for shard in &self.shards {
            lines.push_str(shard.map().stamp()?);
        }
        Some(lines)
    }

    /// Says that bytes of one of the shards are not needed soon.
    pub(crate) fn release(&self, bytes: &[u8]) {
        self.shards.iter().for_each(|shard| shard.map().release(bytes));
    }

    /// Finds a tensor, and checks that it has this shape and a type that is read.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let elements = self.elements(name, shape)?;
        match (elements.dtype, self.fp8_block) {
            (DataType::F8E4m3, Some(block @ [rows, columns])) if shape.len() == 2 => {
                let factors = [shape[0].div_ceil(rows), shape[1].div_ceil(columns)];
                let factors = self.elements(&format!("{name}_scale_inv"), &factors)?;
                Ok(Stored::Scaled { elements, factors, block })
            }
            (DataType::F8E4m3, _) => Err(Error::new(format!(
                "tensor {name} has type F8_E4M3, but config.json's quantization_config has no factors for it; convert it to \
                 BF16"
            ))),
            _ => Ok(Stored::Plain(elements)),
        }
    }

    fn elements(&self, name: &str, shape: &[usize]) -> Result<Elements<'_>> {
        let stored = self.places.get(name).and_then(|&shard| self.shards[shard].get(name));
        let stored = stored.ok_or_else(|| missing(name))?;
        if stored.shape != shape {
            return Err(misshapen(name, stored.shape, shape));
        }
        let dtype = stored.dtype.map_err(|dtype| {
            Error::new(format!("tensor {name} has type {}, which is not read; convert it to BF16", quoted(dtype)))
        })?;
        Ok(Elements { dtype, bytes: stored.bytes })
    }

    /// The tokenizer, with the tokens that begin and end a text.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or can't be used, or a file beside it is damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let mut json = read_json(&self.directory, TOKENIZER)?
            .ok_or_else(|| Error::new(format!("the directory has no {TOKENIZER}; other tokenizers are not read")))?;
        let settings = read_json(&self.directory, TOKENIZER_CONFIG)?.unwrap_or_default();
        let [bos, eos] = ["bos_token", "eos_token"].map(|key| special_text(&settings, key));
        // Where these keys are written, transformers puts the tokens around a text whatever tokenizer.json says.
        if let Some(adds_bos) = settings["add_bos_token"].as_bool() {
            let adds_eos = settings["add_eos_token"].as_bool().unwrap_or(false);
            let with_id = |text| added_id(&json, text).map(|id| (text, id));
            let before = bos.filter(|_| adds_bos).and_then(with_id);
            let after = eos.filter(|_| adds_eos).and_then(with_id);
            let around = template(before, after);
            if let Some(object) = json.as_object_mut() {
                object.insert("post_processor".into(), around);
            }
        }
        let mut tokenizer = Tokenizer::from_value(json).map_err(|e| e.at(TOKENIZER))?;
        tokenizer.bos = bos.and_then(|text| tokenizer.token_id(text));
        let config = read_json(&self.directory, CONFIG)?.unwrap_or_default();
        let generation = read_json(&self.directory, GENERATION)?.unwrap_or_default();
        let named = [&generation, &config].into_iter().flat_map(|json| ids(&json["eos_token_id"]));
        for id in named.chain(eos.and_then(|text| tokenizer.token_id(text))) {
            if !tokenizer.eos.contains(&id) {
                tokenizer.eos.push(id);
            }
        }
        Ok(tokenizer)
    }

    /// The chat template, if the model has one.
    ///
    /// # Errors
    /// When a file is damaged, or the template does not compile.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        let settings = read_json(&self.directory, TOKENIZER_CONFIG)?.unwrap_or_default();
        let source = match read_text(&self.directory, TEMPLATE)? {
            Some(source) => Some(source),
            None => match &settings["chat_template"] {
                Value::String(source) => Some(source.clone()),
                // Several templates, by name.
                Value::Array(named) => named
                    .iter()
                    .find(|entry| entry["name"] == "default")
                    .and_then(|entry| entry["template"].as_str())
                    .map(str::to_string),
                _ => None,
            },
        };
        let [bos, eos] = ["bos_token", "eos_token"].map(|key| special_text(&settings, key));
        source.map(|source| ChatTemplate::new(&source, bos, eos)).transpose()
    }
}

/// The text of a special token, written as itself or as an object with `content`.
fn special_text<'a>(settings: &'a Value, key: &str) -> Option<&'a str> {
    settings[key].as_str().or_else(|| settings[key]["content"].as_str())
}

/// The id of an added token in a `tokenizer.json`.
fn added_id(json: &Value, text: &str) -> Option<u32> {
    let added = json["added_tokens"].as_array()?;
    let token = added.iter().find(|token| token["content"] == text)?;
    u32::try_from(token["id"].as_u64()?).ok()
}

/// One token id or a list of them; anything else is none.
fn ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

fn open_weights(directory: &Path) -> Result<(Vec<SafeTensors>, BTreeMap<String, usize>)> {
    if directory.join(WEIGHTS).exists() {
        let file = SafeTensors::open(&directory.join(WEIGHTS)).map_err(|e| e.at(WEIGHTS))?;
        let places = file.names().map(|name| (name.to_string(), 0)).collect();
        return Ok((vec![file], places));
    }
    let Some(json) = read_json(directory, INDEX)? else {
        return Err(Error::new(format!(
            "the directory has neither {WEIGHTS} nor {INDEX}; other formats of weights are not read"
        )));
    };
    let index = json["weight_map"].as_object();
    let index = index.ok_or_else(|| Error::new("weight_map is not an object").at(INDEX))?;
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shards = Vec::new();
    let mut places = BTreeMap::new();
    for (tensor, file) in index {
        let file = file.as_str();
        let file = file.ok_or_else(|| Error::new(format!("{} has no file's name", quoted(tensor))).at(INDEX))?;
        let shard = match files.get(file) {
            Some(&shard) => shard,
            None => {
                // The index comes with the model: it may not point outside the directory.
                if Path::new(file).file_name() != Some(file.as_ref()) {
                    return Err(Error::new(format!("{} is not a plain file name", quoted(file))).at(INDEX));
                }
                shards.push(SafeTensors::open(&directory.join(file)).map_err(|e| e.at(file))?);
                files.insert(file, shards.len() - 1);
                shards.len() - 1
            }
        };
        if shards[shard].get(tensor).is_none() {
            return Err(Error::new(format!("tensor {} is not in {file}, where {INDEX} puts it", quoted(tensor))));
        }
        places.insert(tensor.clone(), shard);
    }
    Ok((shards, places))
}

/// Reads a text file of `directory`, if it is there.
fn read_text(directory: &Path, name: &str) -> Result<Option<String>> {
    let path = directory.join(name);
    let about = match fs::metadata(&path) {
        Ok(about) => about,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::new(format!("the file can't be read ({e})")).at(name)),
    };
    if !about.is_file() {
        return Err(Error::new("this is not a regular file").at(name));
    }
    if about.len() > JSON_LIMIT {
        return Err(
            Error::new(format!("the file has {} bytes, more than a file of its kind could need", about.len())).at(name)
        );
    }
    let bytes = fs::read(&path).map_err(|e| Error::new(format!("the file can't be read ({e})")).at(name))?;
    String::from_utf8(bytes).map(Some).map_err(|_| Error::new("the file is not UTF-8 text").at(name))
}

/// Reads a JSON file of `directory`, if it is there.
fn read_json(directory: &Path, name: &str) -> Result<Option<Value>> {
    let Some(text) = read_text(directory, name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::new(format!("the file is not JSON ({e})")).at(name))
}

/// Writes a model that transformers loads: `config.json`, `model.safetensors`, `generation_config.json` and the
/// tokenizer's files. `tensors` are name (as [`families::tensor_shapes`] has it), row-major shape and elements; `dtype`
/// is F32 or BF16.
///
/// Each file is written under another name, synced and renamed, `config.json` last: a directory that has it is whole.
///
/// # Errors
/// When a file can't be written, naming it.
pub fn write<'a>(
    directory: &Path,
    config: &Config,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>,
    dtype: DataType,
    tokenizer: &Tokenizer,
    chat_template: Option<&str>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let shapes: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    let elements = |i: usize| Ok(Cow::Borrowed(tensors[i].2));
    write_each(directory, config, &shapes, elements, dtype, tokenizer, chat_template)
}

/// As [`write()`], with the elements of tensor i asked for when they are written: only one tensor's need be in memory.
///
/// # Errors
/// When a file can't be written, naming it; and those of `elements`.
pub fn write_each<'a>(
    directory: &Path,
    config: &Config,
    tensors: &[(String, Vec<usize>)],
    mut elements: impl FnMut(usize) -> Result<Cow<'a, [f32]>>,
    dtype: DataType,
    tokenizer: &Tokenizer,
    chat_template: Option<&str>,
) -> Result<()> {
    fs::create_dir_all(directory).map_err(|e| Error::new(format!("the directory can't be made ({e})")))?;
    replace(directory, WEIGHTS, |out| {
        safetensors::write_each(out, dtype, tensors, |i| elements(i).map_err(io::Error::other))
    })?;

    let text = tokenizer.to_json()?;
    replace(directory, TOKENIZER, |out| out.write_all(text.as_bytes()))?;
    let pad = tokenizer.token_id("<pad>").or_else(|| tokenizer.eos.first().copied());
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token(tokenizer.bos),
        "eos_token": token(tokenizer.eos.first().copied()),
        "pad_token": token(pad),
        "model_max_length": config.max_positions,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(source) = chat_template {
        settings["chat_template"] = source.into();
    }
    replace_json(directory, TOKENIZER_CONFIG, &settings)?;

    let eos = match tokenizer.eos.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let ends = json!({ "bos_token_id": tokenizer.bos, "eos_token_id": eos, "pad_token_id": pad });
    replace_json(directory, GENERATION, &ends)?;

    let mut json = families::config_to_json(config);
    let name = if dtype == DataType::F32 { "float32" } else { "bfloat16" };
    if let (Value::Object(json), Value::Object(ends)) = (&mut json, ends) {
        json.extend(ends);
        // The first is transformers 5's key, the second 4's.
        json.insert("dtype".into(), name.into());
        json.insert("torch_dtype".into(), name.into());
    }
    replace_json(directory, CONFIG, &json)
}

fn replace_json(directory: &Path, name: &str, json: &Value) -> Result<()> {
    replace(directory, name, |out| {
        serde_json::to_writer_pretty(&mut *out, json)?;
        out.write_all(b"\n")
    })
}

/// Writes a file under a temporary name, syncs it, and renames it to `name`.
fn replace(directory: &Path, name: &str, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let temporary = directory.join(format!(".{name}.partial"));
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, directory.join(name))?;
        // The rename itself is durable once the directory is.
        File::open(directory)?.sync_all()
    })();
    written.map_err(|e: io::Error| Error::new(format!("the file can't be written ({e})")).at(name))
}
