//! What is found out before a run begins: that its model fits in memory, and its prompts in the model's context.

use minke_kernels::Dtype;
use minke_model::{Error, Result};

use crate::format::Format;
use crate::recipe::{Pretrain, Recipe, Stage};
use crate::tasks::{Task, held_out_items};

/// Values and gradients as f32, weights packed for products,
const BYTES_PER_PARAMETER: u128 = 10;
/// and two moments.
const fn bytes_per_moments(dtype: Dtype) -> u128 {
    match dtype {
        Dtype::F32 => 8,
        Dtype::Bf16 => 4,
    }
}
/// Of a reference, only the weights packed for products.
const BYTES_PER_REFERENCE: u128 = 2;

/// That a model can be trained in so many bytes of memory: all of `parameters`, beside `frozen` bytes that stay as they are.
pub(super) fn check_memory(parameters: u128, frozen: u64, recipe: &Recipe, memory: Option<u64>) -> Result<()> {
    let held = recipe.stages.iter().any(Stage::has_reference);
    let each = BYTES_PER_PARAMETER + bytes_per_moments(recipe.moments) + if held { BYTES_PER_REFERENCE } else { 0 };
    let bytes = u128::from(frozen) + parameters * each;
    if memory.is_some_and(|memory| bytes > u128::from(memory)) {
        let what = match frozen {
            0 => format!("a model of {parameters} parameters"),
            _ => format!("adapters of {parameters} parameters on this model"),
        };
        return Err(Error::new(format!(
            "training {what} takes {} GB of memory at least, more than this machine has; make it smaller",
            bytes / 1_000_000_000
        )));
    }
    Ok(())
}

/// That prompts and completions fit in the model's context: of every level, as many problems as say how long they get.
pub(super) fn check_lengths(task: &dyn Task, format: &Format, recipe: &Recipe, context: usize) -> Result<()> {
    const PROBLEMS: usize = 64;
    for (number, stage) in (1..).zip(&recipe.stages) {
        if let Stage::Pretrain(Pretrain { length, .. }) = stage
            && *length as usize > context
        {
            return Err(Error::new(format!(
                "stage {number}: length is {length}, more than the {context} positions that the model can read; give less"
            )));
        }
    }
    for (name, level, new) in recipe.longest(task) {
        let mut longest = 0;
        for item in held_out_items(task, level, PROBLEMS) {
            longest = longest.max(format.prompt(task, &item)?.len());
        }
        if longest + new as usize > context {
            return Err(Error::new(format!(
                "{name}: prompts of {longest} tokens and max_new_tokens of {new} don't fit in the {context} that the \
                 model can read; give less of either"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn moments_in_bf16_need_less_memory() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tiny.toml");
        let recipe = Recipe::read(&path).unwrap();
        let narrow = Recipe { moments: Dtype::Bf16, ..recipe.clone() };
        for (recipe, gigabytes) in [(recipe, 18), (narrow, 14)] {
            let bytes = gigabytes * 1_000_000_000;
            check_memory(1_000_000_000, 0, &recipe, Some(bytes)).unwrap();
            let error = check_memory(1_000_000_000, 0, &recipe, Some(bytes - 1)).unwrap_err().to_string();
            assert!(error.contains(&format!("parameters takes {gigabytes} GB of memory at least")), "{error}");
        }
    }
}
