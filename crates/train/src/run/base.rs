//! The base model: how a published model does before its first step.

use std::sync::atomic::AtomicBool;

use minke_model::{Result, Source, Transformer};

use super::Setup;
use crate::generate::Generator;
use crate::measure::measure;
use crate::progress::{Progress, Watch};
use crate::report::Results;

impl Setup<'_> {
    /// Held-out results with the values that training starts from. `None` where `stop` came first.
    pub(super) fn base(&self, values: &[f32], stop: &AtomicBool, watch: &mut Watch<'_>) -> Result<Option<Results>> {
        let Setup { cpu, recipe, task, format, config, seed, .. } = self;
        let transformer = Transformer::new(cpu, config, recipe.dtype.into(), Source::Arena(values))?;
        let mut generator = Generator::new(&**task, format);
        let results = measure(&mut generator, &**task, recipe.eval, cpu, &transformer, *seed, stop, watch)?;
        if let Some(results) = &results {
            watch(&Progress::Base(results));
        }
        Ok(results)
    }
}
