//! Before the first step of a `distil` stage: what its teacher writes, whoever that is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use minke_model::{Checkpoint, Precision, Result, Source, Transformer};

use super::{Plan, Trial};
use crate::corpus::Corpus;
use crate::format::Format;
use crate::progress::{Progress, Watch};
use crate::recipe::{Distil, Stage, Teacher};
use crate::rollouts::Rollout;
use crate::{distil, remote};

impl Trial<'_> {
    /// Before a step: what a teacher wrote is there, if the stage learns from one; false where `stop` came first.
    pub(super) fn teach(&mut self, stage: &Stage, stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<bool> {
        let Stage::Distil(stage) = stage else { return Ok(true) };
        if self.material.corpus.is_some() {
            return Ok(true);
        }
        let (run, number) = (&self.plan.directory, self.state.stage + 1);
        let traces = if self.state.step > 0 {
            distil::read(run, number)?
        } else {
            let start = Instant::now();
            let heed = |done| {
                watch(&Progress::Teaching { done, of: stage.problems as usize });
                !stop.load(Ordering::Relaxed)
            };
            let Some(traces) = self.traces(stage, heed)? else { return Ok(false) };
            // On disk before any checkpoint that counts on them.
            distil::write(run, number, &traces)?;
            self.state.wall_s += start.elapsed().as_secs_f64();
            traces
        };
        self.material.corpus = Some(Corpus::of(&traces, self.plan.format, self.state.seed));
        Ok(true)
    }

    /// What the teacher of a stage writes; none where `heed` says no.
    fn traces(&self, stage: &Distil, heed: impl FnMut(usize) -> bool) -> Result<Option<Vec<Rollout>>> {
        let Plan { task, format, find, chat, .. } = self.plan;
        let (cpu, seed) = (self.learner.cpu(), self.seed());
        let reference = match &stage.teacher {
            Teacher::Itself => {
                return distil::sample(task, format, cpu, self.learner.transformer(), stage, seed, heed);
            }
            Teacher::Remote(teacher) => {
                let replies = distil::replies(&self.plan.directory, self.state.stage + 1);
                return remote::sample(task, format, teacher, chat, stage, seed, &replies, heed);
            }
            Teacher::Reference(reference) => reference,
        };
        let files = Checkpoint::open(&find(reference)?).map_err(|error| error.at(reference))?;
        let template = files.chat_template()?;
        let settings = template.as_ref().and_then(|_| format.settings().cloned());
        let format = Format::new(files.tokenizer()?, template, settings).map_err(|error| error.at(reference))?;
        let teacher = Transformer::new(cpu, files.config(), Precision::Stored, Source::Checkpoint(&files))?;
        distil::sample(task, &format, cpu, &teacher, stage, seed, heed)
    }
}
