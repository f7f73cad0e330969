//! Traces: a teacher's completions that the task's verifier found right, which a `distil` stage learns from.
//!
//! The teacher is another model, or the one that learns as it was when the stage began (STaR, arXiv 2203.14465; the rejection
//! sampling of DeepSeek-R1, arXiv 2501.12948). What it wrote is kept in `traces/STAGE.jsonl.gz`, as rollouts are, before the
//! stage's first step: a run that goes on learns from the very same.

use std::path::{Path, PathBuf};

use minke_kernels::Cpu;
use minke_kernels::random::Random;
use minke_model::{Error, Result, Transformer};

use crate::format::Format;
use crate::generate::{Ask, Drawing, Generator};
use crate::recipe::Distil;
use crate::rollouts::{self, Rollout};
use crate::tasks::{Item, Task, training_item};

/// First words of the random streams that problems and completions are drawn from.
const PROBLEMS: u32 = 0x7472_6163;
pub(crate) const COMPLETIONS: u32 = u32::MAX - 1;
/// Problems that are put to the teacher at a time.
const CHUNK: usize = 64;

/// Where the replies of a remote teacher of a stage, counted from 1, are kept.
pub fn replies(run: &Path, stage: usize) -> PathBuf {
    run.join("traces").join(stage.to_string())
}

/// The file of a stage, counted from 1.
fn path(run: &Path, stage: usize) -> PathBuf {
    run.join("traces").join(format!("{stage}.jsonl.gz"))
}

/// A teacher's right completions, at most one a problem, of the problems of a stage. `heed` hears now and then how many of
/// them are done; where it says no, there is no result.
///
/// # Errors
/// That there is not one right completion, or those of [`Generator::complete`].
pub fn sample(
    task: &dyn Task,
    format: &Format,
    cpu: &Cpu,
    teacher: &Transformer,
    stage: &Distil,
    seed: u32,
    mut heed: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<Rollout>>> {
    let drawing = Drawing { seed, temperature: stage.temperature, limit: stage.max_new_tokens as usize };
    let mut generator = Generator::new(task, format);
    let problems = problems(task, stage, seed);
    task.health()?;
    let mut traces = Vec::new();
    for (chunk, items) in problems.chunks(CHUNK).enumerate() {
        if !heed(chunk * CHUNK) {
            return Ok(None);
        }
        let asks: Vec<Ask<'_>> = items
            .iter()
            .enumerate()
            .flat_map(|(i, item)| {
                let problem = (chunk * CHUNK + i) as u32;
                (0..stage.samples).map(move |sample| Ask { item, stream: [COMPLETIONS, problem, sample] })
            })
            .collect();
        let written = generator.complete(cpu, teacher, &asks, drawing)?.rollouts;
        traces.extend(first_right(format, &written));
    }
    at_least_one(traces, stage).map(Some)
}

/// The problems of a stage.
pub(crate) fn problems(task: &dyn Task, stage: &Distil, seed: u32) -> Vec<Item> {
    let item = |problem| {
        let mut random = Random::new(u64::from(seed), [PROBLEMS, problem, 0]);
        training_item(task, &stage.levels, &mut random)
    };
    (0..stage.problems).map(item).collect()
}

/// Whether a completion is right, and in the right form.
pub(crate) fn is_right(format: &Format, rollout: &Rollout) -> bool {
    rollout.reward == 1.0 && format.parts(&rollout.text, rollout.finished).is_ok()
}

/// Of the completions of each problem, which stand side by side, the first right one.
pub(crate) fn first_right(format: &Format, written: &[Rollout]) -> impl Iterator<Item = Rollout> {
    let problems = written.chunk_by(|a, b| a.prompt == b.prompt);
    problems.filter_map(|all| all.iter().find(|rollout| is_right(format, rollout)).cloned())
}

/// The traces, if there are any to learn from.
pub(crate) fn at_least_one(traces: Vec<Rollout>, stage: &Distil) -> Result<Vec<Rollout>> {
    if traces.is_empty() {
        return Err(Error::new(format!(
            "the teacher solved none of {} problems in the right form; give it easier levels or more samples, or another \
             teacher",
            stage.problems
        )));
    }
    Ok(traces)
}

/// Keeps the traces of a stage.
///
/// # Errors
/// What the file system says.
pub fn write(run: &Path, stage: usize, traces: &[Rollout]) -> Result<()> {
    rollouts::write_file(&path(run, stage), stage as u64, traces)
}

/// The traces that a stage began with.
///
/// # Errors
/// What is wrong with the file.
pub fn read(run: &Path, stage: usize) -> Result<Vec<Rollout>> {
    rollouts::read_file(&path(run, stage), stage as u64)
}
