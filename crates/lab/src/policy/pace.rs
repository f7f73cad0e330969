//! How fast chips change hands.

/// How fast chips change hands: everything that the policy measures in time goes with it. At the default, chips are given for
/// two minutes at least, and an idea is fresh for its first chip-hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds that a run may keep chips that it was given, at least.
    pub turn_ms: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { turn_ms: 120_000 }
    }
}

impl Pace {
    /// Thirty turns: what a long time is, in milliseconds.
    pub(super) fn long_ms(self) -> u64 {
        30 * self.turn_ms
    }

    /// An idea is fresh until it has had so many chip-seconds. In the last class a run gives way to another only if its people have
    /// had as much more: instant fairness would change all the time.
    pub(super) fn fresh_chip_s(self) -> f64 {
        self.long_ms() as f64 / 1000.0
    }

    /// Seconds of a day.
    pub(super) fn day_s(self) -> f64 {
        24.0 * self.fresh_chip_s()
    }

    /// What an idea may have had to be of the second class, in chip-seconds; above it is of the third.
    pub(super) fn second_chip_s(self) -> f64 {
        8.0 * self.fresh_chip_s()
    }
}
