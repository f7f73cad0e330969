//! The learning curve of a training: its held-out problems are answered now and then within a stage, and at its ends.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use minke_model::Result;

use super::{Plan, Trial};
use crate::learning_curve::Point;
use crate::measure::measure;
use crate::progress::{Progress, Watch};
use crate::report::Results;

impl Trial<'_> {
    /// Before a step: the curve has its point there, if it is time for one; false where `stop` came first. Nothing that is
    /// trained depends on it, and whoever goes on from a checkpoint knows by its state whether it was done.
    pub(super) fn follow(&mut self, stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<bool> {
        let Plan { task, eval, .. } = self.plan;
        let (stage, step) = (self.state.stage + 1, self.state.step);
        let there = self.state.curve.last().is_some_and(|point| (point.stage, point.step) == (stage, step));
        match (eval.every, step, self.state.base.clone()) {
            _ if there => {}
            // A published model was measured before its first step.
            (Some(_), 0, Some(base)) if self.state.total_steps == 0 => self.point(&base, watch)?,
            (Some(every), 1.., _) if step.is_multiple_of(every) => {
                let start = Instant::now();
                let (cpu, transformer, seed) = (self.learner.cpu(), self.learner.transformer(), self.seed());
                let eval = eval.within_stage();
                let results = measure(&mut self.generator, task, eval, cpu, transformer, seed, stop, watch)?;
                self.generator.rest();
                let Some(results) = results else { return Ok(false) };
                self.state.measuring_s += start.elapsed().as_secs_f64();
                self.state.measuring += self.meter.lap();
                self.point(&results, watch)?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// Adds results as they are now to the curve, if the recipe asks for one.
    pub(super) fn point(&mut self, results: &Results, watch: &mut Watch<'_>) -> Result<()> {
        if self.plan.eval.every.is_none() {
            return Ok(());
        }
        let state = &mut self.state;
        let steps = (state.step, state.total_steps);
        let point = Point::of(results, state.stage + 1, steps, (state.wall_s, state.training.core_s));
        self.metrics.append(&point)?;
        state.metrics_lines = self.metrics.lines();
        watch(&Progress::Point(&point));
        state.curve.push(point);
        Ok(())
    }
}
