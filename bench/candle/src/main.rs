//! candle's quantised Llama on one file: the rates of reading 512 tokens and of writing 128, as JSON. usage: … GGUF

use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

const READ: usize = 512;
const WRITE: usize = 128;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("usage: minke-bench-candle GGUF");
    let mut file = File::open(&path)?;
    let content = Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    let mut next = |tokens: &[u32], at: usize| -> Result<u32> {
        let logits = model.forward(&Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?, at)?;
        logits.squeeze(0)?.argmax(0)?.to_scalar()
    };
    let prompt: Vec<u32> = (0..READ as u32).map(|i| i * 37 % 10_000 + 100).collect();
    // A first pass makes what is made once.
    next(&prompt[..16], 0)?;
    let start = Instant::now();
    next(&prompt, 0)?;
    let read = READ as f64 / start.elapsed().as_secs_f64();
    let mut token = next(&prompt[..1], 0)?;
    let start = Instant::now();
    for at in 1..=WRITE {
        token = next(&[token], at)?;
    }
    let write = WRITE as f64 / start.elapsed().as_secs_f64();
    println!("{{\"pp512\":{read},\"tg128\":{write}}}");
    Ok(())
}
