//! `minke eval --record`: results that are kept for the board of verified accuracy.

use anyhow::Result;
use minke_arena::vote::check_name;
use minke_arena::{Verified, VoteLog};

use super::Measured;
use super::asked::Asked;
use crate::cli::arena;

/// Where a result will be kept, and of what it is.
pub struct Record {
    log: VoteLog,
    model: String,
    problems: String,
}

impl Record {
    /// Opens the store's log, before anything is measured.
    pub fn open(model: &str, asked: &Asked) -> Result<Record> {
        check_name("model", model)?;
        let problems = format!("{} {}", asked.name, asked.eval.level);
        Ok(Record { log: arena::writable_log()?, model: model.into(), problems })
    }

    /// Keeps a result. Samples drawn besides the greedy completions hide what those cost.
    pub fn keep(self, Measured { evaluation, core_s }: &Measured) -> Result<()> {
        let Record { mut log, model, problems } = self;
        let of = |part: f64| (part * evaluation.items as f64).round() as u64;
        let core_ms = core_s.filter(|_| evaluation.sampled.is_none()).map(|seconds| (1000.0 * seconds).round() as u64);
        log.record(&Verified {
            model,
            problems,
            items: evaluation.items as u64,
            right: of(evaluation.accuracy),
            lenient: of(evaluation.lenient.unwrap_or(evaluation.accuracy)),
            core_ms,
        })?;
        Ok(())
    }
}
