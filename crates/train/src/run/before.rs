//! Before the first step: what is worth knowing is said, and a published model is measured.

use std::sync::atomic::AtomicBool;

use minke_model::Result;

use super::Setup;
use crate::budget::Resolved;
use crate::generate::Generator;
use crate::measure::measure;
use crate::progress::{Progress, Watch};
use crate::report::Results;

impl Setup<'_> {
    /// What whoever watches, and whoever reads the report, may want to know of the model, and of what a budget left of the
    /// stages.
    pub(super) fn notes(&self, budget: Option<&Resolved>) -> Vec<String> {
        let opened = "the chat template opens <think> itself; completions are read as beginning inside it";
        let opened = self.format.opens_thought().then(|| opened.to_string());
        opened.into_iter().chain(budget.map(|budget| budget.words(&self.recipe.stages))).collect()
    }

    /// Held-out results with the values that training starts from. `None` where `stop` came first.
    pub(super) fn before(&self, values: &[f32], stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<Option<Results>> {
        let Setup { cpu, recipe, task, format, seed, .. } = self;
        let learner = self.learner(values.to_vec());
        let mut generator = Generator::new(&**task, format);
        let results = measure(&mut generator, &**task, recipe.eval, cpu, learner.transformer(), *seed, stop, watch)?;
        if let Some(results) = &results {
            watch(&Progress::Base(results));
        }
        Ok(results)
    }
}
