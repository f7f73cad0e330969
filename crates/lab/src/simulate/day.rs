//! A day as it goes by: jobs that are there, who holds chips, and what is counted.

use std::collections::{BTreeMap, BTreeSet};

use super::numbers::{Numbers, Tally, max_min};
use super::{Outcome, Rule, SWITCH_S, Stint, Trace, baselines};
use crate::idea::IdeaId;
use crate::person::Share;
use crate::policy::{self, Accounts, Claim, Pace, Tenure};
use crate::run::RunId;

/// The policy is asked at least so often while somebody waits.
const TICK_MS: u64 = 60_000;

/// A day at some moment.
pub struct Day<'a> {
    trace: &'a Trace,
    chips: u32,
    rule: Rule,
    now: u64,
    /// The jobs from there on are yet to come.
    coming: usize,
    claims: Vec<Claim>,
    /// Milliseconds that each of them is still to run.
    left_ms: BTreeMap<RunId, u64>,
    accounts: Accounts,
    /// Chips that each person is entitled to now.
    entitled: Vec<f64>,
    wanted: f64,
    tally: Tally,
    stints: Vec<Stint>,
}

impl<'a> Day<'a> {
    pub fn new(trace: &'a Trace, chips: u32, rule: Rule) -> Day<'a> {
        let nothing = vec![0.0; trace.people.len()];
        Day {
            trace,
            chips,
            rule,
            now: 0,
            coming: 0,
            claims: Vec::new(),
            left_ms: BTreeMap::new(),
            accounts: Accounts::default(),
            entitled: nothing.clone(),
            wanted: 0.0,
            tally: Tally { entitled: nothing.clone(), had: nothing, ..Tally::default() },
            stints: Vec::new(),
        }
    }

    /// When something happens next, if anything does.
    pub fn next(&self) -> Option<u64> {
        let submitted = self.trace.jobs.get(self.coming).map(|job| job.submitted);
        let ends = self.claims.iter().filter_map(|claim| match claim.now {
            Tenure::Holds { since } => Some(self.now.max(since + SWITCH_S * 1000) + self.left_ms[&claim.run]),
            _ => None,
        });
        let waits = self.claims.iter().any(|claim| matches!(claim.now, Tenure::Waits { .. }));
        let tick = waits.then(|| (self.now / TICK_MS + 1) * TICK_MS);
        ends.chain(submitted).chain(tick).min()
    }

    /// Time passes until `at`: chips are charged, jobs end and are submitted.
    pub fn pass(&mut self, at: u64) {
        let span = (at - self.now) as f64 / 1000.0;
        self.accounts.pass(span, self.chips);
        for (person, chips) in self.entitled.iter().enumerate() {
            self.tally.entitled[person] += chips * span;
        }
        self.tally.could += self.wanted.min(f64::from(self.chips)) * span;
        for claim in &mut self.claims {
            let Tenure::Holds { since } = claim.now else { continue };
            let chip_s = f64::from(claim.chips) * span;
            self.accounts.charge(&claim.owners, chip_s, claim.attained_chip_s, Pace::default(), self.chips);
            claim.attained_chip_s += chip_s;
            self.tally.had[claim.owners[0].person.0 as usize] += chip_s;
            self.tally.did += chip_s;
            if let Some(left) = self.left_ms.get_mut(&claim.run) {
                *left -= at.saturating_sub(self.now.max(since + SWITCH_S * 1000));
            }
        }
        self.now = at;
        let before = self.claims.len();
        let (left_ms, stints) = (&self.left_ms, &mut self.stints);
        self.claims.retain(|claim| {
            let over = left_ms[&claim.run] == 0;
            if let (true, Tenure::Holds { since }) = (over, claim.now) {
                stints.push(Stint { job: claim.run.0 as usize, from: since, until: at });
            }
            !over
        });
        let changed = self.claims.len() < before;
        let submitted = self.submit();
        if changed || submitted {
            let mut wanted = vec![0.0; self.trace.people.len()];
            for claim in &self.claims {
                wanted[claim.owners[0].person.0 as usize] += f64::from(claim.chips);
            }
            self.entitled = max_min(&wanted, f64::from(self.chips));
            self.wanted = wanted.iter().sum();
        }
    }

    fn submit(&mut self) -> bool {
        let from = self.coming;
        while let Some(job) = self.trace.jobs.get(self.coming).filter(|job| job.submitted <= self.now) {
            let run = RunId(self.coming as u32);
            self.claims.push(Claim {
                run,
                idea: IdeaId(run.0),
                owners: vec![Share { person: job.person, share: 1.0 }],
                chips: job.chips,
                submitted: job.submitted,
                attained_chip_s: 0.0,
                switch_s: SWITCH_S as f64,
                starts: 0,
                ran_s: 0.0,
                now: Tenure::Waits { since: self.now },
            });
            self.left_ms.insert(run, job.runs_ms);
            self.coming += 1;
        }
        self.coming > from
    }

    /// The policy is asked, and chips change hands.
    pub fn share_out(&mut self) {
        self.accounts.meet(&self.claims);
        let (claims, chips) = (&self.claims, self.chips);
        let holds: BTreeSet<RunId> = match self.rule {
            Rule::Minke => {
                let verdicts = policy::plan(claims, &self.accounts, Pace::default(), chips, self.now);
                verdicts.iter().filter(|verdict| verdict.holds).map(|verdict| verdict.run).collect()
            }
            Rule::Fifo => baselines::fifo(claims, chips),
            Rule::Fairshare => {
                baselines::fairshare(claims, chips, |claim| self.tally.had[claim.owners[0].person.0 as usize])
            }
            Rule::Tiresias => baselines::tiresias(claims, chips, self.now),
        };
        for claim in &mut self.claims {
            match (claim.now, holds.contains(&claim.run)) {
                (Tenure::Waits { .. }, true) => {
                    claim.now = Tenure::Holds { since: self.now };
                    claim.starts += 1;
                }
                (Tenure::Holds { since }, false) => {
                    self.stints.push(Stint { job: claim.run.0 as usize, from: since, until: self.now });
                    claim.ran_s += (self.now - since) as f64 / 1000.0;
                    claim.now = Tenure::Waits { since: self.now };
                }
                _ => {}
            }
        }
    }

    /// What became of the trace.
    pub fn outcome(self) -> Outcome {
        let numbers = Numbers::of(self.trace, self.chips, &self.stints, &self.tally);
        Outcome { numbers, stints: self.stints }
    }
}
