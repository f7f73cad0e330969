//! A day in numbers.

use serde::Serialize;

use super::alone::alone;
use super::{SWITCH_S, Stint, Trace};
use crate::person::PersonId;
use crate::worth::quantile;

/// Shorter jobs are taken to be so long, in seconds, when it is asked how many times as long they took.
const SHORTEST_S: f64 = 60.0;

/// Whoever is entitled to less, in chip-seconds, says little about shares.
const ENTITLED_CHIP_S: f64 = 3600.0;

/// What became of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    /// Jobs.
    pub jobs: usize,
    /// People.
    pub people: usize,
    /// Seconds from a job being submitted to its first chips: the median,
    pub wait_p50_s: f64,
    /// for 95 of 100,
    pub wait_p95_s: f64,
    /// and for all.
    pub wait_max_s: f64,
    /// Time from submission to end, over the job's own running time (or a minute, if that is longer): the mean,
    pub slowdown_mean: f64,
    /// and for 95 of 100.
    pub slowdown_p95: f64,
    /// Jain's index of chip-time had over chip-time entitled to, where people are entitled to an equal share of the chips as far
    /// as they want it (max-min); 1 is fair. Only of people who are entitled to more than a chip-hour.
    pub jain: Option<f64>,
    /// How many times as long a person's jobs took as they would have with an equal part of the chips for that person alone
    /// (finish-time fairness; Themis, NSDI 2020), for whom it is most.
    pub rho_max: f64,
    /// Chip-time held over chip-time that was there and wanted.
    pub busy: f64,
    /// Seconds that jobs lost to being started.
    pub switch_lost_s: f64,
    /// How often a job was asked for its chips.
    pub preemptions: usize,
}

/// What is counted while the day goes by.
#[derive(Debug, Default)]
pub struct Tally {
    /// Chip-seconds that each person was entitled to.
    pub entitled: Vec<f64>,
    /// And had.
    pub had: Vec<f64>,
    /// Chip-seconds that were there and wanted.
    pub could: f64,
    /// And held.
    pub did: f64,
}

impl Numbers {
    /// Of a trace whose jobs all have ended.
    pub fn of(trace: &Trace, chips: u32, stints: &[Stint], tally: &Tally) -> Numbers {
        let (mut begun, mut ended) = (vec![u64::MAX; trace.jobs.len()], vec![0; trace.jobs.len()]);
        let mut lost_ms = 0;
        for stint in stints {
            begun[stint.job] = begun[stint.job].min(stint.from);
            ended[stint.job] = ended[stint.job].max(stint.until);
            lost_ms += (stint.until - stint.from).min(SWITCH_S * 1000);
        }
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let jobs = || trace.jobs.iter().enumerate();
        let waits = sorted(jobs().map(|(at, job)| seconds(job.submitted, begun[at])).collect());
        let took: Vec<f64> = jobs().map(|(at, job)| seconds(job.submitted, ended[at])).collect();
        let slowdowns = jobs().map(|(at, job)| took[at] / seconds(0, job.runs_ms).max(SHORTEST_S));
        let slowdowns = sorted(slowdowns.collect());
        let of = |sorted: &[f64], part| quantile(sorted, part).unwrap_or(0.0);
        let part = f64::from(chips) / trace.people.len() as f64;
        let rho = |person: u32| {
            let alone: f64 = alone(trace, PersonId(person), part).iter().sum();
            jobs().filter(|(_, job)| job.person.0 == person).map(|(at, _)| took[at]).sum::<f64>() / alone
        };
        Numbers {
            jobs: trace.jobs.len(),
            people: trace.people.len(),
            wait_p50_s: of(&waits, 0.5),
            wait_p95_s: of(&waits, 0.95),
            wait_max_s: of(&waits, 1.0),
            slowdown_mean: slowdowns.iter().sum::<f64>() / slowdowns.len() as f64,
            slowdown_p95: of(&slowdowns, 0.95),
            jain: jain(&tally.had, &tally.entitled),
            rho_max: (0..trace.people.len() as u32).map(rho).fold(0.0, f64::max),
            busy: tally.did / tally.could,
            switch_lost_s: lost_ms as f64 / 1000.0,
            preemptions: stints.len() - trace.jobs.len(),
        }
    }
}

/// Jain's index of what people had over what they were entitled to.
fn jain(had: &[f64], entitled: &[f64]) -> Option<f64> {
    let parts: Vec<f64> =
        had.iter().zip(entitled).filter(|(_, entitled)| **entitled > ENTITLED_CHIP_S).map(|(a, b)| a / b).collect();
    let (sum, squares) = (parts.iter().sum::<f64>(), parts.iter().map(|part| part * part).sum::<f64>());
    (squares > 0.0).then(|| sum * sum / (parts.len() as f64 * squares))
}

/// Who is entitled to how many chips: an equal share of them for everybody, and what some don't want for the others.
pub fn max_min(wanted: &[f64], chips: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at] > 0.0).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let (mut shares, mut left) = (vec![0.0; wanted.len()], chips);
    for (done, at) in order.iter().enumerate() {
        shares[*at] = wanted[*at].min(left / (order.len() - done) as f64);
        left -= shares[*at];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_as_far_as_they_are_wanted() {
        assert_eq!(max_min(&[1.0, 0.0, 9.0, 4.0], 9.0), [1.0, 0.0, 4.0, 4.0]);
        assert_eq!(max_min(&[1.0, 2.0], 9.0), [1.0, 2.0]);
        assert_eq!(jain(&[9000.0, 9000.0, 1.0], &[9000.0, 9000.0, 9.0]), Some(1.0));
        assert_eq!(jain(&[9000.0, 0.0], &[9000.0, 9000.0]), Some(0.5));
        assert_eq!(jain(&[0.0], &[1.0]), None);
    }
}
