//! Policies that others use, to compare with: each is an order in which chips are given as far as they fit.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::{Claim, Tenure};
use crate::run::RunId;

/// Chips go to the claims in turn, as far as they fit.
fn first_fit(
    mut claims: Vec<&Claim>,
    chips: u32,
    before: impl FnMut(&&Claim, &&Claim) -> std::cmp::Ordering,
) -> BTreeSet<RunId> {
    claims.sort_by(before);
    let mut room = chips;
    let mut holds = BTreeSet::new();
    for claim in claims {
        if claim.chips <= room {
            room -= claim.chips;
            holds.insert(claim.run);
        }
    }
    holds
}

fn waits(claim: &Claim) -> bool {
    matches!(claim.now, Tenure::Waits { .. })
}

/// Who holds chips goes on; the others in the order of submission.
pub fn fifo(claims: &[Claim], chips: u32) -> BTreeSet<RunId> {
    let place = |claim: &Claim| (waits(claim), claim.submitted, claim.run);
    first_fit(claims.iter().collect(), chips, |a, b| place(a).cmp(&place(b)))
}

/// Who holds chips goes on; of the others, whoever has had least (`had` tells of a claim's person) comes first.
pub fn fairshare(claims: &[Claim], chips: u32, had: impl Fn(&Claim) -> f64) -> BTreeSet<RunId> {
    let place = |claim: &Claim| (claim.submitted, claim.run);
    first_fit(claims.iter().collect(), chips, |a, b| {
        waits(a).cmp(&waits(b)).then(had(a).total_cmp(&had(b))).then(place(a).cmp(&place(b)))
    })
}

/// Discretised two-dimensional attained service, as Tiresias has it: a job's queue follows from the chip-seconds that it has had;
/// in a queue those that hold chips come first, then the order of submission. A job that has waited twice as long as it ran
/// (and an hour) begins again in the first queue, as if it had had nothing.
#[derive(Default)]
pub struct Tiresias {
    /// Chip-seconds that a job had had when it was last promoted.
    promoted: BTreeMap<RunId, f64>,
}

impl Tiresias {
    /// Bounds of the queues, in chip-seconds.
    const QUEUES: [f64; 2] = [3600.0, 8.0 * 3600.0];
    const WAIT_MS: u64 = 3_600_000;
    const WAIT_TIMES: f64 = 2.0;

    /// Who shall hold chips.
    pub fn plan(&mut self, claims: &[Claim], chips: u32, now: u64) -> BTreeSet<RunId> {
        for claim in claims {
            let Tenure::Waits { since, .. } = claim.now else { continue };
            let ran_ms = self.had(claim) / f64::from(claim.chips) * 1000.0;
            if now.saturating_sub(since) >= Tiresias::WAIT_MS.max((Tiresias::WAIT_TIMES * ran_ms) as u64) {
                self.promoted.insert(claim.run, claim.attained_chip_s);
            }
        }
        let queue = |claim: &Claim| Tiresias::QUEUES.iter().filter(|bound| self.had(claim) >= **bound).count();
        let place = |claim: &Claim| (queue(claim), waits(claim), claim.submitted, claim.run);
        first_fit(claims.iter().collect(), chips, |a, b| place(a).cmp(&place(b)))
    }

    /// Chip-seconds since it was last promoted.
    fn had(&self, claim: &Claim) -> f64 {
        claim.attained_chip_s - self.promoted.get(&claim.run).copied().unwrap_or(0.0)
    }
}
