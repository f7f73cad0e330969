//! `tokenizer.json`: what is accepted encodes, decodes and can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return };
    let _ = tokenizer.encode("Hello  12 wörld<|im_end|>\n", true).and_then(|ids| tokenizer.decode(&ids, false));
    assert!(tokenizer.to_json().is_ok());
});
