//! Hugging Face directories: `config.json`, `*.safetensors` (one file, or shards with an index) and the tokenizer's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::families;
use crate::safetensors::{SafeTensors, Stored};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Largest JSON file that is read, in bytes; the largest published tokenizer has 33 million.
const JSON_LIMIT: u64 = 256 << 20;

/// An open directory.
#[derive(Debug)]
pub struct HuggingFace {
    directory: PathBuf,
    config: Config,
    shards: Vec<SafeTensors>,
    /// Which shard has a tensor.
    places: BTreeMap<String, usize>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl HuggingFace {
    /// Opens `directory`: reads its configuration and the headers of its weights.
    ///
    /// # Errors
    /// A sentence that names the file and its key or tensor, without the directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let json = read_json(directory, CONFIG)?
            .ok_or_else(|| Error::new("the directory has no config.json; it is not a Hugging Face model"))?;
        let config = families::config_from_json(&json).map_err(|e| e.at(CONFIG))?;
        let (shards, places) = open_weights(directory)?;
        Ok(Self { directory: directory.to_path_buf(), config, shards, places })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tensor called `name`, if the directory has it.
    pub fn get(&self, name: &str) -> Option<Stored<'_>> {
        self.shards[*self.places.get(name)?].get(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// A JSON file of the directory, if it is there.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>> {
        read_json(&self.directory, name)
    }

    /// A text file of the directory, if it is there.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        read_text(&self.directory, name)
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
    let index: Index = serde_json::from_value(json).map_err(|e| Error::new(e.to_string()).at(INDEX))?;
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shards = Vec::new();
    let mut places = BTreeMap::new();
    for (tensor, file) in &index.weight_map {
        let shard = match files.get(file.as_str()) {
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
        Err(e) => return Err(Error::new(format!("can't be read ({e})")).at(name)),
    };
    if !about.is_file() {
        return Err(Error::new("is not a regular file").at(name));
    }
    if about.len() > JSON_LIMIT {
        return Err(Error::new(format!("has {} bytes, more than a file of its kind could need", about.len())).at(name));
    }
    let bytes = fs::read(&path).map_err(|e| Error::new(format!("can't be read ({e})")).at(name))?;
    String::from_utf8(bytes).map(Some).map_err(|_| Error::new("is not UTF-8 text").at(name))
}

/// Reads a JSON file of `directory`, if it is there.
fn read_json(directory: &Path, name: &str) -> Result<Option<Value>> {
    let Some(text) = read_text(directory, name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::new(format!("is not JSON ({e})")).at(name))
}
