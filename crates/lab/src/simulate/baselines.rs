//! Policies that others use, to compare with: each is an order in which chips are given as far as they fit.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::policy::{Claim, Tenure};
use crate::run::RunId;

/// Bounds of Tiresias' queues, in chip-seconds.
const QUEUES: [f64; 2] = [3600.0, 8.0 * 3600.0];

/// A job that has waited so long, and so many times as long as it ran, is in the first of them.
const WAIT_MS: u64 = 3_600_000;
const WAIT_TIMES: f64 = 2.0;

/// Chips go to the claims in turn, as far as they fit.
fn first_fit(mut claims: Vec<&Claim>, chips: u32, before: impl FnMut(&&Claim, &&Claim) -> Ordering) -> BTreeSet<RunId> {
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
/// in a queue those that hold chips come first, then the order of submission. A job that has waited for an hour, and twice as
/// long as it ran, is in the first queue until it has chips. (Tiresias lets it begin there again as if it had had nothing; on the
/// traces of `bench/traces.py` waits, slowdowns and shares are then no better, and most are worse.)
pub fn tiresias(claims: &[Claim], chips: u32, now: u64) -> BTreeSet<RunId> {
    let queue = |claim: &Claim| match claim.now {
        Tenure::Waits { since }
            if now.saturating_sub(since) >= WAIT_MS.max((WAIT_TIMES * claim.ran_s * 1000.0) as u64) =>
        {
            0
        }
        _ => QUEUES.iter().filter(|bound| claim.attained_chip_s >= **bound).count(),
    };
    let place = |claim: &Claim| (queue(claim), waits(claim), claim.submitted, claim.run);
    first_fit(claims.iter().collect(), chips, |a, b| place(a).cmp(&place(b)))
}
