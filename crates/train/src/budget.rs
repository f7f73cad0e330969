//! Time budgets: how they are written, and the numbers of steps that they come to.

use minke_model::error::quoted;
use minke_model::{Error, Result};

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

/// Steps of each stage that fit in `budget_s` seconds, given each stage's steps and seconds a step: all stages are
/// shortened by the same factor, none is lengthened, and none is left without a step.
pub fn fit(stages: &[(u32, f64)], budget_s: f64) -> Vec<u32> {
    let needed: f64 = stages.iter().map(|&(steps, seconds)| f64::from(steps) * seconds).sum();
    let factor = (budget_s / needed).clamp(0.0, 1.0);
    let shorten = |&(steps, _): &(u32, f64)| ((f64::from(steps) * factor) as u32).clamp(1, steps.max(1));
    if factor.is_nan() {
        stages.iter().map(|&(steps, _)| steps).collect()
    } else {
        stages.iter().map(shorten).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(fit(&[(600, 0.5), (80, 7.5)], 450.0), [300, 40]);
        assert_eq!(fit(&[(600, 0.5), (80, 7.5)], 1e9), [600, 80]);
        assert_eq!(fit(&[(600, 0.5), (80, 7.5)], 0.0), [1, 1]);
        assert_eq!(fit(&[(600, 0.0)], 0.0), [600]);
    }
}
