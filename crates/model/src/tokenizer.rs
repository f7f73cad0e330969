//! Text to token ids and back, through the `tokenizers` crate; what its files ask for is checked here first.

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};

use crate::error::{Error, Result, quoted};
use crate::tokenizer_checks::{Bpe, check};

/// A tokenizer, whatever the format it was read from.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The token that a text begins with, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Ids that the model can't look up are refused.
    id_limit: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. It does not say which tokens begin and end a text: `bos` and `eos` are empty.
    ///
    /// # Errors
    /// One sentence that names what is damaged, or not supported: kinds of tokenizer that no supported family has.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let json = serde_json::from_slice(bytes).map_err(|e| Error::new(format!("the file is not JSON ({e})")))?;
        Self::from_value(json)
    }

    /// Reads a `tokenizer.json` that is already parsed.
    pub(crate) fn from_value(mut json: Value) -> Result<Self> {
        if json["model"]["type"] != "BPE" {
            return Self::new(json, None);
        }
        // Out of the JSON: only empty ones go through the crate's own reading, which copies each token several times.
        let mut take = |key: &str, empty| json["model"].get_mut(key).map(|value| std::mem::replace(value, empty));
        let (tokens, merges) =
            (take("vocab", json!({})).unwrap_or_default(), take("merges", json!([])).unwrap_or_default());
        let bpe = Bpe::from_json(&tokens, &merges).map_err(|e| e.at("model"))?;
        Self::new(json, Some(&bpe))
    }

    /// Reads a `tokenizer.json` whose model has no tokens and merges yet.
    pub(crate) fn with_bpe(json: Value, bpe: &Bpe<'_>) -> Result<Self> {
        Self::new(json, Some(bpe))
    }

    fn new(mut json: Value, bpe: Option<&Bpe<'_>>) -> Result<Self> {
        // A length to cut or fill texts to belongs to whoever trained on them.
        for key in ["truncation", "padding"] {
            if let Some(value) = json.get_mut(key) {
                *value = Value::Null;
            }
        }
        let vocabulary = check(&json, bpe)?;
        let unusable = |e: &dyn std::fmt::Display| Error::new(format!("the tokenizer can't be used ({e})"));
        // Added tokens are looked up in the model's vocabulary, so that has to be there first.
        let added = json.get_mut("added_tokens").map(|value| std::mem::replace(value, json!([]))).unwrap_or_default();
        let mut inner: tokenizers::Tokenizer = json.to_string().parse().map_err(|e| unusable(&e))?;
        if let (Some(bpe), ModelWrapper::BPE(empty)) = (bpe, inner.get_model()) {
            let model = filled(empty, vocabulary, bpe).map_err(|e| unusable(&e))?;
            inner.with_model(model);
        }
        let tokens = Option::<Vec<AddedToken>>::deserialize(&added).map_err(|e| unusable(&e))?;
        inner.add_tokens(tokens.unwrap_or_default()).map_err(|e| unusable(&e))?;
        // The crate numbers added tokens itself where the model's vocabulary doesn't have them.
        for token in added.as_array().into_iter().flatten() {
            let (text, id) = (token["content"].as_str().unwrap_or_default(), token["id"].as_u64());
            if inner.token_to_id(text).map(u64::from) != id {
                return Err(Error::new(format!("added token {} does not follow the vocabulary's ids", quoted(text))));
            }
        }
        Ok(Self { inner, bos: None, eos: Vec::new(), id_limit: usize::MAX })
    }

    /// A tokenizer with one token for each special and each character: ids follow the order given, specials first.
    ///
    /// Text with a character that is not in `alphabet` becomes the special `<unk>` if there is one, and is refused
    /// otherwise.
    ///
    /// # Errors
    /// When a token comes twice, or a special is empty.
    pub fn characters(alphabet: &[char], specials: &[&str]) -> Result<Self> {
        let characters = alphabet.iter().map(char::to_string);
        let tokens: Vec<String> = specials.iter().map(|s| s.to_string()).chain(characters).collect();
        let mut vocabulary = serde_json::Map::new();
        for (id, token) in tokens.iter().enumerate() {
            if vocabulary.insert(token.clone(), id.into()).is_some() {
                return Err(Error::new(format!("token {} comes twice", quoted(token))));
            }
        }
        let added: Vec<Value> = specials.iter().enumerate().map(|(id, token)| added_token(id, token, true)).collect();
        Self::from_value(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": { "Regex": "[\\s\\S]" },
                "behavior": "Isolated",
                "invert": false,
            },
            "post_processor": null,
            "decoder": { "type": "Fuse" },
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
        }))
    }

    /// Names the tokens that begin and end a text.
    ///
    /// # Errors
    /// When there is no such token.
    pub fn with_ends(mut self, bos: Option<&str>, eos: &[&str]) -> Result<Self> {
        let id = |token: &str| {
            self.token_id(token).ok_or_else(|| Error::new(format!("there is no token {}", quoted(token))))
        };
        let (bos, eos) = (bos.map(id).transpose()?, eos.iter().map(|token| id(token)).collect::<Result<_>>()?);
        (self.bos, self.eos) = (bos, eos);
        Ok(self)
    }

    /// Refuses, when encoding, ids from `vocabulary` (the rows of the model's embedding table) on.
    pub(crate) fn limited_to(mut self, vocabulary: usize) -> Self {
        self.id_limit = vocabulary;
        self
    }

    /// Token ids of `text`. Special tokens written out in the text count as themselves, as in transformers;
    /// `add_special` also puts the ones that begin and end a text around it, where the model has them so.
    ///
    /// # Errors
    /// When the text has what the vocabulary can't express, or a token that the model's embedding table lacks.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special);
        let encoding = encoding.map_err(|e| Error::new(format!("the text can't be put in tokens ({e})")))?;
        match encoding.get_ids().iter().find(|&&id| id as usize >= self.id_limit) {
            None => Ok(encoding.get_ids().to_vec()),
            Some(&id) => Err(Error::new(format!(
                "token {} has the id {id}, but the model's vocabulary ends at {}",
                quoted(&self.token(id).unwrap_or_default()),
                self.id_limit
            ))),
        }
    }

    /// Text of token ids; ids without a token (padding of the embedding table) give nothing. What is not UTF-8
    /// becomes U+FFFD. `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// When the tokenizer's own decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| Error::new(format!("the tokens can't be put in text ({e})")))
    }

    /// Number of tokens, added ones included. The model's embedding table may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether an id is left out when special tokens are skipped.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id).is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// When the crate can't, which is a fault of ours.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(|e| Error::new(format!("the tokenizer can't be written ({e})")))
    }
}

