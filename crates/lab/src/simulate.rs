//! What a policy would make of a day that is known: jobs go in, waits and shares come out.
//!
//! The policy is asked at every event and each minute, and does not know how long jobs run. A job that is given chips makes no
//! progress for the first seconds of a stint: that is what saving and starting again costs.

mod alone;
mod baselines;
mod day;
mod numbers;
mod trace;

use serde::Serialize;

use day::Day;

pub use numbers::Numbers;
pub use trace::{Job, Trace};

/// Seconds that a job loses each time it is started.
pub const SWITCH_S: u64 = 30;

/// Who shares out the chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The lab's own policy, as it runs: [`crate::policy::plan`].
    Minke,
    /// In the order of submission, as far as they fit; nobody is ever asked for chips.
    Fifo,
    /// Whoever has had least comes next; nobody is ever asked for chips (as Slurm's fair share without its decay).
    Fairshare,
    /// Tiresias' queues (Gu et al., NSDI 2019): least attained service first, whoever it belongs to.
    #[serde(rename = "2das")]
    Tiresias,
}

/// Chips that a job held for a while; times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stint {
    /// Which job, by its place in the trace.
    pub job: usize,
    /// From when.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// What became of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// It in numbers.
    pub numbers: Numbers,
    /// Who held chips when, in the order in which they were given back.
    pub stints: Vec<Stint>,
}

/// Plays a trace on so many chips. Every job must fit on them ([`Trace::parse`] sees to that).
pub fn simulate(trace: &Trace, chips: u32, rule: Rule) -> Outcome {
    let mut day = Day::new(trace, chips, rule);
    while let Some(at) = day.next() {
        day.pass(at);
        day.share_out();
    }
    day.outcome()
}
