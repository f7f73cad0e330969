//! A `tokenizer.json` as GGUF's metadata, as llama.cpp's converter writes it.

use serde_json::Value;

use crate::error::{Error, Result, quoted};
use crate::gguf_tokenizer::{CONTROL, GPT2, UNKNOWN, USER_DEFINED, pre_tokenizer_name};
use crate::gguf_writer::Metadata;
use crate::tokenizer::Tokenizer;

/// Kinds of tokens besides those that a reader asks for, as llama.cpp numbers them.
const NORMAL: i64 = 1;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// Writes `tokenizer` with as many tokens as the embedding table has rows; those past the vocabulary are unused.
///
/// # Errors
/// When the tokenizer is of a kind that GGUF has no name for, or has more tokens than rows.
pub(crate) fn write(tokenizer: &Tokenizer, rows: usize, metadata: &mut Metadata) -> Result<()> {
    let json: Value = serde_json::from_str(&tokenizer.to_json()?)
        .map_err(|e| Error::new(format!("the tokenizer can't be written ({e})")))?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(Error::new(format!("the tokenizer is {}; GGUF files have BPE", model["type"])).at("tokenizer.json"));
    }
    let is_sentence_piece = model["byte_fallback"] == true;
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED as i32; rows];
    let mut put = |token: &str, id: &Value, kind: i64| -> Result<()> {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
        let place = place.ok_or_else(|| {
            Error::new(format!("token {} has the id {id}, but the model's vocabulary ends at {rows}", quoted(token)))
        })?;
        (tokens[place], kinds[place]) = (token.into(), kind as i32);
        Ok(())
    };
    for (token, id) in model["vocab"].as_object().into_iter().flatten() {
        let is_byte = is_sentence_piece && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let kind = if is_byte { BYTE } else { NORMAL };
        put(token, id, if is_sentence_piece && model["unk_token"] == **token { UNKNOWN } else { kind })?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().unwrap_or_default();
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        put(token, &added["id"], if is_sentence_piece && model["unk_token"] == token { UNKNOWN } else { kind })?;
    }

    let merges: Vec<[&str; 2]> = (model["merges"].as_array().into_iter().flatten())
        .filter_map(|pair| Some([pair[0].as_str()?, pair[1].as_str()?]))
        .collect();
    if is_sentence_piece {
        metadata.set_text("tokenizer.ggml.model", "llama");
        metadata.set_f32s("tokenizer.ggml.scores", &scores(&tokens, &merges));
        metadata.set_flag("tokenizer.ggml.add_space_prefix", puts_space_before(&json));
    } else {
        metadata.set_text("tokenizer.ggml.model", "gpt2");
        metadata.set_text("tokenizer.ggml.pre", pre_tokenizer(&json)?);
        let merges: Vec<String> = merges.iter().map(|[left, right]| format!("{left} {right}")).collect();
        metadata.set_texts("tokenizer.ggml.merges", &merges);
    }
    metadata.set_texts("tokenizer.ggml.tokens", &tokens);
    metadata.set_i32s("tokenizer.ggml.token_type", &kinds);

    let unknown = model["unk_token"].as_str().filter(|_| is_sentence_piece).and_then(|token| tokenizer.token_id(token));
    // Of several that end an answer, the last one ends a turn.
    let eot = tokenizer.eos.last().copied().filter(|_| tokenizer.eos.len() > 1);
    for (name, id) in
        [("bos", tokenizer.bos), ("eos", tokenizer.eos.first().copied()), ("eot", eot), ("unknown", unknown)]
    {
        if let Some(id) = id {
            metadata.set_u32(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    let around = tokenizer.encode("", true)?;
    let adds_bos = tokenizer.bos.is_some() && around.first().copied() == tokenizer.bos;
    let after = &around[usize::from(adds_bos)..];
    metadata.set_flag("tokenizer.ggml.add_bos_token", adds_bos);
    metadata.set_flag("tokenizer.ggml.add_eos_token", after.last().is_some_and(|id| tokenizer.eos.contains(id)));
    Ok(())
}

/// The name of how a text is cut before pairs are merged.
fn pre_tokenizer(json: &Value) -> Result<&'static str> {
    let composes = match json["normalizer"]["type"].as_str() {
        None => Some(false),
        Some("NFC") => Some(true),
        // A list of none is what converters leave behind.
        Some("Sequence") if json["normalizer"]["normalizers"].as_array().is_some_and(Vec::is_empty) => Some(false),
        Some(_) => None,
    };
    let mut expressions = Vec::new();
    let name = composes
        .filter(|_| cuts(&json["pre_tokenizer"], &mut expressions).is_some())
        .and_then(|composes| pre_tokenizer_name(&expressions, composes));
    name.ok_or_else(|| {
        Error::new("the way it cuts texts is none that GGUF files have a known name for").at("tokenizer.json")
    })
}

/// Adds the expressions that a pre-tokenizer cuts by; `None` where it does more.
fn cuts<'a>(pre: &'a Value, expressions: &mut Vec<&'a str>) -> Option<()> {
    match pre["type"].as_str()? {
        "Sequence" => pre["pretokenizers"].as_array()?.iter().try_for_each(|pre| cuts(pre, expressions)),
        "Split" if pre["behavior"] == "Isolated" && pre["invert"] == false => {
            expressions.push(pre["pattern"]["Regex"].as_str()?);
            Some(())
        }
        "Digits" if pre["individual_digits"] == true => {
            expressions.push(r"\p{N}");
            Some(())
        }
        "ByteLevel" if pre["add_prefix_space"] == false => {
            if pre["use_regex"] != false {
                expressions.push(GPT2);
            }
            Some(())
        }
        _ => None,
    }
}

/// Whether a text is read as if it began with a space.
fn puts_space_before(json: &Value) -> bool {
    let is = |value: &Value, kind: &str| value["type"] == kind;
    let within = |value: &Value, list: &str, kind: &str| {
        is(value, kind) || value[list].as_array().is_some_and(|list| list.iter().any(|value| is(value, kind)))
    };
    let pre = &json["pre_tokenizer"];
    within(&json["normalizer"], "normalizers", "Prepend") || is(pre, "Metaspace") && pre["prepend_scheme"] != "never"
}

/// SentencePiece merges what has the highest score first: the earlier a merge that makes a token, the higher.
fn scores(tokens: &[String], merges: &[[&str; 2]]) -> Vec<f32> {
    let mut ranks = std::collections::HashMap::new();
    for (rank, [left, right]) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    tokens.iter().map(|token| -(ranks.get(token).copied().unwrap_or(merges.len()) as f32)).collect()
}
