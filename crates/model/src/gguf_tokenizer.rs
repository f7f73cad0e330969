//! The tokenizer in a GGUF file's metadata, rewritten as the `tokenizer.json` that it was converted from.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::{Error, Result, quoted};
use crate::gguf::Gguf;
use crate::tokenizer::{Tokenizer, added_token, template};
use crate::tokenizer_checks::Bpe;

/// Kinds of tokens, as llama.cpp numbers them (`enum llama_token_type`).
pub(crate) const UNKNOWN: i64 = 2;
pub(crate) const CONTROL: i64 = 3;
pub(crate) const USER_DEFINED: i64 = 4;

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file: byte-level BPE (`gpt2`) or SentencePiece BPE (`llama`).
    ///
    /// # Errors
    /// The first key that is missing or can't be, or the name of a model or pre-tokenizer that isn't supported.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        let vocabulary = Vocabulary::read(file)?;
        let model = file.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
        let (mut json, merges, adds_bos) = match model {
            "gpt2" => byte_level(file, &vocabulary)?,
            "llama" => sentence_piece(file, &vocabulary)?,
            other => {
                return Err(Error::new(format!(
                    "tokenizer.ggml.model is {}; the models that load are gpt2 and llama",
                    quoted(other)
                )));
            }
        };
        let (bos, eos) = (vocabulary.special(file, "bos")?, vocabulary.special(file, "eos")?);
        let adds_bos = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
        let adds_eos = file.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let (before, after) = (bos.filter(|_| adds_bos), eos.filter(|_| adds_eos));
        if before.is_some() || after.is_some() {
            json["post_processor"] = template(before, after);
        }
        let tokens = vocabulary.tokens.iter().zip(0..).map(|(&token, id)| (token, id)).collect();
        let mut tokenizer = Self::with_bpe(json, &Bpe { tokens, merges }).map_err(|e| e.at("tokenizer.ggml"))?;
        tokenizer.bos = bos.map(|(_, id)| id);
        tokenizer.eos = [eos, vocabulary.special(file, "eot")?].into_iter().flatten().map(|(_, id)| id).collect();
        tokenizer.eos.dedup();
        Ok(tokenizer)
    }
}

/// The tokens, in the order of their ids.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Self> {
        let tokens = file.texts("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; tokens.len()]);
        if kinds.len() != tokens.len() {
            return Err(Error::new(format!(
                "tokenizer.ggml.token_type has {} entries for {} tokens",
                kinds.len(),
                tokens.len()
            )));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(*token, id).is_some() {
                return Err(Error::new(format!("tokenizer.ggml.tokens has {} twice", quoted(token))));
            }
        }
        Ok(Self { tokens, kinds, ids })
    }

    /// The token that `tokenizer.ggml.NAME_token_id` names.
    fn special(&self, file: &Gguf, name: &str) -> Result<Option<(&'a str, u32)>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = file.size(&key)? else { return Ok(None) };
        let token = self
            .tokens
            .get(id)
            .ok_or_else(|| Error::new(format!("{key} is {id}, but there are {} tokens", self.tokens.len())))?;
        Ok(Some((token, id as u32)))
    }

    /// Tokens that are matched in a text before anything else.
    fn added(&self) -> Vec<Value> {
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        tokens
            .filter(|(_, (token, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind) && !token.is_empty())
            .map(|(id, (token, &kind))| added_token(id, token, kind != USER_DEFINED))
            .collect()
    }
}

/// A `tokenizer.json` without tokens and merges, the merges, and whether a text begins with BOS by default.
type Kind<'a> = (Value, Vec<(&'a str, &'a str)>, bool);

