//! Curricula: which levels a `grpo` stage draws its problems from, by how well they go.
//!
//! A group of completions teaches as much as its rewards differ: problems that succeed with probability p have a variance of
//! p(1 − p), and levels are drawn in proportion to that (sampling for learnability, arXiv 2502.12272). A level's p is estimated
//! from the stage's own rollouts, as (right + 1) / (seen + 2) over its completions, of which those of a step count nine tenths
//! of those of the step after it. So p is never 0 or 1, and a level that is hardly drawn is forgotten, until it counts as one
//! half again and is drawn: none starves.
//!
//! A stage begins at its lowest level. The next one opens when the highest open one succeeds often enough, and stays open.

use minke_kernels::random::Random;
use serde::{Deserialize, Serialize};

use crate::rollouts::Rollout;

/// What the completions of a step count for one step later.
const KEPT: f64 = 0.9;

/// How the levels of a stage have gone so far, which is all that its draws go by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// From the lowest to the highest.
    levels: Vec<Level>,
    /// How many of them are drawn from.
    open: usize,
}

/// A level, and what its completions came to; older ones count less.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: u32,
    /// Sum of rewards.
    right: f64,
    /// Completions.
    seen: f64,
}

/// An open level in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelMetrics {
    /// Which.
    pub level: u32,
    /// Problems of it that the step drew.
    pub problems: u32,
    /// Its running success rate, with the step's completions.
    pub rate: f64,
}

impl Level {
    /// The estimated success rate, above 0 and below 1.
    fn rate(&self) -> f64 {
        (self.right + 1.0) / (self.seen + 2.0)
    }
}

impl Curriculum {
    /// Of these levels, sorted; only the first is open.
    pub fn new(levels: &[u32]) -> Curriculum {
        let levels = levels.iter().map(|&level| Level { level, right: 0.0, seen: 0.0 }).collect();
        Curriculum { levels, open: 1 }
    }

    /// The same with every level open.
    pub fn opened(self) -> Curriculum {
        Curriculum { open: self.levels.len(), ..self }
    }

    fn open(&self) -> &[Level] {
        &self.levels[..self.open.min(self.levels.len())]
    }

