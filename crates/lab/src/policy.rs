//! Who gets the chips.
//!
//! The policy sees claims and accounts, not commands or machines. In three rules: an idea's first chip-hour comes before its
//! second, and that before the ninth (Tiresias' 2DAS, NSDI 2019); from the ninth on, people who have had less come first; and only
//! for a fresh idea is anybody asked for chips that were given a moment ago. `docs/policy.md` tells it for whoever shares the chips.

mod account;
mod pace;
mod rank;
mod reason;

use crate::idea::IdeaId;
use crate::person::Share;
use crate::run::RunId;

pub use account::{Account, Accounts};
pub use pace::Pace;
pub use reason::Reason;

use account::waits;
use rank::{Order, Ranked};

/// A run holds chips for twenty times as long as its starts have cost, so that changes take at most a twentieth of the time.
const STINT_SWITCHES: f64 = 20.0;

/// A run that wants chips or holds some.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Which run.
    pub run: RunId,
    /// For which idea.
    pub idea: IdeaId,
    /// Who pays, by shares that add up to 1.
    pub owners: Vec<Share>,
    /// Chips that it needs at once.
    pub chips: u32,
    /// When it was asked for.
    pub submitted: u64,
    /// Chip-seconds that all runs of its idea have had, so that cutting a run in pieces gains nothing.
    pub attained_chip_s: f64,
    /// Seconds that saving and starting again would cost.
    pub switch_s: f64,
    /// How often it was given chips, those that it holds included.
    pub starts: u32,
    /// For how many seconds it held chips before, in stints that are over.
    pub ran_s: f64,
    /// What it has now.
    pub now: Tenure,
}

/// Whether a claim holds chips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tenure {
    /// It waits.
    Waits {
        /// Since when.
        since: u64,
    },
    /// It holds chips and may be asked for them.
    Holds {
        /// Since when.
        since: u64,
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

/// Says of each claim whether it shall hold chips from now on, and why.
///
/// Chips go to claims in the order of their ranks, as far as they fit; smaller runs fill what is left. Chips that are
/// about to be given back are taken to be there: a run may be meant to hold chips that are not free yet.
pub fn plan(claims: &[Claim], accounts: &Accounts, pace: Pace, chips: u32, now: u64) -> Vec<Verdict> {
    let mut order = Order::new(claims, accounts, pace, chips, now);
    let mut room = chips;
    let mut chosen: Vec<Ranked<'_>> = Vec::new();
    // With how many had been chosen before them.
    let mut left_out: Vec<(Ranked<'_>, usize)> = Vec::new();
    while let Some(ranked) = order.next() {
        if ranked.claim.chips <= room {
            room -= ranked.claim.chips;
            order.give(ranked.claim);
            chosen.push(ranked);
        } else {
            left_out.push((ranked, chosen.len()));
        }
    }
    let held: u32 = claims.iter().filter(|claim| !waits(claim)).map(|claim| claim.chips).sum();
    let mut free = chips.saturating_sub(held);
    let leaving = claims.iter().find(|claim| claim.now == Tenure::Leaving).map(|claim| claim.run);
    let mut verdicts = Vec::new();
    for (at, ranked) in chosen.iter().enumerate() {
        let because = if !waits(ranked.claim) {
            Vec::new()
        } else if ranked.claim.chips <= free {
            let there = free;
            free -= ranked.claim.chips;
            vec![Reason::ChipsFree { free: there, of: chips }]
        } else {
            // Whoever is asked for chips now, for the sake of this one.
            let asked = left_out.iter().find(|(victim, before)| *before > at && !waits(victim.claim));
            let leaving = leaving.map(|run| Reason::Leaving { run });
            vec![asked.map(|(victim, _)| ranked.leads(victim)).or(leaving).unwrap_or(Reason::Fits)]
        };
        verdicts.push(Verdict { run: ranked.claim.run, holds: true, because });
    }
    for (ranked, before) in &left_out {
        let before = &chosen[..*before];
        let too_big = Reason::TooBig { wants: ranked.claim.chips, of: chips };
        let because = match before.iter().rfind(|start| waits(start.claim)) {
            _ if ranked.claim.chips > chips => too_big,
            Some(start) if !waits(ranked.claim) => ranked.yields(start),
            _ => waits_for(ranked, before, pace, now).unwrap_or(too_big),
        };
        verdicts.push(Verdict { run: ranked.claim.run, holds: false, because: vec![because] });
    }
    verdicts
}

/// Seconds that a run has to hold chips for each of its starts to cost little.
fn worth_a_start_s(claim: &Claim) -> f64 {
    STINT_SWITCHES * claim.switch_s
}

/// Until when a claim keeps its chips, unless a fresh run wants them.
pub(crate) fn kept_until(claim: &Claim, pace: Pace, now: u64) -> Option<u64> {
    let Tenure::Holds { since } = claim.now else { return None };
    // What it has run before pays for its starts too: one that has run for long can be asked soon.
    let owed_s = f64::from(claim.starts) * worth_a_start_s(claim) - claim.ran_s;
    let until = since + pace.turn_ms.max((owed_s.max(0.0) * 1000.0) as u64);
    (until > now).then_some(until)
}

/// Why a claim gets none: it would be given some that somebody keeps a while longer, or others come first.
fn waits_for(ranked: &Ranked<'_>, before: &[Ranked<'_>], pace: Pace, now: u64) -> Option<Reason> {
    let asked = before.iter().filter(|other| ranked.may_ask(other, pace));
    let asked = asked.filter_map(|other| Some((kept_until(other.claim, pace, now)?, other.claim.run))).min();
    match asked {
        Some((until, run)) => Some(Reason::MinimumStint { run, until }),
        None => before.last().map(|last| Reason::After { run: last.claim.run }),
    }
}
