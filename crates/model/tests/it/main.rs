//! Files to logits, and gradients back, as the crates above see it.

mod files;
mod gguf_families;
mod golden;
mod hostile;
mod lora;
mod packed;
mod predictor;
mod quantize;
