//! Who gets the chips, from the policy's verdicts; and what is due because time has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use super::Lab;
use crate::action::Action;
use crate::decision::Verb;
use crate::idea::IdeaId;
use crate::policy::{self, Accounts, Claim, Reason, Tenure, Verdict};
use crate::run::{Run, RunId, Segment, State};

/// How long a stint has for saying that it has heard, once it was asked for its chips.
const HEAR_MS: u64 = 60_000;

/// How long a stint has for saving when it is stopped for good.
const STOP_MS: u64 = 30_000;

/// How long it has for saving, once it has said so.
const SAVE_MS: u64 = 600_000;

/// An order that nothing came of is given again after this time.
const AGAIN_MS: u64 = 10_000;

impl Lab {
    /// Charges the chips that were held since they were last charged.
    pub(super) fn charge(&mut self) {
        let now = self.now;
        let mut accounts = self.accounts();
        // What had happened before the lab was there is nobody's.
        let since = if self.charged == 0 { now } else { self.charged };
        accounts.pass(now.saturating_sub(since) as f64 / 1000.0, self.chips);
        self.charged = now;
        let mut attained = self.attained();
        for run in self.runs.values_mut().filter(|run| !run.state.is_over()) {
            if let (true, Some(segment)) = (run.state.holds_chips(), run.segments.last()) {
                let chip_s = segment.chips.len() as f64 * now.saturating_sub(run.counted_until) as f64 / 1000.0;
                if chip_s > 0.0 {
                    run.attained_chip_s += chip_s;
                    let had = attained.entry(run.idea).or_default();
                    accounts.charge(&run.owners, chip_s, *had, self.pace, self.chips);
                    *had += chip_s;
                    self.changes.runs.insert(run.id);
                    for owner in &run.owners {
                        if let Some(person) = self.people.get_mut(&owner.person) {
                            person.chip_s += owner.share * chip_s;
                            self.changes.people.insert(owner.person);
                        }
                    }
                }
            }
            run.counted_until = now;
        }
        self.keep_accounts(&accounts);
    }

    /// What the policy remembers of everybody.
    fn accounts(&self) -> Accounts {
        self.people.values().map(|person| (person.id, person.account)).collect()
    }

    fn keep_accounts(&mut self, accounts: &Accounts) {
        for person in self.people.values_mut() {
            let account = accounts.of(person.id);
            if person.account != account {
                person.account = account;
                self.changes.people.insert(person.id);
            }
        }
    }

    /// Whatever has not given its chips back in time is ended; orders that nothing came of are given again.
    pub(super) fn hurry(&mut self, actions: &mut Vec<Action>) {
        self.expire();
        let now = self.now;
        let holding: Vec<(RunId, State)> =
            self.runs.values().filter(|run| run.state.holds_chips()).map(|run| (run.id, run.state)).collect();
        for (run, state) in holding {
            let segment = self.runs[&run].segments.len() - 1;
            match state {
                State::Suspending { since, acknowledged } => {
                    let allowed = if acknowledged { SAVE_MS } else { HEAR_MS };
                    if now >= since + allowed {
                        self.change_run(run, |run, now| run.state = State::Ending { since: now, for_good: false });
                        self.decide(
                            run,
                            Verb::Kill,
                            vec![Reason::DidNotYield { waited_s: (now - since) as f64 / 1000.0 }],
                        );
                        actions.push(Action::Kill { run, segment });
                    }
                }
                State::Ending { since, for_good: true } if now < since + STOP_MS => {}
                State::Ending { .. } => actions.push(Action::Kill { run, segment }),
                State::Starting if now >= self.runs[&run].segments[segment].reserved + AGAIN_MS => {
                    actions.push(Action::Start { run, segment });
                }
                _ => {}
            }
        }
    }

    /// Orders that may have been lost with the process that gave them.
    pub(super) fn orders_again(&self) -> Vec<Action> {
        let order = |(run, segment): (RunId, usize)| match self.runs[&run].state {
            State::Starting => Some(Action::Start { run, segment }),
            State::Suspending { .. } | State::Ending { for_good: true, .. } => Some(Action::Suspend { run, segment }),
            State::Ending { for_good: false, .. } => Some(Action::Kill { run, segment }),
            _ => None,
        };
        self.stints().into_iter().filter_map(order).collect()
    }

