//! Whole safetensors files: the header, and every tensor's bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minke_model::mmap::Map;
use minke_model::safetensors::SafeTensors;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafeTensors::new(Map::from(bytes.to_vec())) else { return };
    for name in file.names() {
        let Some(stored) = file.get(name) else { continue };
        if let Ok(dtype) = stored.dtype {
            assert_eq!(dtype.to_f32(stored.bytes).len(), stored.shape.iter().product::<usize>());
        }
    }
});
