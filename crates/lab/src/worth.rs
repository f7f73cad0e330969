//! What the way of working is worth, in numbers: how soon ideas run, what repeats were spared, who works together, whether
//! chips are busy.

use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::link::LinkStatus;
use crate::run::{Run, State};

/// Runs that begin this soon began at once.
const AT_ONCE_S: f64 = 60.0;

/// The numbers, over all that the lab remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// People.
    pub people: usize,
    /// Ideas.
    pub ideas: usize,
    /// Runs.
    pub runs: usize,
    /// Seconds from a run being asked for to its first step (or its start, if it tells no steps): the median.
    pub first_step_p50_s: Option<f64>,
    /// The same, for 95 of 100 runs.
    pub first_step_p95_s: Option<f64>,
    /// Of the runs that began or have waited that long: the fraction whose command began within a minute.
    pub within_a_minute: Option<f64>,
    /// How often something alike was pointed out before a run.
    pub repeats_shown: usize,
    /// How often the repeat was then not run.
    pub repeats_spared: usize,
    /// Chip-hours that those would have cost, taken as what the runs that they would have repeated have cost so far.
    pub spared_chip_h: f64,
    /// Invitations, joins and mergers that both sides wanted.
    pub joins: usize,
    /// Runs that came to a good end.
    pub done: usize,
    /// Chip-hours that all runs have had.
    pub chip_h: f64,
    /// Runs that came to a good end, for each of those chip-hours.
    pub done_per_chip_h: Option<f64>,
    /// Chip-time held, as a fraction of the chip-time that could have been (chips that there were and somebody wanted).
    pub busy: Option<f64>,
}

impl Lab {
    /// What the way of working has been worth until `now`.
    pub fn worth(&self, now: u64) -> Worth {
        let runs: Vec<&Run> = self.runs().values().collect();
        let mut first_steps: Vec<f64> =
            runs.iter().filter_map(|run| Some(seconds(run.submitted, first_step(run)?))).collect();
        first_steps.sort_by(f64::total_cmp);
        let waits: Vec<f64> = runs
            .iter()
            .filter_map(|run| match begun(run) {
                Some(begun) => Some(seconds(run.submitted, begun)),
                // Whoever has waited a minute has not begun within one; whoever was stopped before that does not count.
                None => Some(seconds(run.submitted, now)).filter(|waited| *waited > AT_ONCE_S && !run.state.is_over()),
            })
            .collect();
        let shown: Vec<_> = self.advice().values().filter(|advice| !advice.shown.is_empty()).collect();
        let spared: Vec<_> =
            shown.iter().filter(|advice| advice.choice.is_some_and(|choice| choice.spares())).collect();
        let cost = |run: Option<&Run>| run.map_or(0.0, |run| run.attained_chip_s / 3600.0);
        let spared_chip_h =
            total(spared.iter().map(|advice| cost(advice.shown[0].run.and_then(|run| self.runs().get(&run)))));
        let done = runs.iter().filter(|run| run.state == State::Done).count();
        let chip_h = total(runs.iter().map(|run| cost(Some(run))));
        Worth {
            people: self.people().len(),
            ideas: self.ideas().len(),
            runs: runs.len(),
            first_step_p50_s: quantile(&first_steps, 0.5),
            first_step_p95_s: quantile(&first_steps, 0.95),
            within_a_minute: fraction(
                waits.iter().filter(|wait| **wait <= AT_ONCE_S).count() as f64,
                waits.len() as f64,
            ),
            repeats_shown: shown.len(),
            repeats_spared: spared.len(),
            spared_chip_h,
            joins: self.links().values().filter(|link| link.status == LinkStatus::Accepted).count(),
            done,
            chip_h,
            done_per_chip_h: fraction(done as f64, chip_h),
            busy: self.busy(&runs, now),
        }
    }

    /// Walks through the times at which a run began to want chips, got some, or gave some back.
    fn busy(&self, runs: &[&Run], now: u64) -> Option<f64> {
        let mut changes: Vec<(u64, i64, i64)> = Vec::new();
        for run in runs {
            let chips = i64::from(run.chips);
            let over = run.segments.last().and_then(|segment| segment.ended.as_ref()).map(|(at, _)| *at);
            let until = if run.state.is_over() { over.unwrap_or(run.submitted) } else { now };
            changes.extend([(run.submitted, chips, 0), (until, -chips, 0)]);
            for segment in &run.segments {
                let held = segment.chips.len() as i64;
                let until = segment.ended.as_ref().map_or(now, |(at, _)| *at);
                changes.extend([(segment.reserved, 0, held), (until, 0, -held)]);
            }
        }
        changes.sort_unstable();
        let (mut at, mut wanted, mut held) = (0, 0, 0);
        let (mut could, mut did) = (0.0, 0.0);
        for (time, wants, holds) in changes {
            let span = seconds(at, time);
            could += span * wanted.clamp(0, i64::from(self.chips())) as f64;
            did += span * held as f64;
            (at, wanted, held) = (time, wanted + wants, held + holds);
        }
        fraction(did, could)
    }
}

fn begun(run: &Run) -> Option<u64> {
    run.segments.first()?.started
}

fn first_step(run: &Run) -> Option<u64> {
    run.segments.iter().find_map(|segment| segment.first_step).or_else(|| begun(run).filter(|_| run.state.is_over()))
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

/// The sum, which for nothing is 0 and not -0.
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

fn fraction(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The smallest of the sorted values that so large a part of them does not exceed.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.max(1) - 1).copied()
}