    /// Asks the policy who shall hold chips, and sees to it as far as chips are free.
    pub(super) fn schedule(&mut self, actions: &mut Vec<Action>) {
        let (claims, accounts) = self.asked();
        self.keep_accounts(&accounts);
        for Verdict { run, holds, because } in policy::plan(&claims, &accounts, self.pace, self.chips, self.now) {
            match (self.runs[&run].state, holds) {
                (State::Running, false) => {
                    self.change_run(run, |run, now| {
                        run.state = State::Suspending { since: now, acknowledged: false };
                        run.because.clone_from(&because);
                    });
                    self.decide(run, Verb::Suspend, because);
                    actions.push(Action::Suspend { run, segment: self.runs[&run].segments.len() - 1 });
                }
                (State::Waiting, true) => match self.reserve(self.runs[&run].chips) {
                    Some(chips) => {
                        let segment = self.runs[&run].segments.len();
                        self.change_run(run, |run, now| {
                            run.segments.push(Segment {
                                chips,
                                reserved: now,
                                started: None,
                                first_step: None,
                                ended: None,
                            });
                            (run.state, run.counted_until) = (State::Starting, now);
                            run.because.clone_from(&because);
                        });
                        self.decide(run, Verb::Start, because);
                        actions.push(Action::Start { run, segment });
                    }
                    // Its chips are on their way: who holds them was asked for them.
                    None => self.keep_waiting(run, because),
                },
                (State::Waiting, false) => self.keep_waiting(run, because),
                _ => {}
            }
        }
    }

    /// Says why a run waits, when that is something else than before.
    fn keep_waiting(&mut self, id: RunId, because: Vec<Reason>) {
        let run = &self.runs[&id];
        let kinds = |reasons: &[Reason]| reasons.iter().map(discriminant).collect::<Vec<_>>();
        let said_before = self.said_waiting(run) && kinds(&run.because) == kinds(&because);
        if run.because != because {
            self.change_run(id, |run, _| run.because.clone_from(&because));
        }
        if !said_before {
            self.decide(id, Verb::Wait, because);
        }
    }

    /// Whether the reasons that a run has are reasons for waiting.
    fn said_waiting(&self, run: &Run) -> bool {
        !run.because.is_empty() && run.segments.last().is_none_or(|segment| segment.ended.is_some())
    }

    /// The lowest free chips, if there are so many.
    fn reserve(&self, chips: u32) -> Option<Vec<u32>> {
        let held: BTreeSet<u32> =
            self.stints().iter().flat_map(|(run, segment)| self.runs[run].segments[*segment].chips.clone()).collect();
        let free: Vec<u32> = (0..self.chips).filter(|chip| !held.contains(chip)).take(chips as usize).collect();
        (free.len() == chips as usize).then_some(free)
    }

    /// Chip-seconds that the runs of each idea have had.
    pub(super) fn attained(&self) -> BTreeMap<IdeaId, f64> {
        let mut attained = BTreeMap::new();
        for run in self.runs.values() {
            *attained.entry(run.idea).or_default() += run.attained_chip_s;
        }
        attained
    }

    /// What the policy is asked: the runs that are not over, and everybody's accounts as they stand with these.
    pub(super) fn asked(&self) -> (Vec<Claim>, Accounts) {
        let attained = self.attained();
        let open = self.runs.values().filter(|run| !run.state.is_over());
        let claims: Vec<Claim> = open.map(|run| claim(run, attained[&run.idea])).collect();
        let mut accounts = self.accounts();
        accounts.meet(&claims);
        (claims, accounts)
    }
}

/// A run as the policy sees it, where its idea has had so many chip-seconds.
pub(super) fn claim(run: &Run, attained_chip_s: f64) -> Claim {
    Claim {
        run: run.id,
        idea: run.idea,
        owners: run.owners.clone(),
        chips: run.chips,
        submitted: run.submitted,
        attained_chip_s,
        switch_s: run.switch_s(),
        starts: run.segments.len() as u32,
        ran_s: ran_s(run),
        now: match (run.state, run.segments.last()) {
            (State::Starting | State::Running, Some(segment)) => Tenure::Holds { since: segment.reserved },
            (State::Suspending { .. } | State::Ending { .. }, _) => Tenure::Leaving,
            _ => Tenure::Waits { since: run.waiting_since },
        },
    }
}

/// Seconds that a run held chips, in stints that are over.
fn ran_s(run: &Run) -> f64 {
    let over = run.segments.iter().filter_map(|stint| Some(stint.ended.as_ref()?.0.saturating_sub(stint.reserved)));
    over.sum::<u64>() as f64 / 1000.0
}