/// GPT-2's kind: bytes, cut by an expression that the file names.
fn byte_level<'a>(file: &'a Gguf, vocabulary: &Vocabulary<'a>) -> Result<Kind<'a>> {
    let name = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let pre = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied().collect();
        Error::new(format!(
            "tokenizer.ggml.pre is {}; the pre-tokenizers that load are {}",
            quoted(name),
            known.join(", ")
        ))
    })?;
    let merges = file.texts("tokenizer.ggml.merges")?.ok_or_else(|| missing("tokenizer.ggml.merges"))?;
    let merges = merges
        .iter()
        .enumerate()
        .map(|(i, merge)| {
            // The first token may itself be a space, so the one that parts the two is looked for behind it.
            let at = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at);
            let at = at.ok_or_else(|| Error::new(format!("tokenizer.ggml.merges has no pair at {i}")))?;
            Ok((&merge[..at], &merge[at + 1..]))
        })
        .collect::<Result<_>>()?;
    let splits = pre.expressions.iter().map(|expression| {
        json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false })
    });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": if pre.composes { json!({ "type": "NFC" }) } else { Value::Null },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": splits.chain([bytes]).collect::<Vec<_>>() },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.whole_words,
            "vocab": {},
            "merges": [],
        },
    });
    Ok((json, merges, pre.adds_bos))
}

/// How text is cut before pairs are merged.
struct PreTokenizer {
    /// What `tokenizer.ggml.pre` calls it.
    names: &'static [&'static str],
    /// Applied one after the other, each match a piece.
    expressions: &'static [&'static str],
    /// Unicode's canonical composition comes first.
    composes: bool,
    /// A piece that is a token is not merged from parts.
    whole_words: bool,
    /// BOS is put before a text where the file doesn't say.
    adds_bos: bool,
}

pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Expressions from the `tokenizer.json` of the models that each is named for; the default is llama.cpp's.
const PRE_TOKENIZERS: [PreTokenizer; 6] = [
    PreTokenizer { names: &["gpt-2"], expressions: &[GPT2], composes: false, whole_words: false, adds_bos: false },
    PreTokenizer {
        names: &["smollm"],
        expressions: &[r"\p{N}", GPT2],
        composes: false,
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        composes: false,
        whole_words: true,
        adds_bos: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        composes: true,
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-v3"],
        expressions: &[
            r"\p{N}{1,3}",
            "[一-龥\u{3040}-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
        composes: false,
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        composes: false,
        whole_words: false,
        adds_bos: false,
    },
];

/// What `tokenizer.ggml.pre` calls a text's cutting by `expressions`.
pub(crate) fn pre_tokenizer_name(expressions: &[&str], composes: bool) -> Option<&'static str> {
    let same = |pre: &&PreTokenizer| pre.expressions == expressions && pre.composes == composes;
    PRE_TOKENIZERS.iter().find(same).map(|pre| pre.names[0])
}

/// SentencePiece's BPE: pairs merge in the order of the score of what they make.
fn sentence_piece<'a>(file: &'a Gguf, vocabulary: &Vocabulary<'a>) -> Result<Kind<'a>> {
    let scores = file.floats("tokenizer.ggml.scores")?.ok_or_else(|| missing("tokenizer.ggml.scores"))?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(Error::new(format!(
            "tokenizer.ggml.scores has {} entries for {} tokens",
            scores.len(),
            vocabulary.tokens.len()
        )));
    }
    let unknown = match vocabulary.special(file, "unknown")? {
        Some((token, _)) => token,
        None => vocabulary.tokens.first().copied().ok_or_else(|| missing("tokenizer.ggml.unknown_token_id"))?,
    };
    let prefix = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let normalizers =
        if prefix { vec![json!({ "type": "Prepend", "prepend": "▁" }), replace] } else { vec![replace] };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": {},
            "merges": [],
        },
    });
    Ok((json, merges_by_score(vocabulary, &scores), true))
}

/// Every pair of tokens that makes a third, best first; ties as transformers breaks them.
fn merges_by_score<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let mut pairs: Vec<_> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some((*vocabulary.ids.get(left)?, *vocabulary.ids.get(right)?, left, right))
            })
            .collect();
        pairs.sort();
        merges.extend(pairs.into_iter().map(|(_, _, left, right)| (scores[id], left, right)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(length(b.1).cmp(&length(a.1))).then(length(b.2).cmp(&length(a.2))));
    merges.into_iter().map(|(_, left, right)| (left, right)).collect()
}

fn missing(key: &str) -> Error {
    Error::new(format!("{key} is missing"))
}
