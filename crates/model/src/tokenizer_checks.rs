//! What a `tokenizer.json` may ask for. The `tokenizers` crate trusts its files: some parts that it accepts panic
//! later, some are random, and some silently renumber tokens. Only parts that supported families use pass.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::models::bpe::Vocab;

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

/// Tokens with their ids, and merges, of a BPE model, wherever they stood.
pub(crate) struct Bpe<'a> {
    pub tokens: Vec<(&'a str, u64)>,
    pub merges: Vec<(&'a str, &'a str)>,
}

impl<'a> Bpe<'a> {
    /// Those of a `tokenizer.json`.
    pub fn from_json(tokens: &'a Value, merges: &'a Value) -> Result<Bpe<'a>> {
        let tokens = tokens_of(tokens)?;
        let merges = merges.as_array().ok_or_else(|| Error::new("merges is not a list"))?;
        let is_merge = |merge: &&Value| !merge.as_str().is_some_and(|line| line.starts_with("#version"));
        let pair = |(i, merge): (usize, &'a Value)| {
            let pair = match merge {
                Value::String(line) => line.split_once(' ').filter(|(_, b)| !b.contains(' ')),
                Value::Array(pair) => match pair.as_slice() {
                    [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                    _ => None,
                },
                _ => None,
            };
            pair.ok_or_else(|| Error::new(format!("merge {i} is not a pair of tokens")))
        };
        let merges = merges.iter().filter(is_merge).enumerate().map(pair).collect::<Result<_>>()?;
        Ok(Bpe { tokens, merges })
    }
}

/// Checks a whole `tokenizer.json`, whose model's tokens and merges are `bpe`, if it is one; returns these tokens.
pub(crate) fn check(json: &Value, bpe: Option<&Bpe<'_>>) -> Result<Vocab> {
    if !json.is_object() {
        return Err(Error::new("the file is not a JSON object"));
    }
    let vocabulary = check_model(&json["model"], bpe).map_err(|e| e.at("model"))?;
    check_added_tokens(&json["added_tokens"]).map_err(|e| e.at("added_tokens"))?;
    for part in &PARTS {
        check_part(&json[part.key], part, true).map_err(|e| e.at(part.key))?;
    }
    Ok(vocabulary)
}

fn check_model(model: &Value, bpe: Option<&Bpe<'_>>) -> Result<Vocab> {
    match (model["type"].as_str(), bpe) {
        (Some("WordLevel"), _) => check_tokens(&tokens_of(&model["vocab"])?),
        (Some("BPE"), Some(bpe)) => {
            let vocabulary = check_tokens(&bpe.tokens)?;
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
            check_merges(&bpe.merges, &vocabulary)?;
            Ok(vocabulary)
        }
        (Some(other), _) => Err(Error::new(format!("type {} is not supported; BPE and WordLevel are", quoted(other)))),
        (None, _) => Err(Error::new("type is missing")),
    }
}

/// The tokens of a `vocab` with their ids.
fn tokens_of(vocabulary: &Value) -> Result<Vec<(&str, u64)>> {
    let vocabulary = vocabulary.as_object().ok_or_else(|| Error::new("vocab is not an object"))?;
    // What is no id is too large for one.
    Ok(vocabulary.iter().map(|(token, id)| (token.as_str(), id.as_u64().unwrap_or(u64::MAX))).collect())
}

/// Checks that every token has an id of its own.
fn check_tokens(tokens: &[(&str, u64)]) -> Result<Vocab> {
    let id = |&(token, id): &(&str, u64)| match id < ID_LIMIT {
        true => Ok((token.to_string(), id as u32)),
        false => Err(Error::new(format!("token {} has no id below {ID_LIMIT}", quoted(token)))),
    };
    let vocabulary = tokens.iter().map(id).collect::<Result<Vocab>>()?;
    let mut ids: Vec<(u64, usize)> = tokens.iter().enumerate().map(|(i, &(_, id))| (id, i)).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(&[_, (id, i)]) => {
            Err(Error::new(format!("token {} has the id {id}, as another has", quoted(tokens[i].0))))
        }
        _ => Ok(vocabulary),
    }
}

/// Each merge joins two tokens of the vocabulary into a third; the crate cuts buffers to fit by that.
fn check_merges(merges: &[(&str, &str)], vocabulary: &Vocab) -> Result<()> {
    let mut joined = String::new();
    for (i, &(a, b)) in merges.iter().enumerate() {
        joined.clear();
        joined.extend([a, b]);
        for token in [a, b, &joined] {
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
