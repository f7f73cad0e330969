//! Held-out results of a model as it is: at the level trained for, and one above.

use std::sync::atomic::{AtomicBool, Ordering};

use minke_kernels::Cpu;
use minke_model::{Result, Transformer};

use crate::generate::{Drawing, Generator};
use crate::progress::{Progress, Watch};
use crate::recipe::Eval;
use crate::report::Results;
use crate::tasks::{Task, held_out_items};

/// Measures a model on the held-out problems of `task`, as `eval` says. `None` where `stop` came first.
///
/// # Errors
/// Those of [`Generator::complete`].
pub fn measure(
    generator: &mut Generator<'_>,
    task: &dyn Task,
    eval: Eval,
    cpu: &Cpu,
    transformer: &Transformer,
    seed: u32,
    stop: &AtomicBool,
    watch: &mut Watch<'_>,
) -> Result<Option<Results>> {
    let drawing = Drawing { seed, temperature: eval.temperature, limit: eval.max_new_tokens as usize };
    let mut measured = Vec::new();
    for level in eval.levels(task) {
        let items = held_out_items(task, level, eval.items as usize);
        let heed = |done| {
            watch(&Progress::Measuring { level, done, of: items.len() });
            !stop.load(Ordering::Relaxed)
        };
        match generator.evaluate(cpu, transformer, &items, eval.samples, drawing, heed, |_| Ok(()))? {
            Some(evaluation) => measured.push(evaluation),
            None => return Ok(None),
        }
    }
    let mut measured = measured.into_iter();
    let think = measured.next().unwrap_or_else(|| unreachable!("a range of levels has its first"));
    Ok(Some(Results { think, above: measured.next() }))
}
