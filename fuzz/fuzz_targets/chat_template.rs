//! Chat templates: what compiles renders or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::{ChatTemplate, Message};

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source, Some("<s>"), Some("</s>")) else { return };
    let _ = template.render(&[Message::new("user", "hi")], true, &serde_json::Map::new());
});
