//! Importance matrices, in GGUF and as they were before: what is read are weights that a quantiser can use.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::mmap::Map;
use minke_model::quantize::Importance;

fuzz_target!(|bytes: &[u8]| {
    let Ok(importance) = Importance::new(Map::from(bytes.to_vec())) else { return };
    for name in importance.names() {
        let _ = importance.of(name, &[1, 1]);
    }
});
