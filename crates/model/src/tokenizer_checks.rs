//! What a `tokenizer.json` may ask for. The `tokenizers` crate trusts its files: some parts that it accepts panic
//! later, some are random, and some silently renumber tokens. Only parts that supported families use pass.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::error::{Error, Result, quoted};

/// No published vocabulary comes near; ids beyond it would make tables that no file justifies.
const ID_LIMIT: u64 = 1 << 24;
/// Longest text that a normalizer may put in for one character, and most tokens around a text.
const LONGEST_REPLACEMENT: usize = 64;
const MOST_AROUND: usize = 16;

/// One kind of part: the key it stands under, the key of the list inside its `Sequence`, and the types that pass.
struct Part {
    key: &'static str,
    list: &'static str,
    types: &'static [&'static str],
}

const PARTS: [Part; 4] = [
    Part {
        key: "normalizer",
        list: "normalizers",
        types: &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Prepend", "Replace", "ByteLevel"],
    },
    Part {
        key: "pre_tokenizer",
        list: "pretokenizers",
        types: &["Split", "ByteLevel", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation"],
    },
    Part { key: "post_processor", list: "processors", types: &["ByteLevel", "TemplateProcessing"] },
    Part {
        key: "decoder",
        list: "decoders",
        types: &["ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"],
    },
];

/// Checks a whole `tokenizer.json`.
pub(crate) fn check(json: &Value) -> Result<()> {
    if !json.is_object() {
        return Err(Error::new("the file is not a JSON object"));
    }
    check_model(&json["model"]).map_err(|e| e.at("model"))?;
    check_added_tokens(&json["added_tokens"]).map_err(|e| e.at("added_tokens"))?;
    for part in &PARTS {
        check_part(&json[part.key], part, true).map_err(|e| e.at(part.key))?;
    }
    Ok(())
}

fn check_model(model: &Value) -> Result<()> {
    match model["type"].as_str() {
        Some("WordLevel") => check_vocabulary(&model["vocab"]).map(drop),
        Some("BPE") => {
            let vocabulary = check_vocabulary(&model["vocab"])?;
            for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
                if !matches!(model[key].as_str(), None | Some("")) {
                    return Err(Error::new(format!("{key} is not supported")));
                }
            }
            if model["dropout"].as_f64().is_some_and(|p| p != 0.0) {
                return Err(Error::new("dropout would make encoding random; set it to null"));
            }
            if let Some(unknown) = model["unk_token"].as_str()
                && !vocabulary.contains_key(unknown)
            {
                return Err(Error::new(format!("unk_token {} is not in the vocabulary", quoted(unknown))));
            }
            check_merges(&model["merges"], &vocabulary)
        }
        Some(other) => Err(Error::new(format!("type {} is not supported; BPE and WordLevel are", quoted(other)))),
        None => Err(Error::new("type is missing")),
    }
}

fn check_vocabulary(vocabulary: &Value) -> Result<HashMap<&str, u64>> {
    let vocabulary = vocabulary.as_object().ok_or_else(|| Error::new("vocab is not an object"))?;
    let mut seen = HashSet::new();
    let mut ids = HashMap::new();
    for (token, id) in vocabulary {
        match id.as_u64() {
            Some(id) if id < ID_LIMIT => {
                if !seen.insert(id) {
                    return Err(Error::new(format!("token {} has the id {id}, as another has", quoted(token))));
                }
                ids.insert(token.as_str(), id);
            }
            _ => return Err(Error::new(format!("token {} has no id below {ID_LIMIT}", quoted(token)))),
        }
    }
    Ok(ids)
}

/// Each merge joins two tokens of the vocabulary into a third; the crate cuts buffers to fit by that.
fn check_merges(merges: &Value, vocabulary: &HashMap<&str, u64>) -> Result<()> {
    let merges = merges.as_array().ok_or_else(|| Error::new("merges is not a list"))?;
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (a, b) = pair.ok_or_else(|| Error::new(format!("merge {i} is not a pair of tokens")))?;
        for token in [a, b, &format!("{a}{b}")] {
            if !vocabulary.contains_key(token) {
                return Err(Error::new(format!("merge {i} needs the token {}, which is not there", quoted(token))));
            }
        }
    }
    Ok(())
}

fn check_added_tokens(tokens: &Value) -> Result<()> {
    let tokens = match tokens {
        Value::Null => return Ok(()),
        Value::Array(tokens) => tokens,
        _ => return Err(Error::new("this is not a list")),
    };
    let mut texts = HashSet::new();
    for token in tokens {
        let text = token["content"].as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Error::new("a token has no content"))?;
        if !texts.insert(text) {
            return Err(Error::new(format!("token {} comes twice", quoted(text))));
        }
        if token["id"].as_u64().is_none_or(|id| id >= ID_LIMIT) {
            return Err(Error::new(format!("token {} has no id below {ID_LIMIT}", quoted(text))));
        }
    }
    Ok(())
}

/// Checks a part; a `Sequence` may hold parts but no further sequence, as nothing published nests them.
fn check_part(json: &Value, part: &Part, outermost: bool) -> Result<()> {
    if json.is_null() {
        return Ok(());
    }
    let object = json.as_object().ok_or_else(|| Error::new("this is not an object"))?;
    let kind = json["type"].as_str().ok_or_else(|| Error::new("type is missing"))?;
    if kind == "Sequence" && outermost {
        let inner = json[part.list].as_array();
        let inner = inner.ok_or_else(|| Error::new(format!("{} is not a list", part.list)))?;
        return inner.iter().try_for_each(|json| check_part(json, part, false));
    }
    if !part.types.contains(&kind) {
        return Err(Error::new(format!("type {} is not supported", quoted(kind))));
    }
    match kind {
        "Replace" => check_length(object, "content"),
        "Prepend" => check_length(object, "prepend"),
        "TemplateProcessing" => check_template(object),
        // The crate counts these off a token that may have fewer characters.
        "Strip" if part.key == "decoder" && json["stop"] != 0 => Err(Error::new("Strip.stop is only supported as 0")),
        _ => Ok(()),
    }
}

fn check_length(object: &Map<String, Value>, key: &str) -> Result<()> {
    match object.get(key).and_then(Value::as_str) {
        Some(text) if text.len() > LONGEST_REPLACEMENT => {
            Err(Error::new(format!("{key} is longer than {LONGEST_REPLACEMENT} bytes")))
        }
        _ => Ok(()),
    }
}

/// A template may use the one text that is encoded, and special tokens that it defines.
fn check_template(object: &Map<String, Value>) -> Result<()> {
    let specials = object.get("special_tokens").and_then(Value::as_object);
    for key in ["single", "pair"] {
        let pieces = object.get(key).and_then(Value::as_array);
        let pieces = pieces.ok_or_else(|| Error::new(format!("{key} is not a list")))?;
        if pieces.len() > MOST_AROUND {
            return Err(Error::new(format!("{key} has more than {MOST_AROUND} pieces")));
        }
        for piece in pieces {
            if let Some(id) = piece["SpecialToken"]["id"].as_str() {
                let ids = specials.and_then(|specials| specials.get(id)).and_then(|token| token["ids"].as_array());
                if ids.is_none_or(|ids| ids.len() > MOST_AROUND) {
                    return Err(Error::new(format!("{key} uses {}, which special_tokens lacks", quoted(id))));
                }
            } else if key == "single" && piece["Sequence"]["id"] != "A" {
                return Err(Error::new("single has a piece that is neither a special token nor the text"));
            }
        }
    }
    Ok(())
}
