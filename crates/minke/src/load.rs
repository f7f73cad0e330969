//! A model ready to run: found, opened, and its weights packed or, from its second start on, read as they were packed.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::{Cpu, View};
use minke_model::packed::{self, Draft, Plan, Shelf};
use minke_model::{Activations, Batch, Checkpoint, Precision, Source, Transformer};

use crate::store::Store;
use crate::{machine, terminal, units};

/// Rows that run at a time when one long sequence goes through the model.
const CHUNK: usize = 512;

/// Packed weights from so many bytes on are kept in a file: fewer are packed about as quickly as they are read.
const LEAST_KEPT: u64 = 16 << 20;
/// Up to so many are read into memory, at 5 to 8 GB/s from what the system has of the file: its pages of 2 MiB are read up
/// to a sixth faster than a file's of 4 KiB (LOG.md), token by token. More would take longer than a start shall, so they
/// are mapped: read as they are used, and given back where memory is short.
const MOST_READ: u64 = 512 << 20;

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

/// Reads a model's tensors, packed for running: from the file that an earlier start kept, or anew, which keeps one.
pub fn transformer(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision) -> Result<Transformer> {
    let plan = Plan::new(cpu, checkpoint, precision)?;
    let place = place(checkpoint, &plan, precision)?;
    let mut most_read = MOST_READ;
    if let Some(free) = machine::available_memory().filter(|&free| free < plan.bytes()) {
        let (needed, free) = (units::bytes(plan.bytes()), units::bytes(free));
        let Some(place) = &place else {
            bail!(
                "the weights take {needed} of memory and {free} are free; make them smaller with minke quantize, or let \
                 them be kept in MINKE_HOME/packed (MINKE_CACHE=on) and read from there as they are used"
            );
        };
        // Nothing is read into memory that does not fit.
        most_read = 0;
        terminal::say(&format!(
            "minke: the weights take {needed} and {free} of memory are free, so they are read from {} as they are used; \
             from a disk of 1 GB/s a token takes up to {:.1} s. minke quantize makes them smaller",
            place.display(),
            plan.bytes() as f64 / 1e9
        ));
    }
    if let Some(place) = &place {
        let kept = packed::open(cpu, place, &plan, most_read);
        if let Some(memory) = kept {
            let shelf = Shelf::reading(&plan, memory);
            return Ok(Transformer::new(cpu, checkpoint.config(), precision, Source::Packed(checkpoint, &shelf))?);
        }
        match pack_and_keep(cpu, checkpoint, precision, &plan, place, plan.file_bytes() <= most_read) {
            Ok(transformer) => return Ok(transformer),
            Err(error) if most_read == 0 => {
                return Err(error.context("the weights don't fit into memory, nor can they be kept on disk"));
            }
            // Whatever it was, a start without it is only slower; what is wrong with the model is found again.
            Err(_) => {}
        }
    }
    Ok(Transformer::new(cpu, checkpoint.config(), precision, Source::Checkpoint(checkpoint))?)
}

/// Where a model's packed weights are kept; nowhere if `MINKE_CACHE` says so, or they are few, or not those of files.
fn place(checkpoint: &Checkpoint, plan: &Plan, precision: Precision) -> Result<Option<PathBuf>> {
    let least = match std::env::var("MINKE_CACHE").as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("" | "on") => LEAST_KEPT,
        Ok("always") => 0,
        Ok("off") => u64::MAX,
        _ => {
            bail!("MINKE_CACHE says whether packed weights are kept in MINKE_HOME/packed: set it to on, off or always")
        }
    };
    if plan.bytes() < least {
        return Ok(None);
    }
    let name = checkpoint.packed_name(precision);
    name.map(|name| Store::open().map(|store| store.packed_directory().join(name))).transpose()
}

/// Files that are complete but may not survive a crash yet.
static UNSETTLED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Packs a model's weights and keeps them in a file; if `memory` is false, in nothing else.
fn pack_and_keep(
    cpu: &Cpu,
    checkpoint: &Checkpoint,
    precision: Precision,
    plan: &Plan,
    place: &std::path::Path,
    memory: bool,
) -> Result<Transformer> {
    let draft = Draft::create(place, plan)?;
    let made =
        |shelf: &Shelf<'_>| Transformer::new(cpu, checkpoint.config(), precision, Source::Packed(checkpoint, shelf));
    let mut transformer = made(&Shelf::writing(plan, &draft, memory))?;
    if !memory {
        transformer = made(&Shelf::reading(plan, draft.map()?))?;
    }
    // The disk takes its time, and nothing here waits for it. Without the file the next start is as slow as this one.
    let finished = thread::spawn(move || drop(draft.finish()));
    UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
    Ok(transformer)
}

/// Waits until what was kept is safe on the disk: what is not when the process ends is lost.
pub fn settle() {
    let unsettled = std::mem::take(&mut *UNSETTLED.lock().unwrap_or_else(PoisonError::into_inner));
    for finished in unsettled {
        // A thread that panicked has kept nothing.
        let _ = finished.join();
    }
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
