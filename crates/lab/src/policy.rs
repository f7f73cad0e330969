//! Who gets the chips.
//!
//! The policy sees claims, not people, commands or machines.

use serde::{Deserialize, Serialize};

use crate::person::PersonId;
use crate::run::{End, RunId};

/// A run that wants chips or holds some.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Which run.
    pub run: RunId,
    /// Chips that it needs at once.
    pub chips: u32,
    /// When it was asked for.
    pub submitted: u64,
    /// Chip-seconds that all runs of its idea have had, so that cutting a run in pieces gains nothing.
    pub attained_chip_s: f64,
    /// What it has now.
    pub now: Tenure,
}

/// Whether a claim holds chips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tenure {
    /// It waits.
    Waits,
    /// It holds chips and may be asked for them.
    Holds {
        /// Since when.
        since: u64,
        /// Seconds that saving and starting again would cost.
        switch_s: f64,
    },
    /// It holds chips and is about to give them back.
    Leaving,
}

/// What the policy says of a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Which run.
    pub run: RunId,
    /// Whether it shall hold chips from now on.
    pub holds: bool,
    /// Why, most telling first.
    pub because: Vec<Reason>,
}

/// A fact that a decision rests on; each can be checked against what was known at the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// So many chips were free.
    ChipsFree {
        /// How many.
        free: u32,
        /// Of how many.
        of: u32,
    },
    /// It wants more chips than there are.
    TooBig {
        /// How many it wants.
        wants: u32,
        /// How many there are.
        of: u32,
    },
    /// Its idea has had less than that of a run which gives its chips back for it.
    LessAttained {
        /// Than which run's.
        than: RunId,
        /// By how many chip-seconds.
        by: f64,
    },
    /// It fits into what those before it leave.
    Fits,
    /// Another run holds chips and may keep them a while.
    MinimumStint {
        /// Which.
        run: RunId,
        /// Until when.
        until: u64,
    },
    /// Another run comes first.
    After {
        /// Which.
        run: RunId,
    },
    /// It gives way to another run.
    GivesWay {
        /// To which.
        to: RunId,
        /// How many chip-seconds more its idea has had.
        by: f64,
    },
    /// A person ended it.
    StoppedBy {
        /// Who.
        person: PersonId,
    },
    /// Its command ended.
    Ended {
        /// How.
        end: End,
    },
    /// So many stints in a row ended early without any progress.
    LostAgain {
        /// How many.
        times: u32,
    },
    /// It was asked for its chips and did not give them back in time.
    DidNotYield {
        /// Seconds that it was waited for.
        waited_s: f64,
    },
}

/// A stint may last this long before its chips are wanted back, and twenty times what the change costs, so that changes
/// take at most a twentieth of the time.
const STINT_MS: u64 = 120_000;
const STINT_SWITCHES: f64 = 20.0;

/// A run gives way only to one whose idea has had so many chip-seconds less: instant fairness would change all the time.
const LEAD_CHIP_S: f64 = 600.0;

/// Least attained service: the idea that has had the fewest chip-seconds comes first (Tiresias' 2DAS, NSDI 2019, without
/// its queues), with a minimum stint and hysteresis; smaller runs fill what is left.
pub fn plan(claims: &[Claim], chips: u32, now: u64) -> Vec<Verdict> {
    let attained = |claim: &Claim| match claim.now {
        Tenure::Holds { .. } => claim.attained_chip_s - LEAD_CHIP_S,
        _ => claim.attained_chip_s,
    };
    let may_lose = |claim: &Claim| kept_until(claim, now).is_none();
    let mut order: Vec<&Claim> = claims.iter().collect();
    order.sort_by(|a, b| {
        let in_turn = || (a.submitted, a.run).cmp(&(b.submitted, b.run));
        may_lose(a).cmp(&may_lose(b)).then_with(|| attained(a).total_cmp(&attained(b))).then_with(in_turn)
    });
    let mut room = chips;
    let mut chosen: Vec<&Claim> = Vec::new();
    let mut left_out: Vec<&Claim> = Vec::new();
    for claim in order {
        if claim.chips <= room {
            room -= claim.chips;
            chosen.push(claim);
        } else {
            left_out.push(claim);
        }
    }
    let held: u32 = claims.iter().filter(|claim| !waits(claim)).map(|claim| claim.chips).sum();
    let mut free = chips.saturating_sub(held);
    let victim = left_out.iter().find(|claim| matches!(claim.now, Tenure::Holds { .. })).copied();
    let start = chosen.iter().find(|claim| waits(claim)).copied();
    let mut verdicts = Vec::new();
    for claim in &chosen {
        let because = match claim.now {
            Tenure::Waits if claim.chips <= free => {
                let there = free;
                free -= claim.chips;
                vec![Reason::ChipsFree { free: there, of: chips }]
            }
            Tenure::Waits => coming(claim, victim, claims),
            _ => Vec::new(),
        };
        verdicts.push(Verdict { run: claim.run, holds: true, because });
    }
    for claim in &left_out {
        let because = match (claim.chips > chips, waits(claim), start) {
            (true, ..) => vec![Reason::TooBig { wants: claim.chips, of: chips }],
            (_, false, Some(start)) => gives_way(claim, start),
            _ => waits_for(&chosen, now),
        };
        verdicts.push(Verdict { run: claim.run, holds: false, because });
    }
    verdicts
}

fn waits(claim: &Claim) -> bool {
    matches!(claim.now, Tenure::Waits)
}

/// Until when a claim keeps its chips, whoever wants them.
pub(crate) fn kept_until(claim: &Claim, now: u64) -> Option<u64> {
    match claim.now {
        Tenure::Waits => None,
        Tenure::Leaving => Some(now + 1),
        Tenure::Holds { since, switch_s } => {
            Some(since + STINT_MS.max((STINT_SWITCHES * switch_s * 1000.0) as u64)).filter(|until| *until > now)
        }
    }
}

/// Why a run gets chips that are still on their way.
fn coming(claim: &Claim, victim: Option<&Claim>, claims: &[Claim]) -> Vec<Reason> {
    if let Some(victim) = victim {
        let by = victim.attained_chip_s - claim.attained_chip_s;
        return vec![if by >= 0.0 { Reason::LessAttained { than: victim.run, by } } else { Reason::Fits }];
    }
    let leaving = claims.iter().find(|claim| claim.now == Tenure::Leaving);
    vec![leaving.map_or(Reason::Fits, |leaving| Reason::After { run: leaving.run })]
}

fn gives_way(claim: &Claim, to: &Claim) -> Vec<Reason> {
    let by = claim.attained_chip_s - to.attained_chip_s;
    vec![if by >= 0.0 { Reason::GivesWay { to: to.run, by } } else { Reason::After { run: to.run } }]
}

/// Why a run gets none: somebody keeps theirs a while longer, or others come first.
fn waits_for(chosen: &[&Claim], now: u64) -> Vec<Reason> {
    let kept = chosen.iter().filter(|claim| claim.now != Tenure::Leaving);
    let kept = kept.filter_map(|claim| Some((kept_until(claim, now)?, claim.run))).min();
    match (kept, chosen.last()) {
        (Some((until, run)), _) => vec![Reason::MinimumStint { run, until }],
        (None, Some(last)) => vec![Reason::After { run: last.run }],
        (None, None) => Vec::new(),
    }
}