    /// A level to draw a problem from.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let weight = |level: &Level| level.rate() * (1.0 - level.rate());
        let mut left = f64::from(random.uniform()) * self.open().iter().map(weight).sum::<f64>();
        let reached = self.open().iter().find(|level| {
            left -= weight(level);
            left < 0.0
        });
        // Rounding may leave a little after the last.
        reached.or(self.open().last()).map_or(0, |level| level.level)
    }

    /// Takes in what a step came to, in groups of `group` neighbours; where the highest open level then succeeds at a rate of
    /// `promote_at`, the next one opens. What the step drew is told.
    pub fn step(&mut self, rollouts: &[Rollout], group: usize, promote_at: f64) -> Vec<LevelMetrics> {
        let drawn = self.open().len();
        for level in &mut self.levels {
            (level.right, level.seen) = (KEPT * level.right, KEPT * level.seen);
            for rollout in rollouts.iter().filter(|rollout| rollout.item.level == level.level) {
                level.right += f64::from(rollout.reward);
                level.seen += 1.0;
            }
        }
        if self.open().last().is_some_and(|highest| highest.rate() >= promote_at) {
            self.open = (self.open + 1).min(self.levels.len());
        }
        let problems = |level| rollouts.chunks(group).filter(|group| group[0].item.level == level).count() as u32;
        let told = |&Level { level, .. }: &Level, rate| LevelMetrics { level, problems: problems(level), rate };
        self.levels[..drawn].iter().map(|level| told(level, level.rate())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Item;

    const GROUP: usize = 4;

    /// Groups at these levels, of which each completion is right or not.
    fn rollouts(groups: &[(u32, [u8; GROUP])]) -> Vec<Rollout> {
        let of = |&(level, rewards): &(u32, [u8; GROUP])| {
            let item = Item { level, ..Rollout::example().item };
            rewards.map(|reward| Rollout { reward: f32::from(reward), item: item.clone(), ..Rollout::example() })
        };
        groups.iter().flat_map(of).collect()
    }

    /// How often each level comes in a thousand draws.
    fn drawn(curriculum: &Curriculum, levels: &[u32]) -> Vec<f64> {
        let mut random = Random::new(5, [1, 2, 3]);
        let draws: Vec<u32> = (0..10_000).map(|_| curriculum.draw(&mut random)).collect();
        levels.iter().map(|level| draws.iter().filter(|drawn| *drawn == level).count() as f64 / 10.0).collect()
    }

    #[test]
    fn levels_are_drawn_in_proportion_to_the_variance_of_success() {
        let mut curriculum = Curriculum::new(&[2, 3, 5]).opened();
        assert!(drawn(&curriculum, &[2, 3, 5]).iter().all(|often| (often - 333.3).abs() < 20.0));
        let told = curriculum.step(&rollouts(&[(2, [1; 4]), (2, [1; 4]), (3, [1, 0, 0, 1]), (5, [0; 4])]), GROUP, 1.0);
        let rates = [9.0 / 10.0, 3.0 / 6.0, 1.0 / 6.0];
        let metrics = |level, problems, rate| LevelMetrics { level, problems, rate };
        assert_eq!(told, [metrics(2, 2, rates[0]), metrics(3, 1, rates[1]), metrics(5, 1, rates[2])]);
        let weights = rates.map(|p| p * (1.0 - p));
        let sum: f64 = weights.iter().sum();
        for (often, weight) in drawn(&curriculum, &[2, 3, 5]).iter().zip(weights) {
            assert!((often - 1000.0 * weight / sum).abs() < 20.0, "{often} of 1000, not {}", 1000.0 * weight / sum);
        }
    }

    #[test]
    fn the_next_level_opens_when_the_highest_open_one_is_mastered() {
        let mut curriculum = Curriculum::new(&[2, 3, 5]);
        assert_eq!(drawn(&curriculum, &[2, 3, 5]), [1000.0, 0.0, 0.0]);
        let told = curriculum.step(&rollouts(&[(2, [1, 1, 1, 0])]), GROUP, 0.8);
        assert_eq!((told.len(), told[0].rate), (1, 4.0 / 6.0));
        assert_eq!(drawn(&curriculum, &[3, 5]), [0.0; 2]);
        curriculum.step(&rollouts(&[(2, [1; 4]), (2, [1; 4])]), GROUP, 0.8);
        let open = drawn(&curriculum, &[2, 3, 5]);
        assert!(open[0] > 100.0 && open[1] > 500.0 && open[2] == 0.0, "{open:?}");
        // What was open once stays so, and what was never seen is not passed over.
        curriculum.step(&rollouts(&[(2, [0; 4]), (2, [0; 4]), (2, [0; 4])]), GROUP, 0.5);
        assert!(drawn(&curriculum, &[2, 3, 5]).iter().all(|often| *often > 100.0));
    }

    #[test]
    fn levels_of_which_all_or_nothing_is_right_are_drawn_again_and_again() {
        let mut curriculum = Curriculum::new(&[1, 2, 3]).opened();
        let (mut counts, mut longest, mut since) = ([0; 3], [0; 3], [0; 3]);
        for step in 0..500 {
            let levels: Vec<u32> =
                (0..16).map(|prompt| curriculum.draw(&mut Random::new(9, [0, step, prompt]))).collect();
            let right = |level| match level {
                1 => [1; 4],
                2 => [1, 0, 0, 1],
                _ => [0; 4],
            };
            let groups: Vec<(u32, [u8; 4])> = levels.iter().map(|&level| (level, right(level))).collect();
            for (i, level) in [1, 2, 3].into_iter().enumerate() {
                let problems = levels.iter().filter(|drawn| **drawn == level).count();
                counts[i] += problems;
                since[i] = if problems > 0 { 0 } else { since[i] + 1 };
                longest[i] = longest[i].max(since[i]);
            }
            curriculum.step(&rollouts(&groups), GROUP, 1.0);
        }
        let share = counts.map(|count| f64::from(u32::try_from(count).unwrap()) / 8000.0);
        assert!(share[0] > 0.02 && share[2] > 0.02 && share[1] > 0.7, "{share:?}");
        assert!(longest.iter().all(|steps| *steps < 30), "{longest:?}");
    }

    #[test]
    fn what_is_known_survives_json_to_the_bit() {
        let mut curriculum = Curriculum::new(&[2, 3]);
        for _ in 0..7 {
            curriculum.step(&rollouts(&[(2, [1, 1, 1, 0]), (3, [0, 1, 0, 0])]), GROUP, 0.6);
        }
        let text = serde_json::to_string(&curriculum).unwrap();
        assert_eq!(serde_json::from_str::<Curriculum>(&text).unwrap(), curriculum);
    }
}
