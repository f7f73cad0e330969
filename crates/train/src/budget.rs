//! Time budgets: how they are written, and what they leave of a recipe's steps and groups.

use minke_model::error::quoted;
use minke_model::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::recipe::{Grpo, Stage};
use crate::report::duration;

/// Longest budget, in seconds: thirty days.
const LONGEST_S: u64 = 30 * 24 * 3600;

/// Reads a time such as `90s`, `15m` or `2h`, in seconds.
///
/// # Errors
/// What it should look like.
pub fn parse(text: &str) -> Result<u64> {
    let wrong =
        || Error::new(format!("budget {} is not a time of at most 30 days; write it as 90s, 15m or 2h", quoted(text)));
    let unit = match text.bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    seconds.filter(|s| (1..=LONGEST_S).contains(s)).ok_or_else(wrong)
}

/// Fewest steps that are left to a stage before its groups are made smaller: 20, and a quarter of the recipe's.
const FEWEST_STEPS: u32 = 20;
/// Fewest groups and completions a group, besides a quarter of the recipe's.
const FEWEST: (u32, u32) = (2, 4);
/// Lowest limit, in tokens, that completions are held to because they were short.
const LOWEST_LIMIT: u32 = 16;

/// How large a step of a `grpo` stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Groups a step.
    pub prompts: u32,
    /// Completions a group.
    pub samples: u32,
    /// Longest completion, in tokens.
    pub max_new_tokens: u32,
}

impl Size {
    /// That of a stage, if it has groups.
    pub fn of(stage: &Stage) -> Option<Size> {
        match stage {
            Stage::Grpo(Grpo { prompts, samples, max_new_tokens, .. }) => {
                Some(Size { prompts: *prompts, samples: *samples, max_new_tokens: *max_new_tokens })
            }
            _ => None,
        }
    }

    /// The stage with steps of this size.
    pub fn on(self, stage: &Stage) -> Stage {
        let Size { prompts, samples, max_new_tokens } = self;
        match stage {
            Stage::Grpo(grpo) => Stage::Grpo(Grpo { prompts, samples, max_new_tokens, ..grpo.clone() }),
            other => other.clone(),
        }
    }

    /// The smallest that a budget makes of it. `lengths` are those of completions that were sampled to time the stage: the limit
    /// is lowered to twice what 19 in 20 of them took, where that is less.
    pub fn least(self, lengths: &[u32]) -> Size {
        let fewer = |n: u32, fewest: u32| n.min(n.div_ceil(4).max(fewest));
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        let long = (lengths.len() * 19).div_ceil(20).checked_sub(1).map(|at| 2 * lengths[at].min(1 << 30));
        let limit = long.map_or(self.max_new_tokens, |long| self.max_new_tokens.min(long.max(LOWEST_LIMIT)));
        Size { prompts: fewer(self.prompts, FEWEST.0), samples: fewer(self.samples, FEWEST.1), max_new_tokens: limit }
    }

    fn rollouts(self) -> f64 {
        f64::from(self.prompts) * f64::from(self.samples)
    }
}

/// A stage as it was timed.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Its steps in the recipe.
    pub steps: u32,
    /// Seconds that a step takes.
    pub step_s: f64,
    /// Where its steps may be made smaller, from and to what, and the seconds of a smallest one.
    pub smaller: Option<(Size, Size, f64)>,
}

/// What is left of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Its steps,
    pub steps: u32,
    /// how large they are, where that is not as in the recipe,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// and the seconds that they will take.
    pub wall_s: f64,
}

impl Timed {
    /// Whether, of all steps, so small a part would be left that the groups should be made smaller instead.
    pub fn is_short(&self, part: f64) -> bool {
        self.part(part) < self.fewest()
    }

    fn fewest(&self) -> u32 {
        FEWEST_STEPS.max(self.steps.div_ceil(4)).min(self.steps)
    }

    /// A part of the steps.
    fn part(&self, part: f64) -> u32 {
        (f64::from(self.steps) * part) as u32
    }

    fn wall_s(&self) -> f64 {
        f64::from(self.steps) * self.step_s
    }

