//! Intervals for accuracies, and the unbiased estimate of pass@k.

use serde::{Deserialize, Serialize};

/// Where a fraction probably is: 95 % of such intervals hold the true value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval (JASA 22, 1927) for the mean of `n` numbers within 0 and 1.
///
/// For numbers that are 0 or 1 it is the usual interval of a proportion. For others, such as an item's estimate of
/// pass@k, it is on the safe side, because among all numbers of a mean those vary most.
///
/// # Panics
/// Without numbers, or where the mean is not within 0 and 1.
pub fn wilson(mean: f64, n: usize) -> Interval {
    assert!(n > 0 && (0.0..=1.0).contains(&mean), "a mean of {mean} over {n} numbers");
    let n = n as f64;
    let centre = (mean + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let reach = Z / (1.0 + Z * Z / n) * (mean * (1.0 - mean) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { low: (centre - reach).max(0.0), high: (centre + reach).min(1.0) }
}

/// The interval for how much more often the first of two is right than the second, on the same `n` problems: `gained` are those
/// that only the first got right, `lost` those that only the second did.
///
/// It is 1.96 paired standard errors to either side (arXiv 2411.00640, section 4.2), of the counts with half a problem more of each
/// kind: right by both, by either alone, by neither (Agresti and Min's "Wald+2", Statistics in Medicine 24, 2005, page 729). With
/// g and l the two counts as they are, the middle is (g − l) / (n + 2), and the error is
/// √(g + l + 1 − (g − l)² / (n + 2)) / (n + 2). Without the halves, two that differ nowhere would differ by exactly nothing.
///
/// # Panics
/// Where there are more such problems than problems.
pub fn paired(gained: usize, lost: usize, n: usize) -> Interval {
    assert!(gained + lost <= n, "{gained} and {lost} of {n} problems");
    let (gained, lost, n) = (gained as f64, lost as f64, n as f64 + 2.0);
    let centre = (gained - lost) / n;
    let reach = Z * (gained + lost + 1.0 - (gained - lost) * centre).sqrt() / n;
    Interval { low: (centre - reach).max(-1.0), high: (centre + reach).min(1.0) }
}

/// The chance that at least one of `k` samples is right, estimated from `right` among `samples` (Chen et al., arXiv
/// 2107.03374): 1 − C(samples − right, k) / C(samples, k).
///
/// # Panics
/// Where `k` is 0 or more than `samples`, or `right` is more than `samples`.
pub fn pass_at_k(samples: usize, right: usize, k: usize) -> f64 {
    assert!((1..=samples).contains(&k) && right <= samples, "pass@{k} with {right} of {samples} right");
    if samples - right < k {
        return 1.0;
    }
    1.0 - (samples - right + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formula's published examples (Newcombe, Statistics in Medicine 17, 1998, table I, method 3).
    #[test]
    fn wilson_is_as_published() {
        for (right, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let interval = wilson(f64::from(right) / n as f64, n);
            assert!((interval.low - low).abs() < 5e-5 && (interval.high - high).abs() < 5e-5, "{interval:?}");
        }
        assert_eq!(wilson(1.0, 1).high, 1.0);
    }

    /// Against PropCIs 0.3-0, `diffpropci.mp(b = 40, c = 20, n = 160, conf.level = 0.95)`.
    #[test]
    fn paired_is_as_published() {
        let Interval { low, high } = paired(20, 40, 160);
        assert!((low + 0.216_017_26).abs() < 1e-8 && (high + 0.030_896_32).abs() < 1e-8, "{low} {high}");
        let Interval { low, high } = paired(0, 0, 500);
        assert!(low < 0.0 && low > -0.005 && high == -low);
        assert_eq!(paired(1, 0, 1).high, 1.0);
    }

    /// Of all outcomes of 60 problems, by their probabilities: nearly 95 in 100 intervals hold the true difference.
    #[test]
    fn paired_holds_the_truth_as_often_as_it_says() {
        const N: usize = 60;
        let logs: Vec<f64> = (0..=N)
            .scan(0.0, |sum, i| {
                *sum += (i.max(1) as f64).ln();
                Some(*sum)
            })
            .collect();
        for (p, q) in [(0.05, 0.05), (0.2, 0.1), (0.3, 0.02), (0.5, 0.4), (0.1, 0.7)] {
            let mut held = 0.0;
            for gained in 0..=N {
                for lost in 0..=N - gained {
                    let rest = N - gained - lost;
                    let log: f64 = [(gained, p), (lost, q), (rest, 1.0 - p - q)]
                        .map(|(k, p): (usize, f64)| k as f64 * p.ln() - logs[k])
                        .iter()
                        .sum();
                    let Interval { low, high } = paired(gained, lost, N);
                    held += if (low..=high).contains(&(p - q)) { (logs[N] + log).exp() } else { 0.0 };
                }
            }
            assert!((0.93..0.985).contains(&held), "{p} {q}: {held}");
        }
    }

    /// Against counting: of all ways to choose k of the samples, those with a right one.
    #[test]
    fn pass_at_k_counts_choices() {
        for samples in 1..=8_usize {
            for right in 0..=samples {
                for k in 1..=samples {
                    let choices = (0..1_u32 << samples).filter(|c| c.count_ones() as usize == k);
                    let (all, good) = choices.fold((0, 0), |(all, good), choice| {
                        (all + 1, good + u32::from(choice & ((1 << right) - 1) != 0))
                    });
                    let expected = f64::from(good) / f64::from(all);
                    assert!((pass_at_k(samples, right, k) - expected).abs() < 1e-12);
                }
            }
        }
    }
}
