//! Group-relative advantages (GRPO, arXiv 2402.03300), computed as TRL does.

/// What a reward's distance from its group's mean is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The standard deviation of the group.
    Group,
    /// The standard deviation of all rewards of the step.
    Batch,
    /// Nothing, so that easy and hard prompts weigh the same (Dr. GRPO, arXiv 2503.20783).
    None,
}

/// Keeps the quotient finite where all rewards are equal.
const SMALL: f64 = 1e-4;

/// The advantage of each reward over its group of `group` neighbours: (reward − mean) / (deviation + 1e-4), with
/// Bessel's correction in the deviation.
///
/// # Panics
/// Where the rewards don't divide into groups of two or more.
pub fn advantages(rewards: &[f32], group: usize, scale: Scale) -> Vec<f32> {
    assert!(group >= 2 && rewards.len().is_multiple_of(group), "{} rewards in groups of {group}", rewards.len());
    let whole = deviation(rewards);
    let of_group = |rewards: &[f32]| {
        let mean = mean(rewards);
        let divisor = match scale {
            Scale::Group => deviation(rewards) + SMALL,
            Scale::Batch => whole + SMALL,
            Scale::None => 1.0,
        };
        rewards.iter().map(|&reward| ((f64::from(reward) - mean) / divisor) as f32).collect::<Vec<f32>>()
    };
    rewards.chunks_exact(group).flat_map(of_group).collect()
}

/// Fraction of groups whose rewards are all equal: they teach nothing.
pub fn zero_variance(rewards: &[f32], group: usize) -> f64 {
    let equal = rewards.chunks_exact(group).filter(|rewards| rewards.iter().all(|reward| *reward == rewards[0]));
    equal.count() as f64 / (rewards.len() / group) as f64
}

fn mean(rewards: &[f32]) -> f64 {
    rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / rewards.len() as f64
}

fn deviation(rewards: &[f32]) -> f64 {
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().map(|&r| (f64::from(r) - mean) * (f64::from(r) - mean)).sum();
    (squares / (rewards.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rewards_have_no_advantage() {
        for scale in [Scale::Group, Scale::Batch, Scale::None] {
            assert_eq!(advantages(&[1.0; 4], 4, scale), [0.0; 4]);
        }
        assert_eq!(zero_variance(&[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], 2), 2.0 / 3.0);
    }

    #[test]
    fn a_group_stands_alone() {
        let rewards = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        for scale in [Scale::Group, Scale::None] {
            let together = advantages(&rewards, 3, scale);
            let apart = [advantages(&rewards[..3], 3, scale), advantages(&rewards[3..], 3, scale)].concat();
            assert_eq!(together, apart);
        }
        let [a, b, c] = advantages(&rewards[..3], 3, Scale::None)[..] else { panic!("three") };
        assert_eq!((a, b, c), (2.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0));
    }
}
