//! What was spent: cores' time, tokens and, where the machine tells, energy; and what it costs at a price.

use std::ops::{Add, AddAssign, Sub};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use crate::system::core_seconds;
use crate::system::{Energy, POWERCAP};

/// What was spent on something. What nobody knows is `None`, also of sums with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Seconds of cores' time of this process, for itself and in the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_s: Option<f64>,
    /// Joules of the machine's processors meanwhile, whoever used them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
    /// Tokens sampled to learn from.
    pub sampled_tokens: u64,
    /// Tokens learnt from, each time that they were.
    pub learnt_tokens: u64,
}

impl Spent {
    /// Nothing at all.
    pub const NOTHING: Spent = Spent { core_s: Some(0.0), joules: Some(0.0), sampled_tokens: 0, learnt_tokens: 0 };

    /// Whether nothing is known, as of a run of a minke that kept no account.
    pub fn is_unknown(&self) -> bool {
        *self == Spent::default()
    }

    /// Core-hours.
    pub fn core_hours(&self) -> Option<f64> {
        self.core_s.map(|seconds| seconds / 3600.0)
    }

    /// What people are told: core-seconds and core-hours, money at a price, tokens and energy, as far as they are known.
    pub fn words(&self, price: Option<&Price>) -> String {
        let Spent { core_s, joules, sampled_tokens, learnt_tokens } = *self;
        let mut parts = Vec::new();
        if let (Some(seconds), Some(hours)) = (core_s, self.core_hours()) {
            let money = price.and_then(|price| Some(format!(", {} at {}", price.words(price.of(self)?), price.rate())));
            parts.push(format!("{seconds:.0} core-seconds ({hours:.3} core-hours{})", money.unwrap_or_default()));
        }
        parts.push(format!("{sampled_tokens} tokens sampled and {learnt_tokens} learnt"));
        parts.extend(joules.map(|joules| format!("{:.1} kJ of the machine's processors", joules / 1000.0)));
        parts.join(", ")
    }
}

impl Add for Spent {
    type Output = Spent;

    fn add(self, other: Spent) -> Spent {
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Spent {
            core_s: sum(self.core_s, other.core_s),
            joules: sum(self.joules, other.joules),
            sampled_tokens: self.sampled_tokens + other.sampled_tokens,
            learnt_tokens: self.learnt_tokens + other.learnt_tokens,
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        *self = *self + other;
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, other: Spent) -> Spent {
        let difference = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
        Spent {
            core_s: difference(self.core_s, other.core_s),
            joules: difference(self.joules, other.joules),
            sampled_tokens: self.sampled_tokens.saturating_sub(other.sampled_tokens),
            learnt_tokens: self.learnt_tokens.saturating_sub(other.learnt_tokens),
        }
    }
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Spent>>(parts: I) -> Spent {
        parts.fold(Spent::NOTHING, Add::add)
    }
}

/// Says what was spent from one moment to the next.
#[derive(Debug)]
pub struct Meter {
    core_s: Option<f64>,
    energy: Energy,
}

impl Meter {
    /// From now on.
    pub fn start() -> Meter {
        Meter { core_s: core_seconds(), energy: Energy::of(Path::new(POWERCAP)) }
    }

    /// What was spent since it was asked last; tokens are for others to count.
    pub fn lap(&mut self) -> Spent {
        let before = std::mem::replace(&mut self.core_s, core_seconds());
        let core_s = self.core_s.zip(before).map(|(now, before)| now - before);
        Spent { core_s, joules: self.energy.joules(), ..Spent::NOTHING }
    }
}

/// What a core costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// An hour of one.
    pub per_core_hour: f64,
    /// Of which money; may be empty.
    pub currency: String,
}

impl Price {
    /// What something costs.
    pub fn of(&self, spent: &Spent) -> Option<f64> {
        Some(self.per_core_hour * spent.core_hours()?)
    }

    /// An amount with its currency, and as many digits as say something.
    fn words(&self, amount: f64) -> String {
        let digits = (2..=8).find(|&digits| amount * 10_f64.powi(digits) >= 10.0).unwrap_or(2) as usize;
        format!("{amount:.digits$} {}", self.currency).trim_end().to_string()
    }

    fn rate(&self) -> String {
        let rate = format!("{} {}", self.per_core_hour, self.currency);
        format!("{} a core-hour", rate.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_part_is_not_known_of_the_whole() {
        let part = Spent { core_s: Some(1.5), joules: Some(20.0), sampled_tokens: 3, learnt_tokens: 4 };
        let silent = Spent { joules: None, ..part };
        let sum: Spent = [part, part, silent].into_iter().sum();
        assert_eq!(sum, Spent { core_s: Some(4.5), joules: None, sampled_tokens: 9, learnt_tokens: 12 });
        assert_eq!(sum - part, Spent { core_s: Some(3.0), joules: None, sampled_tokens: 6, learnt_tokens: 8 });
        assert!((Spent::default() + part).core_s.is_none() && Spent::default().is_unknown() && !part.is_unknown());
        let text = serde_json::to_string(&silent).unwrap();
        assert_eq!(text, r#"{"core_s":1.5,"sampled_tokens":3,"learnt_tokens":4}"#);
        assert_eq!(serde_json::from_str::<Spent>(&text).unwrap(), silent);
    }

    #[test]
    fn people_are_told_what_is_known() {
        let spent = Spent { core_s: Some(5400.0), joules: Some(12_345.0), sampled_tokens: 7, learnt_tokens: 8 };
        let price = Price { per_core_hour: 0.04, currency: "EUR".into() };
        assert_eq!(
            spent.words(Some(&price)),
            "5400 core-seconds (1.500 core-hours, 0.060 EUR at 0.04 EUR a core-hour), 7 tokens sampled and 8 learnt, \
             12.3 kJ of the machine's processors"
        );
        let bare = Price { per_core_hour: 8.0, currency: String::new() };
        let quiet = Spent { joules: None, ..spent };
        assert_eq!(
            quiet.words(Some(&bare)),
            "5400 core-seconds (1.500 core-hours, 12.00 at 8 a core-hour), 7 tokens sampled and 8 learnt"
        );
        assert_eq!(Spent { core_s: None, ..quiet }.words(Some(&bare)), "7 tokens sampled and 8 learnt");
        for (amount, words) in [(123.456, "123.46 EUR"), (0.0123, "0.012 EUR"), (0.0, "0.00 EUR")] {
            assert_eq!(price.words(amount), words);
        }
    }

    #[test]
    fn a_meter_goes_on_from_where_it_was_asked() {
        let mut meter = Meter::start();
        let first = meter.lap();
        assert_eq!((first.sampled_tokens, first.learnt_tokens), (0, 0));
        assert_eq!(first.core_s.is_some(), cfg!(unix));
        assert!(first.core_s.is_none_or(|seconds| (0.0..60.0).contains(&seconds)));
    }
}