    fn least_s(&self) -> f64 {
        self.smaller.map_or(self.step_s, |(_, _, seconds)| seconds.min(self.step_s))
    }

    /// Seconds of a step of a size between the two that were timed, on the line between them.
    fn seconds(&self, size: Size) -> f64 {
        let Some((full, least, _)) = self.smaller else { return self.step_s };
        let most = full.rollouts() - least.rollouts();
        let part = if most > 0.0 { (size.rollouts() - least.rollouts()) / most } else { 1.0 };
        self.least_s() + (self.step_s - self.least_s()) * part
    }

    fn of(&self, steps: u32, size: Option<Size>) -> Fitted {
        let step_s = size.map_or(self.step_s, |size| self.seconds(size));
        let size = size.filter(|size| self.smaller.is_some_and(|(full, ..)| *size != full));
        Fitted { steps, size, wall_s: f64::from(steps) * step_s }
    }

    /// One step, the smallest.
    fn single(&self) -> Fitted {
        self.of(1, self.smaller.map(|(_, least, _)| least))
    }

    /// What fits in a part of the time that all of it would take.
    fn within(&self, part: f64) -> Fitted {
        if part >= 1.0 {
            return self.of(self.steps, None);
        }
        let Some((full, least, _)) = self.smaller.filter(|_| self.is_short(part)) else {
            return self.of(self.part(part).max(1), None);
        };
        let share = part * self.wall_s();
        let steps = |size| ((share / self.seconds(size)) as u32).min(self.steps);
        // Fewer groups first: what a group teaches depends on how many completions it has to compare.
        let groups =
            (least.prompts..=full.prompts).rev().map(|prompts| Size { prompts, samples: full.samples, ..least });
        let samples = (least.samples..full.samples).rev().map(|samples| Size { samples, ..least });
        let size = groups.chain(samples).find(|size| steps(*size) >= self.fewest()).unwrap_or(least);
        self.of(steps(size).max(1), Some(size))
    }
}

/// What is left of stages so that they take at most `budget_s` seconds: each gets the same part of the time that it would take as
/// a whole, none is lengthened, and none is left without a step, even where that takes longer.
pub fn fit(stages: &[Timed], budget_s: f64) -> Vec<Fitted> {
    let mut single = vec![false; stages.len()];
    loop {
        let sum = |of: &dyn Fn(&Timed) -> f64, which: bool| -> f64 {
            stages.iter().zip(&single).filter(|(_, single)| **single == which).map(|(stage, _)| of(stage)).sum()
        };
        let (taken, needed) = (sum(&|stage| stage.single().wall_s, true), sum(&Timed::wall_s, false));
        let part = if needed > 0.0 { ((budget_s - taken) / needed).clamp(0.0, 1.0) } else { 1.0 };
        // A stage whose part is less than a step has one, and the others share what is left.
        let short = |stage: &Timed| part < 1.0 && part * stage.wall_s() < stage.least_s();
        let next: Vec<bool> = stages.iter().zip(&single).map(|(stage, single)| *single || short(stage)).collect();
        if next == single {
            let fitted = stages.iter().zip(&single).map(|(stage, single)| match single {
                true => stage.single(),
                false => stage.within(part),
            });
            return fitted.collect();
        }
        single = next;
    }
}

/// What a budget came to: resolved once, when a run begins, and kept with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// The budget, in seconds.
    pub budget_s: u64,
    /// What is left of each stage.
    pub stages: Vec<Fitted>,
}

