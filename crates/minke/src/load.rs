//! A model ready to run: found, opened, packed.

use anyhow::{Context, Result, anyhow};
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::{Cpu, View};
use minke_model::{Activations, Batch, Checkpoint, Precision, Source, Transformer};

use crate::store::Store;

/// Rows that run at a time when one long sequence goes through the model.
const CHUNK: usize = 512;

/// The machine that this process runs on, as `MINKE_ISA` and `MINKE_THREADS` have it.
pub fn cpu() -> Result<Cpu> {
    Cpu::detect().map_err(|sentence| anyhow!(sentence))
}

/// Opens the files of the model that `model` stands for on the command line.
pub fn open(model: &str) -> Result<Checkpoint> {
    let path = Store::open()?.find(model)?;
    let opened = Checkpoint::open(&path);
    // What is wrong with a file is said with its name.
    if path.is_dir() { opened.with_context(|| path.display().to_string()) } else { Ok(opened?) }
}

/// Reads a model's tensors and packs them for running.
pub fn transformer(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision) -> Result<Transformer> {
    Ok(Transformer::new(cpu, checkpoint.config(), precision, Source::Checkpoint(checkpoint))?)
}

/// Runs one sequence from position 0 in chunks of rows; `each` gets a chunk's first position and its hidden states.
pub fn run_through(
    cpu: &Cpu,
    transformer: &Transformer,
    tokens: &[u32],
    mut each: impl FnMut(usize, View<'_>) -> Result<()>,
) -> Result<()> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_POSITIONS) as u32).collect();
    let mut kv = KvPages::new(transformer.kv_layout(), pages.len());
    let mut activations = Activations::inference();
    for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
        let mut batch = Batch::default();
        batch.push(chunk, i * CHUNK, pages.clone());
        transformer.forward(cpu, &batch, &mut kv, &mut activations);
        each(i * CHUNK, activations.hidden(transformer.config()))?;
    }
    Ok(())
}
