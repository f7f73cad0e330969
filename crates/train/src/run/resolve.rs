//! A budget resolved: the stages are timed, and what is left of them is numbers from then on.

use std::time::Instant;

use minke_model::Result;

use super::Setup;
use crate::budget::{Resolved, Size, Timed, fit};
use crate::progress::{Progress, Watch};
use crate::recipe::Stage;

/// Most of a budget that goes into training; the rest is for measuring and writing.
const TRAINING: f64 = 0.9;

impl Setup<'_> {
    /// What a budget leaves of the stages. The run has gone on since `start`, and it took `base_s` seconds to measure the model that
    /// it starts from, if that was measured.
    pub(super) fn resolve(
        &self,
        stages: &[Stage],
        values: &[f32],
        budget_s: u64,
        start: Instant,
        base_s: f64,
        watch: &mut Watch<'_>,
    ) -> Result<Resolved> {
        // What a step's share of the learning curve takes.
        let eval = &self.recipe.eval;
        let follow_s = eval.every.map_or(0.0, |every| base_s * eval.part_within_stage() / f64::from(every));
        let (mut timed, mut lengths) = (Vec::new(), Vec::new());
        for (i, stage) in stages.iter().enumerate() {
            watch(&Progress::Timing { stage: i + 1 });
            let cost = self.cost(stage, self.texts[i].as_ref(), values)?;
            timed.push(Timed { steps: stage.steps(), step_s: cost.wall_s + follow_s, smaller: None });
            lengths.push(cost.lengths);
        }
        // Each stage will be measured as that model was, and the end once more.
        let measuring_s = base_s * (stages.len() + 1) as f64;
        let left = || {
            let budget_s = budget_s as f64;
            (budget_s - start.elapsed().as_secs_f64() - measuring_s).clamp(0.0, TRAINING * budget_s)
        };
        let part = left() / timed.iter().map(|stage| f64::from(stage.steps) * stage.step_s).sum::<f64>();
        for (i, stage) in stages.iter().enumerate() {
            let Some(full) = Size::of(stage).filter(|_| timed[i].is_short(part)) else { continue };
            let least = full.least(&lengths[i]);
            watch(&Progress::Timing { stage: i + 1 });
            let cost = self.cost(&least.on(stage), self.texts[i].as_ref(), values)?;
            timed[i].smaller = Some((full, least, cost.wall_s + follow_s));
        }
        Ok(Resolved { budget_s, stages: fit(&timed, left()) })
    }
}
