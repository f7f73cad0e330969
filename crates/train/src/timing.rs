//! Timing: what a step of a stage takes on this machine, tried on a learner that is thrown away.

use std::path::PathBuf;
use std::time::Instant;

use minke_model::{Error, Result};

use crate::corpus::Corpus;
use crate::curriculum::Curriculum;
use crate::distillation;
use crate::format::Format;
use crate::generate::Generator;
use crate::learner::Learner;
use crate::recipe::{Share, Stage};
use crate::sequences::{Read, Sequences};
use crate::spent::Meter;
use crate::step::{At, Material, advance};
use crate::tasks::{Style, Task};

/// Steps that a stage is tried for at least, and seconds, to know what a step costs.
const TRIES: (u32, f64) = (4, 1.5);

/// What a step of a stage takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Seconds,
    pub wall_s: f64,
    /// and cores' seconds, where they are known.
    pub core_s: Option<f64>,
    /// Tokens of each completion that was sampled meanwhile.
    pub lengths: Vec<u32>,
}

/// What a step of `stage`, whose files have `read`, takes: the mean of some steps of a learner that is thrown away, after one uncounted.
///
/// # Errors
/// Those of a step.
pub fn cost(
    task: &dyn Task,
    format: &Format,
    find: &dyn Fn(&str) -> Result<PathBuf>,
    mut learner: Learner<'_>,
    stage: &Stage,
    read: Option<&Read>,
    seed: u32,
) -> Result<Cost> {
    let mut generator = Generator::new(task, format);
    // The teacher's time is its own: steps are timed on other completions.
    let corpus = match stage {
        Stage::Distil(distil) if task.demonstrates() => {
            let think = [Share { style: Style::Think, share: 1.0 }];
            Some(Corpus::draw(task, &distil.levels, distil.batch, &think, u64::from(seed)))
        }
        Stage::Distil(_) => {
            return Err(Error::new(
                "a distil stage on a task without demonstrations can't be fitted to a budget; leave the budget out",
            ));
        }
        Stage::Pretrain(_) | Stage::Sft(_) | Stage::Grpo(_) => None,
    };
    let (cpu, config) = (learner.cpu(), learner.transformer().config());
    let teacher = distillation::teacher(cpu, stage, find, config, format.tokenizer())?;
    let mut material = Material {
        corpus,
        text: Sequences::of(stage, read, task, format, u64::from(seed))?,
        reference: teacher.or_else(|| stage.has_reference().then(|| learner.with(&learner.values))),
    };
    // Harder levels take longer, and the stage may spend most of its steps on them.
    let mut curriculum = stage.curriculum().map(Curriculum::opened);
    let (mut start, mut meter, mut tries, mut lengths) = (Instant::now(), Meter::start(), 0, Vec::new());
    while tries < TRIES.0 || start.elapsed().as_secs_f64() < TRIES.1 {
        let at = At { seed, index: tries, steps: u32::MAX, number: u64::from(tries) + 1 };
        let done = advance(&mut learner, &mut generator, &mut material, curriculum.as_mut(), stage, at)?;
        let rollouts = done.rollouts.iter().flat_map(|step| &step.rollouts);
        lengths.extend(rollouts.map(|rollout| rollout.tokens.len() as u32));
        if tries == 0 {
            (start, meter) = (Instant::now(), Meter::start());
        }
        tries += 1;
    }
    let counted = f64::from(tries - 1);
    let (wall_s, spent) = (start.elapsed().as_secs_f64(), meter.lap());
    Ok(Cost { wall_s: wall_s / counted, core_s: spent.core_s.map(|seconds| seconds / counted), lengths })
}
