//! The text of a stage that learns from text: there before its first step, and measured by after its last.

use std::sync::atomic::{AtomicBool, Ordering};

use minke_model::Result;

use super::{Plan, Trial};
use crate::pretrain::{HeldOut, measure};
use crate::recipe::Stage;
use crate::sequences::Sequences;

impl Trial<'_> {
    /// Before a step: the text is there, if the stage learns from text.
    pub(super) fn read(&mut self, stage: &Stage) -> Result<()> {
        if self.material.text.is_none() {
            let Plan { task, format, texts, .. } = self.plan;
            let read = texts.get(self.state.stage).and_then(Option::as_ref);
            self.material.text = Sequences::of(stage, read, task, format, self.state.seed)?;
        }
        Ok(())
    }

    /// How well held-out text is predicted, as many sequences of it as there are held-out problems, if the stage learns from
    /// text; `None` where `stop` came first.
    pub(super) fn predict(&mut self, stage: &Stage, stop: &AtomicBool) -> Result<Option<Option<HeldOut>>> {
        self.read(stage)?;
        let Some(text) = &self.material.text else { return Ok(Some(None)) };
        let most = self.plan.eval.items as usize;
        Ok(measure(&mut self.learner, text, most, || !stop.load(Ordering::Relaxed)).map(Some))
    }
}
