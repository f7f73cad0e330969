//! `config.json`: what is read is written back the same, and its tensors have sizes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::families;

fuzz_target!(|bytes: &[u8]| {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    let Ok(config) = families::config_from_json(&json) else { return };
    assert!(config.parameters() > 0);
    assert!(families::tensor_shapes(&config).take(20).all(|(_, shape)| !shape.contains(&0)));
    assert_eq!(families::config_from_json(&families::config_to_json(&config)).as_ref(), Ok(&config));
});