impl Resolved {
    /// What is left of the recipe's stages, in words.
    pub fn words(&self, recipe: &[Stage]) -> String {
        let wall_s: f64 = self.stages.iter().map(|stage| stage.wall_s).sum();
        let (budget, training) = (said(self.budget_s), duration(wall_s));
        let cut = |(i, (left, stage)): (usize, (&Fitted, &Stage))| {
            let mut parts = Vec::new();
            let mut part = |left: u32, of: u32, what: &str| {
                if left < of {
                    parts.push(format!("{left} of {of} {what}"));
                }
            };
            part(left.steps, stage.steps(), "steps");
            if let (Some(left), Some(of)) = (left.size, Size::of(stage)) {
                part(left.prompts, of.prompts, "prompts");
                part(left.samples, of.samples, "samples");
                part(left.max_new_tokens, of.max_new_tokens, "max_new_tokens");
            }
            (!parts.is_empty()).then(|| format!("stage {}: {}", i + 1, parts.join(", ")))
        };
        let cuts: Vec<String> = self.stages.iter().zip(recipe).enumerate().filter_map(cut).collect();
        let longer = if wall_s > self.budget_s as f64 { ", more than there is" } else { "" };
        match cuts.is_empty() {
            true => format!("all of the recipe fits {budget}: about {training} of training{longer}"),
            false => format!("resolved for {budget}: {}; about {training} of training{longer}", cuts.join("; ")),
        }
    }
}

/// The recipe's stages, each with steps of the size that a budget left.
pub fn sized(recipe: &[Stage], resolved: Option<&Resolved>) -> Vec<Stage> {
    let size = |i: usize| resolved?.stages.get(i)?.size;
    recipe.iter().enumerate().map(|(i, stage)| size(i).map_or_else(|| stage.clone(), |size| size.on(stage))).collect()
}

