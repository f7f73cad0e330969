//! What a person would have with an equal part of the chips to themselves.

use super::{SWITCH_S, Trace};
use crate::person::PersonId;

/// Seconds from submission to end of each of a person's jobs, on a part of the chips that nobody else uses: first come, first
/// served, the part taken as divisible, so that a job that is larger than it runs for longer.
pub fn alone(trace: &Trace, person: PersonId, part: f64) -> Vec<f64> {
    // (submitted, chip-seconds left, chips)
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let mut coming = trace.jobs.iter().filter(|job| job.person == person).map(|job| {
        let chips = f64::from(job.chips);
        (seconds(job.submitted), chips * (seconds(job.runs_ms) + SWITCH_S as f64), chips)
    });
    let mut next = coming.next();
    let mut there: Vec<(f64, f64, f64)> = Vec::new();
    let (mut now, mut times) = (0.0, Vec::new());
    loop {
        while let Some(job) = next.filter(|job| job.0 <= now) {
            there.push(job);
            next = coming.next();
        }
        let mut free = part;
        let rates: Vec<f64> = there
            .iter()
            .map(|job| {
                let rate = job.2.min(free);
                free -= rate;
                rate
            })
            .collect();
        let ends = there.iter().zip(&rates).filter(|(_, rate)| **rate > 0.0).map(|(job, rate)| now + job.1 / rate);
        let Some(at) = ends.chain(next.map(|job| job.0)).min_by(f64::total_cmp) else { return times };
        for (job, rate) in there.iter_mut().zip(&rates) {
            job.1 -= rate * (at - now);
        }
        now = at;
        there.retain(|(submitted, left, _)| {
            // Within a thousandth of a chip-second.
            let over = *left <= 1e-3;
            if over {
                times.push(now - submitted);
            }
            !over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_used_in_turn() {
        let csv = "submit_s,duration_s,chips,person\n0,70,1,a\n0,70,4,a\n0,9,1,b\n1000,70,2,a\n";
        let trace = Trace::parse(csv, 4).unwrap();
        // Two chips: the first runs on one; the second on the other for 100 s, then on both for 150 s. The last does so at once.
        assert_eq!(alone(&trace, PersonId(0), 2.0), [100.0, 250.0, 100.0]);
    }
}