/// `empty` with tokens and merges.
fn filled(empty: &BPE, vocabulary: Vocab, bpe: &Bpe<'_>) -> tokenizers::Result<BPE> {
    let merges = bpe.merges.iter().map(|&(a, b)| (a.to_string(), b.to_string())).collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .fuse_unk(empty.fuse_unk)
        .byte_fallback(empty.byte_fallback)
        .ignore_merges(empty.ignore_merges);
    if let Some(unknown) = &empty.unk_token {
        builder = builder.unk_token(unknown.clone());
    }
    // What is left may be there, but not ask for anything: see `check`.
    let mut model = builder.build()?;
    model.dropout = empty.dropout;
    model.continuing_subword_prefix.clone_from(&empty.continuing_subword_prefix);
    model.end_of_word_suffix.clone_from(&empty.end_of_word_suffix);
    Ok(model)
}

/// An entry of `added_tokens`.
pub(crate) fn added_token(id: usize, text: &str, special: bool) -> Value {
    json!({
        "id": id,
        "content": text,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// A post-processor that puts these tokens (texts and ids) before and after a text.
pub(crate) fn template(before: Option<(&str, u32)>, after: Option<(&str, u32)>) -> Value {
    let special =
        |token: Option<(&str, u32)>| token.map(|(text, _)| json!({ "SpecialToken": { "id": text, "type_id": 0 } }));
    let around = |sequences: &[&str]| -> Vec<Value> {
        let sequences = sequences.iter().map(|id| json!({ "Sequence": { "id": id, "type_id": 0 } }));
        special(before).into_iter().chain(sequences).chain(special(after)).collect()
    };
    let tokens: serde_json::Map<String, Value> = [before, after]
        .into_iter()
        .flatten()
        .map(|(text, id)| (text.to_string(), json!({ "id": text, "ids": [id], "tokens": [text] })))
        .collect();
    json!({
        "type": "TemplateProcessing",
        "single": around(&["A"]),
        "pair": around(&["A", "B"]),
        "special_tokens": tokens,
    })
}

/// Turns ids into text as they arrive, in pieces that never hold half a character.
#[derive(Clone, Debug)]
pub struct DecodeStream {
    skip_special: bool,
    /// The last ids that were given out, which decoders need to get spaces right, and the ones not given out yet.
    window: Vec<u32>,
    /// How many of `window` were given out.
    given: usize,
}

impl DecodeStream {
    /// A stream at the start of a text.
    pub fn new(skip_special: bool) -> Self {
        Self { skip_special, window: Vec::new(), given: 0 }
    }

    /// Takes the next id; returns the text that is now certain, often none.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        self.window.push(id);
        let text = self.rest(tokenizer)?;
        // A trailing U+FFFD may be the first bytes of a character whose others are still to come.
        if text.is_empty() || text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.window.drain(..self.given);
        self.given = self.window.len();
        Ok(text)
    }

    /// Ends the text: returns what was held back.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let text = self.rest(tokenizer)?;
        *self = Self::new(self.skip_special);
        Ok(text)
    }

    /// The text of the ids not given out yet, decoded behind the ones that were.
    fn rest(&self, tokenizer: &Tokenizer) -> Result<String> {
        let before = tokenizer.decode(&self.window[..self.given], self.skip_special)?;
        let all = tokenizer.decode(&self.window, self.skip_special)?;
        // A decoder that changes what it gave out before (byte tokens that stop being UTF-8) can't take it back.
        let same = before.chars().zip(all.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        Ok(all[same..].to_string())
    }
}