/// A budget as it is read.
fn said(seconds: u64) -> String {
    if seconds.is_multiple_of(3600) {
        format!("{} h", seconds / 3600)
    } else if seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use minke_kernels::random::Random;

    use super::*;
    use crate::recipe::Recipe;

    const FULL: Size = Size { prompts: 8, samples: 16, max_new_tokens: 512 };

    fn steps(stages: &[(u32, f64)], budget_s: f64) -> Vec<u32> {
        let timed = |&(steps, step_s): &(u32, f64)| Timed { steps, step_s, smaller: None };
        fit(&stages.iter().map(timed).collect::<Vec<_>>(), budget_s).iter().map(|stage| stage.steps).collect()
    }

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("720h", LONGEST_S)] {
            assert_eq!(parse(text), Ok(seconds));
        }
        for text in
            ["", "s", "15", "0s", "-1m", "+1m", "1.5h", "15 m", "15min", "721h", "99999999999999999999s", "٣m", "é"]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("write it as 90s, 15m or 2h"), "{error}");
        }
    }

    #[test]
    fn budgets_shorten_all_stages_alike() {
        assert_eq!(steps(&[(600, 0.5), (80, 7.5)], 450.0), [300, 40]);
        assert_eq!(steps(&[(600, 0.5), (80, 7.5)], 1e9), [600, 80]);
        assert_eq!(steps(&[(600, 0.5), (80, 7.5)], 0.0), [1, 1]);
        assert_eq!(steps(&[(600, 0.0)], 0.0), [600]);
        // One step of the second takes longer than its part, which the first makes up for.
        assert_eq!(steps(&[(100, 1.0), (2, 50.0)], 80.0), [30, 1]);
    }

    #[test]
    fn short_completions_need_no_long_limit() {
        let mut lengths = vec![40; 95];
        lengths.extend([500; 5]);
        assert_eq!(FULL.least(&lengths), Size { prompts: 2, samples: 4, max_new_tokens: 80 });
        lengths[0] = 500;
        assert_eq!(FULL.least(&lengths).max_new_tokens, 512, "six in a hundred are long");
        assert_eq!(FULL.least(&[3]).max_new_tokens, 16);
        assert_eq!(FULL.least(&[]).max_new_tokens, 512);
        let small = Size { prompts: 1, samples: 2, max_new_tokens: 9 };
        assert_eq!(small.least(&[1]), small);
    }

    #[test]
    fn groups_are_made_smaller_before_too_few_steps_are_left() {
        let least = FULL.least(&[]);
        let stage = Timed { steps: 60, step_s: 16.0, smaller: Some((FULL, least, 2.0)) };
        // A third of the steps is enough to learn something; for less, groups go, and only then completions.
        for (budget_s, left) in
            [(960.0, (60, 8, 16)), (320.0, (20, 8, 16)), (240.0, (23, 5, 16)), (60.0, (20, 2, 8)), (20.0, (10, 2, 4))]
        {
            let [fitted] = fit(&[stage], budget_s)[..] else { panic!("one stage") };
            let size = fitted.size.unwrap_or(FULL);
            assert_eq!((fitted.steps, size.prompts, size.samples), left, "{budget_s} s");
            assert!(fitted.wall_s <= budget_s, "{fitted:?}");
        }
    }

    #[test]
    fn no_plan_takes_longer_than_its_budget_or_is_larger_than_its_recipe() {
        let mut random = Random::new(3, [0; 3]);
        let (mut smaller, mut impossible) = (0, 0);
        for _ in 0..3000 {
            let mut number = |most: u32| 1 + random.below(most);
            let stages: Vec<Timed> = (0..number(4))
                .map(|_| {
                    let kind = number(3) as usize - 1;
                    let steps = number([3, 60, 2000][kind]);
                    let step_s = f64::from(number(100_000)) / 1000.0;
                    let full = Size { prompts: number(64), samples: 1 + number(63), max_new_tokens: number(2000) };
                    let lengths: Vec<u32> = (0..number(40)).map(|_| number(full.max_new_tokens)).collect();
                    // Timing is noise: a smaller step may seem to take longer.
                    let least_s = step_s * f64::from(number(1100)) / 1000.0;
                    let smaller = (number(3) > 1).then(|| (full, full.least(&lengths), least_s));
                    Timed { steps, step_s, smaller }
                })
                .collect();
            let budget_s = f64::from(number(1_000_000)) / f64::from(number(1000));
            let fitted = fit(&stages, budget_s);
            let sum: f64 = fitted.iter().map(|stage| stage.wall_s).sum();
            if sum > budget_s * (1.0 + 1e-9) {
                assert!(fitted.iter().all(|stage| stage.steps == 1), "{budget_s} {stages:?} {fitted:?}");
                let least: f64 = stages.iter().map(|stage| stage.single().wall_s).sum();
                assert!(least > budget_s, "{budget_s} {stages:?} {fitted:?}");
                impossible += 1;
            }
            for (stage, left) in stages.iter().zip(&fitted) {
                assert!((1..=stage.steps).contains(&left.steps));
                if let (Some(size), Some((full, least, _))) = (left.size, stage.smaller) {
                    assert!((least.prompts..=full.prompts).contains(&size.prompts));
                    assert!(
                        (least.samples..=full.samples).contains(&size.samples) && size.samples >= full.samples.min(4)
                    );
                    assert!(size.max_new_tokens <= full.max_new_tokens);
                    smaller += 1;
                }
            }
        }
        assert!(smaller > 500 && impossible > 50, "{smaller} {impossible}: too easy to be a test");
    }

    #[test]
    fn people_are_told_what_is_left() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/smollm2-sums.toml");
        let stages = Recipe::read(&path).unwrap().stages;
        let whole = |steps| Fitted { steps, size: None, wall_s: 90.0 };
        let size = Size { prompts: 6, samples: 8, max_new_tokens: 40 };
        let left = Fitted { steps: 20, size: Some(size), wall_s: 700.0 };
        let resolved = Resolved { budget_s: 900, stages: vec![whole(10), left] };
        assert_eq!(
            resolved.words(&stages),
            "resolved for 15 min: stage 1: 10 of 50 steps; stage 2: 20 of 60 steps, 6 of 16 prompts, 40 of 48 max_new_tokens; \
             about 13 min 10 s of training"
        );
        let Stage::Grpo(grpo) = &sized(&stages, Some(&resolved))[1] else { panic!("a grpo stage") };
        assert_eq!((grpo.prompts, grpo.samples, grpo.max_new_tokens, grpo.steps), (6, 8, 40, 60));
        assert_eq!(sized(&stages, None), stages);
        let all = Resolved { budget_s: 90, stages: vec![whole(50), whole(60)] };
        assert_eq!(all.words(&stages), "all of the recipe fits 90 s: about 3 min 0 s of training, more than there is");
        assert_eq!(serde_json::from_str::<Resolved>(&serde_json::to_string(&resolved).unwrap()).unwrap(), resolved);
    }
}
